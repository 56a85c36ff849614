//! A key set as it is published, read.
//!
//! Invariant: a key verifies algorithms of its own kind alone, of these the accepted ones, and of these the one that it
//! names itself; keys that are too weak or made for something else are left out.

use std::collections::HashMap;
use std::sync::Arc;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use platform::lifecycle::BoxError;
use serde::Deserialize;
use serde_json::Value;

/// Issuers publish two or three; each costs some hundred bytes and a moment.
const MOST_KEYS: usize = 100;
/// RFC 8032, 5.1.5.
const ED25519_BYTES: usize = 32;
/// RFC 7518, 3.3 and 3.5; what is larger than the second costs more than it is worth, and nobody verifies with it.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;

const OF_RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// By their ids.
pub type Keys = HashMap<String, Arc<Key>>;

#[derive(Debug)]
pub struct Key {
    decoding: DecodingKey,
    algorithms: Vec<Algorithm>,
}

/// The same material for the same algorithms.
impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        let is_same = match (self.decoding.kind(), other.decoding.kind()) {
            (DecodingKeyKind::SecretOrDer(own), DecodingKeyKind::SecretOrDer(theirs)) => own == theirs,
            (
                DecodingKeyKind::RsaModulusExponent { n, e },
                DecodingKeyKind::RsaModulusExponent { n: their_n, e: their_e },
            ) => n == their_n && e == their_e,
            _ => false,
        };
        is_same && self.algorithms == other.algorithms
    }
}

impl Eq for Key {}

impl Key {
    /// The key, if it is one for this algorithm.
    pub fn of(&self, algorithm: Algorithm) -> Option<&DecodingKey> {
        self.algorithms.contains(&algorithm).then_some(&self.decoding)
    }
}

/// The keys that can be used; one that can't costs the others nothing (RFC 7517, 5). Of keys with the same id the first
/// that can be used counts.
pub fn parse(body: &[u8], accepted: &[Algorithm]) -> Result<Keys, BoxError> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let set: Set = serde_json::from_slice(body)?;
    if set.keys.len() > MOST_KEYS {
        return Err(format!("{} keys in the set; {MOST_KEYS} are the most", set.keys.len()).into());
    }
    let mut keys = Keys::new();
    for jwk in set.keys {
        let kid = jwk["kid"].as_str().unwrap_or_default().to_owned();
        match usable(jwk, accepted) {
            Ok(Some(_)) if keys.contains_key(&kid) => {
                tracing::warn!(kid, "a second key of this id in the set is left out");
            }
            Ok(Some(key)) => drop(keys.insert(kid, Arc::new(key))),
            Ok(None) => tracing::debug!(kid, "a key of the set is for something else"),
            Err(problem) => tracing::warn!(kid, %problem, "a key of the set is left out"),
        }
    }
    Ok(keys)
}

/// `None` for a key that is not there to verify tokens of ours.
fn usable(jwk: Value, accepted: &[Algorithm]) -> Result<Option<Key>, BoxError> {
    let jwk: Jwk = serde_json::from_value(jwk)?;
    let common = &jwk.common;
    let verifies = matches!(common.public_key_use, None | Some(PublicKeyUse::Signature))
        && common.key_operations.as_ref().is_none_or(|named| named.contains(&KeyOperations::Verify));
    let of_kind: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => OF_RSA,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => &[Algorithm::ES256],
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => &[Algorithm::ES384],
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => &[Algorithm::EdDSA],
        _ => &[],
    };
    let is_named =
        |algorithm: Algorithm| common.key_algorithm.is_none_or(|own| own == KeyAlgorithm::from(algorithm));
    let algorithms: Vec<Algorithm> =
        of_kind.iter().copied().filter(|it| accepted.contains(it) && is_named(*it)).collect();
    if !verifies || algorithms.is_empty() {
        return Ok(None);
    }
    if common.key_id.as_ref().is_none_or(String::is_empty) {
        return Err("has no id that a token could name".into());
    }
    let decoding = DecodingKey::from_jwk(&jwk)?;
    match (&jwk.algorithm, decoding.kind()) {
        (AlgorithmParameters::RSA(_), DecodingKeyKind::RsaModulusExponent { n, .. }) => {
            let bits = bits(n);
            if !RSA_BITS.contains(&bits) {
                return Err(format!("is an RSA key of {bits} bits; 2048 to 8192 are taken").into());
            }
        }
        (AlgorithmParameters::OctetKeyPair(_), DecodingKeyKind::SecretOrDer(key))
            if key.len() != ED25519_BYTES =>
        {
            return Err("has the wrong length".into());
        }
        // Whether a point is on its curve is checked with each signature.
        _ => {}
    }
    Ok(Some(Key { decoding, algorithms }))
}

