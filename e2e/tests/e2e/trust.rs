//! Nobody is believed about who they are but the gateway.

use e2e::client::Client;
use e2e::coupons::{self, OPEN, check_receipt};
use e2e::stack::{Stack, shared};
use e2e::tokens::{Minter, user_ids};
use e2e::users;
use reqwest::Method;
use serde_json::json;

/// What a client might send to be somebody else.
fn forged(user: u64, identity: &str) -> Vec<(&'static str, String)> {
    vec![
        ("x-user-id", user.to_string()),
        ("x-user-role", "ADMIN".to_owned()),
        ("x-user-roles", "ADMIN".to_owned()),
        ("x-internal-user", user.to_string()),
        ("x-internal-token", identity.to_owned()),
        ("x-firstcome-identity", identity.to_owned()),
        ("X-FIRSTCOME-IDENTITY", identity.to_owned()),
    ]
}

/// An identity as the gateway would write it, but for the secret.
fn identity(user: u64) -> String {
    let now = e2e::tokens::unix_ms() / 1000;
    let claims = json!({
        "aud": "firstcome-internal", "iss": "firstcome", "sub": user.to_string(), "roles": ["USER", "ADMIN", "SERVICE"],
        "iat": now, "exp": now + 60,
    });
    let key = jsonwebtoken::EncodingKey::from_secret(b"a guess at the secret, long enough");
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("HS256 can sign")
}

#[tokio::test]
async fn headers_of_a_client_change_nothing() {
    let _stack = shared().await;
    let stack = Stack::load();
    let client = Client::gateway(&stack);
    let admin = users::admin(&stack, &client).await;
    let coupon = coupons::create(&client, &admin, 10, OPEN).await;
    let user = users::customer(&client).await;
    let other = user_ids(1)[0];
    let with_forged = |method: Method, path: &str, token: Option<&str>| {
        let mut request = client.request(method, path);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        for (name, value) in forged(other, &identity(other)) {
            request = request.header(name, value);
        }
        request
    };

    let me = client.send(with_forged(Method::GET, "/users/me", Some(&user.access))).await.expect(200);
    assert_eq!(me["userId"], user.id);
    assert_eq!(me["roles"], json!(["USER"]));

    let request =
        with_forged(Method::POST, "/coupon-issues", Some(&user.access)).json(&json!({"couponId": coupon}));
    let answer = client.send(request).await;
    let receipt = coupons::settled(&client, &user.access, answer).await.expect(200);
    check_receipt(&receipt, user.id, coupon);

    let new = json!({"name": "x", "quantity": 1, "startsAt": coupons::in_seconds(0), "endsAt": coupons::in_seconds(9)});
    let request = with_forged(Method::POST, "/coupons", Some(&user.access)).json(&new);
    client.send(request).await.problem(403, "FORBIDDEN");

    client.send(with_forged(Method::GET, "/users/me", None)).await.problem(401, "UNAUTHENTICATED");
    let request = with_forged(Method::POST, "/coupon-issues", None).json(&json!({"couponId": coupon}));
    client.send(request).await.problem(401, "UNAUTHENTICATED");

    // On an open route as well: there is no token that could replace what was sent.
    let request = with_forged(Method::GET, &format!("/coupons/{coupon}"), None);
    client.send(request).await.expect(200);
}

#[tokio::test]
async fn a_service_reached_directly_believes_no_header() {
    let _stack = shared().await;
    let stack = Stack::load();
    let user = user_ids(1)[0];
    let token = Minter::of(&stack).token(user);
    for (service, method, path) in [
        ("user-service", Method::GET, "/users/me"),
        ("coupon-service", Method::POST, "/coupons"),
        ("coupon-service", Method::GET, "/internal/coupons/1"),
        ("issue-service", Method::POST, "/coupon-issues"),
        ("issue-service", Method::GET, "/coupon-issues/me"),
        ("issue-service", Method::GET, "/internal/counts?coupon=1"),
    ] {
        for instance in stack.instances(service) {
            let client = Client::at(instance.url.as_deref().expect("services have a URL"));
            let body = json!({"couponId": 1, "name": "x", "quantity": 1, "startsAt": coupons::in_seconds(0),
                "endsAt": coupons::in_seconds(9)});
            let with = |headers: &[(&'static str, String)]| {
                let mut request = client.request(method.clone(), path);
                if method == Method::POST {
                    request = request.json(&body);
                }
                for (name, value) in headers {
                    request = request.header(*name, value);
                }
                request
            };
            // Each alone, too: one bad header must not be what saves us from another.
            for header in forged(user, &identity(user)) {
                client.send(with(&[header])).await.problem(401, "UNAUTHENTICATED");
            }
            let all = forged(user, &identity(user));
            client.send(with(&all[..6])).await.problem(401, "UNAUTHENTICATED");
            let bearer =
                [("authorization", format!("Bearer {token}")), ("x-firstcome-identity", token.clone())];
            client.send(with(&bearer)).await.problem(401, "UNAUTHENTICATED");
        }
    }
}
