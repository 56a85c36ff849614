//! What only the account's holder may do, who has to prove the password once more: change it, and delete the account.
//! Invariant: afterwards every login that began before is over.

use axum::extract::State;
use http::StatusCode;
use platform::config::Secret;
use platform::http::description::{Body, Refused};
use platform::http::extract::Json;
use platform::identity::ClientAddress;
use serde::Deserialize;
use utoipa::ToSchema;

use super::holder::{Holder, session};
use super::proof::prove;
use super::refusals::{self, Fields, LastAdmin, WrongPassword};
use crate::app::AppState;
use crate::email::Email;
use crate::error::{ApiError, FieldError};
use crate::password::rules;
use crate::store::{self, Credentials, role, sessions, timestamp};

/// The password as it is, and as it is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChangePassword {
    #[schema(value_type = String, format = Password, example = "correct horse")]
    current_password: Secret,
    #[schema(value_type = String, format = Password, min_length = 8, max_length = 128, example = "battery staple")]
    new_password: Secret,
}

/// The password, so that nobody deletes the account of somebody who left a device lying about.
#[derive(Debug, Deserialize, ToSchema)]
pub struct DeleteAccount {
    #[schema(value_type = String, format = Password, example = "correct horse")]
    password: Secret,
}

/// Change my password.
///
/// All logins of the account end, this one included; log in with the new password. Wrong current passwords are counted
/// with wrong logins.
#[utoipa::path(
    put,
    path = "/users/me/password",
    tag = "users",
    security(("bearer" = [])),
    request_body(
        content = ChangePassword,
        example = json!({"currentPassword": "correct horse", "newPassword": "battery staple"})
    ),
    responses(
        (status = 204, description = "The password is changed, and all logins have ended"),
        Refused<(Fields, refusals::Holder, WrongPassword)>
    )
)]
pub async fn change_password(
    State(state): State<AppState>,
    Holder(identity): Holder,
    client: ClientAddress,
    Json(request): Json<ChangePassword>,
) -> Result<StatusCode, ApiError> {
    let (email, account) = account(&state, identity.user).await?;
    if let Err(weakness) = rules::check(&request.new_password, Email::parse(&email).ok().as_ref()) {
        return Err(ApiError::Invalid(vec![FieldError::Password("newPassword", weakness)]));
    }
    demand(&state, &email, &account, request.current_password, client).await?;
    let hash = state.passwords.hash(request.new_password).await?;

    let now = state.clock.now_ms();
    let mut transaction = state.pool.begin().await?;
    if !store::lock_unchanged(&mut transaction, &account).await? {
        return Err(ApiError::WrongPassword);
    }
    store::set_password(&mut *transaction, account.user, &hash).await?;
    let revoked = sessions::revoke_all(&mut transaction, account.user, session(&identity), now).await?;
    transaction.commit().await?;
    state.revocations.announce(&revoked).await;
    tracing::info!(user.id = account.user, sessions = revoked.len(), "password changed");
    Ok(StatusCode::NO_CONTENT)
}

/// Delete my account.
///
/// The e-mail address and the password are removed and all logins end. The id stays on record without them, so that
/// coupons that were issued to it remain accountable; it is never given to anybody else. The address may sign up again, as
/// somebody new.
#[utoipa::path(
    delete,
    path = "/users/me",
    tag = "users",
    security(("bearer" = [])),
    request_body(content = DeleteAccount, example = json!({"password": "correct horse"})),
    responses(
        (status = 204, description = "The account is deleted"),
        Refused<(Body, refusals::Holder, WrongPassword, LastAdmin)>
    )
)]
pub async fn delete(
    State(state): State<AppState>,
    Holder(identity): Holder,
    client: ClientAddress,
    Json(request): Json<DeleteAccount>,
) -> Result<StatusCode, ApiError> {
    let (email, account) = account(&state, identity.user).await?;
    demand(&state, &email, &account, request.password, client).await?;

    let now = state.clock.now_ms();
    let mut transaction = state.pool.begin().await?;
    if !store::lock_unchanged(&mut transaction, &account).await? {
        return Err(ApiError::WrongPassword);
    }
    if role::lock_admins(&mut *transaction).await? == [account.user] {
        return Err(ApiError::LastAdmin);
    }
    let revoked = sessions::revoke_all(&mut transaction, account.user, session(&identity), now).await?;
    store::bury(&mut transaction, account.user, timestamp(now)).await?;
    transaction.commit().await?;
    state.revocations.announce(&revoked).await;
    metrics::counter!("user_deletions_total").increment(1);
    tracing::info!(user.id = account.user, sessions = revoked.len(), "account deleted");
    Ok(StatusCode::NO_CONTENT)
}

async fn account(state: &AppState, user: u64) -> Result<(String, Credentials), ApiError> {
    store::account(&state.pool, user).await?.ok_or(ApiError::NoSuchUser)
}

async fn demand(
    state: &AppState,
    email: &str,
    account: &Credentials,
    password: Secret,
    client: ClientAddress,
) -> Result<(), ApiError> {
    let (right, _) = prove(state, email, Some(account), password, client).await?;
    if right { Ok(()) } else { Err(ApiError::WrongPassword) }
}
