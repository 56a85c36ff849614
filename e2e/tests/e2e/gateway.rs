//! What the door itself answers.

use e2e::client::Client;
use e2e::stack::{Stack, shared};
use e2e::tokens::{Minter, user_ids};
use reqwest::Method;

#[tokio::test]
async fn unknown_paths_are_not_found() {
    let _stack = shared().await;
    let stack = Stack::load();
    let client = Client::gateway(&stack);
    let token = Minter::of(&stack).token(user_ids(1)[0]);
    for path in
        ["/nowhere", "/", "/users/nowhere/at/all", "/internal/coupons/1", "/internal/counts", "/actuator/env"]
    {
        client.get(path, Some(&token)).await.problem(404, "NOT_FOUND");
    }
    client.get("/nowhere", None).await.problem(404, "NOT_FOUND");
}

#[tokio::test]
async fn wrong_methods_are_not_allowed() {
    let _stack = shared().await;
    let stack = Stack::load();
    let client = Client::gateway(&stack);
    let token = Minter::of(&stack).token(user_ids(1)[0]);
    for (method, path) in [
        (Method::GET, "/users/sign-up"),
        (Method::PUT, "/users/login"),
        (Method::DELETE, "/coupon-issues"),
        (Method::POST, "/.well-known/jwks.json"),
    ] {
        let answer = client.send(client.request(method, path).bearer_auth(&token)).await;
        answer.problem(405, "METHOD_NOT_ALLOWED");
    }
}

#[tokio::test]
async fn the_keys_are_public() {
    let _stack = shared().await;
    let stack = Stack::load();
    let body = Client::gateway(&stack).get("/.well-known/jwks.json", None).await.expect(200);
    let keys = body["keys"].as_array().unwrap();
    let ours =
        keys.iter().find(|key| key["kid"] == Minter::of(&stack).kid()).expect("the run's key is published");
    assert_eq!(ours["kty"], "OKP");
    assert_eq!(ours["crv"], "Ed25519");
    assert!(keys.iter().all(|key| key.get("d").is_none()), "{body}");
}

#[tokio::test]
async fn the_clients_trace_goes_on() {
    let _stack = shared().await;
    let client = Client::gateway(&Stack::load());
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request = client.request(Method::GET, "/nowhere");
    let answer = client.send(request.header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"))).await;
    assert_eq!(answer.problem(404, "NOT_FOUND")["traceId"], trace);
    assert_eq!(answer.trace_id(), trace);
}
