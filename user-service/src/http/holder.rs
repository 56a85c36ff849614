//! Who is calling, by a login that still counts. Invariant: whatever concerns the account itself is refused from the
//! commit of a revocation on; gateways hear of it a moment later.

use axum::extract::FromRequestParts;
use http::request::Parts;
use platform::http::problem::Problem;
use platform::identity::{Caller, Identity};
use uuid::Uuid;

use crate::app::AppState;
use crate::error::ApiError;
use crate::store::sessions;

/// The caller; 401 `UNAUTHENTICATED` without one, or if the login was revoked.
#[derive(Clone, Debug)]
pub struct Holder(pub Identity);

impl FromRequestParts<AppState> for Holder {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let Caller(identity) = Caller::from_request_parts(parts, state).await?;
        if let Some(sid) = session(&identity)
            && sessions::is_revoked(&state.pool, sid).await.map_err(ApiError::from)?
        {
            return Err(Problem::invalid_token());
        }
        Ok(Self(identity))
    }
}

/// The caller's login, if it is one of ours: they are named by 32 hex digits.
#[must_use]
pub fn session(identity: &Identity) -> Option<Uuid> {
    let text = identity.session.as_deref()?;
    Uuid::try_parse(text).ok().filter(|sid| sid.simple().to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_form_that_tokens_have_names_a_login() {
        let of = |text: &str| session(&Identity { session: Some(text.to_owned()), ..Identity::default() });
        assert!(of("6f1d4b2c6f1d4b2c6f1d4b2c6f1d4b2c").is_some());
        // Redis and the gateways compare the text.
        for other in ["", "s", "6F1D4B2C6F1D4B2C6F1D4B2C6F1D4B2C", "6f1d4b2c-6f1d-4b2c-6f1d-4b2c6f1d4b2c"] {
            assert_eq!(of(other), None, "{other}");
        }
        assert_eq!(session(&Identity::default()), None);
    }
}
