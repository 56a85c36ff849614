//! Tokens: nothing is accepted that was not signed by the key of its kind, and nothing that does not say what it has to.

use std::collections::HashSet;
use std::sync::LazyLock;
use std::time::Duration;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde_json::Value;

use crate::auth::token::{Claims, KeySource, TokenRules};
use crate::config::{JwtAlgorithm, JwtSettings};

const KID: &str = "key-1";
const NAME: &str = "firstcome";
const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// 2033, and the seconds that clocks may differ.
const NOW: u64 = 2_000_000_000;
const LEEWAY: u64 = 5;

struct House {
    pair: Ed25519KeyPair,
    key: DecodingKey,
    /// With which algorithms it can be run, and what then counts.
    rules: [(TokenRules, &'static [JwtAlgorithm]); 3],
    /// Every token of the corpus that was really signed.
    signed: HashSet<String>,
}

static HOUSE: LazyLock<House> = LazyLock::new(|| {
    use JwtAlgorithm::{EdDSA, HS256};
    // A key for all times, so that one input means the same tomorrow.
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a seed");
    let key = DecodingKey::from_ed_components(&URL_SAFE_NO_PAD.encode(pair.public_key())).expect("a key");
    let rules = |algorithms: &'static [JwtAlgorithm]| (TokenRules::new(&settings(algorithms)), algorithms);
    let header = format!(r#"{{"alg":"EdDSA","typ":"JWT","kid":"{KID}"}}"#);
    let claims = format!(r#"{{"iss":"{NAME}","aud":"{NAME}","sub":"7","exp":{}}}"#, NOW + 900);
    let by_key = join(&header, &claims, |signed| pair.sign(signed).as_ref().to_vec());
    let by_secret = join(r#"{"alg":"HS256"}"#, &claims, |signed| mac(SECRET.as_bytes(), signed));
    House {
        signed: HashSet::from([by_key, by_secret]),
        rules: [rules(&[EdDSA]), rules(&[HS256]), rules(&[EdDSA, HS256])],
        pair,
        key,
    }
});

fn settings(algorithms: &[JwtAlgorithm]) -> JwtSettings {
    JwtSettings {
        issuer: NAME.to_owned(),
        audience: NAME.to_owned(),
        algorithms: algorithms.to_vec(),
        hs256_secret: SECRET.to_owned().into(),
        leeway: Duration::from_secs(LEEWAY),
        ..JwtSettings::default()
    }
}

fn join(header: &str, claims: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = sign(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn mac(key: &[u8], signed: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), signed).as_ref().to_vec()
}

/// As the gateway does it.
fn accept(rules: &TokenRules, token: &str) -> Option<Claims> {
    let key = match rules.key_source(token).ok()? {
        KeySource::SharedSecret => None,
        KeySource::Jwks(kid) if kid == KID => Some(&HOUSE.key),
        KeySource::Jwks(_) => return None,
    };
    rules.verify(token, key, NOW * 1000).ok()
}

/// The first byte says how the rest is read: a token as it comes, or a header, claims and changes of the signature, on
/// a line each, with one of four signatures.
pub fn run(data: &[u8]) {
    let Some((how, rest)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let house = &*HOUSE;
    match how {
        b'e' => built(text, Some(JwtAlgorithm::EdDSA), |signed| house.pair.sign(signed).as_ref().to_vec()),
        b'h' => built(text, Some(JwtAlgorithm::HS256), |signed| mac(SECRET.as_bytes(), signed)),
        b'c' => built(text, None, |signed| mac(house.pair.public_key().as_ref(), signed)),
        b'n' => built(text, None, |_| Vec::new()),
        _ => {
            for (rules, _) in &house.rules {
                assert!(
                    accept(rules, text).is_none() || house.signed.contains(text),
                    "{text} was never signed"
                );
            }
        }
    }
}

/// `by`: whose signature it is, if it is any that counts.
fn built(text: &str, by: Option<JwtAlgorithm>, sign: impl Fn(&[u8]) -> Vec<u8>) {
    let mut lines = text.splitn(3, '\n');
    let (header, claims) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let change = lines.next().unwrap_or_default().as_bytes();
    let mut is_whole = false;
    let token = join(header, claims, |signed| {
        let whole = sign(signed);
        let mut signature = whole.clone();
        signature.resize(whole.len().max(change.len()), 0);
        signature.iter_mut().zip(change).for_each(|(byte, change)| *byte ^= change);
        is_whole = signature == whole;
        signature
    });
    for (rules, accepted) in &HOUSE.rules {
        let Some(found) = accept(rules, &token) else { continue };
        let by = by.filter(|by| accepted.contains(by)).unwrap_or_else(|| panic!("{token}: by nobody's key"));
        assert!(is_whole, "{token}: its signature was changed");
        let header: Value = serde_json::from_str(header).expect("a header is JSON");
        assert_eq!(header["alg"], if by == JwtAlgorithm::EdDSA { "EdDSA" } else { "HS256" }, "{token}");
        holds(claims, &found);
    }
}

/// What has to stand in claims.
fn holds(claims: &str, found: &Claims) {
    let claims: Value = serde_json::from_str(claims).expect("claims are JSON");
    let names_us = |value: &Value| match value {
        Value::Array(all) => all.iter().any(|one| one == NAME),
        one => one == NAME,
    };
    assert!(names_us(&claims["iss"]) && names_us(&claims["aud"]), "{claims}");
    assert_eq!(claims["sub"].as_str(), Some(&*found.sub), "{claims}");
    let exp = claims["exp"].as_u64().expect("when it ends");
    assert!(exp.saturating_add(LEEWAY) > NOW, "{claims}: has ended");
    let begins = claims["nbf"].as_u64().unwrap_or_default();
    assert!(begins <= NOW + LEEWAY, "{claims}: has not begun");
    let roles = claims["roles"].as_array().cloned().unwrap_or_default();
    assert_eq!(roles.len(), found.roles.len(), "{claims}: other roles");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise nothing that is said here would be about anything.
    #[test]
    fn what_was_signed_is_accepted_by_the_rules_of_its_kind() {
        let seeds = [
            (include_str!("../../fuzz/seeds/token/raw-key"), JwtAlgorithm::EdDSA),
            (include_str!("../../fuzz/seeds/token/raw-secret"), JwtAlgorithm::HS256),
        ];
        for (seed, kind) in seeds {
            assert!(HOUSE.signed.contains(&seed[1..]));
            for (rules, accepted) in &HOUSE.rules {
                assert_eq!(accept(rules, &seed[1..]).is_some(), accepted.contains(&kind), "{accepted:?}");
            }
        }
    }
}
