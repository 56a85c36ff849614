//! What makes a token valid.
//!
//! Invariant: the configuration alone says which algorithms count, and each algorithm has keys of its own
//! kind: a token can choose neither `none` nor to have a public key taken for a shared secret.

use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde::Deserialize;

use crate::config::{JwtAlgorithm, JwtSettings};

/// RFC 7519's registered claims that a token must carry.
const REQUIRED_CLAIMS: [&str; 4] = ["exp", "iss", "aud", "sub"];

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TokenError {
    #[error("not a token")]
    Malformed,
    #[error("an algorithm that is not accepted")]
    Algorithm,
    #[error("no key of this id")]
    UnknownKey,
    #[error("signature or claims do not hold")]
    Invalid,
    #[error("expired")]
    Expired,
    #[error("not valid yet")]
    NotYet,
    #[error("its login has ended")]
    Revoked,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Claims {
    pub sub: String,
    /// Seconds since 1970.
    pub exp: u64,
    #[serde(default)]
    nbf: Option<u64>,
    #[serde(default)]
    pub roles: Vec<String>,
    /// Parted by blanks (RFC 9068, 2.2.3).
    #[serde(default)]
    pub scope: String,
    /// The login that the token descends from; tokens of other issuers may lack it.
    #[serde(default)]
    pub sid: Option<String>,
}

#[derive(Debug)]
pub struct TokenRules {
    eddsa: Option<Validation>,
    hs256: Option<(Validation, DecodingKey)>,
    leeway_seconds: u64,
}

/// Where the key of a token has to come from.
#[derive(Debug)]
pub enum KeySource {
    /// The user service's key of this id.
    Jwks(String),
    SharedSecret,
}

impl TokenRules {
    pub fn new(settings: &JwtSettings) -> Self {
        let validation = |algorithm| {
            let mut validation = Validation::new(algorithm);
            validation.set_required_spec_claims(&REQUIRED_CLAIMS);
            validation.set_issuer(&[&settings.issuer]);
            validation.set_audience(&[&settings.audience]);
            // Times are checked below, by the clock that tests can set.
            validation.validate_exp = false;
            validation.validate_nbf = false;
            validation
        };
        Self {
            eddsa: settings.accepts(JwtAlgorithm::EdDSA).then(|| validation(Algorithm::EdDSA)),
            hs256: settings.accepts(JwtAlgorithm::HS256).then(|| {
                let key = DecodingKey::from_secret(settings.hs256_secret.expose().as_bytes());
                (validation(Algorithm::HS256), key)
            }),
            leeway_seconds: settings.leeway.as_secs(),
        }
    }

    /// Reads the header, which nothing vouches for yet.
    pub fn key_source(&self, token: &str) -> Result<KeySource, TokenError> {
        let header: Header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Malformed)?;
        if header.crit.is_some() {
            return Err(TokenError::Malformed); // RFC 7515, 4.1.11: we understand no extension
        }
        match header.alg {
            Algorithm::EdDSA if self.eddsa.is_some() => {
                header.kid.map(KeySource::Jwks).ok_or(TokenError::UnknownKey)
            }
            Algorithm::HS256 if self.hs256.is_some() => Ok(KeySource::SharedSecret),
            _ => Err(TokenError::Algorithm),
        }
    }

    /// `key` is the one that [`KeySource::Jwks`] names, or `None` for the shared secret.
    pub fn verify(&self, token: &str, key: Option<&DecodingKey>, now_ms: u64) -> Result<Claims, TokenError> {
        let (validation, key) = match (key, &self.eddsa, &self.hs256) {
            (Some(key), Some(validation), _) => (validation, key),
            (None, _, Some((validation, secret))) => (validation, secret),
            _ => return Err(TokenError::Algorithm),
        };
        let claims =
            jsonwebtoken::decode::<Claims>(token, key, validation).map_err(|_| TokenError::Invalid)?.claims;
        if self.valid_until_ms(&claims) <= now_ms {
            return Err(TokenError::Expired);
        }
        match claims.nbf {
            Some(nbf) if nbf > now_ms / 1000 + self.leeway_seconds => Err(TokenError::NotYet),
            _ => Ok(claims),
        }
    }

    /// Unix milliseconds, the leeway included.
    pub fn valid_until_ms(&self, claims: &Claims) -> u64 {
        claims.exp.saturating_add(self.leeway_seconds).saturating_mul(1000)
    }
}
