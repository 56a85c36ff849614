//! Forged identities: nobody is believed about who they are but the gateway.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use e2e::client::Client;
use e2e::coupons::{self, OPEN, check_receipt};
use e2e::raw::{Raw, http2};
use e2e::secrets;
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
    sealed(user, None, b"a guess at the secret, long enough")
}

fn sealed(user: u64, session: Option<&Value>, secret: &[u8]) -> String {
    let now = e2e::tokens::unix_ms() / 1000;
    let claims = json!({
        "aud": "firstcome-internal", "iss": "firstcome", "sub": user.to_string(), "roles": ["USER", "ADMIN", "SERVICE"],
        "sid": session, "iat": now, "exp": now + 60,
    });
    let key = jsonwebtoken::EncodingKey::from_secret(secret);
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("HS256 can sign")
}

/// The identity that the gateway writes for who holds this token: a service that sees it believes it.
fn genuine(stack: &Stack, user: u64, access: &str) -> String {
    let claims = access.split('.').nth(1).and_then(|claims| URL_SAFE_NO_PAD.decode(claims).ok());
    let claims: Value = serde_json::from_slice(&claims.expect("a JWT")).expect("claims");
    let secret = Stack::secret(&stack.folder.join("secrets/identity"));
    secrets::met(sealed(user, Some(&claims["sid"]), secret.as_bytes()))
}

/// Every way to write the header's line that some parser takes for the header. `{}` is the value.
const SPELLINGS: [&str; 16] = [
    "x-firstcome-identity: {}",
    "X-Firstcome-Identity: {}",
    "X-FIRSTCOME-IDENTITY:{}",
    "x-FiRsTcOmE-iDeNtItY:\t{}\t",
    "X_Firstcome_Identity: {}",
    "X-Firstcome_Identity: {}",
    "X-Firstcome-Identity : {}",
    " X-Firstcome-Identity: {}",
    "\tX-Firstcome-Identity: {}",
    "Accept: */*\n X-Firstcome-Identity: {}",
    "Accept: */*\nX-Firstcome-Identity: {}",
    "Accept: */*\rX-Firstcome-Identity: {}",
    "X-Firstcome-Identity\0: {}",
    "X-Firstcome%2DIdentity: {}",
    "X-Firstcome-Identity: {}\r\nX-Firstcome-Identity: {}",
    "Connection: close, X-Firstcome-Identity\r\nX-Firstcome-Identity: {}",
];

/// A logout is for who has a token, and for who has a refresh token alone: its service is asked without an identity,
/// and would believe one.
#[tokio::test]
async fn a_genuine_identity_sent_by_a_client_is_believed_in_no_spelling() {
    let _stack = shared().await;
    let stack = Stack::load();
    let client = Client::gateway(&stack);
    let user = users::customer(&client).await;
    let stolen = genuine(&stack, user.id, &user.access);
    for spelling in SPELLINGS {
        let header = spelling.replace("{}", &stolen);
        let request =
            format!("POST /users/logout HTTP/1.1\r\nHost: x\r\n{header}\r\nContent-Length: 0\r\n\r\n");
        let mut raw = Raw::connect(&stack.gateway).await;
        raw.send(request.as_bytes()).await;
        let answer = raw.answer().await.unwrap_or_else(|| panic!("{spelling:?}: no answer"));
        assert!(matches!(answer.status, 400 | 401), "{spelling:?}: {answer:?}");
    }
    // In a trailer, which comes after everything that was judged.
    let head = "POST /users/logout HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: x-firstcome-identity\r\n";
    let request = format!("{head}\r\n0\r\nX-Firstcome-Identity: {stolen}\r\n\r\n");
    let mut raw = Raw::connect(&stack.gateway).await;
    raw.send(request.as_bytes()).await;
    assert_eq!(raw.answer().await.map(|answer| answer.status), Some(401), "in a trailer");
    // Over HTTP/2.
    for name in ["x-firstcome-identity", "x_firstcome_identity", "X-Firstcome-Identity"] {
        let mut raw = Raw::connect(&stack.gateway).await;
        let block = http2::request("POST", "/users/logout", &[(name, &stolen)]);
        let flags = http2::END_STREAM | http2::END_HEADERS;
        raw.send(&[http2::preface(), http2::frame(http2::HEADERS, flags, 1, &block)].concat()).await;
        if raw.stream_ends(1).await {
            let heard = raw.data(1);
            assert!(heard.is_empty() || heard.contains("UNAUTHENTICATED"), "{name}: {heard}");
        }
    }
    client.get("/users/me", Some(&user.access)).await.expect(200);

    // It is genuine: the service itself takes it. (Who has the secret needs no gateway.)
    let service = stack.one("user-service");
    let direct = Client::at(service.url.as_deref().expect("services have a URL"));
    let request = direct.request(Method::POST, "/users/logout").header("x-firstcome-identity", &stolen);
    direct.send(request).await.done();
    client.get("/users/me", Some(&user.access)).await.problem(401, "UNAUTHENTICATED");
}

/// A header that is named in `Connection` goes no further: not even the gateway's own word can be taken away so.
#[tokio::test]
async fn the_gateways_own_identity_cannot_be_named_away() {
    let _stack = shared().await;
    let stack = Stack::load();
    let client = Client::gateway(&stack);
    let user = users::customer(&client).await;
    let request = client.request(Method::GET, "/users/me").bearer_auth(&user.access);
    let request = request.header("connection", "x-firstcome-identity, authorization, content-length");
    assert_eq!(client.send(request).await.expect(200)["userId"], user.id);
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
