//! Coupons in MySQL: plain functions that take an executor. Invariants: a definition changes only together with its
//! version; a count that came through Redis reaches a row only with a newer offset.

use sqlx::mysql::MySqlExecutor;
use time::OffsetDateTime;

use crate::coupon::count::Published;
use crate::coupon::request::Draft;
use crate::coupon::{Coupon, CouponId, Definition, Issued};

/// A macro, because a statement has to be one literal.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT coupon_id, version, event_id, name, quantity, starts_at, ends_at, closed, issued_quantity, \
             issued_offset FROM coupons ",
            $rest
        )
    };
}

#[derive(Debug, sqlx::FromRow)]
struct Row {
    coupon_id: i64,
    version: i64,
    event_id: Option<i64>,
    name: String,
    quantity: u32,
    starts_at: OffsetDateTime,
    ends_at: OffsetDateTime,
    closed: bool,
    issued_quantity: u32,
    issued_offset: Option<i64>,
}

impl TryFrom<Row> for Coupon {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> Result<Self, sqlx::Error> {
        Ok(Self {
            definition: Definition {
                coupon_id: CouponId(unsigned(row.coupon_id)?),
                version: unsigned(row.version)?,
                quantity: row.quantity,
                starts_at: milliseconds(row.starts_at)?,
                ends_at: milliseconds(row.ends_at)?,
                closed: row.closed,
            },
            event_id: row.event_id.map(unsigned).transpose()?,
            name: row.name,
            issued: Issued { count: row.issued_quantity, offset: row.issued_offset },
        })
    }
}

/// `false`: the id was drawn before, draw again.
pub async fn insert(
    executor: impl MySqlExecutor<'_>,
    draft: &Draft,
    definition: &Definition,
    now: u64,
) -> Result<bool, sqlx::Error> {
    let result = sqlx::query(
        "INSERT INTO coupons (coupon_id, version, event_id, name, quantity, starts_at, ends_at, closed, created_at, \
         updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(signed(definition.coupon_id.0)?)
    .bind(signed(definition.version)?)
    .bind(draft.event_id.map(signed).transpose()?)
    .bind(&draft.name)
    .bind(definition.quantity)
    .bind(timestamp(definition.starts_at)?)
    .bind(timestamp(definition.ends_at)?)
    .bind(definition.closed)
    .bind(timestamp(now)?)
    .bind(timestamp(now)?)
    .execute(executor)
    .await;
    match result {
        Ok(_) => Ok(true),
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(false),
        Err(error) => Err(error),
    }
}

pub async fn find(executor: impl MySqlExecutor<'_>, id: CouponId) -> Result<Option<Coupon>, sqlx::Error> {
    let Ok(id) = signed(id.0) else { return Ok(None) };
    let row: Option<Row> =
        sqlx::query_as(select!("WHERE coupon_id = ?")).bind(id).fetch_optional(executor).await?;
    row.map(Coupon::try_from).transpose()
}

/// Locks the row until the transaction ends, so that of two changes at once the second sees the first.
pub async fn find_for_update(
    executor: impl MySqlExecutor<'_>,
    id: CouponId,
) -> Result<Option<Coupon>, sqlx::Error> {
    let Ok(id) = signed(id.0) else { return Ok(None) };
    let row: Option<Row> =
        sqlx::query_as(select!("WHERE coupon_id = ? FOR UPDATE")).bind(id).fetch_optional(executor).await?;
    row.map(Coupon::try_from).transpose()
}

/// Newest first, those older than `before`.
pub async fn list(
    executor: impl MySqlExecutor<'_>,
    before: Option<CouponId>,
    limit: u32,
) -> Result<Vec<Coupon>, sqlx::Error> {
    let before = before.and_then(|id| signed(id.0).ok()).unwrap_or(i64::MAX);
    let rows: Vec<Row> = sqlx::query_as(select!("WHERE coupon_id < ? ORDER BY coupon_id DESC LIMIT ?"))
        .bind(before)
        .bind(limit)
        .fetch_all(executor)
        .await?;
    rows.into_iter().map(Coupon::try_from).collect()
}

/// All whose definition is newer than `version`, ended or not.
pub async fn changed_since(
    executor: impl MySqlExecutor<'_>,
    version: u64,
) -> Result<Vec<Definition>, sqlx::Error> {
    let Ok(version) = signed(version) else { return Ok(Vec::new()) };
    let rows: Vec<Row> = sqlx::query_as(select!("WHERE version > ? ORDER BY version"))
        .bind(version)
        .fetch_all(executor)
        .await?;
    definitions(rows)
}

/// All that have not ended, or of which the ledger may not know it yet: a coupon that was ended early goes on being won
/// until its end is in the log.
pub async fn not_over(executor: impl MySqlExecutor<'_>, now: u64) -> Result<Vec<Definition>, sqlx::Error> {
    let rows: Vec<Row> = sqlx::query_as(select!("WHERE ends_at > ? OR settled = FALSE ORDER BY version"))
        .bind(timestamp(now)?)
        .fetch_all(executor)
        .await?;
    definitions(rows)
}

/// All without the ledger's last word: those that have begun, whose count may change; or also those that have not.
pub async fn unsettled(
    executor: impl MySqlExecutor<'_>,
    now: u64,
    not_begun: bool,
) -> Result<Vec<Coupon>, sqlx::Error> {
    let rows: Vec<Row> =
        sqlx::query_as(select!("WHERE settled = FALSE AND (starts_at <= ? OR ?) ORDER BY coupon_id"))
            .bind(timestamp(now)?)
            .bind(not_begun)
            .fetch_all(executor)
            .await?;
    rows.into_iter().map(Coupon::try_from).collect()
}

/// Those beyond `after` that had the ledger's last word, in order of their ids. In a database that went back it may not
/// have been the last.
pub async fn settled(
    executor: impl MySqlExecutor<'_>,
    after: CouponId,
    limit: usize,
) -> Result<Vec<Coupon>, sqlx::Error> {
    let rows: Vec<Row> =
        sqlx::query_as(select!("WHERE coupon_id > ? AND settled = TRUE ORDER BY coupon_id LIMIT ?"))
            .bind(signed(after.0)?)
            .bind(u32::try_from(limit).unwrap_or(u32::MAX))
            .fetch_all(executor)
            .await?;
    rows.into_iter().map(Coupon::try_from).collect()
}

/// Puts back what the ledger has of a retired coupon: no later definition ever takes force. Its count is final.
pub async fn retire(
    executor: impl MySqlExecutor<'_>,
    version: u64,
    ledger: &Definition,
    now: u64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE coupons SET quantity = ?, starts_at = ?, ends_at = ?, closed = ?, settled = TRUE, updated_at = ? \
         WHERE coupon_id = ? AND version = ?",
    )
    .bind(ledger.quantity)
    .bind(timestamp(ledger.starts_at)?)
    .bind(timestamp(ledger.ends_at)?)
    .bind(ledger.closed)
    .bind(timestamp(now)?)
    .bind(signed(ledger.coupon_id.0)?)
    .bind(signed(version)?)
    .execute(executor)
    .await?;
    Ok(())
}

