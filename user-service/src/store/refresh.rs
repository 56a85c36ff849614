//! Refresh tokens and their families. Invariant: every change of a family happens under its row lock, so of two
//! requests with one token exactly one rotates it and the other is seen as reuse.

use sqlx::{MySqlConnection, MySqlPool};
use uuid::Uuid;

use super::sessions::{self, Revoked};
use super::{Role, roles, timestamp};
use crate::token::{Terms, TokenHash};

/// What became of an attempt to rotate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rotation {
    Rotated {
        user: u64,
        sid: Uuid,
        roles: Vec<Role>,
    },
    /// Never issued, or expired so long ago that it was swept.
    Unknown,
    Expired,
    /// Its family had been revoked before.
    Revoked,
    /// It had been used before; its family is revoked now, and verifiers have to hear of that.
    Reused {
        user: u64,
        sid: Uuid,
        revoked: Option<Revoked>,
    },
}

/// Spends `presented` and puts `fresh` in its place, or says why not.
pub async fn rotate(
    pool: &MySqlPool,
    presented: TokenHash,
    fresh: TokenHash,
    terms: Terms,
) -> Result<Rotation, sqlx::Error> {
    // A token never changes its family, so this may be read before the lock.
    let family: Option<(Vec<u8>,)> = sqlx::query_as("SELECT sid FROM refresh_tokens WHERE token_hash = ?")
        .bind(presented.0.as_slice())
        .fetch_optional(pool)
        .await?;
    let Some((sid_bytes,)) = family else { return Ok(Rotation::Unknown) };
    let sid = Uuid::from_slice(&sid_bytes).map_err(|error| sqlx::Error::Decode(error.into()))?;

    let mut transaction = pool.begin().await?;
    let locked: Option<(u64, bool)> = sqlx::query_as(
        "SELECT user_id, revoked_at IS NOT NULL FROM refresh_families WHERE sid = ? FOR UPDATE",
    )
    .bind(&sid_bytes)
    .fetch_optional(&mut *transaction)
    .await?;
    let Some((user, revoked)) = locked else { return Ok(Rotation::Unknown) };
    // FOR UPDATE here as well: a plain read would show the snapshot from before the lock was granted.
    let token: Option<(bool, bool)> = sqlx::query_as(
        "SELECT used_at IS NOT NULL, expires_at <= ? FROM refresh_tokens WHERE token_hash = ? FOR UPDATE",
    )
    .bind(timestamp(terms.from_ms))
    .bind(presented.0.as_slice())
    .fetch_optional(&mut *transaction)
    .await?;
    let Some((used, expired)) = token else { return Ok(Rotation::Unknown) };
    if revoked {
        return Ok(Rotation::Revoked);
    }
    if expired {
        return Ok(Rotation::Expired);
    }
    if used {
        let revoked = sessions::revoke_in(&mut transaction, sid, terms.from_ms).await?;
        transaction.commit().await?;
        return Ok(Rotation::Reused { user, sid, revoked });
    }
    sqlx::query("UPDATE refresh_tokens SET used_at = ? WHERE token_hash = ?")
        .bind(timestamp(terms.from_ms))
        .bind(presented.0.as_slice())
        .execute(&mut *transaction)
        .await?;
    insert_token(&mut transaction, sid, fresh, terms).await?;
    // The later one, if the life of access tokens was shortened meanwhile.
    sqlx::query(
        "UPDATE refresh_families SET expires_at = ?, access_expires_at = GREATEST(COALESCE(access_expires_at, ?), ?) \
         WHERE sid = ?",
    )
        .bind(timestamp(terms.refresh_until_ms))
        .bind(timestamp(terms.access_until_ms))
        .bind(timestamp(terms.access_until_ms))
        .bind(&sid_bytes)
        .execute(&mut *transaction)
        .await?;
    // Read before the commit, so that a failure leaves the presented token usable.
    let roles = roles(&mut *transaction, user).await?;
    transaction.commit().await?;
    Ok(Rotation::Rotated { user, sid, roles })
}

/// Adds a token to a family.
pub(super) async fn insert_token(
    connection: &mut MySqlConnection,
    sid: Uuid,
    token: TokenHash,
    terms: Terms,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO refresh_tokens (token_hash, sid, issued_at, expires_at) VALUES (?, ?, ?, ?)")
        .bind(token.0.as_slice())
        .bind(sid.as_bytes().as_slice())
        .bind(timestamp(terms.from_ms))
        .bind(timestamp(terms.refresh_until_ms))
        .execute(connection)
        .await?;
    Ok(())
}

/// Deletes up to `limit` expired families and tokens each; returns how many rows went.
pub async fn sweep(pool: &MySqlPool, now_ms: u64, limit: u32) -> Result<u64, sqlx::Error> {
    let mut gone = 0;
    for statement in [
        "DELETE FROM refresh_tokens WHERE expires_at <= ? ORDER BY expires_at LIMIT ?",
        "DELETE FROM refresh_families WHERE expires_at <= ? ORDER BY expires_at LIMIT ?",
    ] {
        let result = sqlx::query(statement).bind(timestamp(now_ms)).bind(limit).execute(pool).await?;
        gone += result.rows_affected();
    }
    Ok(gone)
}
