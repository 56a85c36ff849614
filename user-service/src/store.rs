//! Accounts in MySQL: plain functions that take an executor. Invariant: whether an e-mail address is taken is decided
//! by the unique key alone, never by looking first.

use serde::{Deserialize, Serialize};
use sqlx::mysql::MySqlExecutor;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::email::Email;

pub mod failures;
pub mod refresh;
pub mod sessions;

/// What an account may do. Everybody is a USER; what goes beyond is granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Role {
    User,
    Admin,
}

impl Role {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "USER",
            Self::Admin => "ADMIN",
        }
    }
}

/// A row holds a value that this version does not know.
#[derive(Debug, thiserror::Error)]
#[error("unknown role {0:?} in user_roles")]
pub struct UnknownRole(String);

impl TryFrom<String> for Role {
    type Error = UnknownRole;

    fn try_from(text: String) -> Result<Self, UnknownRole> {
        [Self::User, Self::Admin].into_iter().find(|role| role.as_str() == text).ok_or(UnknownRole(text))
    }
}

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

pub async fn user(executor: impl MySqlExecutor<'_>, id: u64) -> Result<Option<User>, sqlx::Error> {
    let row: Option<(String, OffsetDateTime)> =
        sqlx::query_as("SELECT email, created_at FROM users WHERE user_id = ?")
            .bind(id)
            .fetch_optional(executor)
            .await?;
    Ok(row.map(|(email, created_at)| User { id, email, created_ms: milliseconds(created_at) }))
}

/// Takes an account for the transaction alone, so that no login of it begins meanwhile. Whether there is one.
pub async fn lock(executor: impl MySqlExecutor<'_>, user: u64) -> Result<bool, sqlx::Error> {
    let found: Option<(u64,)> = sqlx::query_as("SELECT user_id FROM users WHERE user_id = ? FOR UPDATE")
        .bind(user)
        .fetch_optional(executor)
        .await?;
    Ok(found.is_some())
}

/// All roles of a user, USER first.
pub async fn roles(executor: impl MySqlExecutor<'_>, user: u64) -> Result<Vec<Role>, sqlx::Error> {
    let granted: Vec<(String,)> = sqlx::query_as("SELECT role FROM user_roles WHERE user_id = ?")
        .bind(user)
        .fetch_all(executor)
        .await?;
    let mut roles = vec![Role::User];
    for (role,) in granted {
        roles.push(Role::try_from(role).map_err(|error| sqlx::Error::Decode(error.into()))?);
    }
    roles.sort_unstable();
    roles.dedup();
    Ok(roles)
}

pub async fn grant(
    executor: impl MySqlExecutor<'_>,
    user: u64,
    role: Role,
    at: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    // Granting twice is no error and keeps the first time.
    sqlx::query(
        "INSERT INTO user_roles (user_id, role, granted_at) VALUES (?, ?, ?) ON DUPLICATE KEY UPDATE role = role",
    )
    .bind(user)
    .bind(role.as_str())
    .bind(at)
    .execute(executor)
    .await?;
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