/// Replaces a definition by a newer one; its count is open again. `false`: the row has this version or a higher one.
pub async fn redefine(
    executor: impl MySqlExecutor<'_>,
    definition: &Definition,
    now: u64,
) -> Result<bool, sqlx::Error> {
    let version = signed(definition.version)?;
    let result = sqlx::query(
        "UPDATE coupons SET version = ?, quantity = ?, starts_at = ?, ends_at = ?, closed = ?, settled = FALSE, \
         updated_at = ? WHERE coupon_id = ? AND version < ?",
    )
    .bind(version)
    .bind(definition.quantity)
    .bind(timestamp(definition.starts_at)?)
    .bind(timestamp(definition.ends_at)?)
    .bind(definition.closed)
    .bind(timestamp(now)?)
    .bind(signed(definition.coupon_id.0)?)
    .bind(version)
    .execute(executor)
    .await?;
    // The driver counts rows that were found, also where nothing changed in them.
    Ok(result.rows_affected() == 1)
}

/// Writes a count that Redis showed; older news than the row's changes nothing.
pub async fn advance(
    executor: impl MySqlExecutor<'_>,
    id: CouponId,
    shown: Published,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE coupons SET issued_quantity = ?, issued_offset = ? \
         WHERE coupon_id = ? AND (issued_offset IS NULL OR issued_offset < ?)",
    )
    .bind(shown.count)
    .bind(shown.offset)
    .bind(signed(id.0)?)
    .bind(shown.offset)
    .execute(executor)
    .await?;
    Ok(())
}

/// Writes the ledger's own word, whatever the row says.
pub async fn overrule(
    executor: impl MySqlExecutor<'_>,
    id: CouponId,
    word: Issued,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE coupons SET issued_quantity = ?, issued_offset = ? WHERE coupon_id = ?")
        .bind(word.count)
        .bind(word.offset)
        .bind(signed(id.0)?)
        .execute(executor)
        .await?;
    Ok(())
}

/// The count is final, unless the definition has changed since it was read.
pub async fn settle(executor: impl MySqlExecutor<'_>, definition: &Definition) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE coupons SET settled = TRUE WHERE coupon_id = ? AND version = ?")
        .bind(signed(definition.coupon_id.0)?)
        .bind(signed(definition.version)?)
        .execute(executor)
        .await?;
    Ok(())
}

fn definitions(rows: Vec<Row>) -> Result<Vec<Definition>, sqlx::Error> {
    rows.into_iter().map(|row| Coupon::try_from(row).map(|coupon| coupon.definition)).collect()
}

fn signed(value: u64) -> Result<i64, sqlx::Error> {
    i64::try_from(value).map_err(|error| sqlx::Error::Encode(error.into()))
}

fn unsigned(value: i64) -> Result<u64, sqlx::Error> {
    u64::try_from(value).map_err(|error| sqlx::Error::Decode(error.into()))
}

fn timestamp(ms: u64) -> Result<OffsetDateTime, sqlx::Error> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000)
        .map_err(|error| sqlx::Error::Encode(error.into()))
}

fn milliseconds(time: OffsetDateTime) -> Result<u64, sqlx::Error> {
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000).map_err(|error| sqlx::Error::Decode(error.into()))
}
