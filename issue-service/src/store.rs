//! The database, which is the index of the ledger: everything in it can be derived from the log again.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use sqlx::pool::PoolConnection;
use sqlx::{Connection as _, MySql, MySqlConnection, MySqlPool, Row, Transaction};

use crate::ids::{CouponId, UserId};
use crate::ledger::snapshot::{Snapshot, Watermark};
use crate::ledger::{Coupon, Definition, Digest, Ledger, Winner, Winners};

pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!();

/// No statement, and no row of an answer, takes this long.
const LIMIT: Duration = Duration::from_secs(30);
/// Rows in one INSERT. Larger statements gain nothing.
const ROWS: usize = 1000;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// The rows contradict each other. Nothing may be derived from them.
    #[error("the database contradicts itself: {0}")]
    Contradiction(String),
}

impl StoreError {
    /// Whether asking again may help.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Contradiction(_) => false,
            // 28: no access; 42: no such table, no right to it, a statement that can't be.
            Self::Database(sqlx::Error::Database(error)) => {
                !error.code().is_some_and(|state| state.starts_with("28") || state.starts_with("42"))
            }
            Self::Database(error) => matches!(
                error,
                sqlx::Error::Io(_)
                    | sqlx::Error::Protocol(_)
                    | sqlx::Error::PoolTimedOut
                    | sqlx::Error::PoolClosed
            ),
        }
    }
}

/// A row of `coupon_issues` to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct IssueRow {
    pub coupon: CouponId,
    pub user: UserId,
    pub place: u32,
    pub offset: u64,
    pub issued_at: u64,
}

/// A row of `issue_coupons`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CouponRow {
    pub definition: Definition,
    pub retired_at: Option<u64>,
    pub count: u32,
}

/// Works on a connection of the pool. One that was given up in the middle, or met an error, is thrown away: a
/// transaction may be open on it.
pub async fn on_connection<T, E: From<sqlx::Error>>(
    pool: &MySqlPool,
    work: impl AsyncFnOnce(&mut MySqlConnection) -> Result<T, E>,
) -> Result<T, E> {
    let mut borrowed = Borrowed(Some(pool.acquire().await?));
    let connection = borrowed.0.as_mut().ok_or(sqlx::Error::PoolClosed)?;
    let done = work(connection).await?;
    drop(borrowed.0.take());
    Ok(done)
}

struct Borrowed(Option<PoolConnection<MySql>>);

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}

/// Waits no longer than any statement or row takes: the link may swallow what is sent.
pub async fn within<T, E: From<sqlx::Error>>(work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    match tokio::time::timeout(LIMIT, work).await {
        Ok(done) => done,
        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()).into()),
    }
}

/// Begins a transaction that writes. Whoever hangs in the middle of one, frozen or cut off, loses it and its locks
/// soon; whoever meets such locks tries again.
pub async fn begin(connection: &mut MySqlConnection) -> sqlx::Result<Transaction<'_, MySql>> {
    let settings = "SET SESSION wait_timeout = 10, innodb_lock_wait_timeout = 5; \
                    SET TRANSACTION ISOLATION LEVEL READ COMMITTED";
    sqlx::raw_sql(settings).execute(&mut *connection).await?;
    connection.begin().await
}

/// Records which topic this database belongs to, or tells which one it belongs to already.
pub async fn claim_topic(pool: &MySqlPool, partitions: u32, topic_id: &str) -> sqlx::Result<(u32, String)> {
    on_connection(pool, async |db| {
        let claim = sqlx::query("INSERT IGNORE INTO ledger_meta (id, partitions, topic_id) VALUES (1, ?, ?)")
            .bind(partitions)
            .bind(topic_id);
        within(claim.execute(&mut *db)).await?;
        let owner = sqlx::query("SELECT partitions, topic_id FROM ledger_meta WHERE id = 1");
        let row = within(owner.fetch_one(&mut *db)).await?;
        Ok((row.try_get(0)?, row.try_get(1)?))
    })
    .await
}

