//! The HTTP resources of this service, a file each.

use axum::extract::{FromRef, FromRequestParts};
use http::request::Parts;
use platform::http::problem::Problem;
use platform::identity::{ADMIN, Caller, IdentityVerifier, SERVICE};

pub mod coupons;
pub mod internal;
pub mod refusals;

/// Refuses everybody but an administrator, before the body is looked at; with the administrator's id.
#[derive(Debug)]
struct Administrator(u64);

/// Refuses everybody but another service.
#[derive(Debug)]
struct OtherService;

impl<S: Send + Sync> FromRequestParts<S> for Administrator
where
    IdentityVerifier: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, state).await?;
        caller.require(ADMIN)?;
        Ok(Self(caller.0.user))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for OtherService
where
    IdentityVerifier: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Caller::from_request_parts(parts, state).await?.require(SERVICE)?;
        Ok(Self)
    }
}

#[cfg(test)]
mod tests;
