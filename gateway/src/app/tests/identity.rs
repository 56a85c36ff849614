//! Who is believed to be whom.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use axum::body::{Body, Bytes};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::{StreamExt as _, stream};
use http::Request;
use platform::identity::{HEADER, IdentityVerifier};
use serde_json::{Value, json};

use super::harness::{Answer, Setting, Signer, claims};
use crate::config::Authentication;

const UNAUTHENTICATED: (u16, &str) = (401, "UNAUTHENTICATED");

fn assert_refused(answer: &Answer, expected: (u16, &str), what: &str) {
    let (status, code) = answer.problem();
    assert_eq!((status, code.as_str()), expected, "{what}");
    assert!(answer.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer")), "{what}");
}

fn identity_seen(setting: &Setting, answer: &Answer) -> platform::identity::Identity {
    let settings = serde_json::from_value(setting.settings["identity"].clone()).unwrap();
    let value = answer.json()["headers"][HEADER.as_str()][0].as_str().unwrap().to_owned();
    let mut headers = http::HeaderMap::new();
    headers.insert(HEADER, value.parse().unwrap());
    IdentityVerifier::new(&settings).with_clock(setting.clock.clone()).verify(&headers).unwrap()
}

#[tokio::test]
async fn a_valid_token_becomes_a_signed_identity_and_goes_no_further() {
    let mut setting = Setting::new().await;
    let answer = setting.claim(&setting.token()).await;
    assert_eq!(answer.status, 200);
    let identity = identity_seen(&setting, &answer);
    assert_eq!((identity.user, identity.roles), (7, vec!["USER".to_owned()]));
    assert_eq!(identity.session.as_deref(), Some("s"), "the login, so that it can be ended");
    assert!(answer.json()["headers"].get("authorization").is_none());
}

/// A method and path for each that the shipped routes name, but HEAD, which has no body to show what arrived.
fn shipped(settings: &Value) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for route in settings["routes"].as_array().unwrap() {
        if !route["uri"].as_str().unwrap().starts_with("lb://") {
            continue;
        }
        let predicates = route["predicates"].as_array().unwrap();
        let arguments = |name: &str| {
            let found = predicates.iter().find_map(|it| it.as_str().unwrap().strip_prefix(name));
            found.unwrap_or_else(|| panic!("{route} has no {name}")).split(',').map(str::to_owned)
        };
        for path in arguments("Path=") {
            let concrete = path.split('/').map(|part| if part.starts_with('{') { "1" } else { part });
            let concrete = concrete.collect::<Vec<_>>().join("/");
            let methods = arguments("Method=").filter(|method| method != "HEAD");
            all.extend(methods.map(|method| (method, concrete.clone())));
        }
    }
    all
}

