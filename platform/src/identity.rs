//! The signed identity that travels between services: an HS256 JWT (RFC 7519) of 60 s in `X-Firstcome-Identity`; and the
//! client's address beside it ([`client`]). Invariant: a service believes no other word about who is calling, and
//! believes nothing at all without a secret of at least 32 bytes.

mod client;
mod seal;

use std::borrow::Cow;

use axum::extract::{FromRef, FromRequestParts, OptionalFromRequestParts};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

pub use self::client::{CLIENT_HEADER, ClientAddress, network};
use self::seal::Key;
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

/// Who is calling.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub user: u64,
    pub roles: Vec<String>,
    /// The login that the caller's token descends from (its `sid`, as it stands there); services and tokens of other
    /// issuers may have none.
    pub session: Option<String>,
}

impl Identity {
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|own| own == role)
    }

    /// The identity of a service itself: user 0 is nobody.
    #[must_use]
    pub fn service() -> Self {
        Self { user: 0, roles: vec![SERVICE.to_owned()], session: None }
    }
}

#[derive(Serialize, Deserialize)]
struct Claims<'a> {
    #[serde(borrow)]
    aud: Cow<'a, str>,
    #[serde(borrow)]
    sub: Cow<'a, str>,
    roles: Vec<String>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    sid: Option<Cow<'a, str>>,
    iat: u64,
    exp: u64,
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
            sid: identity.session.as_deref().map(Cow::Borrowed),
            iat,
            exp: iat + TTL_SECONDS,
        };
        self.key.seal(&claims)
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
        let payload = self.key.open(token)?;
        let claims: Claims<'_> = serde_json::from_slice(&payload).ok()?;
        if claims.aud != AUDIENCE || !self.in_time(claims.exp) {
            return None;
        }
        Some(Identity {
            user: claims.sub.parse().ok()?,
            roles: claims.roles,
            session: claims.sid.map(Cow::into_owned),
        })
    }

    /// Whether what ends at this second, of another machine's clock perhaps, is still good.
    fn in_time(&self, exp: u64) -> bool {
        exp.saturating_add(LEEWAY_SECONDS) > self.clock.now_ms() / 1000
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

impl<S> OptionalFromRequestParts<S> for Caller
where
    S: Send + Sync,
    IdentityVerifier: FromRef<S>,
{
    type Rejection = Problem;

    /// None where nobody says who is calling; what is said must hold.
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>, Problem> {
        if !parts.headers.contains_key(HEADER) {
            return Ok(None);
        }
        IdentityVerifier::from_ref(state).verify(&parts.headers).map(|identity| Some(Self(identity)))
    }
}

#[cfg(test)]
mod tests;
