//! Accounts: signing up, and looking at one's own.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CACHE_CONTROL;
use platform::clock::rfc3339;
use platform::config::Secret;
use platform::http::description::Refused;
use platform::http::extract::Json;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::holder::Holder;
use super::refusals::{self, EmailTaken, Fields};
use crate::app::AppState;
use crate::email::Email;
use crate::error::{ApiError, FieldError};
use crate::password::rules;
use crate::store::{self, Inserted, Role, timestamp};

/// Ids have 12 random bits a millisecond: five draws in a row that are all taken mean that something else is wrong.
pub(crate) const ID_DRAWS: usize = 5;

/// What it takes to sign up.
#[derive(Debug, Deserialize, ToSchema)]
pub struct SignUp {
    /// Surrounding white space and case do not count.
    #[schema(example = "kim@example.com", max_length = 254, format = "email")]
    email: String,
    #[schema(value_type = String, format = Password, min_length = 8, max_length = 128, example = "correct horse")]
    password: Secret,
}

/// The new account.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SignedUp {
    #[schema(example = 249_347_072_000_123_u64)]
    user_id: u64,
    /// As it was normalised.
    #[schema(example = "kim@example.com")]
    email: String,
}

/// The caller's account.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Me {
    #[schema(example = 249_347_072_000_123_u64)]
    user_id: u64,
    #[schema(example = "kim@example.com")]
    email: String,
    roles: Vec<Role>,
    #[schema(format = DateTime, example = "2026-11-21T10:00:00.000Z")]
    created_at: String,
}

/// Checks both fields, so that the caller learns of all problems at once.
fn validate(request: &SignUp) -> Result<Email, ApiError> {
    let mut invalid = Vec::new();
    let email = Email::parse(&request.email).map_err(|error| invalid.push(FieldError::Email(error)));
    if let Err(weakness) = rules::check(&request.password, email.as_ref().ok()) {
        invalid.push(FieldError::Password("password", weakness));
    }
    match email {
        Ok(email) if invalid.is_empty() => Ok(email),
        _ => Err(ApiError::Invalid(invalid)),
    }
}

/// Sign up.
///
/// One account per e-mail address. The password has 8 to 128 characters, and is none of the commonest that have leaked,
/// nor little more than the e-mail address or the name of the service.
#[utoipa::path(
    post,
    path = "/users/sign-up",
    tag = "users",
    request_body(
        content = SignUp,
        example = json!({"email": "kim@example.com", "password": "correct horse"})
    ),
    responses(
        (
            status = 201, description = "The account exists", body = SignedUp,
            example = json!({"userId": 249_347_072_000_123_u64, "email": "kim@example.com"})
        ),
        Refused<(Fields, EmailTaken)>
    )
)]
pub async fn sign_up(
    State(state): State<AppState>,
    Json(request): Json<SignUp>,
) -> Result<Response, ApiError> {
    let email = validate(&request)?;
    let hash = state.passwords.hash(request.password).await?;
    let now = timestamp(state.clock.now_ms());
    for _ in 0..ID_DRAWS {
        let id = state.ids.next();
        match store::insert_user(&state.pool, id, &email, &hash, now).await? {
            Inserted::Created => {
                metrics::counter!("user_sign_ups_total").increment(1);
                tracing::info!(user.id = id, "signed up");
                let body = SignedUp { user_id: id, email: email.to_string() };
                return Ok((StatusCode::CREATED, Json(body)).into_response());
            }
            Inserted::EmailTaken => return Err(ApiError::EmailTaken),
            Inserted::IdTaken => {}
        }
    }
    Err(ApiError::Ids)
}

/// My account.
#[utoipa::path(
    get,
    path = "/users/me",
    tag = "users",
    security(("bearer" = [])),
    responses(
        (
            status = 200, description = "The caller's account", body = Me,
            example = json!({
                "userId": 249_347_072_000_123_u64, "email": "kim@example.com", "roles": ["USER"],
                "createdAt": "2026-11-21T10:00:00.000Z"
            })
        ),
        Refused<refusals::Holder>
    )
)]
pub async fn me(State(state): State<AppState>, Holder(identity): Holder) -> Result<Response, ApiError> {
    let user = store::user(&state.pool, identity.user).await?.ok_or(ApiError::NoSuchUser)?;
    let roles = store::roles(&state.pool, user.id).await?;
    let body = Me { user_id: user.id, email: user.email, roles, created_at: rfc3339(user.created_ms) };
    Ok(([(CACHE_CONTROL, "no-store")], Json(body)).into_response())
}