pub async fn watermark(db: &mut MySqlConnection, partition: u32) -> Result<Watermark, StoreError> {
    let row =
        sqlx::query("SELECT `next`, digest, last_record_hash FROM ledger_watermarks WHERE log_partition = ?")
            .bind(partition)
            .fetch_optional(db)
            .await?;
    let Some(row) = row else { return Ok(Watermark::default()) };
    Ok(Watermark {
        next: row.try_get(0)?,
        digest: digest(row.try_get(1)?)?,
        last_record_hash: digest(row.try_get(2)?)?,
    })
}

fn digest(bytes: &[u8]) -> Result<Digest, StoreError> {
    Digest::try_from(bytes)
        .map_err(|_| StoreError::Contradiction(format!("a digest of {} bytes", bytes.len())))
}

/// Reads partitions as of one moment.
pub async fn snapshots(
    pool: &MySqlPool,
    partitions: u32,
    wanted: &[u32],
) -> Result<Vec<Snapshot>, StoreError> {
    on_connection(pool, async |connection| {
        // Also where the server's default is another one: all partitions as of the same moment.
        let isolation = sqlx::raw_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ");
        within(isolation.execute(&mut *connection)).await?;
        let begin = connection.begin_with("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY");
        let mut transaction = within(begin).await?;
        let mut read = Vec::with_capacity(wanted.len());
        for partition in wanted {
            read.push(snapshot(&mut transaction, *partition, partitions).await?);
        }
        transaction.rollback().await?;
        Ok(read)
    })
    .await
}

async fn snapshot(
    connection: &mut MySqlConnection,
    partition: u32,
    partitions: u32,
) -> Result<Snapshot, StoreError> {
    let watermark = within(watermark(&mut *connection, partition)).await?;
    let mut coupons = HashMap::new();
    let mut counts = HashMap::new();
    let definitions = sqlx::query(
        "SELECT coupon_id, version, stock, starts_at, ends_at, closed, retire_offset, `count` \
         FROM issue_coupons WHERE log_partition = ?",
    )
    .bind(partition);
    for row in within(definitions.fetch_all(&mut *connection)).await? {
        let coupon = CouponId(row.try_get(0)?);
        let definition = Definition {
            coupon,
            version: row.try_get(1)?,
            stock: row.try_get(2)?,
            starts_at: row.try_get(3)?,
            ends_at: row.try_get(4)?,
            closed: row.try_get(5)?,
        };
        counts.insert(coupon, row.try_get::<u32, _>(7)?);
        let winners = Winners::default();
        coupons.insert(coupon, Coupon { definition, retired_at: row.try_get(6)?, winners });
    }
    let mut rows = sqlx::query(
        "SELECT i.coupon_id, i.user_id, i.place, i.issued_at FROM coupon_issues i \
         JOIN issue_coupons c ON c.coupon_id = i.coupon_id WHERE c.log_partition = ?",
    )
    .bind(partition)
    .fetch(&mut *connection);
    let mut highest: HashMap<CouponId, u32> = HashMap::new();
    while let Some(row) = within(rows.try_next()).await? {
        let (coupon, user) = (CouponId(row.try_get(0)?), UserId(row.try_get(1)?));
        let winner = Winner { place: row.try_get(2)?, issued_at: row.try_get(3)? };
        let last = highest.entry(coupon).or_default();
        *last = winner.place.max(*last);
        if let Some(coupon) = coupons.get_mut(&coupon) {
            coupon.winners.insert(user, winner);
        }
    }
    for (id, coupon) in &coupons {
        let (rows, count, last) = (coupon.count(), counts[id], highest.get(id).copied().unwrap_or(0));
        if rows != count || count != last {
            return Err(StoreError::Contradiction(format!(
                "coupon {id} has {rows} rows, a count of {count} and {last} as the highest place"
            )));
        }
    }
    let ledger = Ledger::restore(partition, partitions, watermark.next, watermark.digest, coupons);
    Ok(Snapshot { ledger, watermark })
}

