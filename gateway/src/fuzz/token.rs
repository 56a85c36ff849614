//! Tokens: nothing is accepted that was not signed by the key of its kind, and nothing that does not say what it has to.

use std::collections::HashSet;
use std::sync::LazyLock;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde_json::{Value, json};

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
    /// What it may be told to accept.
    rules: [(TokenRules, JwtAlgorithm); 2],
    /// Every token of the corpus that was really signed.
    signed: HashSet<String>,
}

static HOUSE: LazyLock<House> = LazyLock::new(|| {
    // A key for all times, so that one input means the same tomorrow.
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a seed");
    let key = DecodingKey::from_ed_components(&URL_SAFE_NO_PAD.encode(pair.public_key())).expect("a key");
    let rules = |algorithm| (TokenRules::new(&settings(algorithm)), algorithm);
    let header = format!(r#"{{"alg":"EdDSA","typ":"JWT","kid":"{KID}"}}"#);
    let claims = format!(r#"{{"iss":"{NAME}","aud":"{NAME}","sub":"7","exp":{}}}"#, NOW + 900);
    let by_key = join(&header, &claims, |signed| pair.sign(signed).as_ref().to_vec());
    let by_secret = join(r#"{"alg":"HS256"}"#, &claims, |signed| mac(SECRET.as_bytes(), signed));
    House {
        signed: HashSet::from([by_key, by_secret]),
        rules: [rules(JwtAlgorithm::EdDSA), rules(JwtAlgorithm::HS256)],
        pair,
        key,
    }
});

fn settings(algorithm: JwtAlgorithm) -> JwtSettings {
    let settings = json!({
        "issuer": NAME, "audience": NAME, "algorithms": [algorithm], "hs256-secret": SECRET, "leeway": format!("{LEEWAY}s"),
    });
    serde_json::from_value(settings).expect("settings")
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
        KeySource::Jwks { kid, algorithm } if kid == KID => Some((algorithm, &HOUSE.key)),
        KeySource::Jwks { .. } => return None,
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
        assert_eq!(by, Some(*accepted), "{token}: signed by another key, or none");
        assert!(is_whole, "{token}: its signature was changed");
        let Ok(header) = serde_json::from_str::<Value>(header) else { continue };
        assert_eq!(
            header["alg"],
            if *accepted == JwtAlgorithm::EdDSA { "EdDSA" } else { "HS256" },
            "{token}"
        );
        holds(claims, &found);
    }
}

/// What has to stand in claims.
fn holds(claims: &str, found: &Claims) {
    // Beside what is read there may stand a number that is too large to be held: then nothing can be said.
    let Ok(claims) = serde_json::from_str::<Value>(claims) else { return };
    let names_us = |value: &Value| match value {
        Value::Array(all) => all.iter().any(|one| one == NAME),
        one => one == NAME,
    };
    assert!(names_us(&claims["iss"]) && names_us(&claims["aud"]), "{claims}");
    assert_eq!(claims["sub"].as_str(), Some(&*found.sub), "{claims}");
    let seconds = |name: &str| claims[name].as_f64();
    assert!(seconds("exp").is_some_and(|exp| exp + LEEWAY as f64 > NOW as f64), "{claims}: has ended");
    assert!(seconds("nbf").unwrap_or_default() <= (NOW + LEEWAY) as f64, "{claims}: has not begun");
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
                assert_eq!(accept(rules, &seed[1..]).is_some(), *accepted == kind, "{accepted:?}");
            }
        }
    }
}
