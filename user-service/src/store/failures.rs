//! Failed proofs of passwords, counted. Invariant: a count is read and raised under the lock of its row, so the counts of
//! all instances are one; rows are locked in the order of their buckets, so that two failures never wait for each other.

use std::collections::HashMap;

use sqlx::mysql::MySqlExecutor;
use sqlx::{MySql, MySqlConnection, MySqlPool, QueryBuilder};

/// What is counted together: the digest of an account, an address, or both.
pub type Bucket = [u8; 32];
/// The unix millisecond at which all failures of a bucket are forgotten; a bucket without one has none.
pub type Levels = HashMap<Bucket, u64>;

/// Rows that have been over for less stay, so that the sweep never meets a failure that is just being counted.
const GRACE_MS: u64 = 60_000;

pub async fn levels(executor: impl MySqlExecutor<'_>, buckets: &[Bucket]) -> Result<Levels, sqlx::Error> {
    fetch(executor, buckets, "").await
}

/// The same, with the rows locked until the transaction ends. Those that are missing are made. `buckets` are sorted.
pub async fn lock(
    connection: &mut MySqlConnection,
    buckets: &[Bucket],
    now_ms: u64,
) -> Result<Levels, sqlx::Error> {
    debug_assert!(buckets.is_sorted());
    let mut insert = QueryBuilder::<MySql>::new("INSERT INTO login_failures (bucket, full_ms) ");
    insert.push_values(buckets, |mut row, bucket| {
        row.push_bind(bucket.to_vec()).push_bind(now_ms);
    });
    // Locks the rows that are there alone; INSERT IGNORE would share them, and of two who then raise them one dies.
    insert.push(" ON DUPLICATE KEY UPDATE full_ms = full_ms");
    insert.build().execute(&mut *connection).await?;
    // FOR UPDATE: a plain read could show an older state.
    fetch(connection, buckets, " FOR UPDATE").await
}

pub async fn raise(connection: &mut MySqlConnection, levels: &Levels) -> Result<(), sqlx::Error> {
    for (bucket, full_ms) in levels {
        sqlx::query("UPDATE login_failures SET full_ms = ? WHERE bucket = ?")
            .bind(full_ms)
            .bind(bucket.as_slice())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

pub async fn forget(executor: impl MySqlExecutor<'_>, bucket: Bucket) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM login_failures WHERE bucket = ?")
        .bind(bucket.to_vec())
        .execute(executor)
        .await?;
    Ok(())
}

/// Whether a login of this account began at this address, and is not expired so long that it was swept.
pub async fn is_known(
    executor: impl MySqlExecutor<'_>,
    user: u64,
    client: Bucket,
) -> Result<bool, sqlx::Error> {
    let found: Option<(i64,)> =
        sqlx::query_as("SELECT 1 FROM refresh_families WHERE user_id = ? AND client = ? LIMIT 1")
            .bind(user)
            .bind(client.to_vec())
            .fetch_optional(executor)
            .await?;
    Ok(found.is_some())
}

/// Deletes up to `limit` buckets whose failures are forgotten; returns how many went.
pub async fn sweep(pool: &MySqlPool, now_ms: u64, limit: u32) -> Result<u64, sqlx::Error> {
    let result = sqlx::query("DELETE FROM login_failures WHERE full_ms <= ? ORDER BY full_ms LIMIT ?")
        .bind(now_ms.saturating_sub(GRACE_MS))
        .bind(limit)
        .execute(pool)
        .await?;
    Ok(result.rows_affected())
}

async fn fetch(
    executor: impl MySqlExecutor<'_>,
    buckets: &[Bucket],
    locking: &'static str,
) -> Result<Levels, sqlx::Error> {
    let mut select =
        QueryBuilder::<MySql>::new("SELECT bucket, full_ms FROM login_failures WHERE bucket IN (");
    let mut list = select.separated(", ");
    for bucket in buckets {
        list.push_bind(bucket.to_vec());
    }
    // In the order of the lock, whichever way the server reads them.
    select.push(") ORDER BY bucket").push(locking);
    let rows: Vec<(Vec<u8>, u64)> = select.build_query_as().fetch_all(executor).await?;
    rows.into_iter()
        .map(|(bucket, full_ms)| {
            let bucket =
                Bucket::try_from(bucket.as_slice()).map_err(|error| sqlx::Error::Decode(error.into()))?;
            Ok((bucket, full_ms))
        })
        .collect()
}
