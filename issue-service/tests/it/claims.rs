use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hmac::{Hmac, Mac as _};
use issue_service::claim::{Outcome, Status};
use issue_service::doorman::{Word, users_key};
use issue_service::ids::{CouponId, UserId, partition_of};
use issue_service::ledger::partition::{Answer, Entrance, Pass};
use issue_service::ledger::{Definition, Record};
use platform::clock::now_ms;
use platform::testing::Servers;
use redis::AsyncCommands as _;
use serde_json::json;
use sha2::Sha256;
use tokio::time::Instant;

use crate::system::{System, definition, eventually, race, users};

pub(crate) fn issued(outcomes: &[(UserId, Outcome)]) -> BTreeSet<UserId> {
    let issued = outcomes.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Issued(_)));
    issued.map(|(user, _)| *user).collect()
}

pub(crate) async fn redis() -> redis::aio::MultiplexedConnection {
    let servers = &Servers::get().redis;
    let url = format!("redis://:{}@{}/", servers.password, servers.address);
    redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()
}

pub(crate) fn places(outcomes: &[(UserId, Outcome)]) -> BTreeMap<UserId, u32> {
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
    let mut connection = redis().await;
    eventually("the doorman's set is the winners'", async || {
        let members: BTreeSet<u64> = connection.smembers(users_key(coupon)).await.unwrap();
        members == winners.iter().map(|user| user.0).collect()
    })
    .await;
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
    consumer.stop().await;
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
    let outcomes = race(&[&serving], coupon, users(100), 1).await;
    assert_eq!(issued(&outcomes).len(), 20);
    assert!(outcomes.iter().all(|(_, outcome)| matches!(outcome, Outcome::Issued(_) | Outcome::SoldOut)));
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

/// He may have put somebody into his set whose answer came too late, or lack a winner of the own door.
#[tokio::test(flavor = "multi_thread")]
async fn the_doorman_s_set_is_put_right_for_those_who_are_in_doubt() {
    let system = System::start().await;
    let serving = system.serving().await;
    let coupon = system.coupon(&[&serving], 5).await;
    let number = partition_of(coupon, system.kafka.partitions);
    let partition = &serving.claims.partitions[number as usize];
    let doorman = &serving.claims.doorman;
    let mut connection = redis().await;
    let [winner, loser, in_flight] = [1, 2, 3].map(UserId);
    assert!(matches!(serving.claims.claim(coupon, winner).await, Outcome::Issued(_)));
    let _: () = connection.srem(users_key(coupon), winner.0).await.unwrap();
    let _: () = connection.sadd(users_key(coupon), &[loser.0, in_flight.0]).await.unwrap();
    let Entrance::Send { attempt, .. } = partition.enter(coupon, in_flight, Instant::now(), Pass::Doorman)
    else {
        panic!("not let in");
    };
    for user in [winner, loser, in_flight] {
        doorman.doubt(coupon, user);
    }
    let mut members = async || -> BTreeSet<u64> { connection.smembers(users_key(coupon)).await.unwrap() };
    eventually("he knows the winner", async || members().await == BTreeSet::from([1, 3])).await;
    // Whoever is in flight stays in doubt, and asking him goes on meanwhile.
    let mut newcomer = 4;
    loop {
        tokio::time::sleep(Duration::from_millis(1200)).await;
        let ask = doorman.ask(coupon, UserId(newcomer), 5);
        match tokio::time::timeout(Duration::from_secs(5), ask).await.expect("he answers") {
            // On a busy machine he may be late.
            Word::Away if newcomer < 10 => newcomer += 1,
            word => break assert_eq!(word, Word::Admitted),
        }
    }
    eventually("he is level", async || members().await == BTreeSet::from([1, 3, newcomer])).await;
    partition.failed(coupon, in_flight, attempt, Answer::Unknown);
    eventually("who is in flight no more is out", async || members().await == BTreeSet::from([1, newcomer]))
        .await;
}

/// A log that lost its beginning (by an operator, or a retention that was too short) can't be told from one that
/// lost winners: its partition stops, the others go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_cut_stops_its_partition_and_no_other() {
    let system = System::start().await;
    let first = system.serving().await;
    let other = system.coupon_in(&[&first], 1, 5).await;
    let cut = system.coupon_in(&[&first], 0, 5).await;
    assert!(matches!(first.claims.claim(cut, UserId(1)).await, Outcome::Issued(_)));
    let end = first.claims.outside.log.append(0, Record::Noop).await.unwrap();
    system.cut(0, end).await;

    // Nothing is in the database, so it has to read all of the log.
    let second = tokio::time::timeout(Duration::from_secs(30), system.serving()).await;
    let second = second.expect("a start that goes on without the partition");
    eventually("the partition has stopped", async || second.claims.partitions[0].is_stopped()).await;
    assert_eq!(second.claims.claim(cut, UserId(2)).await, Outcome::Unavailable);
    assert!(!second.claims.partitions[1].is_stopped());
    assert!(matches!(second.claims.claim(other, UserId(2)).await, Outcome::Issued(_)));
    // Whoever had read it already goes on.
    assert!(matches!(first.claims.claim(cut, UserId(2)).await, Outcome::Issued(_)));
}

