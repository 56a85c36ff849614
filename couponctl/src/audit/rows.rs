//! What the consumers wrote, read in one consistent snapshot.

use anyhow::{Context, Result};
use sqlx::mysql::MySqlConnection;
use sqlx::{Connection, Row as _};

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) user: u64,
    pub(crate) place: u64,
}

/// The definition in force, as the ledger's index has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Definition {
    pub(crate) stock: u64,
    pub(crate) count: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) rows: Vec<Row>,
    pub(crate) definition: Option<Definition>,
}

/// Definition and rows of a coupon at one moment.
pub(crate) async fn read(connection: &mut MySqlConnection, coupon: u64) -> Result<Rows> {
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").execute(&mut *connection).await?;
    let mut transaction = connection.begin_with("START TRANSACTION WITH CONSISTENT SNAPSHOT").await?;
    let coupon = i64::try_from(coupon)?;
    let definition = sqlx::query(
        "SELECT CAST(stock AS SIGNED), CAST(`count` AS SIGNED) FROM issue_coupons WHERE coupon_id = ?",
    )
    .bind(coupon)
    .fetch_optional(&mut *transaction)
    .await
    .context("cannot read issue_coupons")?
    .map(|row| {
        Ok::<_, sqlx::Error>(Definition {
            stock: unsigned(row.try_get(0)?),
            count: unsigned(row.try_get(1)?),
        })
    })
    .transpose()?;
    let rows = sqlx::query(
        "SELECT CAST(user_id AS SIGNED), CAST(place AS SIGNED) FROM coupon_issues WHERE coupon_id = ? ORDER BY user_id",
    )
    .bind(coupon)
    .fetch_all(&mut *transaction)
    .await
    .context("cannot read coupon_issues")?
    .into_iter()
    .map(|row| Ok(Row { user: unsigned(row.try_get(0)?), place: unsigned(row.try_get(1)?) }))
    .collect::<Result<Vec<_>, sqlx::Error>>()?;
    transaction.commit().await?;
    Ok(Rows { rows, definition })
}

/// The first offset of each partition that the tables do not hold yet.
pub(crate) async fn watermarks(connection: &mut MySqlConnection) -> Result<Vec<(u64, u64)>> {
    let rows =
        sqlx::query("SELECT CAST(log_partition AS SIGNED), CAST(`next` AS SIGNED) FROM ledger_watermarks")
            .fetch_all(connection)
            .await
            .context("cannot read ledger_watermarks")?;
    rows.into_iter().map(|row| Ok((unsigned(row.try_get(0)?), unsigned(row.try_get(1)?)))).collect()
}

/// Rows of a coupon now, outside any snapshot.
pub(crate) async fn count(connection: &mut MySqlConnection, coupon: u64) -> Result<u64> {
    let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM coupon_issues WHERE coupon_id = ?")
        .bind(i64::try_from(coupon)?)
        .fetch_one(connection)
        .await
        .context("cannot count coupon_issues")?;
    Ok(unsigned(count))
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}
