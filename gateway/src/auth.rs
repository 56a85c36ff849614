//! Who is asking: from the client's token to the signed identity that the services trust.
//!
//! Invariant: an identity is minted only from a token that was verified by the configured rules and has
//! not expired, of a login that has not ended; a request that may go without a token but brings one must bring a valid one.

pub mod cache;
pub mod jwks;
pub mod revocations;
pub mod token;

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header};
use parking_lot::Mutex;
use platform::clock::Clock;
use platform::http::problem::Problem;
use platform::identity::{Identity, IdentitySigner, SERVICE};

use crate::config::{Authentication, JwtSettings};
use crate::headers::Behind;
use crate::routes::Access;
use cache::TokenCache;
use jwks::key::Key;
use jwks::{Jwks, Missing};
use revocations::Revocations;
use token::{KeySource, TokenError, TokenRules};

/// An identity is minted anew after this long: its 60 s less the time that a request may be under way and
/// that clocks may differ.
const IDENTITY_FRESH_MS: u64 = 30_000;
/// While the key set can't be fetched.
const RETRY_AFTER_SECONDS: u32 = 1;

/// The holder of a verified token.
#[derive(Debug)]
pub struct Verified {
    identity: Identity,
    /// Our own users' number, or what another issuer calls its users.
    name: Box<str>,
    scopes: Vec<String>,
    /// What the token was verified with, if it is of the key set: its id, and the key that had it then.
    key: Option<(String, Arc<Key>)>,
    valid_until_ms: u64,
    minted: Mutex<Option<Minted>>,
}

#[derive(Debug, Clone)]
struct Minted {
    value: HeaderValue,
    fresh_until_ms: u64,
}

impl Verified {
    pub fn new(identity: Identity, scopes: Vec<String>, valid_until_ms: u64) -> Self {
        let name = identity.user.to_string().into();
        Self { identity, name, scopes, key: None, valid_until_ms, minted: Mutex::default() }
    }

    /// Whether a route is for this caller; 403 that says what is missing.
    pub fn permit(&self, access: &Access) -> Result<(), Problem> {
        let Access { roles, scopes, .. } = access;
        if !roles.is_empty() && !roles.iter().any(|role| self.identity.has_role(role)) {
            return Err(Problem::forbidden().with("requiredRoles", roles));
        }
        if scopes.iter().any(|scope| !self.scopes.contains(scope)) {
            return Err(Problem::forbidden().with("requiredScopes", scopes));
        }
        Ok(())
    }

    fn session(&self) -> Option<&str> {
        self.identity.session.as_deref()
    }

    pub fn user(&self) -> u64 {
        self.identity.user
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn is_valid(&self, now_ms: u64) -> bool {
        now_ms < self.valid_until_ms
    }

    /// The value of the identity header, minted at most every half a minute.
    fn identity_header(&self, signer: &IdentitySigner, now_ms: u64) -> HeaderValue {
        let mut minted = self.minted.lock();
        match &*minted {
            Some(minted) if now_ms < minted.fresh_until_ms => minted.value.clone(),
            _ => {
                let value = signer.sign(&self.identity);
                *minted = Some(Minted { value: value.clone(), fresh_until_ms: now_ms + IDENTITY_FRESH_MS });
                value
            }
        }
    }
}

#[derive(Debug)]
pub struct Authenticator {
    rules: TokenRules,
    jwks: Arc<Jwks>,
    cache: TokenCache,
    revocations: Arc<Revocations>,
    signer: IdentitySigner,
    clock: Clock,
    behind: Behind,
}

impl Authenticator {
    pub fn new(
        settings: &JwtSettings,
        jwks: Arc<Jwks>,
        revocations: Arc<Revocations>,
        signer: IdentitySigner,
        clock: Clock,
        behind: Behind,
    ) -> Self {
        let cache = TokenCache::new(settings.cache_capacity);
        Self { rules: TokenRules::new(settings), jwks, cache, revocations, signer, clock, behind }
    }

