//! Everything that can be answered without a database, through the real router and the platform's layers.

use std::time::Duration;

use axum::body::Body;
use http::{Method, Request};
use http_body_util::BodyExt;
use insta::assert_snapshot;
use platform::clock::Clock;
use platform::config::Secret;
use platform::http::server::{Front, layered};
use platform::lifecycle::Lifecycle;
use platform::redis::Redis;
use serde_json::{Value, json};
use sqlx::mysql::MySqlPoolOptions;
use tower::ServiceExt;

use crate::app::{self, AppState};
use crate::config::UserSettings;
use crate::keys::tests::{OTHER_KEY, RFC_8037_KEY, set_of};

/// The service with servers that nobody listens for.
fn service() -> Front {
    let mut settings = UserSettings::default();
    settings.identity.secret = Secret::from("a secret of at least thirty-two bytes");
    let pool = MySqlPoolOptions::new()
        .acquire_timeout(Duration::from_millis(200))
        .connect_lazy("mysql://firstcome:hidden@127.0.0.1:1/firstcome_users")
        .unwrap();
    settings.redis.address = "127.0.0.1:1".to_owned();
    let redis = Redis::connect(settings.redis.clone(), &Lifecycle::new(), &[]);
    let keys = set_of(&[(RFC_8037_KEY, "signing"), (OTHER_KEY, "next")]);
    let state = AppState::new(&settings, pool, redis, keys, Clock::manual(1_795_000_000_000)).unwrap();
    layered(app::build(state), &settings.server)
}