/// Moves the watermark from `from` to `to`. False if it is not at `from`: somebody else writes this partition,
/// or the database went back.
pub async fn move_watermark(
    db: &mut MySqlConnection,
    partition: u32,
    from: u64,
    to: &Watermark,
) -> sqlx::Result<bool> {
    if from == 0 {
        sqlx::query(
            "INSERT IGNORE INTO ledger_watermarks (log_partition, `next`, digest, last_record_hash) VALUES (?, 0, ?, ?)",
        )
        .bind(partition)
        .bind(&[0_u8; 32][..])
        .bind(&[0_u8; 32][..])
        .execute(&mut *db)
        .await?;
    }
    // The driver sets CLIENT_FOUND_ROWS, so this counts the row that matched.
    let done = sqlx::query(
        "UPDATE ledger_watermarks SET `next` = ?, digest = ?, last_record_hash = ? WHERE log_partition = ? AND `next` = ?",
    )
    .bind(to.next)
    .bind(&to.digest.0[..])
    .bind(&to.last_record_hash.0[..])
    .bind(partition)
    .bind(from)
    .execute(&mut *db)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub async fn put_coupon(db: &mut MySqlConnection, partition: u32, coupon: &CouponRow) -> sqlx::Result<()> {
    let Definition { coupon: id, version, stock, starts_at, ends_at, closed } = coupon.definition;
    sqlx::query(
        "INSERT INTO issue_coupons (coupon_id, log_partition, version, stock, starts_at, ends_at, closed, retire_offset, `count`) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON DUPLICATE KEY UPDATE version = VALUES(version), stock = VALUES(stock), \
         starts_at = VALUES(starts_at), ends_at = VALUES(ends_at), closed = VALUES(closed), \
         retire_offset = VALUES(retire_offset), `count` = VALUES(`count`)",
    )
    .bind(id.0)
    .bind(partition)
    .bind(version)
    .bind(stock)
    .bind(starts_at)
    .bind(ends_at)
    .bind(closed)
    .bind(coupon.retired_at)
    .bind(coupon.count)
    .execute(&mut *db)
    .await?;
    Ok(())
}

/// Inserts rows, which the caller has sorted by key. A key that exists is an error.
pub async fn insert_issues(db: &mut MySqlConnection, rows: &[IssueRow]) -> sqlx::Result<()> {
    for rows in rows.chunks(ROWS) {
        let mut sql = String::with_capacity(80 + rows.len() * 60);
        sql.push_str("INSERT INTO coupon_issues (coupon_id, user_id, place, log_offset, issued_at) VALUES ");
        for (index, row) in rows.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let IssueRow { coupon, user, place, offset, issued_at } = row;
            // Numbers only: there is nothing to escape, and no statement to prepare for each batch size.
            let _ = write!(sql, "{comma}({coupon},{user},{place},{offset},{issued_at})");
        }
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *db).await?;
    }
    Ok(())
}

pub async fn insert_digest(
    db: &mut MySqlConnection,
    partition: u32,
    next: u64,
    digest: Digest,
) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO ledger_digests (log_partition, `next`, digest) VALUES (?, ?, ?)")
        .bind(partition)
        .bind(next)
        .bind(&digest.0[..])
        .execute(&mut *db)
        .await?;
    Ok(())
}

/// A user's coupons, newest first, older than the cursor `(issued_at, coupon)`.
pub async fn issues_of(
    pool: &MySqlPool,
    user: UserId,
    before: Option<(u64, CouponId)>,
    limit: u32,
) -> sqlx::Result<Vec<(CouponId, Winner)>> {
    let (issued_at, coupon) = before.unwrap_or((u64::MAX, CouponId(u64::MAX)));
    let query = sqlx::query(
        "SELECT coupon_id, place, issued_at FROM coupon_issues \
         WHERE user_id = ? AND (issued_at < ? OR (issued_at = ? AND coupon_id < ?)) \
         ORDER BY issued_at DESC, coupon_id DESC LIMIT ?",
    )
    .bind(user.0)
    .bind(issued_at)
    .bind(issued_at)
    .bind(coupon.0)
    .bind(limit);
    let rows = on_connection(pool, async |db| within(query.fetch_all(db)).await).await?;
    rows.iter()
        .map(|row| {
            let winner = Winner { place: row.try_get(1)?, issued_at: row.try_get(2)? };
            Ok((CouponId(row.try_get(0)?), winner))
        })
        .collect()
}
