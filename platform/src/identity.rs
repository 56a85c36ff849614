//! The signed identity that travels between services: an HS256 JWT (RFC 7519) of 60 s in `X-Firstcome-Identity`.
//! Invariant: a service believes no other word about who is calling, and believes nothing at all without a secret of
//! at least 32 bytes.
//!
//! Verification is written out because it is on the path of every claim, where each user's token is seen once and a
//! cache of verified tokens would only cost: parse, MAC and decode take about a microsecond together.

use std::borrow::Cow;
use std::sync::Arc;

use aws_lc_rs::hmac;
use axum::extract::{FromRef, FromRequestParts};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::config::IdentitySettings;
use crate::http::problem::Problem;

pub const HEADER: HeaderName = HeaderName::from_static("x-firstcome-identity");
pub const ADMIN: &str = "ADMIN";
/// The role of a service that calls another on its own behalf.
pub const SERVICE: &str = "SERVICE";
/// A MAC key shorter than the hash's output weakens it (RFC 7518, section 3.2).
pub const MIN_SECRET_BYTES: usize = 32;
/// How long a signed identity is good for.
pub const TTL_SECONDS: u64 = 60;

const AUDIENCE: &str = "firstcome-internal";
/// How far the clocks of two machines may be apart.
const LEEWAY_SECONDS: u64 = 5;
/// `{"alg":"HS256","typ":"JWT"}`
const HEADER_SEGMENT: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";
/// Longer than any identity that is minted here; what is longer is not looked at.
const MAX_TOKEN_BYTES: usize = 4096;
const MAC_BYTES: usize = 32;

/// Who is calling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub user: u64,
    pub roles: Vec<String>,
}

impl Identity {
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|own| own == role)
    }

    /// The identity of a service itself: user 0 is nobody.
    #[must_use]
    pub fn service() -> Self {
        Self { user: 0, roles: vec![SERVICE.to_owned()] }
    }
}

#[derive(Serialize, Deserialize)]
struct Claims<'a> {
    #[serde(borrow)]
    aud: Cow<'a, str>,
    #[serde(borrow)]
    sub: Cow<'a, str>,
    roles: Vec<String>,
    iat: u64,
    exp: u64,
}

#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
}

#[derive(Clone)]
struct Key(Option<Arc<hmac::Key>>);

impl Key {
    fn new(settings: &IdentitySettings) -> Self {
        let secret = settings.secret.expose().as_bytes();
        let usable = secret.len() >= MIN_SECRET_BYTES;
        Self(usable.then(|| Arc::new(hmac::Key::new(hmac::HMAC_SHA256, secret))))
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(******)")
    }
}

/// Mints identities. With a secret that is too short (which the settings' validation refuses) it mints what nobody
/// believes.
#[derive(Clone, Debug)]
pub struct IdentitySigner {
    key: Key,
    clock: Clock,
}

impl IdentitySigner {
    #[must_use]
    pub fn new(settings: &IdentitySettings) -> Self {
        Self { key: Key::new(settings), clock: Clock::system() }
    }

    /// With a clock of its own, for tests.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// A header value that is good for 60 s. Cache it with what it was made from, and make it anew in time.
    #[must_use]
    pub fn sign(&self, identity: &Identity) -> HeaderValue {
        let iat = self.clock.now_ms() / 1000;
        let claims = Claims {
            aud: Cow::Borrowed(AUDIENCE),
            sub: Cow::Owned(identity.user.to_string()),
            roles: identity.roles.clone(),
            iat,
            exp: iat + TTL_SECONDS,
        };
        let claims = serde_json::to_vec(&claims).unwrap_or_default();
        let mut token = String::with_capacity(HEADER_SEGMENT.len() + claims.len() * 4 / 3 + 50);
        token.push_str(HEADER_SEGMENT);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(&claims, &mut token);
        if let Some(key) = &self.key.0 {
            let mac = hmac::sign(key, token.as_bytes());
            token.push('.');
            URL_SAFE_NO_PAD.encode_string(mac.as_ref(), &mut token);
        }
        let mut value = HeaderValue::from_str(&token).unwrap_or_else(|_| HeaderValue::from_static(""));
        value.set_sensitive(true);
        value
    }
}

/// Believes what an [`IdentitySigner`] with the same secret has signed, for as long as it is good.
#[derive(Clone, Debug)]
pub struct IdentityVerifier {
    key: Key,
    clock: Clock,
}

impl IdentityVerifier {
    #[must_use]
    pub fn new(settings: &IdentitySettings) -> Self {
        Self { key: Key::new(settings), clock: Clock::system() }
    }

    /// With a clock of its own, for tests.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// # Errors
    /// `UNAUTHENTICATED` when the header is missing, twice there, forged, for another audience or too old.
    pub fn verify(&self, headers: &HeaderMap) -> Result<Identity, Problem> {
        let mut values = headers.get_all(HEADER).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(Problem::unauthenticated());
        };
        self.verify_token(value.as_bytes()).ok_or_else(Problem::unauthenticated)
    }

    fn verify_token(&self, token: &[u8]) -> Option<Identity> {
        let key = self.key.0.as_deref()?;
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let token = std::str::from_utf8(token).ok()?;
        let (signed, mac) = token.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        let mut decoded = [0_u8; MAC_BYTES + 4];
        let length = URL_SAFE_NO_PAD.decode_slice(mac, &mut decoded).ok()?;
        hmac::verify(key, signed.as_bytes(), &decoded[..length]).ok()?;
        if header != HEADER_SEGMENT {
            let header = URL_SAFE_NO_PAD.decode(header).ok()?;
            let header: Header<'_> = serde_json::from_slice(&header).ok()?;
            if header.alg != "HS256" {
                return None;
            }
        }
        let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
        let claims: Claims<'_> = serde_json::from_slice(&payload).ok()?;
        let now = self.clock.now_ms() / 1000;
        let in_time = claims.exp.saturating_add(LEEWAY_SECONDS) > now;
        if claims.aud != AUDIENCE || !in_time {
            return None;
        }
        Some(Identity { user: claims.sub.parse().ok()?, roles: claims.roles })
    }
}

/// The caller of a request, as its signed identity says; 401 `UNAUTHENTICATED` without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller(pub Identity);

impl Caller {
    /// # Errors
    /// `FORBIDDEN` without the role.
    pub fn require(&self, role: &str) -> Result<(), Problem> {
        if self.0.has_role(role) { Ok(()) } else { Err(Problem::forbidden()) }
    }
}

impl<S> FromRequestParts<S> for Caller
where
    S: Send + Sync,
    IdentityVerifier: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        IdentityVerifier::from_ref(state).verify(&parts.headers).map(Self)
    }
}

#[cfg(test)]
mod tests;