/// Status, interesting headers and body; what differs from run to run is masked.
async fn ask(request: Request<Body>) -> String {
    let response = service().oneshot(request).await.unwrap();
    let mut text = format!("{}\n", response.status());
    for name in ["content-type", "cache-control", "allow", "retry-after", "www-authenticate"] {
        if let Some(value) = response.headers().get(name) {
            text += &format!("{name}: {}\n", value.to_str().unwrap());
        }
    }
    let body = response.into_body().collect().await.unwrap().to_bytes();
    if let Ok(mut body) = serde_json::from_slice::<Value>(&body) {
        if let Some(trace) = body.get_mut("traceId") {
            assert_eq!(trace.as_str().map(str::len), Some(32), "{trace}");
            *trace = json!("[trace]");
        }
        text += &serde_json::to_string_pretty(&body).unwrap();
    } else {
        text += &String::from_utf8_lossy(&body);
    }
    text
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

fn post(path: &str, body: &Value) -> Request<Body> {
    post_text(path, "application/json", &body.to_string())
}

fn post_text(path: &str, content_type: &str, body: &str) -> Request<Body> {
    Request::post(path).header("content-type", content_type).body(Body::from(body.to_owned())).unwrap()
}

#[tokio::test]
async fn all_wrong_fields_are_named_with_limit_and_fix() {
    assert_snapshot!(ask(post("/users/sign-up", &json!({"email": "kim", "password": "12345"}))).await, @r#"
    400 Bad Request
    content-type: application/problem+json
    {
      "code": "VALIDATION_FAILED",
      "detail": "email has no @; give an address such as name@example.com. password must have 8 to 128 characters, this one has 5; use a longer password.",
      "errors": [
        {
          "field": "email",
          "message": "has no @; give an address such as name@example.com"
        },
        {
          "field": "password",
          "message": "must have 8 to 128 characters, this one has 5; use a longer password"
        }
      ],
      "instance": "/users/sign-up",
      "status": 400,
      "title": "Bad Request",
      "traceId": "[trace]",
      "type": "urn:firstcome:problem:validation-failed"
    }
    "#);
}

#[tokio::test]
async fn and_in_korean() {
    let mut request =
        post("/users/sign-up", &json!({"email": "", "password": "비밀번호는이만큼길어야".repeat(12)}));
    request.headers_mut().insert("accept-language", "ko-KR,ko;q=0.9,en;q=0.8".parse().unwrap());
    assert_snapshot!(ask(request).await, @r#"
    400 Bad Request
    content-type: application/problem+json
    {
      "code": "VALIDATION_FAILED",
      "detail": "이메일을 입력하세요(예: name@example.com). 비밀번호는 8자 이상 128자 이하입니다(입력: 132자). 더 짧은 비밀번호를 사용하세요.",
      "errors": [
        {
          "field": "email",
          "message": "must not be empty; give an address such as name@example.com"
        },
        {
          "field": "password",
          "message": "must have 8 to 128 characters, this one has 132; use a shorter password"
        }
      ],
      "instance": "/users/sign-up",
      "status": 400,
      "title": "Bad Request",
      "traceId": "[trace]",
      "type": "urn:firstcome:problem:validation-failed"
    }
    "#);
}

#[tokio::test]
async fn a_wrong_type_names_the_field_and_does_not_repeat_the_value() {
    let number =
        ask(post("/users/sign-up", &json!({"email": "kim@example.com", "password": 1_234_567_890}))).await;
    assert!(!number.contains("1234567890"));
    assert_snapshot!(number, @r#"
    400 Bad Request
    content-type: application/problem+json
    {
      "code": "VALIDATION_FAILED",
      "detail": "The request has values that are not acceptable.",
      "errors": [
        {
          "field": "password",
          "message": "must be a string"
        }
      ],
      "instance": "/users/sign-up",
      "status": 400,
      "title": "Bad Request",
      "traceId": "[trace]",
      "type": "urn:firstcome:problem:validation-failed"
    }
    "#);
    let object =
        ask(post("/users/login", &json!({"email": "kim@example.com", "password": {"is": "hunter2hunter2"}})))
            .await;
    assert!(!object.contains("hunter2"));
    assert_snapshot!(object, @r#"
    400 Bad Request
    content-type: application/problem+json
    {
      "code": "VALIDATION_FAILED",
      "detail": "The request has values that are not acceptable.",
      "errors": [
        {
          "field": "password",
          "message": "must be a string"
        }
      ],
      "instance": "/users/login",
      "status": 400,
      "title": "Bad Request",
      "traceId": "[trace]",
      "type": "urn:firstcome:problem:validation-failed"
    }
    "#);
    assert_snapshot!(ask(post("/users/token/refresh", &json!({}))).await, @r#"
    400 Bad Request
    content-type: application/problem+json
    {
      "code": "VALIDATION_FAILED",
      "detail": "The request has values that are not acceptable.",
      "errors": [
        {
          "field": "refreshToken",
          "message": "is required"
        }
      ],
      "instance": "/users/token/refresh",
      "status": 400,
      "title": "Bad Request",
      "traceId": "[trace]",
      "type": "urn:firstcome:problem:validation-failed"
    }
    "#);
}

#[tokio::test]
async fn what_is_no_acceptable_body_is_refused() {
    assert_snapshot!(ask(post_text("/users/login", "application/json", "{\"email\":\"a@b.c\",\"password\":\"hidden-1")).await, @r#"
    400 Bad Request
    content-type: application/problem+json
    {
      "code": "MALFORMED_JSON",
      "detail": "The body is not JSON: EOF while parsing a string at line 1 column 37.",
      "instance": "/users/login",
      "status": 400,
      "title": "Bad Request",
      "traceId": "[trace]",
      "type": "urn:firstcome:problem:malformed-json"
    }
    "#);
    assert_snapshot!(ask(post_text("/users/login", "text/plain", "{}")).await, @r#"
    415 Unsupported Media Type
    content-type: application/problem+json
    {
      "code": "UNSUPPORTED_MEDIA_TYPE",
      "detail": "The request's body must be application/json.",
      "instance": "/users/login",
      "status": 415,
      "title": "Unsupported Media Type",
      "traceId": "[trace]",
      "type": "urn:firstcome:problem:unsupported-media-type"
    }
    "#);
    let large = json!({"email": "kim@example.com", "password": "x".repeat(17 * 1024)});
    assert_snapshot!(ask(post("/users/sign-up", &large)).await, @r#"
    413 Payload Too Large
    content-type: application/problem+json
    {
      "code": "PAYLOAD_TOO_LARGE",
      "detail": "The request's body is too large.",
      "instance": "/users/sign-up",
      "status": 413,
      "title": "Payload Too Large",
      "traceId": "[trace]",
      "type": "urn:firstcome:problem:payload-too-large"
    }
    "#);
}

#[tokio::test]
async fn who_i_am_needs_an_identity() {
    assert_snapshot!(ask(get("/users/me")).await, @r#"
    401 Unauthorized
    content-type: application/problem+json
    www-authenticate: Bearer
    {
      "code": "UNAUTHENTICATED",
      "detail": "A valid token is required.",
      "instance": "/users/me",
      "status": 401,
      "title": "Unauthorized",
      "traceId": "[trace]",
      "type": "urn:firstcome:problem:unauthenticated"
    }
    "#);
    let mut forged = get("/users/me");
    forged
        .headers_mut()
        .insert("x-firstcome-identity", "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.".parse().unwrap());
    forged.headers_mut().insert("x-user-id", "1".parse().unwrap());
    assert!(ask(forged).await.starts_with("401 Unauthorized"));
}

#[tokio::test]
async fn whatever_concerns_an_account_needs_an_identity() {
    for (method, path) in [
        (Method::PUT, "/users/me/password"),
        (Method::DELETE, "/users/me"),
        (Method::POST, "/users/1/roles"),
        (Method::POST, "/users/logout/all"),
        (Method::POST, "/users/logout"),
    ] {
        for forged in [false, true] {
            let mut request = Request::builder().method(&method).uri(path);
            if forged {
                request = request.header("x-firstcome-identity", "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.");
            }
            let answer = ask(request.body(Body::empty()).unwrap()).await;
            assert!(answer.starts_with("401 Unauthorized"), "{method} {path}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_logout_may_have_a_body_which_must_be_one() {
    let wrong = ask(post("/users/logout", &json!({"refreshToken": 7}))).await;
    assert!(wrong.starts_with("400") && wrong.contains("\"field\": \"refreshToken\""), "{wrong}");
    assert!(ask(post_text("/users/logout", "text/plain", "x")).await.starts_with("415"));
    assert!(ask(post("/users/logout", &json!({"refreshToken": null}))).await.starts_with("401"));
}

#[tokio::test]
async fn a_weak_password_is_explained_in_korean() {
    let mut request = post("/users/sign-up", &json!({"email": "kim@example.com", "password": "qwertyuiop"}));
    request.headers_mut().insert("accept-language", "ko".parse().unwrap());
    let answer = ask(request).await;
    assert!(answer.contains("유출된 흔한 비밀번호입니다"), "{answer}");
    let mut request =
        post("/users/sign-up", &json!({"email": "kim@example.com", "password": "kim-2026-kim"}));
    request.headers_mut().insert("accept-language", "ko".parse().unwrap());
    assert!(ask(request).await.contains("이메일 주소나 서비스 이름과 거의 같은"));
}

#[tokio::test]
async fn unknown_paths_and_methods() {
    assert_snapshot!(ask(get("/users/nowhere")).await, @r#"
    404 Not Found
    content-type: application/problem+json
    {
      "code": "NOT_FOUND",
      "detail": "There is nothing at this address.",
      "instance": "/users/nowhere",
      "status": 404,
      "title": "Not Found",
      "traceId": "[trace]",
      "type": "urn:firstcome:problem:not-found"
    }
    "#);
    assert_snapshot!(ask(get("/users/sign-up")).await, @r#"
    405 Method Not Allowed
    content-type: application/problem+json
    allow: POST
    {
      "code": "METHOD_NOT_ALLOWED",
      "detail": "This address does not know the method.",
      "instance": "/users/sign-up",
      "status": 405,
      "title": "Method Not Allowed",
      "traceId": "[trace]",
      "type": "urn:firstcome:problem:method-not-allowed"
    }
    "#);
}

#[tokio::test]
async fn a_database_that_is_away_is_said_without_its_address() {
    let answer =
        ask(post("/users/login", &json!({"email": "kim@example.com", "password": "correct horse"}))).await;
    assert_snapshot!(answer, @r#"
    503 Service Unavailable
    content-type: application/problem+json
    retry-after: 1
    {
      "code": "OVERLOADED",
      "detail": "Too much is going on; please try again soon.",
      "instance": "/users/login",
      "status": 503,
      "title": "Service Unavailable",
      "traceId": "[trace]",
      "type": "urn:firstcome:problem:overloaded"
    }
    "#);
}

#[tokio::test]
async fn both_keys_are_published() {
    assert_snapshot!(ask(get("/.well-known/jwks.json")).await, @r#"
    200 OK
    content-type: application/json
    cache-control: public, max-age=300
    {
      "keys": [
        {
          "alg": "EdDSA",
          "crv": "Ed25519",
          "kid": "21fe31dfa154a261",
          "kty": "OKP",
          "use": "sig",
          "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
        },
        {
          "alg": "EdDSA",
          "crv": "Ed25519",
          "kid": "440e7c20f191aaff",
          "kty": "OKP",
          "use": "sig",
          "x": "Sszo2rD3vKccINm1hWKcSj8kxHUyUHgtXKhlR8_HqbI"
        }
      ]
    }
    "#);
}

/// Paths and methods as the documents list them; a route that is added without its description is not in here.
#[tokio::test]
async fn every_route_is_described() {
    let response = service().oneshot(get("/openapi.json")).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/json");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let document: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(document["openapi"], "3.1.0");

    let mut described = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            described.push(format!("{} {path}", method.to_uppercase()));
            assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{path}");
            for (status, answer) in operation["responses"].as_object().unwrap() {
                if status == "204" {
                    continue;
                }
                assert!(answer["content"].is_object(), "{path} {status} has no body");
                let schema = answer["content"]["application/problem+json"]["schema"]["$ref"].as_str();
                let is_problem = schema == Some("#/components/schemas/Problem");
                assert_eq!(is_problem, status.as_str() >= "400", "{path} {status}");
            }
            let method: Method = method.to_uppercase().parse().unwrap();
            let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
            let status = service().oneshot(request).await.unwrap().status();
            assert!(status != 404 && status != 405, "{path} is described and not there");
        }
    }
    described.sort();
    assert_eq!(
        described,
        [
            "DELETE /users/me",
            "GET /.well-known/jwks.json",
            "GET /openapi.json",
            "GET /users/me",
            "POST /users/login",
            "POST /users/logout",
            "POST /users/logout/all",
            "POST /users/sign-up",
            "POST /users/token/refresh",
            "POST /users/{id}/roles",
            "PUT /users/me/password",
        ]
    );
    assert!(document["components"]["securitySchemes"]["bearer"].is_object());
    assert_eq!(document["paths"]["/users/me"]["get"]["security"], json!([{"bearer": []}]));
}