#[tokio::test]
async fn what_a_client_says_about_itself_reaches_no_service_on_any_route() {
    const DROPPED: [(&str, &str); 16] = [
        ("x-user-id", "1"),
        ("x-user-role", "ADMIN"),
        ("X_User_Role", "ADMIN"),
        ("x-internal-caller", "issue-service"),
        ("x-firstcome-identity", "forged"),
        ("x-firstcome-other", "1"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-host", "elsewhere"),
        ("x-forwarded-port", "1"),
        ("x-forwarded-prefix", "/x"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-user", "root"),
        ("x-real-ip", "10.0.0.1"),
        ("forwarded", "for=10.0.0.1"),
        ("connection", "x-firstcome-identity, x-hop"),
        ("x-hop", "1"),
    ];
    let mut setting = Setting::new().await;
    let mut admin = claims(7);
    admin["roles"] = json!(["USER", "ADMIN"]); // some routes are for nobody else
    let token = setting.signer.sign(&admin);
    let routes = shipped(&setting.settings);
    assert!(routes.len() >= 12, "{routes:?}");
    for (method, path) in routes {
        let mut request = Request::builder()
            .method(method.as_str())
            .uri(&path)
            .header("authorization", format!("Bearer {token}"))
            .header("x-request-id", "kept");
        for (name, value) in DROPPED {
            request = request.header(name, value);
        }
        let answer = setting.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, 200, "{method} {path}");
        let seen = answer.json()["headers"].clone();
        assert_eq!(seen["x-request-id"], json!(["kept"]), "{method} {path}");
        assert_eq!(seen.get("authorization"), None, "{method} {path}");
        for (name, _) in DROPPED.iter().filter(|(name, _)| *name != HEADER.as_str()) {
            assert_eq!(seen.get(name.to_ascii_lowercase()), None, "{method} {path}: {name}");
        }
        // The gateway's own takes its place.
        let identities = seen.get(HEADER.as_str()).and_then(Value::as_array).cloned().unwrap_or_default();
        assert!(!identities.contains(&json!("forged")), "{method} {path}");
        assert!(identities.len() <= 1, "{method} {path}");
        assert_eq!(answer.header("x-internal-node"), None, "a service's own headers stay inside");
        assert_eq!(answer.header("x-shown"), Some("yes"));
    }
}

#[tokio::test]
async fn tokens_that_do_not_hold_are_refused() {
    let mut setting = Setting::new().await;
    let good = claims(7);
    let with = |key: &str, value: Value| {
        let mut claims = good.clone();
        claims[key] = value;
        claims
    };
    let without = |key: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(key);
        claims
    };
    let seconds = setting.clock.now_ms() / 1000;
    let header = |header: Value| URL_SAFE_NO_PAD.encode(header.to_string());
    let payload = URL_SAFE_NO_PAD.encode(good.to_string());
    let signer = &setting.signer;

    let none = format!("{}.{payload}.", header(json!({"alg": "none", "typ": "JWT"})));
    let none_with_kid = format!("{}.{payload}.", header(json!({"alg": "none", "kid": "key-1"})));
    // The classic confusion: the public key, which everybody has, as the secret of an HMAC.
    let hmac_of = |key: &[u8], head: Value| {
        let signed = format!("{}.{payload}", header(head));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
    };
    let by_public_key = hmac_of(&signer.public, json!({"alg": "HS256", "kid": "key-1"}));
    let by_public_key_text =
        hmac_of(URL_SAFE_NO_PAD.encode(&signer.public).as_bytes(), json!({"alg": "HS256", "typ": "JWT"}));
    let by_identity_secret =
        hmac_of(b"0123456789abcdef0123456789abcdef", json!({"alg": "HS256", "typ": "JWT"}));
    let other_key_same_id = Signer::new("key-1").sign(&good);
    let unknown_key = Signer::new("key-2").sign(&good);
    let valid = signer.sign(&good);
    let (head, signature) = (valid.split('.').next().unwrap(), valid.rsplit('.').next().unwrap());
    let admin = URL_SAFE_NO_PAD.encode(with("roles", json!(["ADMIN"])).to_string());
    let changed = format!("{head}.{admin}.{signature}");

    for (what, token) in [
        ("alg none", none),
        ("alg none with a known key", none_with_kid),
        ("HS256 by the public key", by_public_key),
        ("HS256 by the public key's text", by_public_key_text),
        ("HS256 by the internal secret", by_identity_secret),
        ("another key under the same id", other_key_same_id),
        ("an unknown key", unknown_key),
        ("claims changed after signing", changed),
        ("no exp", signer.sign(&without("exp"))),
        ("no sub", signer.sign(&without("sub"))),
        ("no iss", signer.sign(&without("iss"))),
        ("no aud", signer.sign(&without("aud"))),
        ("another iss", signer.sign(&with("iss", json!("elsewhere")))),
        ("another aud", signer.sign(&with("aud", json!("firstcome-internal")))),
        ("sub that is no id", signer.sign(&with("sub", json!("root")))),
        ("exp that is text", signer.sign(&with("exp", json!("9999999999")))),
        ("not valid yet", signer.sign(&with("nbf", json!(seconds + 60)))),
        ("rubbish", "rubbish".to_owned()),
        ("dots", "..".to_owned()),
    ] {
        assert_refused(&setting.claim(&token).await, UNAUTHENTICATED, what);
    }
    let expired = setting.signer.sign(&with("exp", json!(seconds - 6)));
    let answer = setting.claim(&expired).await;
    assert_refused(&answer, (401, "TOKEN_EXPIRED"), "expired");
    let challenge = r#"Bearer error="invalid_token", error_description="The token has expired""#;
    assert_eq!(answer.header("www-authenticate"), Some(challenge));
    let answer = setting.claim("rubbish").await;
    assert_eq!(answer.header("www-authenticate"), Some(r#"Bearer error="invalid_token""#));
    let just_expired = setting.signer.sign(&with("exp", json!(seconds - 3)));
    assert_eq!(setting.claim(&just_expired).await.status, 200, "within the leeway");
    assert_eq!(setting.claim(&valid).await.status, 200);
}

#[tokio::test]
async fn a_missing_token_is_challenged_and_public_routes_need_none() {
    let mut setting = Setting::new().await;
    let answer = setting.get("/users/me").await;
    assert_refused(&answer, UNAUTHENTICATED, "none");
    assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "no error attribute without a token");
    for scheme in ["Basic dXNlcjpwdw==", "Bearer", "Bearer "] {
        let request = Request::get("/users/me").header("authorization", scheme).body(Body::empty()).unwrap();
        assert_refused(&setting.send(request).await, UNAUTHENTICATED, scheme);
    }
    let twice = Request::get("/users/me")
        .header("authorization", format!("Bearer {}", setting.token()))
        .header("authorization", "Bearer x")
        .body(Body::empty())
        .unwrap();
    assert_refused(&setting.send(twice).await, UNAUTHENTICATED, "two tokens");

    let public = setting.get("/coupons/1").await;
    assert_eq!(public.status, 200);
    assert!(public.json()["headers"].get("x-firstcome-identity").is_none());
    let with_rubbish =
        Request::get("/coupons/1").header("authorization", "Bearer x").body(Body::empty()).unwrap();
    assert_eq!(setting.send(with_rubbish).await.status, 200, "a public route looks at no token");
}

#[tokio::test]
async fn an_optional_token_has_to_hold_if_it_is_there() {
    let mut setting = Setting::new().await;
    let route = json!({"id": "o", "uri": "lb://coupon-service", "predicates": ["Path=/o"], "authentication": "optional"});
    setting.configure(&json!({"routes": [route], "route-enabled": Value::Null}));
    setting.settings["route-enabled"] = json!({});
    assert!(setting.get("/o").await.json()["headers"].get("x-firstcome-identity").is_none());
    let ask = |authorization: String| {
        Request::get("/o").header("authorization", authorization).body(Body::empty()).unwrap()
    };
    let token = setting.token();
    let known = setting.send(ask(format!("bearer {token}"))).await;
    assert_eq!(identity_seen(&setting, &known).user, 7);
    for wrong in ["Bearer x", "Basic eA=="] {
        assert_refused(&setting.send(ask(wrong.to_owned())).await, UNAUTHENTICATED, wrong);
    }
}

#[tokio::test]
async fn a_remembered_token_ends_with_its_time_and_its_identity_is_renewed_before_that() {
    let mut setting = Setting::new().await;
    let token = setting.token();
    let value = async |setting: &mut Setting, token: &str| {
        setting.claim(token).await.json()["headers"]["x-firstcome-identity"][0].as_str().map(str::to_owned)
    };
    let first = value(&mut setting, &token).await.unwrap();
    assert_eq!(value(&mut setting, &token).await.as_ref(), Some(&first), "minted once");
    setting.clock.advance(Duration::from_secs(31));
    let answer = setting.claim(&token).await;
    assert_eq!(identity_seen(&setting, &answer).user, 7);
    let second = value(&mut setting, &token).await.unwrap();
    assert_ne!(second, first, "minted anew while the first is still good");
    setting.clock.advance(Duration::from_secs(900));
    assert_refused(&setting.claim(&token).await, (401, "TOKEN_EXPIRED"), "from the cache");
}

#[tokio::test]
async fn a_login_that_ended_takes_its_tokens_along_remembered_or_not() {
    let mut setting = Setting::new().await;
    let of_session = |setting: &Setting, session: &str| {
        let mut claims = claims(7);
        claims["sid"] = json!(session);
        setting.signer.sign(&claims)
    };
    let (ended, other) = (of_session(&setting, "ended"), of_session(&setting, "other"));
    assert_eq!(setting.claim(&ended).await.status, 200);
    setting.end_login("ended");
    assert_refused(&setting.claim(&ended).await, UNAUTHENTICATED, "of a login that ended");
    assert_eq!(setting.claim(&other).await.status, 200);
}

#[tokio::test]
async fn no_token_makes_its_holder_a_service() {
    let mut setting = Setting::new().await;
    let mut claims = claims(7);
    claims["roles"] = json!(["USER", "SERVICE", "ADMIN"]);
    let token = setting.signer.sign(&claims);
    let answer = setting.claim(&token).await;
    assert_eq!(identity_seen(&setting, &answer).roles, ["USER", "ADMIN"]);
}

#[tokio::test]
async fn unknown_keys_make_the_user_service_be_asked_once_however_many_they_are() {
    let mut setting = Setting::new().await;
    let asked = setting.serve_keys().await;
    assert_eq!(setting.claim(&setting.token()).await.status, 200);
    assert_eq!(asked.load(SeqCst), 1);
    for n in 0..50 {
        let token = Signer::new(&format!("unknown-{n}")).sign(&claims(7));
        assert_refused(&setting.claim(&token).await, UNAUTHENTICATED, "unknown key");
    }
    assert_eq!(asked.load(SeqCst), 1, "within jwks-min-interval of the first question");
}

#[tokio::test]
async fn few_wait_for_a_key_set_that_hangs_and_known_keys_are_not_affected() {
    let mut setting = Setting::new().await;
    setting.configure(&json!({"jwt": {"jwks-min-interval": "20ms"}, "limits": {"in-flight": 32}}));
    assert_eq!(setting.claim(&setting.token()).await.status, 200);
    let silent = axum::Router::new().fallback(async || std::future::pending::<()>().await);
    let address = setting.serve(silent).await;
    setting.publish("user-service", &[("silent", address)]);
    tokio::time::sleep(Duration::from_millis(50)).await;

    let app = setting.app();
    let begun = Instant::now();
    let unknown = (0..20).map(|n| {
        let token = Signer::new(&format!("unknown-{n}")).sign(&claims(7));
        let request = Request::get("/coupon-issues/me").header("authorization", format!("Bearer {token}"));
        let answer = tower::ServiceExt::oneshot(app.clone(), request.body(Body::empty()).unwrap());
        async move { (Answer::read(answer.await.unwrap()).await, begun.elapsed()) }
    });
    let known = async {
        let token = setting.signer.sign(&claims(8));
        (setting.claim(&token).await.status, begun.elapsed())
    };
    let (unknown, known) = tokio::join!(futures_util::future::join_all(unknown), known);
    for (answer, _) in &unknown {
        assert_eq!(answer.problem(), (503, "UPSTREAM_UNAVAILABLE".to_owned()));
        assert!(answer.header("retry-after").is_some());
    }
    let waited: Vec<Duration> =
        unknown.iter().map(|(_, took)| *took).filter(|took| *took > Duration::from_millis(700)).collect();
    assert_eq!(waited.len(), 2, "one in sixteen of the places: {waited:?}");
    assert!(waited.iter().all(|took| *took < Duration::from_millis(1_800)), "{waited:?}");
    assert!(known.0 == 200 && known.1 < Duration::from_millis(700), "{known:?}");
}

#[tokio::test]
async fn a_key_set_that_never_ends_is_given_up() {
    let mut setting = Setting::empty();
    let endless = axum::Router::new().fallback(async || {
        let first = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"{"))]);
        Body::from_stream(first.chain(stream::pending()))
    });
    let address = setting.serve(endless).await;
    setting.publish("user-service", &[("endless", address)]);
    let issues = setting.echo("issue-service").await;
    setting.publish("issue-service", &[("issues", issues)]);
    assert_eq!(setting.claim(&setting.token()).await.status, 503);
    setting.serve_keys().await;
    let begun = Instant::now();
    while setting.claim(&setting.token()).await.status != 200 {
        assert!(begun.elapsed() < Duration::from_secs(6), "still waits for the first answer");
    }
}

