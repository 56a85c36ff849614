//! What the consumer is compared with: a loop that does nothing but insert rows. The same tables, server and driver,
//! as many connections as partitions have rows, the statements written before the clock runs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use issue_service::store::IssueRow;
use platform::lifecycle::BoxError;
use sqlx::{AssertSqlSafe, Connection as _, MySqlPool};

const ROWS_IN_A_STATEMENT: usize = 1_000;
const ROWS_IN_A_TRANSACTION: usize = 5_000;

/// Statements by transaction.
type Transactions = Vec<Vec<String>>;

/// How long it takes to insert these rows.
pub(crate) async fn insert(
    pool: &MySqlPool,
    rows: &BTreeMap<u32, Vec<IssueRow>>,
) -> Result<Duration, BoxError> {
    let mut writers = Vec::new();
    for rows in rows.values() {
        writers.push((pool.acquire().await?, transactions(rows)));
    }
    let begun = Instant::now();
    try_join_all(writers.into_iter().map(|(mut connection, transactions)| async move {
        for statements in transactions {
            let mut transaction = connection.begin().await?;
            for statement in statements {
                sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *transaction).await?;
            }
            transaction.commit().await?;
        }
        Ok::<_, sqlx::Error>(())
    }))
    .await?;
    Ok(begun.elapsed())
}

fn transactions(rows: &[IssueRow]) -> Transactions {
    let sorted = |rows: &[IssueRow]| {
        let mut rows = rows.to_vec();
        rows.sort_unstable();
        rows
    };
    let statements = |rows: Vec<IssueRow>| rows.chunks(ROWS_IN_A_STATEMENT).map(statement).collect();
    rows.chunks(ROWS_IN_A_TRANSACTION).map(sorted).map(statements).collect()
}

fn statement(rows: &[IssueRow]) -> String {
    let mut sql =
        "INSERT INTO coupon_issues (coupon_id, user_id, place, log_offset, issued_at) VALUES ".to_owned();
    for (index, IssueRow { coupon, user, place, offset, issued_at }) in rows.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(sql, "{comma}({coupon},{user},{place},{offset},{issued_at})");
    }
    sql
}

#[cfg(test)]
mod tests {
    use super::*;
    use issue_service::ids::{CouponId, UserId};

    #[test]
    fn every_row_is_in_one_statement_and_sorted_within_its_transaction() {
        let row =
            |user| IssueRow { coupon: CouponId(1), user: UserId(user), place: 2, offset: 3, issued_at: 4 };
        let rows: Vec<_> = (1..=6_500).rev().map(row).collect();
        let transactions = transactions(&rows);
        let statements: Vec<usize> = transactions.iter().map(Vec::len).collect();
        assert_eq!(statements, [5, 2]);
        assert!(transactions[1][0].ends_with("(1,1000,2,3,4)"));
        assert!(transactions[1][1].contains("VALUES (1,1001,2,3,4),(1,1002,2,3,4),"));
        let rows: usize = transactions.iter().flatten().map(|sql| sql.matches("),(").count() + 1).sum();
        assert_eq!(rows, 6_500);
    }
}