/// Nobody is refused on old news: an instance that has fallen behind the log may not say "sold out".
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_lags_refuses_nobody() {
    let system = System::start().await;
    let (fresh, lagging) = (system.serving().await, system.serving().await);
    let coupon = system.coupon_in(&[&fresh, &lagging], 0, 1).await;
    let (winner, other) = (UserId(1), UserId(2));
    let Outcome::Issued(first) = fresh.claims.claim(coupon, winner).await else { panic!("not issued") };
    eventually("both know", async || lagging.claims.claim(coupon, other).await == Outcome::SoldOut).await;

    system.hold_back(&lagging, 0, &fresh).await;
    system.define(&[&fresh], definition(coupon, 2, 2)).await;
    let told = [lagging.claims.claim(coupon, other).await, lagging.claims.claim(coupon, winner).await];
    assert_eq!(told, [Outcome::Unavailable, Outcome::Already(first)]);
    assert_eq!(lagging.claims.status(coupon, other).await, Status::Unavailable);
    assert!(matches!(fresh.claims.claim(coupon, other).await, Outcome::Issued(_)));

    lagging.follower.follow(0, lagging.claims.partitions[0].next());
    eventually("it has caught up", async || {
        matches!(lagging.claims.claim(coupon, other).await, Outcome::Already(_))
    })
    .await;
}

/// Redis is no authority: what it says of a coupon counts only with the coupon service's signature.
#[tokio::test(flavor = "multi_thread")]
async fn a_cached_definition_counts_only_with_its_mac() {
    let system = System::start().await;
    let serving = system.serving().await;
    let coupon = system.new_coupon();
    let Definition { version, stock, starts_at, ends_at, .. } = definition(coupon, 7, 2);
    let put = async |quantity: u32| {
        let signed = format!("{coupon}|{version}|{stock}|{starts_at}|{ends_at}|0");
        let mut mac =
            Hmac::<Sha256>::new_from_slice(system.settings.definition.mac_secret.expose().as_bytes())
                .unwrap();
        mac.update(signed.as_bytes());
        let cached = json!({
            "couponId": coupon.0, "version": version, "quantity": quantity, "startsAt": starts_at,
            "endsAt": ends_at, "closed": false, "mac": hex::encode(mac.finalize().into_bytes()),
        });
        let key = format!("coupon:{{{coupon}}}:info");
        let _: () = redis().await.set_ex(key, cached.to_string(), 60).await.unwrap();
    };
    put(stock + 1).await;
    assert_eq!(serving.claims.claim(coupon, UserId(1)).await, Outcome::Unavailable);
    put(stock).await;
    // What was looked up is kept for a second, a failure not at all.
    let outcomes = race(&[&serving], coupon, users(5), 1).await;
    assert_eq!(issued(&outcomes).len(), 2);
}

/// Beyond its bound nobody waits: they are sent away at once.
#[tokio::test(flavor = "multi_thread")]
async fn only_so_many_wait() {
    let mut system = System::start().await;
    system.settings.claims.max_waiting = 3;
    let (serving, other) = (system.serving().await, system.serving().await);
    let coupon = system.coupon_in(&[&serving, &other], 0, 1).await;
    let winner = UserId(1);
    assert!(matches!(other.claims.claim(coupon, winner).await, Outcome::Issued(_)));
    system.hold_back(&serving, 0, &other).await;
    system.define(&[&other], definition(coupon, 2, 2)).await;
    let instances = [&serving];
    let winner_again = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        serving.claims.claim(coupon, winner).await
    };
    let (outcomes, again) = tokio::join!(race(&instances, coupon, users(10), 1), winner_again);
    assert!(matches!(again, Outcome::Already(_)), "a winner needs no place to wait in: {again:?}");
    let overloaded = outcomes.iter().filter(|(_, outcome)| *outcome == Outcome::Overloaded).count();
    assert_eq!(overloaded, 7, "{outcomes:?}");
}
