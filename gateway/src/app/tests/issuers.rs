//! Tokens of other issuers: their algorithms, what they are for and how long they live.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::Request;
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::harness::{Setting, Signer, claims};

async fn setting(signer: Signer, algorithms: &[&str]) -> Setting {
    let mut setting = Setting::new().await;
    setting.signer = signer;
    setting.serve_keys().await;
    setting.configure(&json!({"jwt": {"algorithms": algorithms}}));
    setting
}

#[tokio::test]
async fn rsa_and_p256_tokens_hold_where_the_settings_name_their_algorithm() {
    for (signer, algorithm) in [
        (Signer::rsa("k", Algorithm::RS256), "RS256"),
        (Signer::rsa("k", Algorithm::RS512), "RS512"),
        (Signer::rsa("k", Algorithm::PS256), "PS256"),
        (Signer::p256("k"), "ES256"),
    ] {
        let mut setting = setting(signer, &[algorithm, "EdDSA"]).await;
        let token = setting.token();
        assert_eq!(setting.claim(&token).await.status, 200, "{algorithm}");
        let mut changed = token.into_bytes();
        let last = changed.len() - 10;
        changed[last] = if changed[last] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert_eq!(setting.claim(&changed).await.status, 401, "{algorithm}, its signature changed");
    }
}

#[tokio::test]
async fn no_token_chooses_its_algorithm() {
    let mut setting = setting(Signer::rsa("k", Algorithm::RS256), &["RS256"]).await;
    assert_eq!(setting.claim(&setting.token()).await.status, 200);
    // The public key, in every form in which one might have it, as the secret of an HMAC.
    let public = setting.signer.public.clone();
    let jwk = setting.signer.jwk();
    let pem = |label: &str| {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(&public)).into_bytes()
    };
    let forms = [
        public.clone(),
        pem("RSA PUBLIC KEY"),
        pem("PUBLIC KEY"),
        jwk["n"].as_str().unwrap().as_bytes().to_vec(),
        jwk.to_string().into_bytes(),
    ];
    for secret in forms {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!(
            "{}.{}",
            encode(&json!({"alg": "HS256", "kid": "k", "typ": "at+jwt"})),
            encode(&claims(7))
        );
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), signed.as_bytes());
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag));
        assert_eq!(setting.claim(&token).await.status, 401);
    }
    // The right key, with an algorithm of its own that is not accepted.
    for other in [Algorithm::RS384, Algorithm::PS256] {
        setting.signer = setting.signer.with(other);
        assert_eq!(setting.claim(&setting.token()).await.status, 401, "{other:?}");
    }
    // A key of another kind under the id of this one.
    assert_eq!(setting.claim(&Signer::p256("k").sign(&claims(7))).await.status, 401);
}

#[tokio::test]
async fn a_key_of_the_set_verifies_no_algorithm_of_another_key() {
    let mut setting = setting(Signer::rsa("k", Algorithm::RS256), &["RS256", "ES256", "EdDSA"]).await;
    assert_eq!(setting.claim(&setting.token()).await.status, 200);
    for stranger in [Signer::p256("k"), Signer::new("k"), Signer::rsa("k", Algorithm::RS256)] {
        assert_eq!(setting.claim(&stranger.sign(&claims(7))).await.status, 401);
    }
}

#[tokio::test]
async fn a_token_says_what_it_is_for() {
    let accepted = [Some("at+jwt"), Some("AT+JWT"), Some("application/at+jwt"), Some("Application/At+Jwt")];
    let of_before = [Some("JWT"), Some("jwt"), None];
    for demanded in [false, true] {
        let mut setting = Setting::new().await;
        setting.configure(&json!({"jwt": {"require-at-jwt": demanded}}));
        let refused = [Some("id+jwt"), Some("logout+jwt"), Some("rt+jwt"), Some("dpop+jwt"), Some("")];
        for (typs, status) in
            [(&accepted[..], 200), (&of_before[..], if demanded { 401 } else { 200 }), (&refused[..], 401)]
        {
            for typ in typs {
                let token = setting.signer.sign_as(*typ, &claims(7));
                assert_eq!(setting.claim(&token).await.status, status, "{typ:?}, demanded: {demanded}");
            }
        }
    }
}

#[tokio::test]
async fn a_token_lives_in_its_time_and_not_for_ever() {
    const DAY: u64 = 86_400;
    let fraction = |seconds: u64| serde_json::from_str::<Value>(&format!("{seconds}.5")).unwrap();
    let mut setting = Setting::new().await;
    let now = setting.clock.now_ms() / 1000;
    for (what, iat, exp, status) in [
        ("a day", Some(json!(now)), json!(now + DAY), 200),
        ("a day that began before", Some(json!(now - 1_000)), json!(now - 1_000 + DAY), 200),
        ("for ever", Some(json!(now)), json!(u64::MAX), 401),
        ("a year", Some(json!(now)), json!(now + 365 * DAY), 401),
        ("a year that is nearly over", Some(json!(now - 364 * DAY)), json!(now + DAY), 401),
        ("without a beginning", None, json!(now + DAY), 200),
        ("a year without a beginning", None, json!(now + 365 * DAY), 401),
        ("from tomorrow on", Some(json!(now + DAY)), json!(now + DAY + 900), 401),
        ("made by a clock that is ahead", Some(json!(now + 4)), json!(now + 900), 200),
        ("with fractions", Some(fraction(now - 1)), fraction(now + 900), 200),
        ("before 1970", Some(json!(now)), json!(-1), 401),
    ] {
        let mut claims = claims(7);
        claims["exp"] = exp;
        match iat {
            Some(iat) => claims["iat"] = iat,
            None => drop(claims.as_object_mut().unwrap().remove("iat")),
        }
        let token = setting.signer.sign(&claims);
        assert_eq!(setting.claim(&token).await.status, status, "{what}");
    }
    let mut listed = claims(7);
    listed["iss"] = json!(["firstcome", "elsewhere"]);
    let token = setting.signer.sign(&listed);
    assert_eq!(setting.claim(&token).await.status, 401, "an issuer is one text");
}

#[tokio::test]
async fn scopes_are_a_text_or_a_list_under_either_name() {
    let mut setting = Setting::new().await;
    setting.settings["routes"] = json!([{"id": "o", "uri": "lb://coupon-service", "predicates": ["Path=/o"],
                                         "scopes": ["read", "write"]}]);
    setting.settings["route-enabled"] = json!({});
    for (named, status) in [
        (json!({"scope": "write read x"}), 200),
        (json!({"scp": ["read", "write"]}), 200),
        (json!({"scp": "read write"}), 200),
        (json!({"scope": ["read", "write"]}), 200),
        (json!({"scope": "read", "scp": "write"}), 403),
        (json!({"scope": "read,write"}), 403),
        (json!({"scope": {"read": 1}, "roles": "ADMIN"}), 403),
        (json!({}), 403),
    ] {
        let mut claims = claims(7);
        for (key, value) in named.as_object().unwrap() {
            claims[key] = value.clone();
        }
        let token = setting.signer.sign(&claims);
        let request = Request::get("/o").header("authorization", format!("Bearer {token}"));
        let answer = setting.send(request.body(axum::body::Body::empty()).unwrap()).await;
        assert_eq!(answer.status, status, "{named}");
    }
}