    /// Who asks, if the route wants to know.
    pub async fn authenticate(
        &self,
        demand: Authentication,
        headers: &HeaderMap,
    ) -> Result<Option<Arc<Verified>>, Problem> {
        if demand == Authentication::None {
            return Ok(None);
        }
        match bearer(headers) {
            Some(token) => {
                let verified = self.verify(token).await?;
                if self.has_ended(&verified) {
                    return Err(refuse(&TokenError::Revoked));
                }
                Ok(Some(verified))
            }
            None if demand == Authentication::Optional && !headers.contains_key(header::AUTHORIZATION) => {
                Ok(None)
            }
            None => Err(Problem::unauthenticated()),
        }
    }

    /// Whether a token that let something in still would: not expired, its key not withdrawn, its login not ended.
    pub fn still_holds(&self, verified: &Verified) -> bool {
        verified.is_valid(self.clock.now_ms()) && self.knows_key_of(verified) && !self.has_ended(verified)
    }

    /// A key that was withdrawn, or replaced under its own id, takes the tokens along that it had signed.
    fn knows_key_of(&self, verified: &Verified) -> bool {
        verified.key.as_ref().is_none_or(|(kid, key)| self.jwks.knows(kid, key))
    }

    /// Whether the login has.
    fn has_ended(&self, verified: &Verified) -> bool {
        verified.session().is_some_and(|session| self.revocations.is_revoked(session))
    }

    #[cfg(test)]
    pub(crate) fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// Where the client is, for a service that counts by it.
    pub fn client_header(&self, address: IpAddr) -> HeaderValue {
        self.signer.sign_client(address)
    }

    pub fn identity_header(&self, verified: &Verified) -> HeaderValue {
        verified.identity_header(&self.signer, self.clock.now_ms())
    }

    async fn verify(&self, token: &str) -> Result<Arc<Verified>, Problem> {
        let now_ms = self.clock.now_ms();
        let hash = cache::hash(token);
        if let Some(verified) = self.cache.get(&hash, now_ms).filter(|verified| self.knows_key_of(verified)) {
            return Ok(verified);
        }
        let source = self.rules.key_source(token).map_err(|error| refuse(&error))?;
        let (key, claims) = match source {
            KeySource::SharedSecret => (None, self.rules.verify(token, None, now_ms)),
            KeySource::Jwks { kid, algorithm } => {
                let key = self.jwks.find(&kid).await.map_err(|missing| match missing {
                    Missing::UnknownKey => refuse(&TokenError::UnknownKey),
                    Missing::Unsettled => Problem::upstream_unavailable().retry_after(RETRY_AFTER_SECONDS),
                })?;
                let decoding = key.of(algorithm).ok_or_else(|| refuse(&TokenError::Algorithm))?;
                let claims = self.rules.verify(token, Some((algorithm, decoding)), now_ms);
                (Some((kid, key)), claims)
            }
        };
        let claims = claims.map_err(|error| refuse(&error))?;
        let user = self.user(&claims.sub).ok_or_else(|| refuse(&TokenError::Invalid))?;
        let valid_until_ms = self.rules.valid_until_ms(&claims);
        let scopes = claims.scopes();
        // The role of the services themselves is no user's to have, whoever issued the token.
        let roles = claims.roles().iter().filter(|role| *role != SERVICE).cloned().collect();
        let identity = Identity { user, roles, session: claims.sid };
        let mut verified = Verified { key, ..Verified::new(identity, scopes, valid_until_ms) };
        if self.behind == Behind::Standalone {
            verified.name = claims.sub.into();
        }
        let verified = Arc::new(verified);
        self.cache.insert(hash, Arc::clone(&verified), now_ms);
        Ok(verified)
    }

    /// Our own users are numbers. Those of other issuers are whatever these call them, and are told apart by a number of
    /// ours that nobody can choose.
    fn user(&self, subject: &str) -> Option<u64> {
        match self.behind {
            Behind::Identity => subject.parse().ok(),
            Behind::Standalone if subject.is_empty() => None,
            Behind::Standalone => cache::hash(subject).first_chunk().map(|first| u64::from_ne_bytes(*first)),
        }
    }
}

/// RFC 6750, 2.1: exactly one header, the scheme in any case.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn refuse(error: &TokenError) -> Problem {
    // Which check failed is for the log; a forger learns no more than that it failed.
    tracing::debug!(reason = %error, "token refused");
    match error {
        TokenError::Expired => Problem::token_expired(),
        _ => Problem::invalid_token(),
    }
}
