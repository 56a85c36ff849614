//! The HTTP interface, through the platform's layers.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request};
use http_body_util::BodyExt as _;
use issue_service::app::{AppState, Serving};
use issue_service::ids::{CouponId, UserId, issue_id};
use issue_service::ledger::partition::Standing;
use issue_service::ledger::{Definition, Record};
use platform::clock::now_ms;
use platform::http::server::{Front, layered};
use platform::identity::{Identity, IdentitySigner, IdentityVerifier};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::system::{System, definition, eventually, race, users};

struct Service {
    front: Front,
    signer: IdentitySigner,
}

struct Answer {
    status: u16,
    headers: axum::http::HeaderMap,
    body: Value,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Status, code and detail of a problem.
    fn problem(&self) -> (u16, &str, &str) {
        assert_eq!(self.header("content-type"), "application/problem+json");
        (self.status, self.body["code"].as_str().unwrap(), self.body["detail"].as_str().unwrap())
    }
}

impl Service {
    fn of(system: &System, serving: &Serving) -> Self {
        let identity = &system.settings.identity;
        let state = AppState {
            claims: serving.claims.clone(),
            pool: system.pool.clone(),
            verifier: IdentityVerifier::new(identity),
        };
        let front = layered(issue_service::http::router(state), &system.settings.server);
        Self { front, signer: IdentitySigner::new(identity) }
    }

    async fn ask(
        &self,
        caller: &Identity,
        method: Method,
        path: &str,
        body: Option<Value>,
        language: &str,
    ) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .header("accept-language", language)
            .header("x-firstcome-identity", self.signer.sign(caller))
            .body(body.map_or_else(Body::empty, |body| Body::from(body.to_string())))
            .unwrap();
        let response = self.front.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        Answer { status, headers, body: serde_json::from_slice(&body).unwrap_or_default() }
    }

    async fn claim(&self, user: UserId, coupon: CouponId, language: &str) -> Answer {
        let body = Some(json!({ "couponId": coupon.0 }));
        self.ask(&customer(user), Method::POST, "/coupon-issues", body, language).await
    }

    async fn get(&self, caller: &Identity, path: &str) -> Answer {
        self.ask(caller, Method::GET, path, None, "en").await
    }
}

