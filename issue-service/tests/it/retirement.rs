//! Coupons that are over: their winners leave memory, and keep their receipts.

use std::collections::BTreeMap;
use std::time::Duration;

use issue_service::app::Serving;
use issue_service::claim::{Outcome, Status};
use issue_service::ids::{CouponId, UserId};
use issue_service::ledger::Definition;
use issue_service::ledger::partition::Standing;
use platform::clock::now_ms;

use crate::claims::places;
use crate::link::Link;
use crate::system::{System, definition, eventually, race, users};

/// A system that retires coupons as soon as they have ended.
async fn system() -> System {
    let mut system = System::start().await;
    system.settings.retirement.after = Duration::ZERO;
    system
}

/// A coupon of partition 0 that has ended, with three winners and their places.
async fn ended(system: &System, instances: &[&Serving]) -> (CouponId, BTreeMap<UserId, u32>) {
    let coupon = system.coupon_in(instances, 0, 3).await;
    let winners = places(&race(instances, coupon, users(6), 1).await);
    assert_eq!(winners.len(), 3);
    system.define(instances, Definition { ends_at: now_ms() - 1, ..definition(coupon, 2, 3) }).await;
    (coupon, winners)
}

async fn retired(serving: &Serving, coupon: CouponId) {
    let partition = &serving.claims.partitions[0];
    eventually("it is retired", async || partition.with(|ledger| ledger.is_retired(coupon))).await;
}

fn is_evicted(serving: &Serving, coupon: CouponId) -> bool {
    let standing = serving.claims.partitions[0].standing(coupon, UserId(1), 0);
    matches!(standing, Standing::Evicted { .. })
}

#[tokio::test(flavor = "multi_thread")]
async fn winners_leave_memory_when_the_database_has_them_and_keep_their_receipt() {
    let system = system().await;
    let (one, two) = (system.serving().await, system.serving().await);
    let instances = [&one, &two];
    let open = system.coupon_in(&instances, 0, 5).await;
    let Outcome::Issued(winner) = one.claims.claim(open, UserId(1)).await else { panic!("not issued") };
    let (coupon, winners) = ended(&system, &instances).await;
    retired(&one, coupon).await;
    // One more, which is retired in a later round: the round before could have let go of the first.
    let (second, _) = ended(&system, &instances).await;
    for serving in instances {
        retired(serving, second).await;
        assert!(!is_evicted(serving, coupon), "no consumer has written them");
        assert_eq!(places(&race(&[serving], coupon, users(6), 1).await), winners);
    }

    let _consumer = system.consuming();
    for serving in instances {
        eventually("they have left memory", async || is_evicted(serving, coupon)).await;
    }
    // One that starts now never has them in memory.
    let three = system.serving().await;
    assert!(is_evicted(&three, coupon));
    for serving in [&one, &two, &three] {
        let again = race(&[serving], coupon, users(6), 1).await;
        assert_eq!(places(&again), winners);
        for (user, outcome) in again {
            let status = serving.claims.status(coupon, user).await;
            match outcome {
                Outcome::Already(winner) => assert_eq!(status, Status::Issued(winner)),
                other => assert_eq!((other, status), (Outcome::Ended, Status::None)),
            }
        }
        let count = serving.claims.partitions[0].definition(coupon).map(|(_, count, _)| count);
        assert_eq!(count, Some(3));
        assert_eq!(serving.claims.claim(open, UserId(1)).await, Outcome::Already(winner), "not retired");
    }
    assert!(matches!(two.claims.claim(open, UserId(2)).await, Outcome::Issued(_)));
}

/// "No row" is no "no" while the database has not followed the log up to the retirement, or can't be asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_went_back_or_is_away_denies_no_winner() {
    let mut system = system().await;
    let direct = system.pool.clone();
    let link = Link::to(&system.settings.mysql.host, system.settings.mysql.port, &system.lifecycle).await;
    system.pool = system.pool_through(link.port);
    let serving = system.serving().await;
    system.pool = direct;
    let consumer = system.consuming();
    let (coupon, winners) = ended(&system, &[&serving]).await;
    eventually("they have left memory", async || is_evicted(&serving, coupon)).await;
    consumer.stop().await;

    let mut transaction = system.pool.begin().await.unwrap();
    for table in ["coupon_issues", "issue_coupons", "ledger_watermarks", "ledger_digests"] {
        let statement = sqlx::AssertSqlSafe(format!("DELETE FROM {table}"));
        sqlx::query(statement).execute(&mut *transaction).await.unwrap();
    }
    transaction.commit().await.unwrap();
    for user in users(6) {
        assert_eq!(serving.claims.claim(coupon, user).await, Outcome::Unavailable);
        assert_eq!(serving.claims.status(coupon, user).await, Status::Unavailable);
    }

    let _consumer = system.consuming();
    eventually("the rows are back", async || system.rows(coupon).await.len() == 3).await;
    system.level(&serving).await;
    let again = race(&[&serving], coupon, users(6), 1).await;
    assert_eq!(places(&again), winners);
    assert_eq!(again.iter().filter(|(_, outcome)| *outcome == Outcome::Ended).count(), 3);

    link.hang();
    for (_, outcome) in race(&[&serving], coupon, users(6), 1).await {
        assert_eq!(outcome, Outcome::Unavailable);
    }
}
