//! What the database is asked, statement by statement: the watermark that moves from one place only, rows, counts,
//! digests.

use issue_service::ids::{CouponId, UserId};
use issue_service::ledger::snapshot::Watermark;
use issue_service::ledger::{Definition, Digest, Winner};
use issue_service::store::{self, CouponRow, IssueRow, StoreError, Won};
use sqlx::mysql::MySqlPoolOptions;
use sqlx::{MySqlConnection, MySqlPool};

use crate::system::System;

const THEN: u64 = 1_800_000_000_000;

fn digest(byte: u8) -> Digest {
    Digest([byte; 32])
}

fn at(next: u64, byte: u8) -> Watermark {
    Watermark { next, digest: digest(byte), last_record_hash: digest(byte + 1) }
}

fn definition(coupon: u64) -> Definition {
    let coupon = CouponId(coupon);
    Definition { coupon, version: 3, stock: 5, starts_at: THEN, ends_at: THEN + 9, closed: false }
}

fn row(coupon: u64, user: u64, place: u32) -> IssueRow {
    let issued_at = THEN + u64::from(place);
    IssueRow { coupon: CouponId(coupon), user: UserId(user), place, offset: 40, issued_at }
}

fn won(place: u32) -> Winner {
    Winner { place, issued_at: THEN + u64::from(place) }
}

async fn moves(db: &mut MySqlConnection, partition: u32, from: u64, to: Watermark) -> bool {
    store::move_watermark(db, partition, from, &to).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watermark_moves_only_from_where_it_is() {
    let system = System::start().await;
    let db = &mut *system.pool.acquire().await.unwrap();
    assert_eq!(store::watermark(db, 1).await.unwrap(), Watermark::default());
    assert!(!moves(db, 1, 3, at(5, 1)).await, "it is nowhere yet");
    assert_eq!(store::watermark(db, 1).await.unwrap(), Watermark::default());
    assert!(moves(db, 1, 0, at(5, 1)).await);
    assert_eq!(store::watermark(db, 1).await.unwrap(), at(5, 1));
    for from in [0, 4, 6] {
        assert!(!moves(db, 1, from, at(9, 7)).await, "from {from}");
        assert_eq!(store::watermark(db, 1).await.unwrap(), at(5, 1));
    }
    assert!(moves(db, 1, 5, at(5, 1)).await, "it is there, though nothing changes");
    assert!(moves(db, 1, 5, at(8, 3)).await);
    assert_eq!(store::watermark(db, 1).await.unwrap(), at(8, 3));
    assert_eq!(store::watermark(db, 0).await.unwrap(), Watermark::default());
}

/// Everything of a coupon, and of a retired one who won only where the watermark has not passed it.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_is_read_as_of_its_watermark() {
    let system = System::start().await;
    let db = &mut *system.pool.acquire().await.unwrap();
    let open = CouponRow { definition: definition(1), retired_at: None, count: 2 };
    let leaving = CouponRow { definition: definition(2), retired_at: Some(50), count: 1 };
    let gone = CouponRow { definition: definition(3), retired_at: Some(49), count: 1 };
    let other = CouponRow { definition: definition(4), retired_at: None, count: 0 };
    store::put_coupons(db, 0, &[&open, &leaving, &gone]).await.unwrap();
    store::put_coupons(db, 1, &[&other]).await.unwrap();
    let rows = [row(1, 10, 1), row(1, 11, 2), row(2, 10, 1), row(3, 10, 1)];
    store::insert_issues(db, &rows).await.unwrap();
    assert!(moves(db, 0, 0, at(50, 1)).await);

    let read = store::snapshots(&system.pool, 2, &[1, 0]).await.unwrap();
    let [second, first] = read.as_slice() else { panic!("{} snapshots", read.len()) };
    assert_eq!((first.watermark, second.watermark), (at(50, 1), Watermark::default()));
    assert_eq!((first.ledger.next(), first.ledger.digest()), (50, digest(1)));
    let winner =
        |coupon: u64, user: u64| first.ledger.coupon(CouponId(coupon)).unwrap().winners.get(UserId(user));
    assert_eq!((winner(1, 10), winner(1, 11), winner(1, 12)), (Some(won(1)), Some(won(2)), None));
    assert_eq!((winner(2, 10), winner(3, 10)), (Some(won(1)), None));
    for expected in [open, leaving, gone] {
        let found = first.ledger.coupon(expected.definition.coupon).unwrap();
        let found =
            CouponRow { definition: found.definition, retired_at: found.retired_at, count: found.count() };
        assert_eq!(found, expected);
    }
    assert_eq!(first.ledger.coupons().count(), 3);
    assert_eq!(second.ledger.coupon(CouponId(4)).unwrap().definition, definition(4));

    // The same coupon again, with everything else.
    let newer = Definition {
        version: 4,
        stock: 7,
        starts_at: THEN + 1,
        ends_at: THEN + 20,
        closed: true,
        ..definition(1)
    };
    let changed = CouponRow { definition: newer, retired_at: Some(60), count: 3 };
    store::put_coupons(db, 0, &[&changed]).await.unwrap();
    store::insert_issues(db, &[row(1, 12, 3)]).await.unwrap();
    let read = store::snapshots(&system.pool, 2, &[0]).await.unwrap();
    let found = read[0].ledger.coupon(CouponId(1)).unwrap();
    assert_eq!((found.definition, found.retired_at, found.count()), (newer, Some(60), 3));
}

