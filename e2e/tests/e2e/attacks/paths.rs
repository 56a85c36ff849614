//! Path tricks: to what is internal, and to what is for administrators.

use std::time::{Duration, Instant};

use e2e::client::Client;
use e2e::configuration;
use e2e::counters::requests;
use e2e::raw::{Raw, http2};
use e2e::secrets;
use e2e::stack::{Stack, alone};
use e2e::tokens::{Minter, user_ids};
use e2e::users;
use reqwest::Method;
use serde_json::{Value, json};

/// Targets as they stand in a request's first line. None of them may be understood as a path to what is internal.
const INTERNAL: [&str; 44] = [
    "/internal/counts?coupon=1",
    "/internal/coupons/1",
    "/internal",
    "/internal/",
    "/INTERNAL/counts",
    "/Internal/counts",
    "/%69nternal/counts",
    "/%49%4e%54%45%52%4e%41%4c/counts",
    "/internal%2fcounts",
    "/internal%2Fcounts",
    "/%2finternal/counts",
    "/%252finternal/counts",
    "/%25%36%39nternal/counts",
    "//internal/counts",
    "///internal/counts",
    "/./internal/counts",
    "/%2e/internal/counts",
    "/x/../internal/counts",
    "/coupons/../internal/counts",
    "/coupons/%2e%2e/internal/counts",
    "/coupons/.%2e/internal/counts",
    "/coupons/%252e%252e/internal/counts",
    "/coupons/..%2finternal%2fcounts",
    "/coupons/..;/internal/counts",
    "/coupons/..%3b/internal/counts",
    "/coupons/..\\internal\\counts",
    "/coupons/..%5cinternal%5ccounts",
    "/coupons/1/..//../internal/counts",
    "/;x/internal/counts",
    "/internal;x/counts",
    "/internal%00/counts",
    "/internal%20/counts",
    "/internal%09/counts",
    "/internal#/counts",
    "/\u{ff49}nternal/counts",
    "/%ef%bd%89nternal/counts",
    "/%c0%af/internal/counts",
    "/%u0069nternal/counts",
    "internal/counts",
    "\\internal\\counts",
    "http://internal/internal/counts",
    "http://issue-service/internal/counts",
    "/actuator/env",
    "/%61ctuator/loggers/root",
];

/// As if somebody had opened the gateway for everything that a service has.
const CATCH_ALL: &str = "  - {id: e2e-all, uri: 'lb://issue-service', order: 1000, predicates: ['Path=/**'], \
                         filters: ['AddResponseHeader=X-E2e-Route, all'], authentication: none}\n";
const IN_FORCE_WITHIN: Duration = Duration::from_secs(15);

/// With a route that takes every path, and of a service that has something internal, all that stands before that is
/// what a path may be. From the service itself it would be 401: no service has sent the request.
#[tokio::test]
async fn no_spelling_of_a_path_leads_to_what_is_internal() {
    let _stack = alone().await;
    let stack = Stack::load();
    let client = Client::gateway(&stack);
    // With every right that a token can give: what is refused is the path.
    let admin = users::admin(&stack, &client).await;
    let repository = configuration::Clone::of(&stack);
    let (without, with) = ("\nroutes:\n", format!("\nroutes:\n{CATCH_ALL}"));
    repository.change("gateway.yml", without, &with);
    in_force(&client, true).await;
    let mut reached = Vec::new();
    for target in INTERNAL {
        reached.extend(attempts(&stack, target, &admin).await);
    }
    repository.change("gateway.yml", &with, without);
    in_force(&client, false).await;
    assert!(reached.is_empty(), "{reached:#?}");
}

