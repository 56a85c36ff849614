//! Other origins: pages of strangers read nothing with a user's rights, and nobody is sent to a stranger's page.

use e2e::client::Client;
use e2e::coupons;
use e2e::raw::Raw;
use e2e::stack::{Stack, shared};
use e2e::tokens::{Minter, user_ids};
use e2e::{secrets, users};
use reqwest::Method;
use serde_json::json;

const STRANGERS: [&str; 7] = [
    "https://evil.example",
    "http://127.0.0.1",
    "null",
    "file://",
    "https://gateway.evil.example",
    "https://evil.example, https://gateway",
    "*",
];

#[tokio::test]
async fn a_strangers_page_reads_nothing_with_credentials() {
    let _stack = shared().await;
    let stack = Stack::load();
    let client = Client::gateway(&stack);
    let token = secrets::met(Minter::of(&stack).token(user_ids(1)[0]));
    for origin in STRANGERS {
        for (method, path) in [
            (Method::GET, "/coupon-issues/me"),
            (Method::GET, "/coupons"),
            (Method::POST, "/users/login"),
            (Method::GET, "/nowhere"),
        ] {
            let asked = client.request(method.clone(), path).header("origin", origin).bearer_auth(&token);
            let preflight = client
                .request(Method::OPTIONS, path)
                .header("origin", origin)
                .header("access-control-request-method", method.as_str())
                .header("access-control-request-headers", "authorization, content-type")
                .header("access-control-request-private-network", "true");
            for (kind, request) in [("request", asked), ("preflight", preflight)] {
                let answer = client.send(request).await;
                let allowed: Vec<_> = answer
                    .headers
                    .keys()
                    .filter(|name| name.as_str().starts_with("access-control-"))
                    .collect();
                assert!(allowed.is_empty(), "{origin}, {kind} of {path}: {allowed:?}");
                assert!(kind == "request" || answer.status >= 400, "{origin}: {}", answer.status);
            }
        }
    }
}

#[tokio::test]
async fn nobody_is_sent_to_a_strangers_page() {
    let _stack = shared().await;
    let stack = Stack::load();
    for target in [
        "//evil.example/",
        "//evil.example/%2f..",
        "///evil.example",
        "/\\evil.example",
        "/%5cevil.example",
        "/%2f%2fevil.example",
        "/https:/evil.example",
        "/https://evil.example",
        "/.evil.example",
        "/@evil.example",
        "/coupons/?next=https://evil.example",
        "/coupons//",
        "/coupons?url=//evil.example&returnTo=https://evil.example",
        "/users/login?redirect_uri=https://evil.example",
        "/%0d%0aLocation:%20https://evil.example",
        "/coupons?%0d%0aLocation:%20https://evil.example",
        "http://evil.example/coupons",
    ] {
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: evil.example\r\nForwarded: host=evil.example\r\n\
             Referer: https://evil.example\r\nConnection: close\r\n\r\n"
        );
        let answers = Raw::connect(&stack.gateway).await.until_closed(request.as_bytes()).await;
        for answer in answers {
            assert!(!(300..400).contains(&answer.status), "{target}: {answer:?}");
            assert!(
                !answer.head.contains("\r\nlocation:") && !answer.head.contains("evil"),
                "{target}: {answer:?}"
            );
        }
    }
    // The one address that is given, of what was made, is a path, whatever host was named.
    let client = Client::gateway(&stack);
    let admin = users::admin(&stack, &client).await;
    let new = json!({"name": "x", "quantity": 1, "startsAt": coupons::in_seconds(0), "endsAt": coupons::in_seconds(9)});
    let request = client.request(Method::POST, "/coupons").bearer_auth(&admin).json(&new);
    let request = request.header("host", "evil.example").header("x-forwarded-host", "evil.example");
    let answer = client.send(request).await;
    answer.expect(201);
    assert!(answer.header("location").starts_with("/coupons/"), "{}", answer.header("location"));
}
