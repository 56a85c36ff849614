//! Logging out: ending one login, or all of an account.

use axum::extract::State;
use http::StatusCode;
use platform::config::Secret;
use platform::http::description::{Body, NoCaller, Refused};
use platform::http::extract::Json;
use platform::identity::Caller;
use serde::Deserialize;
use utoipa::ToSchema;

use super::holder::session;
use super::refusals::NoLogin;
use crate::app::AppState;
use crate::error::ApiError;
use crate::store::{self, sessions};
use crate::token::TokenHash;

/// What a client may log out with instead of an access token, or besides.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Logout {
    #[serde(default)]
    #[schema(value_type = Option<String>, format = Password, example = "fcr_hN5W4Qm1vI4oGJvqT7a1mB0m2Q0f3m0WbqkTrhzW7cE")]
    refresh_token: Option<Secret>,
}

/// Log out.
///
/// Ends the login of the access token, of the refresh token in the body, or of both; one of them is needed, so a client
/// whose access token has expired sends the refresh token alone. Neither works any more afterwards. Logging out twice, or
/// with a refresh token that nobody knows, is no error.
#[utoipa::path(
    post,
    path = "/users/logout",
    tag = "sessions",
    request_body(
        content = Option<Logout>,
        description = "Optional",
        example = json!({"refreshToken": "fcr_hN5W4Qm1vI4oGJvqT7a1mB0m2Q0f3m0WbqkTrhzW7cE"})
    ),
    security((), ("bearer" = [])),
    responses(
        (status = 204, description = "The login has ended"),
        Refused<(Body, NoLogin)>
    )
)]
pub async fn logout(
    State(state): State<AppState>,
    caller: Option<Caller>,
    body: Option<Json<Option<Logout>>>,
) -> Result<StatusCode, ApiError> {
    let sid = caller.and_then(|Caller(identity)| session(&identity));
    let token = body.and_then(|Json(body)| body?.refresh_token);
    if sid.is_none() && token.is_none() {
        return Err(ApiError::NoLogin);
    }
    let now = state.clock.now_ms();
    let mut revoked = Vec::new();
    if let Some(sid) = sid {
        revoked.extend(sessions::revoke(&state.pool, sid, now).await?);
    }
    // RFC 7009, 2.2: a token that is not known is none that could still do harm.
    if let Some(token) = token {
        revoked.extend(sessions::revoke_by_token(&state.pool, TokenHash::of(&token), now).await?);
    }
    state.revocations.announce(&revoked).await;
    for one in &revoked {
        tracing::info!(session.id = %one.sid.simple(), "logged out");
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Log out everywhere.
///
/// Ends all logins of the account, this one included.
#[utoipa::path(
    post,
    path = "/users/logout/all",
    tag = "sessions",
    security(("bearer" = [])),
    responses(
        (status = 204, description = "All logins have ended"),
        Refused<NoCaller>
    )
)]
pub async fn logout_all(
    State(state): State<AppState>,
    Caller(identity): Caller,
) -> Result<StatusCode, ApiError> {
    let now = state.clock.now_ms();
    let mut transaction = state.pool.begin().await?;
    store::lock(&mut *transaction, identity.user).await?;
    let revoked = sessions::revoke_all(&mut transaction, identity.user, session(&identity), now).await?;
    transaction.commit().await?;
    state.revocations.announce(&revoked).await;
    tracing::info!(user.id = identity.user, sessions = revoked.len(), "logged out everywhere");
    Ok(StatusCode::NO_CONTENT)
}
