//! The tables that the consumers wrote, as of one moment.

use anyhow::{Context, Result, anyhow};
use futures_util::TryStreamExt as _;
use sqlx::mysql::MySqlConnection;
use sqlx::{Executor as _, QueryBuilder, Row as _};

use crate::replay::record::Definition;
use crate::replay::rules::Digest;

/// A winner: of the tables, or of the log.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) user: u64,
    /// Counting from 1.
    pub(crate) place: u64,
    pub(crate) offset: u64,
    /// The append time of the claim, unix milliseconds.
    pub(crate) issued_at: u64,
}

/// Rows of a user; `rows` are sorted by user.
pub(crate) fn of_user(rows: &[Row], user: u64) -> &[Row] {
    let start = rows.partition_point(|row| row.user < user);
    let count = rows[start..].iter().take_while(|row| row.user == user).count();
    &rows[start..start + count]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Coupon {
    pub(crate) id: u64,
    pub(crate) partition: u64,
    /// In force.
    pub(crate) definition: Definition,
    pub(crate) retired_at: Option<u64>,
    pub(crate) count: u64,
}

/// Up to where a partition is in the tables.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Watermark {
    pub(crate) partition: u64,
    /// The first offset that the tables do not hold.
    pub(crate) next: u64,
    pub(crate) digest: Digest,
    pub(crate) last_record_hash: Digest,
}

/// The tables at one moment, whatever is written meanwhile.
pub(crate) struct Snapshot {
    connection: MySqlConnection,
}

impl Snapshot {
    /// The moment is now.
    pub(crate) async fn take(mut connection: MySqlConnection) -> Result<Self> {
        // Also where the server's default is another one.
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
        connection.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await?;
        Ok(Self { connection })
    }

    /// How many partitions the log had when the tables were begun.
    pub(crate) async fn partitions(&mut self) -> Result<Option<u64>> {
        sqlx::query_scalar("SELECT CAST(partitions AS UNSIGNED) FROM ledger_meta")
            .fetch_optional(&mut self.connection)
            .await
            .context("cannot read ledger_meta")
    }

    pub(crate) async fn watermarks(&mut self) -> Result<Vec<Watermark>> {
        watermarks(&mut self.connection).await
    }

    /// The digests that were stored on the way, each with the place below which it holds.
    pub(crate) async fn digests(&mut self, partition: u32) -> Result<Vec<(u64, Digest)>> {
        let query = "SELECT CAST(`next` AS UNSIGNED), digest FROM ledger_digests WHERE log_partition = ? ORDER BY `next`";
        let rows = sqlx::query(query)
            .bind(partition)
            .fetch_all(&mut self.connection)
            .await
            .context("cannot read ledger_digests")?;
        rows.iter().map(|row| Ok((row.try_get(0)?, digest(row.try_get(1)?)?))).collect()
    }

    /// Every coupon that has a definition, by partition and id.
    pub(crate) async fn coupons(&mut self) -> Result<Vec<Coupon>> {
        let query = "SELECT CAST(coupon_id AS UNSIGNED), CAST(log_partition AS UNSIGNED), CAST(version AS UNSIGNED), \
                     CAST(stock AS UNSIGNED), CAST(starts_at AS UNSIGNED), CAST(ends_at AS UNSIGNED), CAST(closed AS UNSIGNED), \
                     CAST(retire_offset AS UNSIGNED), CAST(`count` AS UNSIGNED) \
                     FROM issue_coupons ORDER BY log_partition, coupon_id";
        let rows =
            sqlx::query(query).fetch_all(&mut self.connection).await.context("cannot read issue_coupons")?;
        rows.iter()
            .map(|row| {
                let definition = Definition {
                    version: row.try_get(2)?,
                    stock: row.try_get(3)?,
                    starts_at: row.try_get(4)?,
                    ends_at: row.try_get(5)?,
                    closed: row.try_get::<u64, _>(6)? != 0,
                };
                Ok(Coupon {
                    id: row.try_get(0)?,
                    partition: row.try_get(1)?,
                    definition,
                    retired_at: row.try_get(7)?,
                    count: row.try_get(8)?,
                })
            })
            .collect()
    }

