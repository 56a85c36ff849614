use serde_json::{Value, json};

use super::*;

/// Name, private and public half.
pub(crate) type TestKey = (&'static str, &'static str, &'static str);

/// The key pair of RFC 8037, appendix A.
pub(crate) const RFC_8037_KEY: TestKey = (
    "21fe31dfa154a261",
    "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
    "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
);
pub(crate) const OTHER_KEY: TestKey = (
    "440e7c20f191aaff",
    "845olAUfO9m5aLpjAfBHhugaY2H_YD0SOSAs9i5NHzg",
    "Sszo2rD3vKccINm1hWKcSj8kxHUyUHgtXKhlR8_HqbI",
);

fn jwk((kid, d, x): TestKey, status: &str) -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x, "d": d, "status": status, "since": "2026-11-21T10:00:00Z"})
}

/// The content of a key store.
pub(crate) fn store_of(keys: &[(TestKey, &str)]) -> String {
    let keys: Vec<_> = keys.iter().map(|(key, status)| jwk(*key, status)).collect();
    json!({"keys": keys}).to_string()
}

pub(crate) fn set_of(keys: &[(TestKey, &str)]) -> KeySet {
    KeySet::parse(store_of(keys).as_bytes()).unwrap()
}

#[test]
fn the_published_key_is_that_of_the_rfc() {
    let set = set_of(&[(RFC_8037_KEY, "signing")]);
    let [key] = set.published().keys.as_slice() else { panic!("one key") };
    assert_eq!(key.x, "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
    assert_eq!((key.kid.as_str(), set.signing.kid.as_str()), ("21fe31dfa154a261", "21fe31dfa154a261"));
    assert_eq!(set.since_ms, 1_795_255_200_000);
}

/// Guard: a key that is published only when it signs makes every verifier refuse its first tokens; one that is not
/// published any more, its last ones.
#[test]
fn the_next_and_the_previous_are_published_and_do_not_sign() {
    for status in ["next", "previous"] {
        let set = set_of(&[(OTHER_KEY, status), (RFC_8037_KEY, "signing")]);
        assert_eq!(set.signing.kid, RFC_8037_KEY.0);
        let kids: Vec<_> = set.published().keys.iter().map(|key| key.kid.as_str()).collect();
        assert_eq!(kids, [RFC_8037_KEY.0, OTHER_KEY.0]);
    }
}

#[test]
fn nothing_private_is_published() {
    let set = set_of(&[(RFC_8037_KEY, "signing"), (OTHER_KEY, "next")]);
    let text = format!("{} {set:?}", serde_json::to_string(set.published()).unwrap());
    for secret in [RFC_8037_KEY.1, OTHER_KEY.1, "\"d\""] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[test]
fn what_is_no_key_store_is_refused_without_showing_it() {
    let changed = |name: &str, value: Value| {
        let mut key = jwk(RFC_8037_KEY, "signing");
        key[name] = value;
        json!({"keys": [key]}).to_string()
    };
    let both = |one, other| store_of(&[(RFC_8037_KEY, one), (OTHER_KEY, other)]);
    for (content, said) in [
        (String::new(), "line 1"),
        ("{\"keys\": [{\"d\": \"hunter2\"".to_owned(), "line 1"),
        (changed("status", json!("hunter2")), "line 1"),
        (changed("d", json!(["hunter2"])), "line 1"),
        (json!({"keys": []}).to_string(), "0 keys of status signing"),
        (both("signing", "signing"), "2 keys of status signing"),
        (both("next", "previous"), "0 keys of status signing"),
        (store_of(&[(RFC_8037_KEY, "signing"), (RFC_8037_KEY, "next")]), "is there twice"),
        (changed("d", json!("hunter2")), "32 bytes"),
        (changed("d", json!(OTHER_KEY.1)), "not the public key"),
        (changed("x", json!(OTHER_KEY.2)), "not the public key"),
        (changed("kty", json!("RSA")), "kty OKP"),
        (changed("crv", json!("X25519")), "kty OKP"),
        (changed("since", json!("yesterday")), "its since"),
        (changed("kid", json!("")), "its kid"),
        (changed("kid", json!("ü")), "its kid"),
    ] {
        let error = KeySet::parse(content.as_bytes()).unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains(said), "{content}: {text}");
        assert!(!text.contains("hunter2") && !text.contains(RFC_8037_KEY.1), "{text}");
    }
    assert!(
        KeySet::open("/nowhere/at/all").unwrap_err().to_string().contains("/nowhere/at/all can't be read")
    );
}

#[test]
fn members_of_others_are_left_alone() {
    let mut key = jwk(RFC_8037_KEY, "signing");
    key["use"] = json!("sig");
    key["note"] = json!({"by": "kim"});
    assert!(KeySet::parse(json!({"keys": [key], "version": 7}).to_string().as_bytes()).is_ok());
}
