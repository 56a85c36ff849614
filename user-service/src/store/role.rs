//! Roles. Invariant: whether somebody is the last administrator is decided under the lock of all administrators' rows, so
//! two who are taken at the same moment are not both thought to leave the other.

use serde::{Deserialize, Serialize};
use sqlx::mysql::MySqlExecutor;
use time::OffsetDateTime;
use utoipa::ToSchema;

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

pub async fn take(executor: impl MySqlExecutor<'_>, user: u64, role: Role) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM user_roles WHERE user_id = ? AND role = ?")
        .bind(user)
        .bind(role.as_str())
        .execute(executor)
        .await?;
    Ok(())
}

/// Everybody who is an administrator, for the transaction alone.
pub async fn lock_admins(executor: impl MySqlExecutor<'_>) -> Result<Vec<u64>, sqlx::Error> {
    let rows: Vec<(u64,)> =
        sqlx::query_as("SELECT user_id FROM user_roles WHERE role = ? ORDER BY user_id FOR UPDATE")
            .bind(Role::Admin.as_str())
            .fetch_all(executor)
            .await?;
    Ok(rows.into_iter().map(|(user,)| user).collect())
}

/// Whether anybody is an administrator.
pub async fn has_admin(executor: impl MySqlExecutor<'_>) -> Result<bool, sqlx::Error> {
    let found: Option<(u64,)> = sqlx::query_as("SELECT user_id FROM user_roles WHERE role = ? LIMIT 1")
        .bind(Role::Admin.as_str())
        .fetch_optional(executor)
        .await?;
    Ok(found.is_some())
}