fn customer(user: UserId) -> Identity {
    Identity { user: user.0, roles: vec!["USER".into()], session: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_answered_with_a_receipt_and_a_repeated_one_with_the_same() {
    let system = System::start().await;
    let serving = system.serving().await;
    let service = Service::of(&system, &serving);
    let coupon = system.coupon(&[&serving], 1).await;
    let (winner, loser) = (UserId(7), UserId(8));

    let issued = service.claim(winner, coupon, "en").await;
    assert_eq!(issued.status, 200, "{}", issued.body);
    let receipt = &issued.body;
    let expected = json!({
        "issueId": issue_id(coupon, winner), "couponId": coupon.0, "userId": 7, "place": 1, "status": "ISSUED",
        "issuedAt": receipt["issuedAt"],
    });
    assert_eq!(*receipt, expected);
    let again = service.claim(winner, coupon, "en").await;
    assert_eq!(
        again.problem(),
        (409, "COUPON_ALREADY_ISSUED", "You have this coupon already; the receipt is attached.")
    );
    assert_eq!(again.body["receipt"], *receipt);
    let sold_out = service.claim(loser, coupon, "en").await;
    assert_eq!(sold_out.problem(), (409, "COUPON_SOLD_OUT", "All of these coupons have been issued."));

    let path = format!("/coupon-issues/{coupon}/me");
    assert_eq!(service.get(&customer(winner), &path).await.body, *receipt);
    let none = service.get(&customer(loser), &path).await;
    assert_eq!((none.status, &none.body["status"]), (200, &json!("NONE")));
}

/// Memory holds its winners no longer, and nobody can tell.
#[tokio::test(flavor = "multi_thread")]
async fn the_receipt_of_a_retired_coupon_is_the_one_from_before() {
    let mut system = System::start().await;
    system.settings.retirement.after = Duration::ZERO;
    let serving = system.serving().await;
    let service = Service::of(&system, &serving);
    let _consumer = system.consuming();
    let coupon = system.coupon_in(&[&serving], 0, 1).await;
    let (winner, loser) = (UserId(7), UserId(8));
    let issued = service.claim(winner, coupon, "en").await;
    assert_eq!(issued.status, 200, "{}", issued.body);
    system.define(&[&serving], Definition { ends_at: now_ms() - 1, ..definition(coupon, 2, 1) }).await;
    eventually("its winner has left memory", async || {
        let standing = serving.claims.partitions[0].standing(coupon, winner, 0);
        matches!(standing, Standing::Evicted { .. })
    })
    .await;

    let again = service.claim(winner, coupon, "en").await;
    assert_eq!((again.problem().0, again.problem().1), (409, "COUPON_ALREADY_ISSUED"));
    assert_eq!(again.body["receipt"], issued.body);
    let refused = service.claim(loser, coupon, "en").await;
    assert_eq!((refused.problem().0, refused.problem().1), (409, "COUPON_ENDED"));
    let path = format!("/coupon-issues/{coupon}/me");
    assert_eq!(service.get(&customer(winner), &path).await.body, issued.body);
    assert_eq!(service.get(&customer(loser), &path).await.body["status"], "NONE");
    let told = service.get(&Identity::service(), &format!("/internal/counts?coupon={coupon}")).await;
    assert_eq!(told.body["items"][0]["count"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_told_in_korean_when_asked() {
    let system = System::start().await;
    let serving = system.serving().await;
    let service = Service::of(&system, &serving);
    let (early, late) = (system.new_coupon(), system.new_coupon());
    system.define(&[&serving], Definition { starts_at: now_ms() + 60_000, ..definition(early, 1, 5) }).await;
    system.define(&[&serving], Definition { ends_at: now_ms() - 1, ..definition(late, 1, 5) }).await;
    let full = system.coupon(&[&serving], 1).await;
    race(&[&serving], full, users(1), 1).await;
    let Some(winner) = users(1).next() else { panic!() };

    let told = [
        service.claim(UserId(1), early, "ko").await,
        service.claim(UserId(1), late, "ko-KR,en;q=0.5").await,
        service.claim(UserId(1), full, "ko").await,
        service.claim(winner, full, "ko").await,
    ];
    let told: Vec<_> = told.iter().map(Answer::problem).collect();
    assert_eq!(
        told,
        [
            (409, "COUPON_NOT_STARTED", "아직 발급이 시작되지 않은 쿠폰입니다."),
            (409, "COUPON_ENDED", "발급이 종료된 쿠폰입니다."),
            (409, "COUPON_SOLD_OUT", "쿠폰이 모두 소진되었습니다."),
            (409, "COUPON_ALREADY_ISSUED", "이미 발급받은 쿠폰입니다. 발급 내역을 함께 보냅니다."),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_decided_in_time_is_pending_or_asked_for_later() {
    let system = System::start().await;
    let (serving, other) = (system.serving().await, system.serving().await);
    let service = Service::of(&system, &serving);
    let coupon = system.coupon_in(&[&serving, &other], 0, 5).await;
    system.hold_back(&serving, 0, &other).await;

    let pending = service.claim(UserId(1), coupon, "en").await;
    assert_eq!(pending.status, 202);
    assert_eq!(pending.header("location"), format!("/coupon-issues/{coupon}/me"));
    let receipt = json!({
        "issueId": issue_id(coupon, UserId(1)), "couponId": coupon.0, "userId": 1, "status": "PENDING",
    });
    assert_eq!(pending.body, receipt);
    let status = service.get(&customer(UserId(1)), pending.header("location")).await;
    assert_eq!((status.status, &status.body), (200, &receipt));

    // Nobody can say whether there is such a coupon.
    let unknown = service.claim(UserId(1), CouponId(77), "en").await;
    assert_eq!((unknown.problem().0, unknown.problem().1), (503, "UPSTREAM_UNAVAILABLE"));
    assert_eq!(unknown.header("retry-after"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn my_coupons_come_newest_first_page_by_page() {
    let system = System::start().await;
    let serving = system.serving().await;
    let service = Service::of(&system, &serving);
    let _consumer = system.consuming();
    let mut coupons = Vec::new();
    for _ in 0..3 {
        let coupon = system.coupon(&[&serving], 5).await;
        assert_eq!(service.claim(UserId(1), coupon, "en").await.status, 200);
        coupons.push(coupon.0);
    }
    assert_eq!(service.claim(UserId(2), CouponId(coupons[0]), "en").await.status, 200);
    system.level(&serving).await;

    let me = customer(UserId(1));
    let mut seen = Vec::new();
    let mut path = "/coupon-issues/me?limit=2".to_owned();
    loop {
        let page = service.get(&me, &path).await;
        assert_eq!(page.status, 200, "{}", page.body);
        let items = page.body["items"].as_array().unwrap();
        assert!(
            items.len() <= 2 && items.iter().all(|item| item["userId"] == 1 && item["status"] == "ISSUED")
        );
        seen.extend(items.iter().map(|item| item["couponId"].as_u64().unwrap()));
        let Some(cursor) = page.body["nextCursor"].as_str() else { break };
        path = format!("/coupon-issues/me?limit=2&cursor={cursor}");
    }
    coupons.reverse();
    assert_eq!(seen, coupons);
    for (query, field) in [("limit=0", "limit"), ("limit=101", "limit"), ("cursor=x", "cursor")] {
        let refused = service.get(&me, &format!("/coupon-issues/me?{query}")).await;
        assert_eq!((refused.problem().0, refused.problem().1), (400, "VALIDATION_FAILED"));
        assert_eq!(refused.body["errors"][0]["field"], field);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn services_hear_the_counts_of_the_ledger() {
    let system = System::start().await;
    let serving = system.serving().await;
    let service = Service::of(&system, &serving);
    let coupon = system.coupon_in(&[&serving], 0, 5).await;
    race(&[&serving], coupon, users(3), 1).await;
    let path = format!("/internal/counts?coupon={coupon}&coupon=77");
    let told = service.get(&Identity::service(), &path).await;
    assert_eq!(told.status, 200);
    let item = &told.body["items"][0];
    assert_eq!(told.body["items"].as_array().map(Vec::len), Some(1), "{}", told.body);
    assert_eq!((&item["couponId"], &item["count"], &item["stock"]), (&json!(coupon.0), &json!(3), &json!(5)));
    assert_eq!(item["offset"], serving.claims.partitions[0].next());
    assert_eq!((&item["retired"], &told.body["unanswered"]), (&json!(false), &json!([])));

    assert_eq!(service.get(&customer(UserId(1)), &path).await.problem().1, "FORBIDDEN");
    assert_eq!(service.get(&Identity::service(), "/internal/counts?coupon=x").await.status, 400);
    let many: Vec<_> = (1..=501).map(|id| format!("coupon={id}")).collect();
    let many = service.get(&Identity::service(), &format!("/internal/counts?{}", many.join("&"))).await;
    assert_eq!((many.problem().0, &many.body["errors"][0]["field"]), (400, &json!("coupon")));
    let ended = Definition { ends_at: now_ms() - 1, ..definition(coupon, 2, 5) };
    system.define(&[&serving], ended).await;
    serving.claims.outside.log.append(0, Record::Retire { coupon }).await.unwrap();
    let retired = service.get(&Identity::service(), &path).await.body;
    assert_eq!((&retired["items"][0]["retired"], &retired["items"][0]["count"]), (&json!(true), &json!(3)));
    // A partition that is stopped is not all of the log.
    let other = system.coupon_in(&[&serving], 1, 5).await;
    serving.claims.partitions[0].stop();
    let path = format!("/internal/counts?coupon={coupon}&coupon={other}");
    let partly = service.get(&Identity::service(), &path).await.body;
    assert_eq!(partly["unanswered"], json!([coupon.0]));
    assert_eq!(partly["items"].as_array().map(Vec::len), Some(1), "{partly}");
    assert_eq!(partly["items"][0]["couponId"], other.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_lags_tells_no_counts() {
    let system = System::start().await;
    let (lagging, fresh) = (system.serving().await, system.serving().await);
    let coupon = system.coupon_in(&[&lagging, &fresh], 0, 5).await;
    let other = system.coupon_in(&[&lagging, &fresh], 1, 5).await;
    system.hold_back(&lagging, 0, &fresh).await;
    race(&[&fresh], coupon, users(3), 1).await;
    let service = Service::of(&system, &lagging);
    let tell =
        async |coupon| service.get(&Identity::service(), &format!("/internal/counts?coupon={coupon}")).await;
    assert_eq!(tell(coupon).await.body, json!({"items": [], "unanswered": [coupon.0]}));
    assert_eq!(tell(other).await.body["unanswered"], json!([]));
    let told = Service::of(&system, &fresh)
        .get(&Identity::service(), &format!("/internal/counts?coupon={coupon}"))
        .await;
    assert_eq!(told.body["items"][0]["count"], 3);
}
