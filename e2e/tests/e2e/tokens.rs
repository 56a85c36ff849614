//! Which tokens the gateway takes. Forged ones are in `attacks/tokens.rs`.

use e2e::client::Client;
use e2e::secrets;
use e2e::stack::{Stack, shared};
use e2e::tokens::{Minter, user_ids};
use e2e::users;
use reqwest::Method;
use serde_json::json;

/// Needs a token and nothing else.
const PATH: &str = "/coupon-issues/me";

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
