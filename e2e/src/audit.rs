//! What the servers hold, read from them directly, against what the users were told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions};

use crate::client::Client;
use crate::load::Record;
use crate::stack::Stack;

/// Consumers and write-back catch up within this, also on a busy machine after a fault.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(200);

/// The rows of a coupon: who, and at which place.
pub type Rows = BTreeMap<u64, u64>;

/// A connection to the stack's database.
///
/// # Panics
/// When it can't be had.
pub async fn mysql(stack: &Stack) -> MySqlPool {
    let options = MySqlConnectOptions::new()
        .host(&stack.mysql.host)
        .port(stack.mysql.port)
        .username(&stack.mysql.username)
        .password(&Stack::secret(&stack.mysql.password_file));
    MySqlPoolOptions::new()
        .max_connections(2)
        .connect_with(options)
        .await
        .unwrap_or_else(|error| panic!("no connection to MySQL: {error}"))
}

/// # Panics
/// When they can't be read, or a user has two.
pub async fn rows(mysql: &MySqlPool, coupon: u64) -> Rows {
    let query = "SELECT CAST(user_id AS UNSIGNED), CAST(place AS UNSIGNED) \
                 FROM firstcome_issues.coupon_issues WHERE coupon_id = ?";
    let found: Vec<(u64, u64)> = sqlx::query_as(query)
        .bind(coupon)
        .fetch_all(mysql)
        .await
        .unwrap_or_else(|error| panic!("rows can't be read: {error}"));
    let count = found.len();
    let rows: Rows = found.into_iter().collect();
    assert_eq!(rows.len(), count, "a user has two rows");
    rows
}

/// Waits until the coupon has `expected` rows.
///
/// # Panics
/// When it has more, or not as many in time.
pub async fn wait_for_rows(mysql: &MySqlPool, coupon: u64, expected: usize) -> Rows {
    let begin = Instant::now();
    loop {
        let rows = rows(mysql, coupon).await;
        assert!(rows.len() <= expected, "{} rows, {expected} expected", rows.len());
        if rows.len() == expected {
            return rows;
        }
        assert!(begin.elapsed() < PATIENCE, "{} of {expected} rows after {PATIENCE:?}", rows.len());
        tokio::time::sleep(POLL).await;
    }
}

/// After a load that asked for more than `stock`: rows = stock, places 1..=stock once each, and every user who was
/// told so, and nobody else once all had their answer, is among the rows.
///
/// # Panics
/// When it does not add up.
pub async fn check(mysql: &MySqlPool, coupon: u64, stock: usize, record: &Record) -> Rows {
    let told = record.winners();
    let winners: BTreeSet<u64> = told.keys().copied().collect();
    assert!(
        winners.len() <= stock,
        "{} users were told ISSUED of {stock}: {}",
        winners.len(),
        record.summary()
    );
    let rows = wait_for_rows(mysql, coupon, stock).await;
    let users: BTreeSet<u64> = rows.keys().copied().collect();
    let lost: Vec<_> = winners.difference(&users).collect();
    assert!(lost.is_empty(), "told ISSUED and no row: {lost:?}");
    let untold: Vec<_> = users.difference(&winners).collect();
    assert!(untold.is_empty(), "a row and never told, though they asked to the end: {untold:?}");
    assert_eq!(rows, told, "places differ from what was told");
    let places: BTreeSet<u64> = rows.values().copied().collect();
    assert_eq!(places, (1..=stock as u64).collect(), "places are not 1 to {stock}");
    rows
}

/// The master that the Sentinels name.
///
/// # Panics
/// When none names one.
pub async fn redis_master(stack: &Stack) -> String {
    for sentinel in &stack.redis.sentinels {
        let Some(mut connection) = connect(&format!("redis://{sentinel}/")).await else { continue };
        let named: redis::RedisResult<(String, String)> = redis::cmd("SENTINEL")
            .arg("get-master-addr-by-name")
            .arg(&stack.redis.master)
            .query_async(&mut connection)
            .await;
        if let Ok((host, port)) = named {
            return format!("{host}:{port}");
        }
    }
    panic!("no Sentinel names a master");
}

async fn connect(url: &str) -> Option<MultiplexedConnection> {
    let client = redis::Client::open(url).ok()?;
    tokio::time::timeout(Duration::from_secs(2), client.get_multiplexed_async_connection()).await.ok()?.ok()
}

/// The users in a coupon's Redis set.
///
/// # Panics
/// When the master can't be read.
pub async fn redis_users(stack: &Stack, coupon: u64) -> BTreeSet<u64> {
    let (master, password) = (redis_master(stack).await, Stack::secret(&stack.redis.password_file));
    let mut connection = connect(&format!("redis://:{password}@{master}/"))
        .await
        .unwrap_or_else(|| panic!("no connection to the Redis master {master}"));
    connection
        .smembers(format!("coupon:{{{coupon}}}:users"))
        .await
        .unwrap_or_else(|error| panic!("the set can't be read: {error}"))
}

/// Waits until the public API shows `issued` for the coupon; returns how long that took.
///
/// # Panics
/// When it shows more, or not as many within `limit`.
pub async fn wait_for_issued(client: &Client, coupon: u64, issued: u64, limit: Duration) -> Duration {
    let begin = Instant::now();
    loop {
        let answer = client.get(&format!("/coupons/{coupon}"), None).await;
        // While the coupon service restarts, nobody can show anything.
        if answer.status != 503 {
            let shown = answer.expect(200);
            let quantity = shown["issuedQuantity"].as_u64().unwrap_or_default();
            assert!(quantity <= issued, "{shown}");
            if quantity == issued {
                return begin.elapsed();
            }
        }
        assert!(begin.elapsed() < limit, "not {issued} after {limit:?} but {}", answer.text);
        tokio::time::sleep(POLL).await;
    }
}
