//! Tokens as the user service makes them, and what it takes to verify one and nothing else.

use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use gateway::auth::token::TokenRules;
use gateway::config::JwtSettings;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, encode};
use platform::lifecycle::BoxError;
use serde_json::{Value, json};

use crate::figures::micros_each;

pub(crate) const ISSUER: &str = "firstcome";
pub(crate) const KEY_ID: &str = "bench-2026";
/// Longer than any run.
const LIFE: Duration = Duration::from_secs(3_600);

pub(crate) struct Issuer {
    pair: Ed25519KeyPair,
    ed25519: EncodingKey,
    hs256: EncodingKey,
    pub(crate) secret: String,
    pub(crate) jwks: Value,
}

/// What tokens are signed by: a gateway believes one or the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ed25519,
    Hs256,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "Ed25519",
            Self::Hs256 => "HS256",
        }
    }

    /// In the gateway's settings (RFC 7518).
    pub(crate) fn algorithm(self) -> Algorithm {
        match self {
            Self::Ed25519 => Algorithm::EdDSA,
            Self::Hs256 => Algorithm::HS256,
        }
    }
}

/// How long a verification takes, in microseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bare {
    /// The signature alone.
    pub(crate) signature: f64,
    /// By the gateway's rules: decoded, signature, claims.
    pub(crate) token: f64,
}

impl Issuer {
    pub(crate) fn new() -> Result<Self, BoxError> {
        let document = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new())?;
        let ed25519 = EncodingKey::from_ed_der(document.as_ref());
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&ed25519, Algorithm::EdDSA)?)?;
        jwk["kid"] = json!(KEY_ID);
        let secret = "not a secret, and long enough for HS256".to_owned();
        Ok(Self {
            pair: Ed25519KeyPair::from_pkcs8(document.as_ref())?,
            ed25519,
            hs256: EncodingKey::from_secret(secret.as_bytes()),
            secret,
            jwks: json!({"keys": [jwk]}),
        })
    }

    /// A token of this user.
    pub(crate) fn token(&self, kind: Kind, user: usize) -> Result<String, BoxError> {
        let now = platform::clock::now_ms() / 1_000;
        let claims = json!({"iss": ISSUER, "aud": ISSUER, "sub": user.to_string(), "exp": now + LIFE.as_secs(),
            "sid": format!("{user:032x}"), "roles": ["USER"]});
        let (header, key) = match kind {
            Kind::Ed25519 => {
                (Header { kid: Some(KEY_ID.to_owned()), ..Header::new(Algorithm::EdDSA) }, &self.ed25519)
            }
            Kind::Hs256 => (Header::new(Algorithm::HS256), &self.hs256),
        };
        Ok(encode(&header, &claims, key)?)
    }

    /// One token, verified again and again on one core.
    pub(crate) fn bare(&self, kind: Kind, times: usize) -> Result<Bare, BoxError> {
        let token = self.token(kind, 1)?;
        let message = token.rsplit_once('.').map_or("", |(message, _)| message).as_bytes();
        let settings: JwtSettings = serde_json::from_value(json!({"issuer": ISSUER, "audience": ISSUER,
            "algorithms": [kind.algorithm()], "hs256-secret": self.secret}))?;
        let rules = TokenRules::new(&settings);
        let jwk: Jwk = serde_json::from_value(self.jwks["keys"][0].clone())?;
        let key = DecodingKey::from_jwk(&jwk)?;
        let now = platform::clock::now_ms();
        let (signature, key) = match kind {
            Kind::Ed25519 => {
                let public = UnparsedPublicKey::new(&ED25519, self.pair.public_key().as_ref());
                let signature = self.pair.sign(message);
                (
                    timed(times, || Ok(public.verify(black_box(message), signature.as_ref())?))?,
                    Some((Algorithm::EdDSA, &key)),
                )
            }
            Kind::Hs256 => {
                let secret = hmac::Key::new(hmac::HMAC_SHA256, self.secret.as_bytes());
                let tag = hmac::sign(&secret, message);
                (timed(times, || Ok(hmac::verify(&secret, black_box(message), tag.as_ref())?))?, None)
            }
        };
        let token = timed(times, || {
            let token = black_box(token.as_str());
            rules.key_source(token)?;
            rules.verify(token, key, now)?;
            Ok(())
        })?;
        Ok(Bare { signature, token })
    }
}

fn timed(times: usize, verify: impl Fn() -> Result<(), BoxError>) -> Result<f64, BoxError> {
    let begun = Instant::now();
    for _ in 0..times {
        verify()?;
    }
    Ok(micros_each(begun.elapsed(), times))
}
