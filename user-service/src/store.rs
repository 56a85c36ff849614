//! Accounts in MySQL: plain functions that take an executor. Invariants: whether an e-mail address is taken is decided
//! by the unique key alone, never by looking first; an id is never used again.
//!
//! Locks are taken in one order: the account's row, then roles, then logins; of two who change one account, one waits.

use sqlx::MySqlConnection;
use sqlx::mysql::MySqlExecutor;
use time::OffsetDateTime;

pub use self::role::{Role, grant, roles};
use crate::email::Email;

pub mod failures;
pub mod refresh;
pub mod role;
pub mod sessions;

/// An account as its holder may see it.
#[derive(Clone, Debug)]
pub struct User {
    pub id: u64,
    pub email: String,
    /// Unix milliseconds.
    pub created_ms: u64,
}

/// What a login is checked against.
#[derive(Clone)]
pub struct Credentials {
    pub user: u64,
    pub password_hash: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What became of an insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    Created,
    EmailTaken,
    /// The id was drawn before: draw again.
    IdTaken,
}

pub async fn insert_user(
    executor: impl MySqlExecutor<'_>,
    id: u64,
    email: &Email,
    password_hash: &str,
    created_at: OffsetDateTime,
) -> Result<Inserted, sqlx::Error> {
    let result =
        sqlx::query("INSERT INTO users (user_id, email, password_hash, created_at) VALUES (?, ?, ?, ?)")
            .bind(id)
            .bind(email.as_str())
            .bind(password_hash)
            .bind(created_at)
            .execute(executor)
            .await;
    match result {
        Ok(_) => Ok(Inserted::Created),
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
            Ok(if error.message().contains("uk_users_email") {
                Inserted::EmailTaken
            } else {
                Inserted::IdTaken
            })
        }
        Err(error) => Err(error),
    }
}

pub async fn credentials(
    executor: impl MySqlExecutor<'_>,
    email: &Email,
) -> Result<Option<Credentials>, sqlx::Error> {
    let row: Option<(u64, String)> =
        sqlx::query_as("SELECT user_id, password_hash FROM users WHERE email = ?")
            .bind(email.as_str())
            .fetch_optional(executor)
            .await?;
    Ok(row.map(|(user, password_hash)| Credentials { user, password_hash }))
}

/// The address of an account, and what its password is checked against.
pub async fn account(
    executor: impl MySqlExecutor<'_>,
    user: u64,
) -> Result<Option<(String, Credentials)>, sqlx::Error> {
    let row: Option<(String, String)> =
        sqlx::query_as("SELECT email, password_hash FROM users WHERE user_id = ? AND deleted_at IS NULL")
            .bind(user)
            .fetch_optional(executor)
            .await?;
    Ok(row.map(|(email, password_hash)| (email, Credentials { user, password_hash })))
}

pub async fn user(executor: impl MySqlExecutor<'_>, id: u64) -> Result<Option<User>, sqlx::Error> {
    let row: Option<(String, OffsetDateTime)> =
        sqlx::query_as("SELECT email, created_at FROM users WHERE user_id = ? AND deleted_at IS NULL")
            .bind(id)
            .fetch_optional(executor)
            .await?;
    Ok(row.map(|(email, created_at)| User { id, email, created_ms: milliseconds(created_at) }))
}

/// Takes an account for the transaction alone, so that no login of it begins meanwhile. Whether there is one.
pub async fn lock(executor: impl MySqlExecutor<'_>, user: u64) -> Result<bool, sqlx::Error> {
    let found: Option<(Option<OffsetDateTime>,)> =
        sqlx::query_as("SELECT deleted_at FROM users WHERE user_id = ? FOR UPDATE")
            .bind(user)
            .fetch_optional(executor)
            .await?;
    Ok(matches!(found, Some((None,))))
}

/// The same, unless the password was changed or the account deleted since it was checked.
pub async fn lock_unchanged(
    connection: &mut MySqlConnection,
    checked: &Credentials,
) -> Result<bool, sqlx::Error> {
    let current: Option<(Option<String>,)> =
        sqlx::query_as("SELECT password_hash FROM users WHERE user_id = ? FOR UPDATE")
            .bind(checked.user)
            .fetch_optional(connection)
            .await?;
    Ok(current.and_then(|(hash,)| hash).as_ref() == Some(&checked.password_hash))
}

/// Of an account that the transaction has locked.
pub async fn set_password(
    executor: impl MySqlExecutor<'_>,
    user: u64,
    password_hash: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE users SET password_hash = ? WHERE user_id = ?")
        .bind(password_hash)
        .bind(user)
        .execute(executor)
        .await?;
    Ok(())
}

/// Leaves nothing but the id of an account that the transaction has locked.
pub async fn bury(
    connection: &mut MySqlConnection,
    user: u64,
    at: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE users SET email = NULL, password_hash = NULL, deleted_at = ? WHERE user_id = ?")
        .bind(at)
        .bind(user)
        .execute(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM user_roles WHERE user_id = ?").bind(user).execute(connection).await?;
    Ok(())
}

/// The time for a DATETIME(3) column.
#[must_use]
pub fn timestamp(ms: u64) -> OffsetDateTime {
    // Out of range only past the year 9999.
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// And back.
#[must_use]
pub fn milliseconds(at: OffsetDateTime) -> u64 {
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or_default()
}