#[tokio::test]
async fn a_set_without_a_usable_key_replaces_nothing() {
    let mut setting = Setting::new().await;
    setting.configure(&json!({"jwt": {"jwks-min-interval": "20ms", "jwks-refresh": "20ms"}}));
    assert_eq!(setting.claim(&setting.token()).await.status, 200);
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let unusable = axum::Router::new().fallback(async move || {
        counter.fetch_add(1, SeqCst);
        axum::Json(json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "key-1", "x": "AAAA"}]}))
    });
    let address = setting.serve(unusable).await;
    setting.publish("user-service", &[("unusable", address)]);
    while asked.load(SeqCst) < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let other = setting.signer.sign(&claims(8));
    assert_eq!(setting.claim(&other).await.status, 200, "a token that was not seen before");
}

#[tokio::test]
async fn a_new_key_is_found_when_it_is_first_used() {
    let mut setting = Setting::new().await;
    setting.configure(&json!({"jwt": {"jwks-min-interval": "50ms"}}));
    assert_eq!(setting.claim(&setting.token()).await.status, 200);
    setting.signer = Signer::new("key-2");
    setting.serve_keys().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(setting.claim(&setting.token()).await.status, 200);
}

#[tokio::test]
async fn a_key_that_is_replaced_under_its_own_id_takes_its_tokens_along() {
    let mut setting = Setting::new().await;
    setting.configure(&json!({"jwt": {"jwks-min-interval": "20ms", "jwks-refresh": "20ms"}}));
    let of_before = setting.token();
    assert_eq!(setting.claim(&of_before).await.status, 200);
    setting.signer = Signer::new("key-1");
    setting.serve_keys().await;
    let of_now = setting.token();
    let begun = Instant::now();
    while setting.claim(&of_now).await.status != 200 {
        assert!(begun.elapsed() < Duration::from_secs(5), "the new key is not known yet");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_refused(&setting.claim(&of_before).await, UNAUTHENTICATED, "of the key that was replaced");
}

#[tokio::test]
async fn a_token_stays_remembered_while_its_key_is_fetched_again() {
    let mut setting = Setting::new().await;
    setting.configure(&json!({"jwt": {"jwks-min-interval": "20ms", "jwks-refresh": "20ms"}}));
    let asked = setting.serve_keys().await;
    let (gateway, _server) = setting.open();
    let mut headers = http::HeaderMap::new();
    headers.insert("authorization", format!("Bearer {}", setting.token()).parse().unwrap());
    let verify =
        async || gateway.auth.authenticate(Authentication::Required, &headers).await.unwrap().unwrap();
    let first = verify().await;
    let before = asked.load(SeqCst);
    while asked.load(SeqCst) < before + 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(Arc::ptr_eq(&first, &verify().await), "verified once");
}

#[tokio::test]
async fn the_last_good_keys_outlive_the_user_service() {
    let mut setting = Setting::new().await;
    setting.configure(&json!({"jwt": {"jwks-min-interval": "20ms", "jwks-refresh": "20ms"}}));
    let (one, other) = (setting.token(), setting.signer.sign(&claims(8)));
    assert_eq!(setting.claim(&one).await.status, 200);
    setting.publish("user-service", &[]);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(setting.claim(&other).await.status, 200, "a token that was not seen before");
}

#[tokio::test]
async fn without_any_key_nothing_is_said_about_a_token() {
    let mut setting = Setting::empty();
    let answer = setting.claim(&setting.token()).await;
    assert_eq!(answer.problem(), (503, "UPSTREAM_UNAVAILABLE".to_owned()));
    assert!(answer.header("retry-after").is_some());
}

#[tokio::test]
async fn a_shared_secret_is_accepted_where_it_is_configured_and_then_alone() {
    let mut setting = Setting::new().await;
    let secret = "a-shared-secret-of-32-bytes-or-more";
    setting.configure(&json!({"jwt": {"algorithms": ["HS256"], "hs256-secret": secret}}));
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
    let token = jsonwebtoken::encode(&header, &claims(9), &key).unwrap();
    let answer = setting.claim(&token).await;
    assert_eq!(identity_seen(&setting, &answer).user, 9);
    assert_refused(&setting.claim(&setting.token()).await, UNAUTHENTICATED, "EdDSA is not configured");
}

#[tokio::test]
async fn an_upgrade_needs_a_token_as_anything_else() {
    let mut setting = Setting::new().await;
    let upgrade = |path: &str| {
        let request = Request::get(path).header("connection", "Upgrade").header("upgrade", "websocket");
        request.body(Body::empty()).unwrap()
    };
    assert_eq!(setting.send(upgrade("/users/me")).await.problem(), (401, "UNAUTHENTICATED".to_owned()));
    assert_eq!(setting.send(upgrade("/internal/x")).await.problem().0, 404);
}