/// More than one statement takes; and a row that is there already is an error, with which none of them stays.
#[tokio::test(flavor = "multi_thread")]
async fn many_rows_are_written_once() {
    let system = System::start().await;
    let db = &mut *system.pool.acquire().await.unwrap();
    let rows: Vec<IssueRow> = (1..=2_001).map(|place| row(1, u64::from(place), place)).collect();
    store::insert_issues(db, &rows).await.unwrap();
    store::insert_issues(db, &[]).await.unwrap();
    assert_eq!(system.rows(CouponId(1)).await.len(), 2_001);
    let error = store::insert_issues(db, &[row(1, 3_000, 2_002), row(1, 2_001, 2_003)]).await.unwrap_err();
    assert!(error.as_database_error().is_some_and(|error| error.is_unique_violation()), "{error}");
    assert_eq!(system.rows(CouponId(1)).await.len(), 2_001);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_count_and_highest_place_have_to_agree() {
    let system = System::start().await;
    let db = &mut *system.pool.acquire().await.unwrap();
    let count = |count| CouponRow { definition: definition(1), retired_at: None, count };
    let wrong = async || match store::snapshots(&system.pool, 2, &[0]).await {
        Err(StoreError::Contradiction(why)) => why,
        other => panic!("{:?}", other.map(|read| read.len())),
    };
    store::put_coupons(db, 0, &[&count(1)]).await.unwrap();
    assert_eq!(wrong().await, "coupon 1 has 0 rows, a count of 1 and 0 as the highest place");
    store::insert_issues(db, &[row(1, 10, 2)]).await.unwrap();
    assert_eq!(wrong().await, "coupon 1 has 1 rows, a count of 1 and 2 as the highest place");
    store::insert_issues(db, &[row(1, 11, 1)]).await.unwrap();
    assert_eq!(wrong().await, "coupon 1 has 2 rows, a count of 1 and 2 as the highest place");
    store::put_coupons(db, 0, &[&count(2)]).await.unwrap();
    store::snapshots(&system.pool, 2, &[0]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_is_stored_once_and_has_to_be_the_same() {
    let system = System::start().await;
    let db = &mut *system.pool.acquire().await.unwrap();
    for next in [4_096, 8_192, 12_288] {
        store::put_digest(db, 1, next, digest(1)).await.unwrap();
    }
    store::put_digest(db, 1, 8_192, digest(1)).await.unwrap();
    store::put_digest(db, 0, 8_192, digest(2)).await.unwrap();
    let error = store::put_digest(db, 1, 8_192, digest(2)).await.unwrap_err();
    assert!(matches!(&error, StoreError::Contradiction(_)), "{error}");
    assert!(error.to_string().contains("below offset 8192 is stored as 0101"), "{error}");
    let stored = async |first, last| store::digests(&system.pool, 1, first, last).await.unwrap();
    assert_eq!(stored(4_096, 8_192).await, [(4_096, digest(1)), (8_192, digest(1))]);
    assert!(stored(4_097, 8_191).await.is_empty());
    assert_eq!(store::digests(&system.pool, 0, 0, u64::MAX).await.unwrap(), [(8_192, digest(2))]);
}

/// That there is no row says something only where the watermark has passed the retirement.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_row_has_not_won_only_when_the_watermark_says_so() {
    let system = System::start().await;
    let db = &mut *system.pool.acquire().await.unwrap();
    store::insert_issues(db, &[row(1, 10, 1)]).await.unwrap();
    let of = async |user| store::won_before(&system.pool, 0, 50, CouponId(1), UserId(user)).await.unwrap();
    assert_eq!((of(10).await, of(11).await), (Won::Yes(won(1)), Won::Unknown));
    assert!(moves(db, 0, 0, at(50, 1)).await);
    assert_eq!(of(11).await, Won::Unknown);
    assert!(moves(db, 0, 50, at(51, 1)).await);
    assert_eq!((of(10).await, of(11).await), (Won::Yes(won(1)), Won::No));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_coupons_come_newest_first_and_in_pages() {
    let system = System::start().await;
    let db = &mut *system.pool.acquire().await.unwrap();
    let of = |coupon: u64, time: u64| IssueRow { issued_at: THEN + time, ..row(coupon, 10, 1) };
    store::insert_issues(db, &[of(1, 5), of(2, 5), of(3, 7), row(4, 11, 1)]).await.unwrap();
    let page = async |before: Option<(u64, u64)>, limit| -> Vec<(u64, u64)> {
        let before = before.map(|(time, coupon)| (THEN + time, CouponId(coupon)));
        let read = store::issues_of(&system.pool, UserId(10), before, limit).await.unwrap();
        read.iter().map(|(coupon, winner)| (winner.issued_at - THEN, coupon.0)).collect()
    };
    assert_eq!(page(None, 9).await, [(7, 3), (5, 2), (5, 1)]);
    assert_eq!(page(None, 2).await, [(7, 3), (5, 2)]);
    assert_eq!(page(Some((5, 2)), 2).await, [(5, 1)]);
    assert_eq!(page(Some((7, 3)), 1).await, [(5, 2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_belongs_to_the_topic_that_came_first() {
    let system = System::start().await;
    let (own, partitions) = (store::topic_id(&system.pool).await.unwrap(), system.kafka.partitions);
    let claim = async |id: &str| store::claim_topic(&system.pool, 7, id).await.unwrap();
    assert_eq!(claim("another").await, (partitions, own.clone()));
    assert_eq!(store::topic_id(&system.pool).await.unwrap(), own);
    sqlx::query("DELETE FROM ledger_meta").execute(&system.pool).await.unwrap();
    assert_eq!(claim("another").await, (7, "another".to_owned()));
    assert_eq!(store::topic_id(&system.pool).await.unwrap(), "another");
}

/// A pool of a single connection.
async fn single(system: &System) -> MySqlPool {
    let options = (*system.pool.connect_options()).clone();
    MySqlPoolOptions::new().max_connections(1).connect_with(options).await.unwrap()
}

/// What was begun on a connection and not ended must not go on with the next work that gets it.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_given_up_is_thrown_away() {
    let system = System::start().await;
    let pool = single(&system).await;
    let failed = store::on_connection(&pool, async |db| -> Result<(), StoreError> {
        sqlx::raw_sql("START TRANSACTION").execute(&mut *db).await?;
        store::insert_issues(db, &[row(1, 10, 1)]).await?;
        Err(StoreError::Contradiction("as if".to_owned()))
    });
    assert!(failed.await.is_err());
    let rows = store::on_connection(&pool, async |db| {
        sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM coupon_issues").fetch_one(db).await
    });
    assert_eq!(rows.await.unwrap(), 0);
}

/// One that was not is kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_whose_work_is_done_is_used_again() {
    let system = System::start().await;
    let pool = single(&system).await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let id = store::on_connection(&pool, async |db| {
            sqlx::query_scalar::<_, u64>("SELECT CAST(CONNECTION_ID() AS UNSIGNED)").fetch_one(db).await
        });
        ids.push(id.await.unwrap());
    }
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_may_pass_is_tried_again() {
    let system = System::start().await;
    let signalled = async |state: &str| {
        let signal = sqlx::AssertSqlSafe(format!("SIGNAL SQLSTATE '{state}'"));
        StoreError::Database(sqlx::raw_sql(signal).execute(&system.pool).await.unwrap_err())
    };
    for (state, may_pass) in [("28000", false), ("42S02", false), ("40001", true), ("HY000", true)] {
        assert_eq!(signalled(state).await.may_pass(), may_pass, "{state}");
    }
    assert!(!StoreError::Contradiction("so".to_owned()).may_pass());
    for error in [sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()), sqlx::Error::PoolTimedOut] {
        assert!(StoreError::Database(error).may_pass());
    }
    assert!(StoreError::Database(sqlx::Error::Protocol("cut off".to_owned())).may_pass());
    assert!(StoreError::Database(sqlx::Error::PoolClosed).may_pass());
    assert!(!StoreError::Database(sqlx::Error::RowNotFound).may_pass());
}
