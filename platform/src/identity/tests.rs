use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;
use crate::config::Secret;

fn settings(secret: &str) -> IdentitySettings {
    IdentitySettings { secret: Secret::new(secret) }
}

fn headers(value: HeaderValue) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(HEADER, value);
    headers
}

fn user() -> Identity {
    Identity { user: 42, roles: vec!["USER".to_owned()], session: None }
}

const SECRET: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn what_was_signed_is_believed_for_a_minute() {
    let clock = Clock::manual(1_800_000_000_000);
    let signer = IdentitySigner::new(&settings(SECRET)).with_clock(clock.clone());
    let verifier = IdentityVerifier::new(&settings(SECRET)).with_clock(clock.clone());
    let headers = headers(signer.sign(&user()));
    assert_eq!(verifier.verify(&headers).unwrap(), user());
    clock.advance(Duration::from_secs(64));
    assert!(verifier.verify(&headers).is_ok(), "clocks may be 5 s apart");
    clock.advance(Duration::from_secs(1));
    assert_eq!(verifier.verify(&headers).unwrap_err().code(), "UNAUTHENTICATED");
}

#[test]
fn the_session_travels_along() {
    let signer = IdentitySigner::new(&settings(SECRET));
    let verifier = IdentityVerifier::new(&settings(SECRET));
    let with_session = Identity { session: Some("6f1d4b2c".to_owned()), ..user() };
    assert_eq!(verifier.verify(&headers(signer.sign(&with_session))).unwrap(), with_session);
    assert_eq!(verifier.verify(&headers(signer.sign(&user()))).unwrap().session, None);
}

#[tokio::test]
async fn who_may_be_nobody_must_not_be_forged() {
    let verifier = IdentityVerifier::new(&settings(SECRET));
    let caller = async |headers: HeaderMap| {
        let mut request = http::Request::new(());
        *request.headers_mut() = headers;
        let (mut parts, ()) = request.into_parts();
        <Caller as OptionalFromRequestParts<IdentityVerifier>>::from_request_parts(&mut parts, &verifier)
            .await
    };
    assert_eq!(caller(HeaderMap::new()).await.unwrap(), None);
    let signer = IdentitySigner::new(&settings(SECRET));
    assert_eq!(caller(headers(signer.sign(&user()))).await.unwrap(), Some(Caller(user())));
    assert!(caller(headers(HeaderValue::from_static("forged"))).await.is_err());
}

#[test]
fn nothing_else_is_believed() {
    let signer = IdentitySigner::new(&settings(SECRET));
    let verifier = IdentityVerifier::new(&settings(SECRET));
    let good = signer.sign(&user());
    let good = good.to_str().unwrap();
    assert!(verifier.verify(&HeaderMap::new()).is_err());
    let (signed, mac) = good.rsplit_once('.').unwrap();
    let (header, payload) = signed.split_once('.').unwrap();
    let other = IdentitySigner::new(&settings("another secret of thirty-two bytes!")).sign(&user());
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    let admin = URL_SAFE_NO_PAD.encode(
        r#"{"aud":"firstcome-internal","sub":"1","roles":["ADMIN"],"iat":1800000000,"exp":9999999999}"#,
    );
    let forged = [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        other.to_str().unwrap().to_owned(),
        format!("{signed}."),
        signed.to_owned(),
        format!("{none}.{payload}."),
        format!("{none}.{payload}.{mac}"),
        format!("{header}.{admin}.{mac}"),
        format!("{good}A"),
        "x".repeat(5000),
    ];
    for token in forged {
        let value = HeaderValue::from_str(&token).unwrap();
        assert_eq!(verifier.verify(&headers(value)).unwrap_err().code(), "UNAUTHENTICATED", "{token}");
    }
    let mut twice = headers(HeaderValue::from_str(good).unwrap());
    twice.append(HEADER, HeaderValue::from_str(good).unwrap());
    assert!(verifier.verify(&twice).is_err());
}

#[test]
fn another_audience_or_algorithm_is_not_believed_even_when_signed_with_our_secret() {
    let verifier = IdentityVerifier::new(&settings(SECRET));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let sign = |header: &str, payload: &str| {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let mac = URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()).as_ref());
        headers(HeaderValue::from_str(&format!("{signed}.{mac}")).unwrap())
    };
    let claims = |aud: &str| format!(r#"{{"sub":"1","aud":"{aud}","roles":[],"iat":1,"exp":9999999999}}"#);
    // Any order of members is a JWT, so other libraries may mint one.
    assert!(verifier.verify(&sign(r#"{"typ":"JWT","alg":"HS256"}"#, &claims("firstcome-internal"))).is_ok());
    assert!(verifier.verify(&sign(r#"{"typ":"JWT","alg":"HS512"}"#, &claims("firstcome-internal"))).is_err());
    assert!(verifier.verify(&sign(r#"{"typ":"JWT","alg":"HS256"}"#, &claims("firstcome"))).is_err());
    assert!(
        verifier.verify(&sign(r#"{"alg":"HS256"}"#, r#"{"sub":"1","aud":"firstcome-internal"}"#)).is_err()
    );
}

#[test]
fn a_short_secret_signs_and_believes_nothing() {
    for secret in ["", "short"] {
        let token = IdentitySigner::new(&settings(secret)).sign(&user());
        assert!(IdentityVerifier::new(&settings(secret)).verify(&headers(token)).is_err());
    }
}

#[test]
fn the_secret_is_not_shown() {
    let shown = format!("{:?} {:?}", IdentitySigner::new(&settings(SECRET)), settings(SECRET));
    assert!(!shown.contains(SECRET), "{shown}");
}
