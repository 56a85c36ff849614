//! Forged tokens, and tokens as a weapon.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use e2e::client::Client;
use e2e::counters::counted;
use e2e::raw::Raw;
use e2e::secrets;
use e2e::stack::{Stack, alone, shared};
use e2e::tokens::{Minter, unix_ms, user_ids};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Needs a token and nothing else.
const PATH: &str = "/coupon-issues/me";
/// Of `jwt.jwks-min-interval`.
const JWKS_INTERVAL: Duration = Duration::from_secs(10);

async fn refused(client: &Client, token: &str) {
    client.get(PATH, Some(token)).await.problem(401, "UNAUTHENTICATED");
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
async fn a_token_that_is_not_valid_yet_is_refused() {
    let _stack = shared().await;
    let stack = Stack::load();
    let minter = Minter::of(&stack);
    let mut claims = minter.claims(user_ids(1)[0]);
    claims["nbf"] = json!(unix_ms() / 1000 + 60);
    refused(&Client::gateway(&stack), &secrets::met(minter.sign(&claims))).await;
}

#[tokio::test]
async fn a_stripped_or_cut_signature_is_refused() {
    let _stack = shared().await;
    let stack = Stack::load();
    let (client, minter) = (Client::gateway(&stack), Minter::of(&stack));
    let token = secrets::met(minter.token(user_ids(1)[0]));
    client.get(PATH, Some(&token)).await.expect(200);
    let (signed, signature) = token.rsplit_once('.').unwrap();
    for forged in [
        signed.to_owned(),
        format!("{signed}."),
        format!("{signed}.AA"),
        format!("{signed}.{}", "A".repeat(signature.len())),
        format!("{signed}.{}", &signature[..signature.len() - 4]),
        format!("{signed}.{signature}A"),
        format!("{signed}.{signature}="),
        format!("{signed}..{signature}"),
        format!("{token}.{signature}"),
        format!("{}.{signature}", signed.split('.').next().unwrap()),
    ] {
        refused(&client, &forged).await;
    }
}

/// A token of another purpose, although it is signed by the right key (RFC 8725, 3.11).
#[tokio::test]
async fn a_token_of_another_type_is_refused() {
    let _stack = shared().await;
    let stack = Stack::load();
    let (client, minter) = (Client::gateway(&stack), Minter::of(&stack));
    let claims = minter.claims(user_ids(1)[0]);
    for kind in ["logout+jwt", "secevent+jwt", "dpop+jwt", "refresh"] {
        let header = json!({"alg": "EdDSA", "typ": kind, "kid": minter.kid()});
        refused(&client, &secrets::met(minter.sign_under(&header, &claims))).await;
    }
}

/// `kid` as a path, a query or a command; and keys that a token brings along itself, or would have fetched.
#[tokio::test]
async fn a_key_that_the_token_chooses_is_refused_and_nothing_is_fetched() {
    let _stack = shared().await;
    let stack = Stack::load();
    let (client, ours, stranger) = (Client::gateway(&stack), Minter::of(&stack), Minter::stranger(&stack));
    let trap = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/keys", trap.local_addr().expect("a port"));
    let claims = stranger.claims(user_ids(1)[0]);
    let long = "k".repeat(20_000);
    for kid in [
        "",
        " ",
        "../../../../dev/null",
        "/dev/null",
        "' OR '1'='1",
        "x' UNION SELECT 'AA",
        "$(id)",
        "|id",
        "\0",
        "\u{202e}",
        "*",
        "null",
        &*url,
        &*long,
    ] {
        refused(&client, &secrets::met(stranger.sign_as(kid, &claims))).await;
    }
    let key = stranger.public_jwk();
    for (name, value) in [
        ("jwk", key.clone()),
        ("jku", json!(url)),
        ("x5u", json!(url)),
        ("x5c", json!(["MIIB"])),
        ("crit", json!(["exp"])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("kid", json!({"$ne": ""})),
        ("kid", json!([ours.kid()])),
        ("alg", json!(["EdDSA"])),
        ("alg", json!("RS256")),
        ("alg", json!("ES256")),
        ("alg", json!("PS512")),
        ("alg", json!("EdDSA ")),
    ] {
        let mut header = json!({"alg": "EdDSA", "typ": "JWT", "kid": ours.kid()});
        header[name] = value;
        refused(&client, &secrets::met(stranger.sign_under(&header, &claims))).await;
    }
    let fetched = tokio::time::timeout(Duration::from_millis(200), trap.accept()).await;
    assert!(fetched.is_err(), "the token's address was asked: {fetched:?}");
}

#[tokio::test]
async fn a_flood_of_unknown_keys_costs_the_user_service_a_bounded_number_of_fetches() {
    // Nobody else sends a token of an unknown key meanwhile.
    let _stack = alone().await;
    let stack = Stack::load();
    let (client, stranger) = (Client::gateway(&stack), Minter::stranger(&stack));
    let claims = stranger.claims(user_ids(1)[0]);
    let fetches = || counted(&stack, "gateway", "firstcome_gateway_key_set_fetches_total", "outcome=");
    let before = fetches().await;
    assert!(before > 0, "the key that is known has been asked for");
    let begun = unix_ms();
    for number in 0..400 {
        let token = secrets::met(stranger.sign_as(&format!("unknown-{number}"), &claims));
        let answer = client.get(PATH, Some(&token)).await;
        assert!(matches!(answer.status, 401 | 503), "{}", answer.text);
    }
    let took = Duration::from_millis(unix_ms() - begun);
    let fetched = fetches().await - before;
    // One at the beginning, one for each interval, and one that was due without any need.
    let most = 2 + took.as_secs() / JWKS_INTERVAL.as_secs();
    assert!(fetched <= most, "{fetched} fetches within {took:?}");
    // The known key never waits for it.
    let good = secrets::met(Minter::of(&stack).token(user_ids(1)[0]));
    client.get(PATH, Some(&good)).await.expect(200);
}

#[tokio::test]
async fn a_token_of_a_mebibyte_is_refused_unread() {
    let _stack = shared().await;
    let stack = Stack::load();
    let token = secrets::met(Minter::of(&stack).token(user_ids(1)[0]));
    let padding = "A".repeat(1 << 20);
    for forged in [padding.clone(), format!("{token}{padding}"), format!("{padding}.{padding}.{padding}")] {
        let head = format!("GET {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {forged}\r\n\r\n");
        let answers = Raw::connect(&stack.gateway).await.until_closed(head.as_bytes()).await;
        assert!(answers.iter().all(|answer| answer.status == 431), "{answers:?}");
    }
    // As long as a head may be: looked at, and no token.
    let client = Client::gateway(&stack);
    for length in [8_000, 60_000] {
        let request = client.request(Method::GET, PATH).bearer_auth("A".repeat(length));
        client.send(request).await.problem(401, "UNAUTHENTICATED");
    }
    client.get(PATH, Some(&token)).await.expect(200);
}
