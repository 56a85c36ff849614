use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use issue_service::claim::{Outcome, Status};
use issue_service::doorman::users_key;
use issue_service::ids::{CouponId, UserId};
use issue_service::ledger::Definition;
use platform::clock::now_ms;
use platform::testing::Servers;
use redis::AsyncCommands as _;
use serde_json::json;

use crate::system::{System, definition, race, users};

fn issued(outcomes: &[(UserId, Outcome)]) -> BTreeSet<UserId> {
    let issued = outcomes.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Issued(_)));
    issued.map(|(user, _)| *user).collect()
}

async fn redis() -> redis::aio::MultiplexedConnection {
    let servers = &Servers::get().redis;
    let url = format!("redis://:{}@{}/", servers.password, servers.address);
    redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()
}

fn places(outcomes: &[(UserId, Outcome)]) -> BTreeMap<UserId, u32> {
    let place = |outcome: &Outcome| match outcome {
        Outcome::Issued(winner) | Outcome::Already(winner) => Some(winner.place),
        _ => None,
    };
    outcomes.iter().filter_map(|(user, outcome)| Some((*user, place(outcome)?))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_at_two_instances_gets_the_stock_and_not_one_more() {
    let system = System::start().await;
    let (one, two) = (system.serving().await, system.serving().await);
    let consumers = [system.consuming(), system.consuming()];
    let coupon = system.coupon(&[&one, &two], 100).await;

    let outcomes = race(&[&one, &two], coupon, users(1000), 2).await;

    let winners: BTreeSet<UserId> = places(&outcomes).into_keys().collect();
    assert_eq!(winners.len(), 100);
    let refused = outcomes.iter().filter(|(_, outcome)| *outcome == Outcome::SoldOut).count();
    let again = outcomes.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Already(_))).count();
    let told = outcomes.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Issued(_))).count();
    let mut others = outcomes.iter().map(|(_, outcome)| outcome).collect::<Vec<_>>();
    others.retain(|o| !matches!(o, Outcome::Issued(_) | Outcome::Already(_) | Outcome::SoldOut));
    assert_eq!(told + again + refused, 2000, "nobody is left without an answer: {others:?}");
    assert_eq!(told + again, 200, "who asks twice is told twice");

    // Whoever asks again gets the same receipt, on any instance; whoever lost has still lost.
    let again = race(&[&two, &one], coupon, users(1000), 1).await;
    assert_eq!(places(&again), places(&outcomes));
    assert_eq!(issued(&again).len(), 0);

    system.level(&one).await;
    let rows = system.rows(coupon).await;
    assert_eq!(rows.iter().map(|(user, _)| UserId(*user)).collect::<BTreeSet<_>>(), winners);
    assert_eq!(rows.iter().map(|(_, place)| *place).collect::<Vec<_>>(), (1..=100).collect::<Vec<_>>());
    let members: BTreeSet<u64> = redis().await.smembers(users_key(coupon)).await.unwrap();
    assert_eq!(members, winners.iter().map(|user| user.0).collect());
    drop(consumers);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_starts_later_knows_every_winner() {
    let system = System::start().await;
    let first = system.serving().await;
    let consumer = system.consuming();
    let coupon = system.coupon(&[&first], 10).await;
    let outcomes = race(&[&first], coupon, users(5), 1).await;
    system.level(&first).await;
    consumer.stop_background(std::time::Duration::from_secs(5)).await;
    // These are in the log only.
    let later = race(&[&first], coupon, users(10).skip(5), 1).await;
    first.stop().await;

    let second = system.serving().await;
    let again = race(&[&second], coupon, users(11), 1).await;
    let mut expected = places(&outcomes);
    expected.extend(places(&later));
    assert_eq!(expected.len(), 10);
    assert_eq!(places(&again), expected);
    assert_eq!(issued(&again).len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_window_is_judged_and_winners_keep_their_receipt_after_it() {
    let system = System::start().await;
    let serving = system.serving().await;
    let coupon = system.new_coupon();
    let early = Definition { starts_at: now_ms() + 60_000, ..definition(coupon, 1, 5) };
    system.define(&[&serving], early).await;
    assert_eq!(serving.claims.claim(coupon, UserId(1)).await, Outcome::NotStarted);
    system.define(&[&serving], definition(coupon, 2, 5)).await;
    let Outcome::Issued(winner) = serving.claims.claim(coupon, UserId(1)).await else { panic!("not issued") };
    let ended = Definition { ends_at: now_ms() - 1, ..definition(coupon, 3, 5) };
    system.define(&[&serving], ended).await;
    assert_eq!(serving.claims.claim(coupon, UserId(2)).await, Outcome::Ended);
    assert_eq!(serving.claims.claim(coupon, UserId(1)).await, Outcome::Already(winner));
    assert_eq!(serving.claims.status(coupon, UserId(1)).await, Status::Issued(winner));
    assert_eq!(serving.claims.status(coupon, UserId(2)).await, Status::None);
}

#[tokio::test(flavor = "multi_thread")]
async fn raised_stock_is_issued_to_those_who_were_refused() {
    let system = System::start().await;
    let serving = system.serving().await;
    let coupon = system.coupon(&[&serving], 3).await;
    assert_eq!(issued(&race(&[&serving], coupon, users(20), 1).await).len(), 3);
    system.define(&[&serving], definition(coupon, 2, 8)).await;
    assert_eq!(issued(&race(&[&serving], coupon, users(20), 1).await).len(), 5);
}

/// A doorman who says "sold out" because the slots of dead attempts fill his set.
#[tokio::test(flavor = "multi_thread")]
async fn leaked_slots_heal_within_the_claim() {
    let system = System::start().await;
    let serving = system.serving().await;
    let coupon = system.coupon(&[&serving], 20).await;
    let strangers: Vec<u64> = (1..=20).collect();
    let _: () = redis().await.sadd(users_key(coupon), strangers).await.unwrap();
    let start = Instant::now();
    let outcomes = race(&[&serving], coupon, users(100), 1).await;
    assert_eq!(issued(&outcomes).len(), 20);
    assert!(outcomes.iter().all(|(_, outcome)| matches!(outcome, Outcome::Issued(_) | Outcome::SoldOut)));
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_the_own_door_serves_everybody() {
    let nobody = json!({ "address": "127.0.0.1:1" });
    let system = System::with_redis(nobody).await;
    let (one, two) = (system.serving().await, system.serving().await);
    let coupon = system.coupon(&[&one, &two], 50).await;
    let outcomes = race(&[&one, &two], coupon, users(500), 1).await;
    let winners = issued(&outcomes);
    assert_eq!(winners.len(), 50);
    let others = outcomes.iter().filter(|(user, _)| !winners.contains(user));
    assert!(others.into_iter().all(|(_, outcome)| *outcome == Outcome::SoldOut));
}

/// A set that was wiped in the middle lets everybody in again; the log does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_redis_oversells_nothing() {
    let system = System::start().await;
    let serving = system.serving().await;
    let coupon = system.coupon(&[&serving], 30).await;
    let mut connection = redis().await;
    let wipe = async {
        for _ in 0..50 {
            let _: () = connection.del(users_key(coupon)).await.unwrap();
        }
    };
    let instances = [&serving];
    let (outcomes, ()) = tokio::join!(race(&instances, coupon, users(600), 2), wipe);
    assert_eq!(issued(&outcomes).len(), 30);
    assert!(
        outcomes
            .iter()
            .all(|(_, o)| matches!(o, Outcome::Issued(_) | Outcome::Already(_) | Outcome::SoldOut))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_coupon_service_an_unknown_coupon_is_neither_given_nor_denied() {
    let system = System::start().await;
    let serving = system.serving().await;
    assert_eq!(serving.claims.claim(CouponId(77), UserId(1)).await, Outcome::Unavailable);
}