    /// Coupons that have rows, with a definition or without.
    pub(crate) async fn coupons_with_rows(&mut self) -> Result<Vec<u64>> {
        sqlx::query_scalar("SELECT CAST(coupon_id AS UNSIGNED) FROM coupon_issues GROUP BY coupon_id")
            .fetch_all(&mut self.connection)
            .await
            .context("cannot read coupon_issues")
    }

    /// The rows of a coupon, sorted by user.
    pub(crate) async fn rows(&mut self, coupon: u64) -> Result<Vec<Row>> {
        let query = "SELECT CAST(user_id AS UNSIGNED), CAST(place AS UNSIGNED), CAST(log_offset AS UNSIGNED), \
                     CAST(issued_at AS UNSIGNED) FROM coupon_issues WHERE coupon_id = ? ORDER BY user_id";
        let mut found = sqlx::query_as(query).bind(coupon).fetch(&mut self.connection);
        let mut rows = Vec::new();
        while let Some((user, place, offset, issued_at)) =
            found.try_next().await.context("cannot read coupon_issues")?
        {
            rows.push(Row { user, place, offset, issued_at });
        }
        Ok(rows)
    }
}

/// As they are now, outside of any snapshot.
pub(crate) async fn watermarks(connection: &mut MySqlConnection) -> Result<Vec<Watermark>> {
    let query = "SELECT CAST(log_partition AS UNSIGNED), CAST(`next` AS UNSIGNED), digest, last_record_hash \
                 FROM ledger_watermarks ORDER BY log_partition";
    let rows = sqlx::query(query).fetch_all(connection).await.context("cannot read ledger_watermarks")?;
    rows.iter()
        .map(|row| {
            Ok(Watermark {
                partition: row.try_get(0)?,
                next: row.try_get(1)?,
                digest: digest(row.try_get(2)?)?,
                last_record_hash: digest(row.try_get(3)?)?,
            })
        })
        .collect()
}

/// Rows of one coupon or of all now, outside of any snapshot.
pub(crate) async fn count(connection: &mut MySqlConnection, coupon: Option<u64>) -> Result<u64> {
    let count = match coupon {
        Some(coupon) => {
            sqlx::query_scalar("SELECT CAST(COUNT(*) AS UNSIGNED) FROM coupon_issues WHERE coupon_id = ?")
                .bind(coupon)
        }
        None => sqlx::query_scalar("SELECT CAST(COUNT(*) AS UNSIGNED) FROM coupon_issues"),
    };
    count.fetch_one(connection).await.context("cannot count coupon_issues")
}

/// Who of these users has a row now, outside of any snapshot.
pub(crate) async fn with_rows(
    connection: &mut MySqlConnection,
    coupon: u64,
    users: &[u64],
) -> Result<Vec<u64>> {
    let mut found = Vec::new();
    for users in users.chunks(1_000) {
        let mut query =
            QueryBuilder::new("SELECT CAST(user_id AS UNSIGNED) FROM coupon_issues WHERE coupon_id = ");
        query.push_bind(coupon).push(" AND user_id IN (");
        let mut list = query.separated(", ");
        for user in users {
            list.push_bind(*user);
        }
        query.push(")");
        let rows = query.build_query_scalar::<u64>().fetch_all(&mut *connection);
        found.extend(rows.await.context("cannot read coupon_issues")?);
    }
    Ok(found)
}

fn digest(bytes: &[u8]) -> Result<Digest> {
    bytes.try_into().map_err(|_| anyhow!("a digest of {} bytes instead of 32", bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_rows_are_found_among_the_sorted() {
        let row = |user| Row { user, ..Row::default() };
        let rows = [1, 3, 3, 7].map(row);
        assert_eq!(of_user(&rows, 3), [row(3), row(3)]);
        assert_eq!((of_user(&rows, 0), of_user(&rows, 8), of_user(&[], 1)), (&[][..], &[][..], &[][..]));
    }
}
