//! Which tokens the gateway takes, and which it does not.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use e2e::client::Client;
use e2e::secrets;
use e2e::stack::{Stack, shared};
use e2e::tokens::{Minter, unix_ms, user_ids};
use e2e::users;
use reqwest::Method;
use serde_json::{Value, json};

/// Needs a token and nothing else.
const PATH: &str = "/coupon-issues/me";

async fn refused(client: &Client, token: &str) {
    client.get(PATH, Some(token)).await.problem(401, "UNAUTHENTICATED");
}

#[tokio::test]
async fn a_token_of_the_runs_key_is_good() {
    let _stack = shared().await;
    let stack = Stack::load();
    let token = secrets::met(Minter::of(&stack).token(user_ids(1)[0]));
    let body = Client::gateway(&stack).get(PATH, Some(&token)).await.expect(200);
    assert_eq!(body["items"], json!([]));
}

#[tokio::test]
async fn no_token_and_what_is_none() {
    let _stack = shared().await;
    let client = Client::gateway(&Stack::load());
    client.get(PATH, None).await.problem(401, "UNAUTHENTICATED");
    for header in ["", "Bearer", "Bearer ", "Basic dTpw", "Bearer x", "Bearer a.b.c", "Bearer ....."] {
        let request = client.request(Method::GET, PATH).header("authorization", header);
        client.send(request).await.problem(401, "UNAUTHENTICATED");
    }
}

#[tokio::test]
async fn an_expired_token_says_so() {
    let _stack = shared().await;
    let stack = Stack::load();
    let minter = Minter::of(&stack);
    let mut claims = minter.claims(user_ids(1)[0]);
    // Past the leeway for clocks that differ.
    claims["exp"] = json!(unix_ms() / 1000 - 60);
    let token = secrets::met(minter.sign(&claims));
    Client::gateway(&stack).get(PATH, Some(&token)).await.problem(401, "TOKEN_EXPIRED");
}

#[tokio::test]
async fn another_key_is_refused_also_under_the_name_of_ours() {
    let _stack = shared().await;
    let stack = Stack::load();
    let (client, ours, stranger) = (Client::gateway(&stack), Minter::of(&stack), Minter::stranger(&stack));
    let claims = stranger.claims(user_ids(1)[0]);
    refused(&client, &secrets::met(stranger.sign(&claims))).await;
    refused(&client, &secrets::met(stranger.sign_as(ours.kid(), &claims))).await;
}

#[tokio::test]
async fn no_signature_and_a_confused_one_are_refused() {
    let _stack = shared().await;
    let stack = Stack::load();
    let (client, minter) = (Client::gateway(&stack), Minter::of(&stack));
    let mut claims = minter.claims(user_ids(1)[0]);
    claims["roles"] = json!(["USER", "ADMIN"]);
    for token in minter.unsigned(&claims).into_iter().chain(minter.confused(&claims)) {
        refused(&client, &secrets::met(token)).await;
    }
}

#[tokio::test]
async fn a_changed_token_is_refused() {
    let _stack = shared().await;
    let stack = Stack::load();
    let (client, minter) = (Client::gateway(&stack), Minter::of(&stack));
    let token = secrets::met(minter.token(user_ids(1)[0]));
    // The good one first: a cache of verified tokens must not answer for the changed one.
    client.get(PATH, Some(&token)).await.expect(200);
    let parts: Vec<_> = token.split('.').collect();
    let claims = URL_SAFE_NO_PAD.decode(parts[1]).unwrap();
    let mut claims: Value = serde_json::from_slice(&claims).unwrap();
    claims["roles"] = json!(["USER", "ADMIN"]);
    let changed = URL_SAFE_NO_PAD.encode(claims.to_string());
    refused(&client, &format!("{}.{changed}.{}", parts[0], parts[2])).await;
}

#[tokio::test]
async fn another_issuer_or_audience_or_no_subject_is_refused() {
    let _stack = shared().await;
    let stack = Stack::load();
    let (client, minter) = (Client::gateway(&stack), Minter::of(&stack));
    for (claim, value) in [
        ("iss", json!("somebody")),
        ("aud", json!("somebody")),
        ("aud", json!("firstcome-internal")),
        ("iss", Value::Null),
        ("aud", Value::Null),
        ("sub", Value::Null),
        ("exp", Value::Null),
        ("sub", json!("kim")),
    ] {
        let mut claims = minter.claims(user_ids(1)[0]);
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(claim);
        } else {
            claims[claim] = value;
        }
        refused(&client, &secrets::met(minter.sign(&claims))).await;
    }
}

#[tokio::test]
async fn a_customer_is_no_administrator() {
    let _stack = shared().await;
    let client = Client::gateway(&Stack::load());
    let user = users::customer(&client).await;
    let body = json!({"name": "x", "quantity": 1, "startsAt": "2026-01-01T00:00:00Z", "endsAt": "2036-01-01T00:00:00Z"});
    client.post("/coupons", Some(&user.access), &body).await.problem(403, "FORBIDDEN");
    client.post("/coupons", None, &body).await.problem(401, "UNAUTHENTICATED");
    let patch =
        client.request(Method::PATCH, "/coupons/1").bearer_auth(&user.access).json(&json!({"closed": true}));
    client.send(patch).await.problem(403, "FORBIDDEN");
}
