//! What the door itself answers.

use std::time::{Duration, Instant};

use e2e::client::Client;
use e2e::coupons::{self, OPEN};
use e2e::stack::{Stack, alone, shared};
use e2e::tokens::{Minter, user_ids};
use e2e::{configuration, users};
use reqwest::Method;
use serde_json::Value;

/// Of an ended login and of changed routes; both take seconds at most.
const IN_FORCE_WITHIN: Duration = Duration::from_secs(15);

#[tokio::test]
async fn unknown_paths_are_not_found() {
    let _stack = shared().await;
    let stack = Stack::load();
    let client = Client::gateway(&stack);
    let token = Minter::of(&stack).token(user_ids(1)[0]);
    for path in ["/nowhere", "/", "/users/nowhere/at/all"] {
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

#[tokio::test]
async fn a_login_that_ended_claims_nothing_any_more() {
    let _stack = shared().await;
    let stack = Stack::load();
    let client = Client::gateway(&stack);
    let admin = users::admin(&stack, &client).await;
    let coupons =
        [coupons::create(&client, &admin, 5, OPEN).await, coupons::create(&client, &admin, 5, OPEN).await];
    let user = users::customer(&client).await;
    coupons::claim_until_final(&client, &user.access, coupons[0]).await.expect(200);
    client.send(client.request(Method::POST, "/users/logout").bearer_auth(&user.access)).await.done();
    // The claim's service asks nobody: the gateway has to have heard of it.
    let begun = Instant::now();
    loop {
        let answer = coupons::claim(&client, Some(&user.access), coupons[0]).await;
        if answer.status == 401 {
            answer.problem(401, "UNAUTHENTICATED");
            break;
        }
        assert!(begun.elapsed() < IN_FORCE_WITHIN, "the token still counts: {}", answer.text);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    coupons::claim(&client, Some(&user.access), coupons[1]).await.problem(401, "UNAUTHENTICATED");
    let (again, _) = users::login(&client, &user.email, &user.password).await;
    coupons::claim_until_final(&client, &again, coupons[1]).await.expect(200);
}

/// The health of the gateway's routes, for who holds the admin token.
async fn routes_health(stack: &Stack) -> Value {
    let gateway = stack.one("gateway");
    let admin = Client::at(gateway.admin_url.as_deref().unwrap_or_default());
    let token = std::fs::read_to_string(stack.folder.join("secrets/admin-token")).expect("the admin token");
    let request = admin.request(Method::GET, "/actuator/health").bearer_auth(token.trim());
    admin.send(request).await.json()["components"]["routes"].clone()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < IN_FORCE_WITHIN, "not within {IN_FORCE_WITHIN:?}: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn routes_change_by_a_commit_and_wrong_ones_change_nothing() {
    let _stack = alone().await;
    let stack = Stack::load();
    let client = Client::gateway(&stack);
    let repository = configuration::Clone::of(&stack);
    const ROUTES: &str = "\nroutes:\n";
    let with = |route: &str| format!("\nroutes:\n{route}");
    let good = "  - {id: e2e-teapot, uri: 'no://op', predicates: [Path=/e2e/teapot], filters: [SetStatus=418], \
                authentication: none}\n";
    let wrong = good.replace("SetStatus=418", "SetStatus=418, SetSttus=500");
    client.get("/e2e/teapot", None).await.problem(404, "NOT_FOUND");

    repository.change("gateway.yml", ROUTES, &with(good));
    until("the new route", async || client.get("/e2e/teapot", None).await.status == 418).await;
    repository.change("gateway.yml", &with(good), &with(&wrong));
    until("the health says what is wrong", async || routes_health(&stack).await["status"] == "DOWN").await;
    let health = routes_health(&stack).await.to_string();
    assert!(health.contains("did you mean `SetStatus`?"), "{health}");
    assert_eq!(client.get("/e2e/teapot", None).await.status, 418, "the last good ones stay");
    assert_eq!(client.get("/coupons", None).await.status, 200);
    repository.change("gateway.yml", &with(&wrong), ROUTES);
    until("it is gone again", async || client.get("/e2e/teapot", None).await.status == 404).await;
    until("all is well", async || routes_health(&stack).await["status"] == "UP").await;
}
