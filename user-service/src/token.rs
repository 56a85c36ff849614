//! Access and refresh tokens. Invariant: a refresh token leaves this module in clear once, towards its holder; what
//! is stored and looked up is its SHA-256 (it has 256 random bits, so it needs no salt and no slow hash).

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::error::Unspecified;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, Header};
use platform::clock::Clock;
use platform::config::Secret;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::config::TokenSettings;
use crate::keys::Keys;
use crate::store::Role;

/// Refresh tokens begin with this, so that scanners for leaked secrets can find them.
const REFRESH_PREFIX: &str = "fcr_";
/// RFC 9068, 2.1: what the token is for, so that it is taken for nothing else.
const ACCESS_TOKEN_TYPE: &str = "at+jwt";

#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("the access token could not be signed: {0}")]
    Sign(#[from] jsonwebtoken::errors::Error),
    #[error("no randomness for a token")]
    Randomness(#[from] Unspecified),
}

/// What an access token says. `sub` is the user's id, `sid` the login that the token descends from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub iss: String,
    pub aud: String,
    pub sub: String,
    /// Seconds since 1970.
    pub iat: u64,
    pub exp: u64,
    pub jti: String,
    pub sid: String,
    pub roles: Vec<Role>,
}

/// From when and until when a pair of tokens holds, in unix milliseconds. What is written down and what a token says are
/// taken from the same terms, so that they can't differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    pub from_ms: u64,
    pub access_until_ms: u64,
    pub refresh_until_ms: u64,
}

/// Makes tokens.
#[derive(Clone, Debug)]
pub struct Tokens {
    issuer: Arc<str>,
    audience: Arc<str>,
    access_ttl: Duration,
    refresh_ttl: Duration,
    keys: Arc<Keys>,
    clock: Clock,
}

impl Tokens {
    #[must_use]
    pub fn new(settings: &TokenSettings, keys: Arc<Keys>, clock: Clock) -> Self {
        Self {
            issuer: settings.issuer.as_str().into(),
            audience: settings.audience.as_str().into(),
            access_ttl: settings.access_ttl,
            refresh_ttl: settings.refresh_ttl,
            keys,
            clock,
        }
    }

    /// The terms of a pair that is made now.
    #[must_use]
    pub fn terms(&self) -> Terms {
        let from_ms = self.clock.now_ms();
        let refresh_ttl = u64::try_from(self.refresh_ttl.as_millis()).unwrap_or(u64::MAX);
        Terms {
            from_ms,
            // Tokens know whole seconds.
            access_until_ms: (from_ms / 1000 + self.access_ttl.as_secs()) * 1000,
            refresh_until_ms: from_ms.saturating_add(refresh_ttl),
        }
    }

    /// A signed access token for `user`, from the login `sid`.
    pub fn access(&self, user: u64, roles: &[Role], sid: Uuid, terms: Terms) -> Result<String, TokenError> {
        let claims = Claims {
            iss: self.issuer.to_string(),
            aud: self.audience.to_string(),
            sub: user.to_string(),
            iat: terms.from_ms / 1000,
            exp: terms.access_until_ms / 1000,
            jti: Uuid::new_v4().simple().to_string(),
            sid: sid.simple().to_string(),
            roles: roles.to_vec(),
        };
        let set = self.keys.current();
        let header = Header {
            typ: Some(ACCESS_TOKEN_TYPE.to_owned()),
            kid: Some(set.signing.kid.clone()),
            ..Header::new(Algorithm::EdDSA)
        };
        Ok(jsonwebtoken::encode(&header, &claims, &set.signing.encoding)?)
    }

    /// Seconds for which an access token holds.
    #[must_use]
    pub fn expires_in(&self) -> u64 {
        self.access_ttl.as_secs()
    }
}

/// The SHA-256 of a refresh token: what the database knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenHash(pub [u8; 32]);

impl TokenHash {
    #[must_use]
    pub fn of(token: &Secret) -> Self {
        Self(Sha256::digest(token.expose().as_bytes()).into())
    }
}

/// A fresh refresh token and its hash.
pub fn refresh_token() -> Result<(Secret, TokenHash), Unspecified> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes)?;
    let token = Secret::from(format!("{REFRESH_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)));
    let hash = TokenHash::of(&token);
    Ok((token, hash))
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::jwk::Jwk;
    use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};

    use super::*;
    use crate::keys::tests::{OTHER_KEY, RFC_8037_KEY, set_of};

    #[test]
    fn an_access_token_verifies_with_the_published_key_and_says_who() {
        let keys = Arc::new(Keys::new(set_of(&[(RFC_8037_KEY, "signing"), (OTHER_KEY, "next")])));
        let tokens = Tokens::new(&TokenSettings::default(), keys.clone(), Clock::system());
        let sid = Uuid::new_v4();
        let token =
            tokens.access(7_000_000_000_001, &[Role::User, Role::Admin], sid, tokens.terms()).unwrap();

        let header = decode_header(&token).unwrap();
        assert_eq!(header.kid.as_deref(), Some("21fe31dfa154a261"));
        assert_eq!(header.typ.as_deref(), Some("at+jwt"));
        let published = serde_json::to_value(&keys.current().published().keys[0]).unwrap();
        let jwk: Jwk = serde_json::from_value(published).unwrap();
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_audience(&["firstcome"]);
        validation.set_issuer(&["firstcome"]);
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        let claims =
            decode::<Claims>(&token, &DecodingKey::from_jwk(&jwk).unwrap(), &validation).unwrap().claims;
        assert_eq!(claims.sub, "7000000000001");
        assert_eq!(claims.sid, sid.simple().to_string());
        assert_eq!(claims.roles, [Role::User, Role::Admin]);
        assert_eq!(claims.exp - claims.iat, 900);
        assert_eq!(serde_json::to_value(&claims).unwrap()["roles"], serde_json::json!(["USER", "ADMIN"]));
    }

    #[test]
    fn refresh_tokens_are_long_random_and_found_by_their_hash() {
        let (token, hash) = refresh_token().unwrap();
        assert_eq!(token.expose().len(), REFRESH_PREFIX.len() + 43);
        assert_eq!(TokenHash::of(&token), hash);
        assert_ne!(refresh_token().unwrap().1, hash);
        assert!(!format!("{token:?}").contains(token.expose()));
    }
}