async fn in_force(client: &Client, wanted: bool) {
    let begun = Instant::now();
    while client.get("/e2e/anything", None).await.headers.contains_key("x-e2e-route") != wanted {
        assert!(begun.elapsed() < IN_FORCE_WITHIN, "the routes do not change");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Asks for the target in every way; what was answered otherwise than by a refusal.
async fn attempts(stack: &Stack, target: &str, admin: &str) -> Vec<String> {
    let mut reached = Vec::new();
    for method in ["GET", "DELETE"] {
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: issue-service\r\nAuthorization: Bearer {admin}\r\n\
             X-Original-URL: /internal/counts\r\nX-Rewrite-URL: /internal/counts\r\nConnection: close\r\n\r\n"
        );
        let answers = Raw::connect(&stack.gateway).await.until_closed(request.as_bytes()).await;
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        if !matches!(statuses[..], [] | [400 | 404 | 405]) {
            reached.push(format!("{method} {target}: {answers:?}"));
        }
    }
    let mut raw = Raw::connect(&stack.gateway).await;
    let authorization = format!("Bearer {admin}");
    let block = http2::request("GET", target, &[("authorization", &authorization)]);
    let flags = http2::END_STREAM | http2::END_HEADERS;
    raw.send(&[http2::preface(), http2::frame(http2::HEADERS, flags, 1, &block)].concat()).await;
    if raw.stream_ends(1).await {
        let heard = raw.data(1);
        let refused = ["VALIDATION_FAILED", "NOT_FOUND", "METHOD_NOT_ALLOWED"];
        if !heard.is_empty() && !refused.iter().any(|code| heard.contains(code)) {
            reached.push(format!("{target} over HTTP/2: {heard}"));
        }
    }
    reached
}

/// The forms of a target that are for proxies and for the server as a whole.
#[tokio::test]
async fn the_gateway_is_no_proxy_to_elsewhere() {
    let _stack = alone().await;
    let stack = Stack::load();
    let other = stack.one("config-server").url.clone().expect("services have a URL");
    let other = e2e::raw::authority(&other);
    for line in [
        format!("CONNECT {other} HTTP/1.1"),
        format!("CONNECT http://{other}/ HTTP/1.1"),
        format!("GET http://{other}/actuator/health HTTP/1.1"),
        format!("GET //{other}/gateway/default HTTP/1.1"),
        format!("GET @{other}/gateway/default HTTP/1.1"),
        format!("GET ftp://{other}/gateway/default HTTP/1.1"),
        "OPTIONS * HTTP/1.1".to_owned(),
        "TRACE /coupons HTTP/1.1".to_owned(),
        "PRI * HTTP/1.1".to_owned(),
    ] {
        let request = format!("{line}\r\nHost: {other}\r\nConnection: close\r\n\r\n");
        let answers = Raw::connect(&stack.gateway).await.until_closed(request.as_bytes()).await;
        let refused = |status| matches!(status, 400 | 404 | 405);
        assert!(answers.len() <= 1 && answers.iter().all(|it| refused(it.status)), "{line}: {answers:?}");
    }
    // Whatever host is named, the route table decides: this is the list of coupons, of the service that has it.
    let request =
        format!("GET http://{other}/coupons HTTP/1.1\r\nHost: {other}\r\nConnection: close\r\n\r\n");
    let answers = Raw::connect(&stack.gateway).await.until_closed(request.as_bytes()).await;
    assert!(answers[0].status == 200 && answers[0].body.contains("items"), "{answers:?}");
}

/// A customer at the routes of administrators: by other spellings, other methods, and headers that change both.
#[tokio::test]
async fn a_customer_reaches_no_route_of_administrators() {
    let _stack = alone().await;
    let stack = Stack::load();
    let client = Client::gateway(&stack);
    let user = secrets::met(Minter::of(&stack).token(user_ids(1)[0]));
    let new = json!({"name": "attack", "quantity": 1, "startsAt": "2026-01-01T00:00:00Z", "endsAt": "2036-01-01T00:00:00Z"});
    let (body, roles) = (new.to_string(), json!({"roles": ["ADMIN"], "grant": ["ADMIN"]}).to_string());
    let before =
        (requests(&stack, "coupon-service", "POST").await, requests(&stack, "coupon-service", "PATCH").await);
    for target in [
        "/coupons",
        "/coupons/",
        "/Coupons",
        "/%63oupons",
        "/coupons?x",
        "/coupons%3f",
        "/coupons%23",
        "/coupons.json",
        "/coupons%20",
        "//coupons",
        "/./coupons",
        "/x/../coupons",
        "/coupons;",
        "/coupons/;",
        "/coupons%2f",
        "/coupons/.",
        "/users/1/roles",
        "/users/1/roles/",
        "/users/%31/roles",
        "/users/1/Roles",
        "/users/1/roles?",
        "/users//roles",
        "/users/../users/1/roles",
        "/users/me/../1/roles",
        "/users/1%2froles",
    ] {
        for method in ["POST", "PATCH", "PUT", "post", "GeT", "FOO"] {
            let text = if target.contains("roles") { &roles } else { &body };
            let request = format!(
                "{method} {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {user}\r\nContent-Type: application/json\r\n\
                 X-HTTP-Method-Override: POST\r\nX-HTTP-Method: POST\r\nX-Method-Override: POST\r\nX-Original-URL: /coupons\r\n\
                 X-User-Role: ADMIN\r\nX-User-Roles: ADMIN\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
                text.len()
            );
            let answers = Raw::connect(&stack.gateway).await.until_closed(request.as_bytes()).await;
            let refused = |status| matches!(status, 400 | 403 | 404 | 405);
            assert!(
                answers.len() <= 1 && answers.iter().all(|it| refused(it.status)),
                "{method} {target}: {answers:?}"
            );
        }
    }
    // A method that is only named in a header is the one that was sent.
    let request = client.request(Method::GET, "/coupons?limit=1").bearer_auth(&user);
    let answer = client.send(request.header("x-http-method-override", "POST").body(body)).await.expect(200);
    assert_ne!(answer["items"], Value::Null, "{answer}");
    let after =
        (requests(&stack, "coupon-service", "POST").await, requests(&stack, "coupon-service", "PATCH").await);
    assert_eq!(after, before, "the coupon service was asked");
}
