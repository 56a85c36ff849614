//! Everything that can be answered without a database, through the real router and the platform's layers.

use std::time::Duration;

use axum::body::Body;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use insta::assert_snapshot;
use platform::clock::Clock;
use platform::config::Secret;
use platform::http::server::{Front, layered};
use platform::identity::{ADMIN, HEADER, Identity, IdentitySigner, SERVICE};
use platform::lifecycle::Lifecycle;
use platform::redis::Redis;
use serde_json::{Value, json};
use sqlx::mysql::MySqlPoolOptions;
use tower::ServiceExt as _;

use crate::app::{self, AppState};
use crate::cache::SCRIPTS;
use crate::config::CouponSettings;
use crate::ledger::{ISSUE_SERVICE, LedgerClient};

fn settings() -> CouponSettings {
    let mut settings = CouponSettings::default();
    settings.identity.secret = Secret::new("a secret of at least thirty-two bytes");
    settings.redis.address = "127.0.0.1:1".to_owned();
    settings
}

/// The service with servers that nobody listens for.
fn service() -> Front {
    let settings = settings();
    let lifecycle = Lifecycle::new();
    let pool = MySqlPoolOptions::new()
        .acquire_timeout(Duration::from_millis(200))
        .connect_lazy("mysql://firstcome:hidden@127.0.0.1:1/firstcome_coupons")
        .unwrap();
    let redis = Redis::connect(settings.redis.clone(), &lifecycle, SCRIPTS);
    let ledger = LedgerClient::new(None, ISSUE_SERVICE);
    let clock = Clock::manual(1_795_000_000_000);
    let state = AppState::new(&settings, pool, redis, ledger, clock, lifecycle);
    layered(app::build(state), &settings.server)
}

fn request(method: Method, path: &str, roles: &[&str], body: Option<&Value>) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if !roles.is_empty() {
        let roles = roles.iter().map(ToString::to_string).collect();
        let identity =
            IdentitySigner::new(&settings().identity).sign(&Identity { user: 7, roles, session: None });
        request = request.header(HEADER, identity);
    }
    match body {
        Some(body) => {
            request.header("content-type", "application/json").body(Body::from(body.to_string())).unwrap()
        }
        None => request.body(Body::empty()).unwrap(),
    }
}

/// Status and body; what differs from run to run is masked.
async fn ask(request: Request<Body>) -> String {
    let response = service().oneshot(request).await.unwrap();
    let mut text = format!("{}\n", response.status());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let mut body: Value = serde_json::from_slice(&body).unwrap();
    if let Some(trace) = body.get_mut("traceId") {
        *trace = json!("[trace]");
    }
    text += &serde_json::to_string_pretty(&body).unwrap();
    text
}

async fn create(body: Value) -> String {
    ask(request(Method::POST, "/coupons", &[ADMIN], Some(&body))).await
}

