//! The first administrator, from the settings. Invariants: an account that exists is never touched. If somebody else
//! signed up with the configured address first, he must not become an administrator by our next start; and an
//! administrator's changed password or withdrawn role stays as it is. Where there is an administrator, none is made: one who
//! deleted his account does not rise again with the password of the settings.

use platform::lifecycle::BoxError;

use crate::app::AppState;
use crate::config::FirstAdminSettings;
use crate::email::Email;
use crate::error::ApiError;
use crate::store::{self, Inserted, Role, role, timestamp};

/// Makes the account if there is no administrator and its address is not in use. Of several instances that start at once, one makes it.
pub async fn ensure(state: &AppState, settings: &FirstAdminSettings) -> Result<(), BoxError> {
    if settings.email.is_empty() {
        return Ok(());
    }
    let email =
        Email::parse(&settings.email).map_err(|error| format!("first-admin.email {}", error.english()))?;
    // Most starts end here and spare themselves the hash.
    if !role::has_admin(&state.pool).await?
        && store::credentials(&state.pool, &email).await?.is_none()
        && create(state, &email, settings).await? == Inserted::Created
    {
        tracing::info!("first administrator created");
        return Ok(());
    }
    check(state, &email).await?;
    Ok(())
}

/// The account and its role appear together, or not at all.
async fn create(
    state: &AppState,
    email: &Email,
    settings: &FirstAdminSettings,
) -> Result<Inserted, BoxError> {
    let hash = state.passwords.hash(settings.password.clone()).await?;
    let now = timestamp(state.clock.now_ms());
    for _ in 0..crate::http::users::ID_DRAWS {
        let id = state.ids.next();
        let mut transaction = state.pool.begin().await?;
        match store::insert_user(&mut *transaction, id, email, &hash, now).await? {
            Inserted::IdTaken => {}
            Inserted::EmailTaken => return Ok(Inserted::EmailTaken),
            Inserted::Created => {
                store::grant(&mut *transaction, id, Role::Admin, now).await?;
                transaction.commit().await?;
                return Ok(Inserted::Created);
            }
        }
    }
    Err(ApiError::Ids.into())
}

async fn check(state: &AppState, email: &Email) -> Result<(), sqlx::Error> {
    let Some(account) = store::credentials(&state.pool, email).await? else { return Ok(()) };
    if !store::roles(&state.pool, account.user).await?.contains(&Role::Admin) {
        tracing::warn!(
            user.id = account.user,
            "first-admin.email belongs to an account that is no administrator; it was left as it is"
        );
    }
    Ok(())
}
