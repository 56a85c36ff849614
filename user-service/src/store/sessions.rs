//! Logins: how they begin, and how they end before their time. Invariants: a login begins only while the password that was
//! checked is still the account's, so none slips past a change that ends them all; a revocation holds from its commit on,
//! and stays on record for as long as an access token of the login may be good.

use sqlx::mysql::MySqlExecutor;
use sqlx::{MySql, MySqlConnection, MySqlPool, QueryBuilder};
use time::OffsetDateTime;
use uuid::Uuid;

use super::failures::Bucket;
use super::{Credentials, Role, milliseconds, refresh, roles, timestamp};
use crate::token::{Terms, TokenHash};

/// Gateways forgive a difference of clocks (`jwt.leeway`: 5 s, and never more than this), and nobody's clock is that wrong.
const MARGIN_MS: u64 = 60_000;
/// Where it is not known when the last token was made: the longest life that `token.access-ttl` allows.
const LONGEST_MS: u64 = 24 * 60 * 60 * 1000;
/// Rows in one statement.
const BATCH: usize = 500;

/// A login that no longer counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoked {
    pub sid: Uuid,
    /// From then on no token of it is good, and it may be forgotten. Unix milliseconds.
    pub until_ms: u64,
}

/// Begins a login, with its first refresh token, and gives the account's roles; `None` if the password was changed or the
/// account deleted since it was checked.
pub async fn open(
    pool: &MySqlPool,
    checked: &Credentials,
    client: Option<Bucket>,
    sid: Uuid,
    token: TokenHash,
    terms: Terms,
) -> Result<Option<Vec<Role>>, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    // Whoever ends all logins of the account holds this row alone: they see this login, or this sees their change.
    let current: Option<(Option<String>,)> =
        sqlx::query_as("SELECT password_hash FROM users WHERE user_id = ? LOCK IN SHARE MODE")
            .bind(checked.user)
            .fetch_optional(&mut *transaction)
            .await?;
    if current.and_then(|(hash,)| hash).as_ref() != Some(&checked.password_hash) {
        return Ok(None);
    }
    let roles = roles(&mut *transaction, checked.user).await?;
    sqlx::query(
        "INSERT INTO refresh_families (sid, user_id, client, created_at, expires_at, access_expires_at) \
         VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(sid.as_bytes().as_slice())
    .bind(checked.user)
    .bind(client.map(|client| client.to_vec()))
    .bind(timestamp(terms.from_ms))
    .bind(timestamp(terms.refresh_until_ms))
    .bind(timestamp(terms.access_until_ms))
    .execute(&mut *transaction)
    .await?;
    refresh::insert_token(&mut transaction, sid, token, terms).await?;
    transaction.commit().await?;
    Ok(Some(roles))
}

/// Ends one login, which need not be one of ours. Nothing is left to tell if all its tokens are dead.
pub async fn revoke(pool: &MySqlPool, sid: Uuid, now_ms: u64) -> Result<Option<Revoked>, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let revoked = revoke_in(&mut transaction, sid, now_ms).await?;
    transaction.commit().await?;
    Ok(revoked)
}

/// Ends the login that a refresh token belongs to, be it used or expired; `None` if there is no such token.
pub async fn revoke_by_token(
    pool: &MySqlPool,
    token: TokenHash,
    now_ms: u64,
) -> Result<Option<Revoked>, sqlx::Error> {
    let family: Option<(Vec<u8>,)> = sqlx::query_as("SELECT sid FROM refresh_tokens WHERE token_hash = ?")
        .bind(token.0.as_slice())
        .fetch_optional(pool)
        .await?;
    match family {
        Some((sid,)) => revoke(pool, uuid(&sid)?, now_ms).await,
        None => Ok(None),
    }
}

/// The same within a transaction.
pub async fn revoke_in(
    connection: &mut MySqlConnection,
    sid: Uuid,
    now_ms: u64,
) -> Result<Option<Revoked>, sqlx::Error> {
    let family: Option<(Option<OffsetDateTime>,)> =
        sqlx::query_as("SELECT access_expires_at FROM refresh_families WHERE sid = ? FOR UPDATE")
            .bind(sid.as_bytes().as_slice())
            .fetch_optional(&mut *connection)
            .await?;
    if family.is_some() {
        // The first time is kept: it is when the login ended.
        sqlx::query("UPDATE refresh_families SET revoked_at = COALESCE(revoked_at, ?) WHERE sid = ?")
            .bind(timestamp(now_ms))
            .bind(sid.as_bytes().as_slice())
            .execute(&mut *connection)
            .await?;
    }
    let revoked = Revoked { sid, until_ms: until(family.and_then(|(until,)| until), now_ms) };
    Ok(record(connection, vec![revoked], now_ms).await?.pop())
}