/// Zeros in front count for nothing.
fn bits(number: &[u8]) -> usize {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let first = number.get(zeros).map_or(0, |byte| byte.leading_zeros() as usize);
    (number.len() - zeros) * 8 - first
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    use super::*;

    const ALL: [Algorithm; 4] = [Algorithm::EdDSA, Algorithm::ES256, Algorithm::RS256, Algorithm::RS512];

    fn parsed(keys: &Value, accepted: &[Algorithm]) -> Keys {
        parse(json!({"keys": keys}).to_string().as_bytes(), accepted).unwrap()
    }

    fn kids(keys: &Keys) -> Vec<&str> {
        let mut kids: Vec<&str> = keys.keys().map(String::as_str).collect();
        kids.sort_unstable();
        kids
    }

    fn with(jwk: &Value, key: &str, value: Value) -> Value {
        let mut jwk = jwk.clone();
        jwk[key] = value;
        jwk
    }

    fn ed25519(kid: &str) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})
    }

    /// Of no use for signing, but of this length.
    fn rsa(kid: &str, bytes: usize) -> Value {
        json!({"kty": "RSA", "kid": kid, "n": URL_SAFE_NO_PAD.encode(vec![0xff; bytes]), "e": "AQAB"})
    }

    #[test]
    fn a_key_that_cannot_be_used_costs_the_others_nothing() {
        let bad = |key: &str, value: Value| with(&ed25519("bad"), key, value);
        let keys = json!([
            ed25519("first"),
            bad("kty", json!("PQC")),
            bad("crv", json!("Ed999")),
            bad("x", json!("no base64!")),
            bad("x", json!("AAAA")),
            bad("x", Value::Null),
            bad("use", json!("enc")),
            bad("key_ops", json!(["sign"])),
            bad("alg", json!("RS256")),
            bad("alg", json!("HS256")),
            bad("kid", Value::Null),
            bad("kid", json!("")),
            bad("kid", json!(7)),
            json!({"kty": "oct", "kid": "bad", "k": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"}),
            json!("rubbish"),
            ed25519("last"),
        ]);
        assert_eq!(kids(&parsed(&keys, &ALL)), ["first", "last"]);
        assert!(parse(b"{}", &ALL).is_err());
    }

    #[test]
    fn a_key_verifies_what_its_kind_its_own_word_and_the_settings_allow() {
        let ec = json!({"kty": "EC", "crv": "P-256", "kid": "ec", "use": "sig", "key_ops": ["verify"],
                        "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"});
        let keys = json!([
            rsa("rsa", 256),
            with(&rsa("rs512", 256), "alg", json!("RS512")),
            with(&rsa("ps256", 256), "alg", json!("PS256")),
            with(&rsa("oaep", 256), "alg", json!("RSA-OAEP")),
            ec,
            with(&with(&ec, "crv", json!("P-384")), "kid", json!("p384")),
        ]);
        let keys = parsed(&keys, &ALL);
        assert_eq!(kids(&keys), ["ec", "rs512", "rsa"]);
        let of = |kid: &str| ALL.iter().filter(|it| keys[kid].of(**it).is_some()).collect::<Vec<_>>();
        assert_eq!(of("rsa"), [&Algorithm::RS256, &Algorithm::RS512]);
        assert_eq!(of("rs512"), [&Algorithm::RS512]);
        assert_eq!(of("ec"), [&Algorithm::ES256]);
        assert!(keys["rsa"].of(Algorithm::PS256).is_none() && keys["rsa"].of(Algorithm::HS256).is_none());
    }

    #[test]
    fn rsa_keys_that_are_too_short_or_too_long_are_left_out() {
        // 2040 bits, the same with zeros in front, and 8200.
        let padded =
            json!({"kty": "RSA", "kid": "padded", "n": "AAAA".to_owned() + &"_".repeat(340), "e": "AQAB"});
        let keys =
            json!([rsa("short", 128), padded, rsa("good", 256), rsa("large", 1_024), rsa("huge", 1_025)]);
        assert_eq!(kids(&parsed(&keys, &ALL)), ["good", "large"]);
        assert_eq!([bits(&[0, 0]), bits(&[0, 1]), bits(&[128, 0])], [0, 1, 16]);
    }

    #[test]
    fn of_two_keys_with_one_id_the_first_usable_counts() {
        let keys = json!([with(&ed25519("a"), "use", json!("enc")), rsa("a", 256), ed25519("a")]);
        let keys = parsed(&keys, &ALL);
        assert!(keys["a"].of(Algorithm::RS256).is_some() && keys["a"].of(Algorithm::EdDSA).is_none());
    }

    #[test]
    fn a_key_is_the_same_while_its_material_and_its_algorithms_are() {
        let key = |jwk: Value| parsed(&json!([jwk]), &ALL).remove("a").unwrap();
        let other = json!("O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik");
        assert_eq!(key(ed25519("a")), key(with(&ed25519("a"), "use", json!("sig"))));
        assert_ne!(key(ed25519("a")), key(with(&ed25519("a"), "x", other)));
        assert_eq!(key(rsa("a", 256)), key(rsa("a", 256)));
        assert_ne!(key(rsa("a", 256)), key(rsa("a", 257)));
        assert_ne!(key(rsa("a", 256)), key(with(&rsa("a", 256), "e", json!("Aw"))));
        assert_ne!(key(rsa("a", 256)), key(with(&rsa("a", 256), "alg", json!("RS512"))));
        assert_ne!(key(rsa("a", 256)), key(ed25519("a")));
    }

    #[test]
    fn a_set_of_too_many_keys_is_none() {
        let set =
            |count: usize| json!({"keys": (0..count).map(|n| ed25519(&n.to_string())).collect::<Vec<_>>()});
        assert_eq!(parse(set(MOST_KEYS).to_string().as_bytes(), &ALL).unwrap().len(), MOST_KEYS);
        assert!(parse(set(MOST_KEYS + 1).to_string().as_bytes(), &ALL).is_err());
    }
}
