//! Nobody is believed about who they are but the gateway.

use e2e::client::Client;
use e2e::coupons::{self, OPEN, check_receipt};
use e2e::stack::{Stack, shared};
use e2e::tokens::{Minter, user_ids};
use e2e::users;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

/// What a client might send to be somebody or somewhere else. The last one is another spelling of the one before.
fn forged(user: u64, identity: &str) -> Vec<(&'static str, String)> {
    vec![
        ("x-real-ip", "127.0.0.1".to_owned()),
        ("forwarded", "for=127.0.0.1;host=internal;proto=https".to_owned()),
        ("x-forwarded-for", "127.0.0.1".to_owned()),
        ("x-forwarded-host", "internal".to_owned()),
        ("x-forwarded-user", user.to_string()),
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

/// A request to a service itself.
fn direct(
    client: &Client,
    method: &Method,
    path: &str,
    body: Option<&Value>,
    headers: &[(&str, String)],
) -> RequestBuilder {
    let mut request = client.request(method.clone(), path);
    if let Some(body) = body {
        request = request.json(body);
    }
    headers.iter().fold(request, |request, (name, value)| request.header(*name, value))
}

#[tokio::test]
async fn a_service_reached_directly_believes_no_header() {
    let _stack = shared().await;
    let stack = Stack::load();
    let user = user_ids(1)[0];
    let token = Minter::of(&stack).token(user);
    let new = json!({"name": "x", "quantity": 1, "startsAt": coupons::in_seconds(0), "endsAt": coupons::in_seconds(9)});
    let (change, claim) = (json!({"closed": true}), json!({"couponId": 1}));
    for (service, method, path, body) in [
        ("user-service", Method::GET, "/users/me", None),
        ("coupon-service", Method::POST, "/coupons", Some(&new)),
        ("coupon-service", Method::PATCH, "/coupons/1", Some(&change)),
        ("coupon-service", Method::GET, "/internal/coupons/1", None),
        ("issue-service", Method::POST, "/coupon-issues", Some(&claim)),
        ("issue-service", Method::GET, "/coupon-issues/me", None),
        ("issue-service", Method::GET, "/coupon-issues/1/me", None),
        ("issue-service", Method::GET, "/internal/counts?coupon=1", None),
    ] {
        for instance in stack.instances(service) {
            let client = Client::at(instance.url.as_deref().expect("services have a URL"));
            let refused = async |headers: &[(&str, String)]| {
                let answer = client.send(direct(&client, &method, path, body, headers)).await;
                answer.problem(401, "UNAUTHENTICATED");
            };
            // Each alone, too: one bad header must not be what saves us from another.
            let all = forged(user, &identity(user));
            for header in &all {
                refused(std::slice::from_ref(header)).await;
            }
            refused(&all[..all.len() - 1]).await;
            refused(&[("authorization", format!("Bearer {token}")), ("x-firstcome-identity", token.clone())])
                .await;
        }
    }
}

/// The routes that ask nobody who they are: there, too, the headers change nothing.
#[tokio::test]
async fn a_service_reached_directly_overlooks_headers_on_open_routes() {
    let _stack = shared().await;
    let stack = Stack::load();
    let user = user_ids(1)[0];
    let nothing = json!({});
    for (service, method, path, body, status) in [
        ("user-service", Method::POST, "/users/sign-up", Some(&nothing), 400),
        ("user-service", Method::POST, "/users/login", Some(&nothing), 400),
        ("user-service", Method::POST, "/users/token/refresh", Some(&nothing), 400),
        ("user-service", Method::GET, "/.well-known/jwks.json", None, 200),
        ("coupon-service", Method::GET, "/coupons?limit=1", None, 200),
        ("coupon-service", Method::GET, "/coupons/1", None, 404),
    ] {
        for instance in stack.instances(service) {
            let client = Client::at(instance.url.as_deref().expect("services have a URL"));
            for headers in [vec![], forged(user, &identity(user))] {
                let answer = client.send(direct(&client, &method, path, body, &headers)).await;
                assert_eq!(answer.status, status, "{path} with {headers:?}: {}", answer.text);
            }
        }
    }
}