/// Ends all logins of an account, whose row the transaction has locked; and `own`, by which its holder asks, which may be
/// none of them.
pub async fn revoke_all(
    connection: &mut MySqlConnection,
    user: u64,
    own: Option<Uuid>,
    now_ms: u64,
) -> Result<Vec<Revoked>, sqlx::Error> {
    let families: Vec<(Vec<u8>, Option<OffsetDateTime>)> = sqlx::query_as(
        "SELECT sid, access_expires_at FROM refresh_families WHERE user_id = ? AND revoked_at IS NULL FOR UPDATE",
    )
    .bind(user)
    .fetch_all(&mut *connection)
    .await?;
    sqlx::query("UPDATE refresh_families SET revoked_at = ? WHERE user_id = ? AND revoked_at IS NULL")
        .bind(timestamp(now_ms))
        .bind(user)
        .execute(&mut *connection)
        .await?;
    let revoked = families
        .into_iter()
        .map(|(sid, access)| Ok(Revoked { sid: uuid(&sid)?, until_ms: until(access, now_ms) }))
        .collect::<Result<_, sqlx::Error>>()?;
    let mut revoked = record(connection, revoked, now_ms).await?;
    if let Some(own) = own.filter(|own| revoked.iter().all(|one| one.sid != *own)) {
        revoked.extend(revoke_in(connection, own, now_ms).await?);
    }
    Ok(revoked)
}

/// Whether a token of this login must not be taken any more.
pub async fn is_revoked(executor: impl MySqlExecutor<'_>, sid: Uuid) -> Result<bool, sqlx::Error> {
    let found: Option<(i64,)> = sqlx::query_as("SELECT 1 FROM revoked_sessions WHERE sid = ?")
        .bind(sid.as_bytes().as_slice())
        .fetch_optional(executor)
        .await?;
    Ok(found.is_some())
}

/// Up to `limit` revocations that still matter, in the order of their ids, from the one after `after` on.
pub async fn revoked(
    executor: impl MySqlExecutor<'_>,
    now_ms: u64,
    after: Uuid,
    limit: u32,
) -> Result<Vec<Revoked>, sqlx::Error> {
    let rows: Vec<(Vec<u8>, OffsetDateTime)> = sqlx::query_as(
        "SELECT sid, expires_at FROM revoked_sessions WHERE expires_at > ? AND sid > ? ORDER BY sid LIMIT ?",
    )
    .bind(timestamp(now_ms))
    .bind(after.as_bytes().as_slice())
    .bind(limit)
    .fetch_all(executor)
    .await?;
    rows.into_iter()
        .map(|(sid, until)| Ok(Revoked { sid: uuid(&sid)?, until_ms: milliseconds(until) }))
        .collect()
}

/// Deletes up to `limit` revocations that no longer matter; returns how many went.
pub async fn sweep(pool: &MySqlPool, now_ms: u64, limit: u32) -> Result<u64, sqlx::Error> {
    let result =
        sqlx::query("DELETE FROM revoked_sessions WHERE expires_at <= ? ORDER BY expires_at LIMIT ?")
            .bind(timestamp(now_ms))
            .bind(limit)
            .execute(pool)
            .await?;
    Ok(result.rows_affected())
}

/// Puts revocations on record, and gives back those that matter: whose tokens are not all dead.
async fn record(
    connection: &mut MySqlConnection,
    mut revoked: Vec<Revoked>,
    now_ms: u64,
) -> Result<Vec<Revoked>, sqlx::Error> {
    revoked.retain(|one| one.until_ms > now_ms);
    for some in revoked.chunks(BATCH) {
        let mut insert = QueryBuilder::<MySql>::new("INSERT INTO revoked_sessions (sid, expires_at) ");
        insert.push_values(some, |mut row, one| {
            row.push_bind(one.sid.as_bytes().to_vec()).push_bind(timestamp(one.until_ms));
        });
        insert.push(" ON DUPLICATE KEY UPDATE expires_at = GREATEST(expires_at, VALUES(expires_at))");
        insert.build().execute(&mut *connection).await?;
    }
    Ok(revoked)
}

fn until(access: Option<OffsetDateTime>, now_ms: u64) -> u64 {
    access.map_or(now_ms + LONGEST_MS, milliseconds) + MARGIN_MS
}

fn uuid(bytes: &[u8]) -> Result<Uuid, sqlx::Error> {
    Uuid::from_slice(bytes).map_err(|error| sqlx::Error::Decode(error.into()))
}