#[tokio::test]
async fn every_wrong_field_is_named_with_limit_and_fix() {
    let body = json!({
        "name": "", "quantity": 10_000_001, "startsAt": "tomorrow", "endsAt": "2026-12-24T09:00:00Z", "eventId": 0
    });
    assert_snapshot!(create(body).await, @r#"
    400 Bad Request
    {
      "code": "VALIDATION_FAILED",
      "detail": "name must have 1 to 200 characters and not only blanks; give a name. quantity must be a whole number from 1 to 10000000, not 10000001; choose one in this range. startsAt must be an RFC 3339 time like 2026-12-24T09:00:00Z, not \"tomorrow\"; give date, time and offset. eventId must be a whole number from 1 to 9007199254740991, not 0; leave it out if there is no event.",
      "errors": [
        {
          "field": "name",
          "message": "must have 1 to 200 characters and not only blanks; give a name"
        },
        {
          "field": "quantity",
          "message": "must be a whole number from 1 to 10000000, not 10000001; choose one in this range"
        },
        {
          "field": "startsAt",
          "message": "must be an RFC 3339 time like 2026-12-24T09:00:00Z, not \"tomorrow\"; give date, time and offset"
        },
        {
          "field": "eventId",
          "message": "must be a whole number from 1 to 9007199254740991, not 0; leave it out if there is no event"
        }
      ],
      "instance": "/coupons",
      "status": 400,
      "title": "Bad Request",
      "traceId": "[trace]",
      "type": "urn:firstcome:problem:validation-failed"
    }
    "#);
    let body = json!({
        "name": "n", "quantity": 1, "startsAt": "2026-12-24T09:00:00Z", "endsAt": "2026-12-24T18:00:00+09:00"
    });
    assert_snapshot!(create(body).await, @r#"
    400 Bad Request
    {
      "code": "VALIDATION_FAILED",
      "detail": "endsAt must be after startsAt; move endsAt, or send an earlier startsAt too.",
      "errors": [
        {
          "field": "endsAt",
          "message": "must be after startsAt; move endsAt, or send an earlier startsAt too"
        }
      ],
      "instance": "/coupons",
      "status": 400,
      "title": "Bad Request",
      "traceId": "[trace]",
      "type": "urn:firstcome:problem:validation-failed"
    }
    "#);
}

#[tokio::test]
async fn and_in_korean() {
    let body = json!({
        "name": "가".repeat(201), "quantity": 0, "startsAt": "2026-12-24T09:00:00Z", "endsAt": "내일"
    });
    let mut korean = request(Method::POST, "/coupons", &[ADMIN], Some(&body));
    korean.headers_mut().insert("accept-language", "ko-KR,ko;q=0.9,en;q=0.8".parse().unwrap());
    assert_snapshot!(ask(korean).await, @r#"
    400 Bad Request
    {
      "code": "VALIDATION_FAILED",
      "detail": "name: 1자 이상 200자 이하입니다(입력: 201자). 이름을 줄이세요. quantity: 1 이상 10000000 이하의 정수입니다(입력: 0). 범위 안의 값을 입력하세요. endsAt: 2026-12-24T09:00:00Z 같은 RFC 3339 시각이어야 합니다(입력: \"내일\"). 날짜, 시각, 오프셋을 모두 입력하세요.",
      "errors": [
        {
          "field": "name",
          "message": "must have 1 to 200 characters, this one has 201; shorten it"
        },
        {
          "field": "quantity",
          "message": "must be a whole number from 1 to 10000000, not 0; choose one in this range"
        },
        {
          "field": "endsAt",
          "message": "must be an RFC 3339 time like 2026-12-24T09:00:00Z, not \"내일\"; give date, time and offset"
        }
      ],
      "instance": "/coupons",
      "status": 400,
      "title": "Bad Request",
      "traceId": "[trace]",
      "type": "urn:firstcome:problem:validation-failed"
    }
    "#);
}

#[tokio::test]
async fn a_wrong_type_and_a_missing_field_are_named() {
    assert_snapshot!(create(json!({"name": "n", "quantity": "many"})).await, @r#"
    400 Bad Request
    {
      "code": "VALIDATION_FAILED",
      "detail": "The request has values that are not acceptable.",
      "errors": [
        {
          "field": "quantity",
          "message": "must be a whole number"
        }
      ],
      "instance": "/coupons",
      "status": 400,
      "title": "Bad Request",
      "traceId": "[trace]",
      "type": "urn:firstcome:problem:validation-failed"
    }
    "#);
    assert_snapshot!(create(json!({"name": "n", "quantity": 1, "endsAt": "2026-12-24T09:00:00Z"})).await, @r#"
    400 Bad Request
    {
      "code": "VALIDATION_FAILED",
      "detail": "The request has values that are not acceptable.",
      "errors": [
        {
          "field": "startsAt",
          "message": "is required"
        }
      ],
      "instance": "/coupons",
      "status": 400,
      "title": "Bad Request",
      "traceId": "[trace]",
      "type": "urn:firstcome:problem:validation-failed"
    }
    "#);
}

#[tokio::test]
async fn a_change_of_nothing_says_what_can_be_changed() {
    let nothing = json!({"quantitty": 5});
    assert_snapshot!(ask(request(Method::PATCH, "/coupons/1", &[ADMIN], Some(&nothing))).await, @r#"
    400 Bad Request
    {
      "code": "VALIDATION_FAILED",
      "detail": "Nothing to change: send at least one of quantity, startsAt, endsAt, closed.",
      "instance": "/coupons/1",
      "status": 400,
      "title": "Bad Request",
      "traceId": "[trace]",
      "type": "urn:firstcome:problem:validation-failed"
    }
    "#);
}

#[tokio::test]
async fn pages_have_at_most_100_coupons() {
    for path in ["/coupons?limit=0", "/coupons?limit=-1", "/coupons?limit=many", "/coupons?cursor=-"] {
        let answer = ask(request(Method::GET, path, &[], None)).await;
        assert!(answer.starts_with("400") && answer.contains("VALIDATION_FAILED"), "{path}: {answer}");
    }
    assert_snapshot!(ask(request(Method::GET, "/coupons?limit=101", &[], None)).await, @r#"
    400 Bad Request
    {
      "code": "VALIDATION_FAILED",
      "detail": "limit must be a whole number from 1 to 100, not 101; ask for smaller pages.",
      "errors": [
        {
          "field": "limit",
          "message": "must be a whole number from 1 to 100, not 101; ask for smaller pages"
        }
      ],
      "instance": "/coupons",
      "status": 400,
      "title": "Bad Request",
      "traceId": "[trace]",
      "type": "urn:firstcome:problem:validation-failed"
    }
    "#);
}

#[tokio::test]
async fn only_an_administrator_creates_and_changes() {
    let body = json!({});
    for (method, path) in [(Method::POST, "/coupons"), (Method::PATCH, "/coupons/1")] {
        let answer = ask(request(method.clone(), path, &[], Some(&body))).await;
        assert!(answer.starts_with("401") && answer.contains("UNAUTHENTICATED"), "{answer}");
        let mut forged = request(method.clone(), path, &[], Some(&body));
        for (name, value) in
            [("x-user-id", "1"), ("x-user-role", "ADMIN"), ("x-firstcome-identity", "e30.e30.")]
        {
            forged.headers_mut().insert(name, value.parse().unwrap());
        }
        assert!(ask(forged).await.starts_with("401"), "{path}");
        for role in ["USER", SERVICE] {
            let answer = ask(request(method.clone(), path, &[role], Some(&body))).await;
            assert!(answer.starts_with("403") && answer.contains("FORBIDDEN"), "{answer}");
        }
    }
}

#[tokio::test]
async fn only_a_service_asks_for_definitions() {
    for path in ["/internal/coupons/1", "/internal/coupons?changedSince=0"] {
        assert!(ask(request(Method::GET, path, &[], None)).await.starts_with("401"), "{path}");
        for role in ["USER", ADMIN] {
            assert!(ask(request(Method::GET, path, &[role], None)).await.starts_with("403"), "{path}");
        }
    }
}

#[tokio::test]
async fn unknown_paths_and_methods() {
    for (method, path, status) in [
        (Method::GET, "/coupons/", "404"),
        (Method::GET, "/coupons/1/2", "404"),
        (Method::DELETE, "/coupons/1", "405"),
        (Method::PUT, "/coupons", "405"),
        (Method::GET, "/coupons/one", "400"),
        (Method::GET, "/coupons/-1", "400"),
    ] {
        let answer = ask(request(method.clone(), path, &[ADMIN], None)).await;
        assert!(answer.starts_with(status), "{method} {path}: {answer}");
    }
}

#[tokio::test]
async fn a_database_that_is_away_is_said_without_its_address() {
    assert_snapshot!(ask(request(Method::GET, "/coupons/1", &[], None)).await, @r#"
    503 Service Unavailable
    {
      "code": "OVERLOADED",
      "detail": "Too much is going on; please try again soon.",
      "instance": "/coupons/1",
      "status": 503,
      "title": "Service Unavailable",
      "traceId": "[trace]",
      "type": "urn:firstcome:problem:overloaded"
    }
    "#);
}

#[tokio::test]
async fn every_route_is_described() {
    let response = service().oneshot(request(Method::GET, "/openapi.json", &[], None)).await.unwrap();
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let document: Value = serde_json::from_slice(&body).unwrap();
    let mut described = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        described.extend(item.as_object().unwrap().keys().map(|method| format!("{method} {path}")));
    }
    described.sort();
    assert_eq!(
        described,
        [
            "get /coupons",
            "get /coupons/{id}",
            "get /internal/coupons",
            "get /internal/coupons/{id}",
            "patch /coupons/{id}",
            "post /coupons",
        ]
    );
    let coupon = &document["components"]["schemas"]["CouponView"]["properties"];
    assert_eq!(coupon["couponId"]["type"], "integer");
    assert!(coupon["quantity"]["description"].as_str().unwrap().contains("in force"));
}
