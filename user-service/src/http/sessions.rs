//! Logins: a password for a pair of tokens, and a refresh token for the next pair.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CACHE_CONTROL;
use platform::config::Secret;
use platform::http::description::{Body, Refused};
use platform::http::extract::Json;
use platform::identity::ClientAddress;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::proof::prove;
use super::refusals::{BadCredentials, BadRefreshToken};
use crate::app::AppState;
use crate::email::Email;
use crate::error::ApiError;
use crate::store::refresh::{self, Rotation};
use crate::store::{self, Role, sessions};
use crate::token::{Terms, TokenError, TokenHash, refresh_token};

/// An account's address and password. They are compared, not validated: whatever could never have signed up is
/// answered like any other wrong login.
#[derive(Debug, Deserialize, ToSchema)]
pub struct Login {
    #[schema(example = "kim@example.com", format = "email")]
    email: String,
    #[schema(value_type = String, format = Password, example = "correct horse")]
    password: Secret,
}

/// The refresh token of the last answer.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Refresh {
    #[schema(value_type = String, format = Password, example = "fcr_hN5W4Qm1vI4oGJvqT7a1mB0m2Q0f3m0WbqkTrhzW7cE")]
    refresh_token: Secret,
}

/// A pair of tokens.
#[derive(Debug, Serialize, ToSchema)]
pub struct LoggedIn {
    token: TokenPair,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenPair {
    #[schema(example = "Bearer")]
    grant_type: String,
    /// A JWT for the `Authorization` header.
    access_token: String,
    /// Seconds for which the access token holds.
    #[schema(example = 900)]
    expires_in: u64,
    /// Works once, at `POST /users/token/refresh`.
    refresh_token: String,
}

impl std::fmt::Debug for TokenPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenPair").field("expires_in", &self.expires_in).finish_non_exhaustive()
    }
}

/// Log in.
///
/// A wrong password and an unknown address get the same answer after the same time.
#[utoipa::path(
    post,
    path = "/users/login",
    tag = "sessions",
    request_body(
        content = Login,
        example = json!({"email": "kim@example.com", "password": "correct horse"})
    ),
    responses(
        (
            status = 200, description = "A pair of tokens", body = LoggedIn,
            example = json!({"token": {
                "grantType": "Bearer", "accessToken": "eyJhbGciOiJFZERTQSJ9...",
                "expiresIn": 900, "refreshToken": "fcr_hN5W4Qm1vI4oGJvqT7a1mB0m2Q0f3m0WbqkTrhzW7cE"
            }})
        ),
        Refused<(Body, BadCredentials)>
    )
)]
pub async fn login(
    State(state): State<AppState>,
    client: ClientAddress,
    Json(request): Json<Login>,
) -> Result<Response, ApiError> {
    let (name, account) = match Email::parse(&request.email) {
        Ok(email) => (email.to_string(), store::credentials(&state.pool, &email).await?),
        Err(_) => (request.email.trim().to_lowercase(), None),
    };
    let (right, attempt) =
        prove(&state, &name, account.as_ref(), request.password, client).await.inspect_err(throttled)?;
    let Some(account) = account.filter(|_| right) else { return Err(refused()) };

    let sid = Uuid::new_v4();
    let (token, hash) = refresh_token().map_err(TokenError::from)?;
    let terms = state.tokens.terms();
    let opened = sessions::open(&state.pool, &account, attempt.client(), sid, hash, terms).await?;
    let Some(roles) = opened else {
        return Err(refused());
    };
    metrics::counter!("user_logins_total", "outcome" => "accepted").increment(1);
    tracing::info!(user.id = account.user, session.id = %sid.simple(), "logged in");
    answer(&state, account.user, &roles, sid, terms, &token)
}

fn throttled(error: &ApiError) {
    if matches!(error, ApiError::Throttled(_)) {
        metrics::counter!("user_logins_total", "outcome" => "throttled").increment(1);
    }
}

fn refused() -> ApiError {
    metrics::counter!("user_logins_total", "outcome" => "refused").increment(1);
    ApiError::BadCredentials
}

/// Trade a refresh token for a new pair.
///
/// A refresh token works once. Presenting a used one again ends the whole login it came from, because one of its two
/// holders is a thief. Roles are read anew.
#[utoipa::path(
    post,
    path = "/users/token/refresh",
    tag = "sessions",
    request_body(
        content = Refresh,
        example = json!({"refreshToken": "fcr_hN5W4Qm1vI4oGJvqT7a1mB0m2Q0f3m0WbqkTrhzW7cE"})
    ),
    responses(
        (
            status = 200, description = "A new pair of tokens", body = LoggedIn,
            example = json!({"token": {
                "grantType": "Bearer", "accessToken": "eyJhbGciOiJFZERTQSJ9...",
                "expiresIn": 900, "refreshToken": "fcr_hN5W4Qm1vI4oGJvqT7a1mB0m2Q0f3m0WbqkTrhzW7cE"
            }})
        ),
        Refused<(Body, BadRefreshToken)>
    )
)]
pub async fn refresh(
    State(state): State<AppState>,
    Json(request): Json<Refresh>,
) -> Result<Response, ApiError> {
    let presented = TokenHash::of(&request.refresh_token);
    let (fresh, hash) = refresh_token().map_err(TokenError::from)?;
    let terms = state.tokens.terms();
    let rotation = refresh::rotate(&state.pool, presented, hash, terms).await?;
    metrics::counter!("user_refreshes_total", "outcome" => outcome(&rotation)).increment(1);
    match rotation {
        Rotation::Rotated { user, sid, roles } => answer(&state, user, &roles, sid, terms, &fresh),
        Rotation::Reused { user, sid, revoked } => {
            tracing::warn!(user.id = user, session.id = %sid.simple(), "used refresh token presented: login revoked");
            state.revocations.announce(revoked.as_slice()).await;
            Err(ApiError::BadRefreshToken)
        }
        Rotation::Unknown | Rotation::Expired | Rotation::Revoked => Err(ApiError::BadRefreshToken),
    }
}

fn outcome(rotation: &Rotation) -> &'static str {
    match rotation {
        Rotation::Rotated { .. } => "rotated",
        Rotation::Reused { .. } => "reused",
        Rotation::Unknown => "unknown",
        Rotation::Expired => "expired",
        Rotation::Revoked => "revoked",
    }
}

fn answer(
    state: &AppState,
    user: u64,
    roles: &[Role],
    sid: Uuid,
    terms: Terms,
    refresh_token: &Secret,
) -> Result<Response, ApiError> {
    let token = TokenPair {
        grant_type: "Bearer".to_owned(),
        access_token: state.tokens.access(user, roles, sid, terms)?,
        expires_in: state.tokens.expires_in(),
        refresh_token: refresh_token.expose().to_owned(),
    };
    // RFC 6749, 5.1: answers with tokens must not be kept by caches.
    Ok(([(CACHE_CONTROL, "no-store")], Json(LoggedIn { token })).into_response())
}
