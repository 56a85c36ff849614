//! What makes a token valid (RFC 8725, RFC 9068).
//!
//! Invariant: the configuration alone says which algorithms count, and each key verifies only those of its own kind: a
//! token can choose neither `none` nor to have a public key taken for a shared secret. Nothing else in a token's header
//! says where a key comes from: `jku`, `jwk`, `x5u` and `x5c` are not looked at.

use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use crate::config::JwtSettings;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TokenError {
    #[error("not a token")]
    Malformed,
    #[error("a token for another purpose")]
    Purpose,
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
    #[error("it would live longer than tokens may")]
    TooLong,
    #[error("its login has ended")]
    Revoked,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Claims {
    pub sub: String,
    exp: Seconds,
    #[serde(default)]
    nbf: Option<Seconds>,
    #[serde(default)]
    iat: Option<Seconds>,
    /// Read as the one text that RFC 7519 says it is, and not as a list that has the right one in it.
    #[serde(default, rename = "iss")]
    _iss: Option<String>,
    #[serde(default)]
    roles: Option<Words>,
    /// RFC 9068, 2.2.3.
    #[serde(default)]
    scope: Option<Words>,
    /// The same of some issuers; looked at where there is no `scope`, as Spring does.
    #[serde(default)]
    scp: Option<Words>,
    /// The login that the token descends from; tokens of other issuers may lack it.
    #[serde(default)]
    pub sid: Option<String>,
}

/// Since 1970. RFC 7519 allows fractions, which are cut.
#[derive(Debug, Clone, Copy)]
struct Seconds(u64);

impl<'de> Deserialize<'de> for Seconds {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        f64::deserialize(deserializer).map(|seconds| Self(seconds as u64))
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Words {
    Text(String),
    List(Vec<String>),
    /// Something that another issuer calls by the same name: it gives no right.
    Other(IgnoredAny),
}

impl Claims {
    /// Of `scope`, or of `scp`: a text parted by blanks, or a list.
    pub fn scopes(&self) -> Vec<String> {
        match self.scope.as_ref().or(self.scp.as_ref()) {
            Some(Words::Text(text)) => text.split_ascii_whitespace().map(str::to_owned).collect(),
            Some(Words::List(list)) => list.clone(),
            None | Some(Words::Other(_)) => Vec::new(),
        }
    }

    /// A list.
    pub fn roles(&self) -> &[String] {
        if let Some(Words::List(list)) = &self.roles { list } else { &[] }
    }
}

#[derive(Debug)]
pub struct TokenRules {
    /// What the keys of the set may have signed.
    by_set: Vec<(Algorithm, Validation)>,
    by_secret: Option<(Validation, DecodingKey)>,
    require_at_jwt: bool,
    leeway_seconds: u64,
    max_lifetime_seconds: u64,
}

/// Where the key of a token has to come from.
#[derive(Debug)]
pub enum KeySource {
    /// The set's key of this id, if it is one for this algorithm.
    Jwks {
        kid: String,
        algorithm: Algorithm,
    },
    SharedSecret,
}

impl TokenRules {
    pub fn new(settings: &JwtSettings) -> Self {
        let validation = |algorithm| {
            let mut validation = Validation::new(algorithm);
            let mut required = vec!["exp", "sub"];
            // A Spring file may leave out who issues and for whom; our own settings may not.
            if !settings.issuer.is_empty() {
                required.push("iss");
                validation.set_issuer(&[&settings.issuer]);
            }
            validation.validate_aud = !settings.audience.is_empty();
            if validation.validate_aud {
                required.push("aud");
                validation.set_audience(&settings.audience);
            }
            validation.set_required_spec_claims(&required);
            // Times are checked below, by the clock that tests can set.
            validation.validate_exp = false;
            validation.validate_nbf = false;
            validation
        };
        let by_set = settings.algorithms.iter().map(|named| named.algorithm());
        let by_set = by_set.filter(|_| settings.has_key_set()).map(|named| (named, validation(named)));
        Self {
            by_set: by_set.collect(),
            by_secret: settings.is_shared_secret().then(|| {
                let key = DecodingKey::from_secret(settings.hs256_secret.expose().as_bytes());
                (validation(Algorithm::HS256), key)
            }),
            require_at_jwt: settings.require_at_jwt,
            leeway_seconds: settings.leeway.as_secs(),
            max_lifetime_seconds: settings.max_lifetime.as_secs(),
        }
    }

    /// Reads the header, which nothing vouches for yet.
    pub fn key_source(&self, token: &str) -> Result<KeySource, TokenError> {
        let header: Header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Malformed)?;
        if header.crit.is_some() {
            return Err(TokenError::Malformed); // RFC 7515, 4.1.11: we understand no extension
        }
        if !self.is_access_token(header.typ.as_deref()) {
            return Err(TokenError::Purpose);
        }
        match header.alg {
            Algorithm::HS256 if self.by_secret.is_some() => Ok(KeySource::SharedSecret),
            algorithm if self.by_set.iter().any(|(accepted, _)| *accepted == algorithm) => {
                header.kid.map(|kid| KeySource::Jwks { kid, algorithm }).ok_or(TokenError::UnknownKey)
            }
            _ => Err(TokenError::Algorithm),
        }
    }

    /// RFC 8725, 3.11: a token that says what it is for is taken for nothing else. Those of before say `JWT` or nothing.
    fn is_access_token(&self, typ: Option<&str>) -> bool {
        let Some(typ) = typ.map(str::to_ascii_lowercase) else { return !self.require_at_jwt };
        match typ.strip_prefix("application/").unwrap_or(&typ) {
            "at+jwt" => true,
            "jwt" => !self.require_at_jwt,
            _ => false,
        }
    }

    /// `key` is the one that [`KeySource::Jwks`] names, with the algorithm, or `None` for the shared secret.
    pub fn verify(
        &self,
        token: &str,
        key: Option<(Algorithm, &DecodingKey)>,
        now_ms: u64,
    ) -> Result<Claims, TokenError> {
        let (validation, key) = match (key, &self.by_secret) {
            (None, Some((validation, secret))) => (validation, secret),
            (Some((algorithm, key)), None) => {
                let accepted = self.by_set.iter().find(|(accepted, _)| *accepted == algorithm);
                (accepted.map(|(_, validation)| validation).ok_or(TokenError::Algorithm)?, key)
            }
            _ => return Err(TokenError::Algorithm),
        };
        let claims =
            jsonwebtoken::decode::<Claims>(token, key, validation).map_err(|_| TokenError::Invalid)?.claims;
        self.check_times(&claims, now_ms)?;
        Ok(claims)
    }

    fn check_times(&self, claims: &Claims, now_ms: u64) -> Result<(), TokenError> {
        let now = now_ms / 1000;
        if self.valid_until_ms(claims) <= now_ms {
            return Err(TokenError::Expired);
        }
        let is_to_come = |time: Option<Seconds>| time.is_some_and(|time| time.0 > now + self.leeway_seconds);
        if is_to_come(claims.nbf) || is_to_come(claims.iat) {
            return Err(TokenError::NotYet);
        }
        let from = claims.iat.map_or(now, |iat| iat.0);
        if claims.exp.0.saturating_sub(from) > self.max_lifetime_seconds.saturating_add(self.leeway_seconds) {
            return Err(TokenError::TooLong);
        }
        Ok(())
    }

    /// Unix milliseconds, the leeway included.
    pub fn valid_until_ms(&self, claims: &Claims) -> u64 {
        claims.exp.0.saturating_add(self.leeway_seconds).saturating_mul(1000)
    }
}
