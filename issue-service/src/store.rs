//! The database, which is the index of the ledger: everything in it can be derived from the log again.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use sqlx::pool::PoolConnection;
use sqlx::{Connection as _, MySql, MySqlConnection, MySqlPool, Row, Transaction};

use crate::control::{Guard, without};
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

/// What the database says of a user and a retired coupon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Won {
    Yes(Winner),
    /// And never will.
    No,
    /// It has not followed the log up to the retirement, so it may not have the row yet.
    Unknown,
}

impl Won {
    /// A row is a row; that there is none says something only where the watermark has passed the retirement.
    pub(crate) fn judge(row: Option<Winner>, watermark: Watermark, retired_at: u64) -> Self {
        match row {
            Some(winner) => Self::Yes(winner),
            None if watermark.next > retired_at => Self::No,
            None if without(Guard::IndexIsLevel) || without(Guard::EvictLate) => Self::No,
            None => Self::Unknown,
        }
    }
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

/// Which topic this database belongs to.
pub async fn topic_id(pool: &MySqlPool) -> sqlx::Result<String> {
    on_connection(pool, async |db| {
        let owner = sqlx::query("SELECT topic_id FROM ledger_meta WHERE id = 1");
        within(owner.fetch_one(db)).await?.try_get(0)
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

/// Reads everything as of one moment.
async fn at_one_moment<T>(
    pool: &MySqlPool,
    read: impl AsyncFnOnce(&mut MySqlConnection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    on_connection(pool, async |connection| {
        // Also where the server's default is another one.
        let isolation = sqlx::raw_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ");
        within(isolation.execute(&mut *connection)).await?;
        let begin = connection.begin_with("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY");
        let mut transaction = within(begin).await?;
        let found = read(&mut transaction).await?;
        transaction.rollback().await?;
        Ok(found)
    })
    .await
}

/// Reads partitions as of one moment.
pub async fn snapshots(
    pool: &MySqlPool,
    partitions: u32,
    wanted: &[u32],
) -> Result<Vec<Snapshot>, StoreError> {
    at_one_moment(pool, async |db| {
        let mut read = Vec::with_capacity(wanted.len());
        for partition in wanted {
            read.push(snapshot(db, *partition, partitions).await?);
        }
        Ok(read)
    })
    .await
}

/// Whether the user has won a coupon that was retired at this offset. Every winner has a row once the watermark has
/// passed it; it is read with the rows, so that a database that went back denies nobody.
pub async fn won_before(
    pool: &MySqlPool,
    partition: u32,
    retired_at: u64,
    coupon: CouponId,
    user: UserId,
) -> Result<Won, StoreError> {
    at_one_moment(pool, async |db| {
        let query =
            sqlx::query("SELECT place, issued_at FROM coupon_issues WHERE coupon_id = ? AND user_id = ?")
                .bind(coupon.0)
                .bind(user.0);
        let row = within(query.fetch_optional(&mut *db)).await?;
        let row = row
            .map(|row| Ok::<_, sqlx::Error>(Winner { place: row.try_get(0)?, issued_at: row.try_get(1)? }));
        let watermark = within(watermark(db, partition)).await?;
        Ok(Won::judge(row.transpose()?, watermark, retired_at))
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
        let (retired_at, count): (Option<u64>, u32) = (row.try_get(6)?, row.try_get(7)?);
        let winners = if retired_at.is_some_and(|offset| offset < watermark.next) {
            Winners::only_counted(count)
        } else {
            counts.insert(coupon, count);
            Winners::default()
        };
        coupons.insert(coupon, Coupon { definition, retired_at, winners });
    }
    let mut rows = sqlx::query(
        "SELECT i.coupon_id, i.user_id, i.place, i.issued_at FROM coupon_issues i \
         JOIN issue_coupons c ON c.coupon_id = i.coupon_id \
         WHERE c.log_partition = ? AND (c.retire_offset IS NULL OR c.retire_offset >= ?)",
    )
    .bind(partition)
    .bind(watermark.next)
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
    for (id, count) in counts {
        let (rows, last) = (coupons[&id].count(), highest.get(&id).copied().unwrap_or(0));
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

/// Writes the state of coupons, over what was known of them.
pub async fn put_coupons(
    db: &mut MySqlConnection,
    partition: u32,
    coupons: &[&CouponRow],
) -> sqlx::Result<()> {
    let into = "issue_coupons (coupon_id, log_partition, version, stock, starts_at, ends_at, closed, retire_offset, \
                `count`)";
    let or = "ON DUPLICATE KEY UPDATE version = VALUES(version), stock = VALUES(stock), starts_at = VALUES(starts_at), \
              ends_at = VALUES(ends_at), closed = VALUES(closed), retire_offset = VALUES(retire_offset), \
              `count` = VALUES(`count`)";
    insert(db, into, coupons, or, |sql, CouponRow { definition, retired_at, count }| {
        let Definition { coupon, version, stock, starts_at, ends_at, closed } = definition;
        write!(sql, "{coupon},{partition},{version},{stock},{starts_at},{ends_at},{closed},")?;
        match retired_at {
            Some(offset) => write!(sql, "{offset},{count}"),
            None => write!(sql, "NULL,{count}"),
        }
    })
    .await
}

/// Inserts rows, which the caller has sorted by key. A key that exists is an error.
pub async fn insert_issues(db: &mut MySqlConnection, rows: &[IssueRow]) -> sqlx::Result<()> {
    let into = "coupon_issues (coupon_id, user_id, place, log_offset, issued_at)";
    insert(db, into, rows, "", |sql, IssueRow { coupon, user, place, offset, issued_at }| {
        write!(sql, "{coupon},{user},{place},{offset},{issued_at}")
    })
    .await
}

/// Rows of numbers only: there is nothing to escape, and no statement to prepare for each number of rows.
async fn insert<T>(
    db: &mut MySqlConnection,
    into: &str,
    rows: &[T],
    or: &str,
    row: impl Fn(&mut String, &T) -> std::fmt::Result,
) -> sqlx::Result<()> {
    for rows in rows.chunks(ROWS) {
        let mut sql = String::with_capacity(300 + rows.len() * 80);
        let _ = write!(sql, "INSERT INTO {into} VALUES ");
        for (index, it) in rows.iter().enumerate() {
            sql.push_str(if index == 0 { "(" } else { ",(" });
            let _ = row(&mut sql, it);
            sql.push(')');
        }
        let _ = write!(sql, " {or}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *db).await?;
    }
    Ok(())
}

/// Stores a digest. One that is stored already must be the same.
pub async fn put_digest(
    db: &mut MySqlConnection,
    partition: u32,
    next: u64,
    ours: Digest,
) -> Result<(), StoreError> {
    let insert =
        sqlx::query("INSERT IGNORE INTO ledger_digests (log_partition, `next`, digest) VALUES (?, ?, ?)")
            .bind(partition)
            .bind(next)
            .bind(&ours.0[..]);
    if insert.execute(&mut *db).await?.rows_affected() == 1 {
        return Ok(());
    }
    let stored = sqlx::query("SELECT digest FROM ledger_digests WHERE log_partition = ? AND `next` = ?")
        .bind(partition)
        .bind(next)
        .fetch_one(db)
        .await?;
    let stored = digest(stored.try_get(0)?)?;
    if stored == ours {
        return Ok(());
    }
    Err(StoreError::Contradiction(format!(
        "the digest of everything below offset {next} is stored as {stored:?}, and is {ours:?} by the log"
    )))
}

/// The digests that are stored from one place to another, both included: the first thousand of them, in order.
pub async fn digests(
    pool: &MySqlPool,
    partition: u32,
    first: u64,
    last: u64,
) -> Result<Vec<(u64, Digest)>, StoreError> {
    let query = sqlx::query(
        "SELECT `next`, digest FROM ledger_digests WHERE log_partition = ? AND `next` BETWEEN ? AND ? \
         ORDER BY `next` LIMIT 1000",
    )
    .bind(partition)
    .bind(first)
    .bind(last);
    let rows = on_connection(pool, async |db| within(query.fetch_all(db)).await).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, digest(row.try_get(1)?)?))).collect()
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
