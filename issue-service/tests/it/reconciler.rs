//! The doorman's sets in a real Redis, whatever happens to them.

use std::collections::BTreeSet;
use std::time::Duration;

use issue_service::app::Serving;
use issue_service::claim::Outcome;
use issue_service::doorman::users_key;
use issue_service::ids::{CouponId, UserId};
use issue_service::ledger::partition::{Answer, Entrance, Pass};
use issue_service::ledger::{Definition, Record};
use platform::clock::now_ms;
use platform::lifecycle::Lifecycle;
use platform::testing::Servers;
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use serde_json::json;
use tokio::time::Instant;

use crate::claims::{issued, places, redis};
use crate::link::Link;
use crate::system::{System, definition, eventually, race, users};

const STRANGERS: [u64; 3] = [1, 2, 3];

/// A coupon with some winners, and its set.
struct Scene {
    coupon: CouponId,
    winners: BTreeSet<u64>,
    conn: MultiplexedConnection,
}

impl Scene {
    /// In partition 0.
    async fn start(system: &System, serving: &Serving, stock: u32, claims: u64) -> Self {
        let coupon = system.coupon_in(&[serving], 0, stock).await;
        let outcomes = race(&[serving], coupon, users(claims), 1).await;
        let winners = issued(&outcomes).iter().map(|user| user.0).collect();
        Self { coupon, winners, conn: redis().await }
    }

    async fn members(&mut self) -> BTreeSet<String> {
        self.conn.smembers(users_key(self.coupon)).await.unwrap()
    }

    async fn level(&mut self, what: &str) {
        let winners: BTreeSet<String> = self.winners.iter().map(u64::to_string).collect();
        eventually(what, async || self.members().await == winners).await;
    }

    /// As many strangers as there are members less: the size says nothing.
    async fn swap(&mut self) {
        let key = users_key(self.coupon);
        let some: Vec<u64> = self.winners.iter().copied().take(STRANGERS.len()).collect();
        let mut pipe = redis::pipe();
        pipe.atomic().srem(&key, &some).sadd(&key, &STRANGERS).ignore();
        pipe.exec_async(&mut self.conn).await.unwrap();
    }

    /// Waits until the contents were compared and nothing is known to be wrong: only then a stranger has left.
    async fn settled(&mut self) {
        let _: () = self.conn.sadd(users_key(self.coupon), 4).await.unwrap();
        self.level("a stranger has left").await;
    }
}

/// A system whose way to Redis can be cut or frozen.
async fn behind_a_link() -> (System, Link) {
    let servers = &Servers::get().redis;
    let (host, port) = servers.address.rsplit_once(':').unwrap();
    let lifecycle = Lifecycle::new();
    let link = Link::to(host, port.parse().unwrap(), &lifecycle).await;
    let address = format!("127.0.0.1:{}", link.port);
    (System::with_redis(json!({ "address": address, "password": servers.password })).await, link)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_that_was_wiped_under_a_full_coupon_is_filled_again() {
    let system = System::start().await;
    let serving = system.serving().await;
    let mut scene = Scene::start(&system, &serving, 1200, 1500).await;
    assert_eq!(scene.winners.len(), 1200);
    scene.settled().await;
    let _: () = scene.conn.del(users_key(scene.coupon)).await.unwrap();
    scene.level("it is filled again").await;
}

/// With two instances that both believe to be the one that does it, each through a lock of its own that was lost.
#[tokio::test(flavor = "multi_thread")]
async fn members_who_have_not_won_are_removed_also_by_two_at_once() {
    let system = System::start().await;
    let (one, two) = (system.serving().await, system.serving().await);
    let mut scene = Scene::start(&system, &one, 50, 20).await;
    let lock = format!("reconciler:{{{}}}:lock", system.kafka.topic);
    let mut thief = redis().await;
    let steal = async {
        loop {
            let _: () = thief.del(&lock).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let leak = async {
        scene.settled().await;
        let _: () = scene.conn.sadd(users_key(scene.coupon), &STRANGERS).await.unwrap();
        let _: () = scene.conn.sadd(users_key(scene.coupon), "not a user").await.unwrap();
        scene.level("strangers have left").await;
    };
    tokio::select! {
        () = leak => {}
        () = steal => {}
    }
    let outcomes = race(&[&one, &two], scene.coupon, users(100), 1).await;
    assert_eq!(issued(&outcomes).len(), 30);
    assert_eq!(places(&outcomes).len(), 50);
}

/// The size says nothing, so the contents are compared when the count has changed and rested.
#[tokio::test(flavor = "multi_thread")]
async fn a_set_of_the_right_size_is_put_right_after_a_change() {
    let system = System::start().await;
    let serving = system.serving().await;
    let mut scene = Scene::start(&system, &serving, 50, 20).await;
    scene.settled().await;
    scene.swap().await;
    let newcomer = UserId(5);
    assert!(matches!(serving.claims.claim(scene.coupon, newcomer).await, Outcome::Issued(_)));
    scene.winners.insert(newcomer.0);
    scene.level("the count has rested").await;
}

/// At whichever instance.
#[tokio::test(flavor = "multi_thread")]
async fn a_set_of_the_right_size_is_put_right_after_an_own_door_was_used() {
    let system = System::start().await;
    let one = system.serving().await;
    let mut scene = Scene::start(&system, &one, 50, 20).await;
    scene.settled().await; // by this one, so the other is not the one that does it
    let two = system.serving().await;
    scene.swap().await;
    let partition = &two.claims.partitions[0];
    let user = UserId(6);
    let Entrance::Send { attempt, .. } = partition.enter(scene.coupon, user, Instant::now(), Pass::None)
    else {
        panic!("not let in");
    };
    partition.failed(scene.coupon, user, attempt, Answer::NotSent);
    scene.level("the set is the winners'").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_of_the_right_size_is_put_right_when_a_master_is_found_anew() {
    let (system, link) = behind_a_link().await;
    let serving = system.serving().await;
    let mut scene = Scene::start(&system, &serving, 50, 20).await;
    scene.settled().await;
    scene.swap().await;
    link.cut();
    scene.level("the set is the winners'").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keys_of_a_retired_coupon_vanish() {
    let system = System::start().await;
    let (serving, other) = (system.serving().await, system.serving().await);
    let mut scene = Scene::start(&system, &serving, 5, 9).await;
    let coupon = scene.coupon;
    let info = format!("coupon:{{{coupon}}}:info");
    let _: () = scene.conn.set(&info, "a definition").await.unwrap();
    let keys = [users_key(coupon), info, format!("coupon:{{{coupon}}}:count")];
    eventually("all keys are there", async || scene.conn.exists::<_, u64>(&keys).await.unwrap() == 3).await;
    let ended = Definition { ends_at: now_ms() - 1, ..definition(coupon, 2, 5) };
    system.define(&[&serving, &other], ended).await;
    serving.claims.outside.log.append(0, Record::Retire { coupon }).await.unwrap();
    eventually("they have vanished", async || scene.conn.exists::<_, u64>(&keys).await.unwrap() == 0).await;
    // Late, by somebody who has not heard of it.
    let _: () = scene.conn.set(&keys[2], "1:1").await.unwrap();
    eventually("it has vanished, too", async || scene.conn.exists::<_, u64>(&keys).await.unwrap() == 0).await;

    // Whoever goes over all counts, and over all who are in doubt, leaves it out.
    let live = Scene::start(&system, &serving, 5, 1).await.coupon;
    serving.claims.doorman.doubt(coupon, UserId(*scene.winners.first().unwrap()));
    serving.claims.doorman.doubt(live, UserId(1));
    let _: () = scene.conn.sadd(users_key(live), 1).await.unwrap();
    let count = format!("coupon:{{{live}}}:count");
    let mut counted = async || {
        let count: Option<String> = scene.conn.get(&count).await.unwrap();
        count.is_some_and(|count| count.ends_with(":1"))
    };
    eventually("the live one's count is the last", &mut counted).await;
    let _: () = redis().await.del(&count).await.unwrap();
    eventually("it is published again, changed or not", &mut counted).await;
    let _: () =
        redis::pipe().del(&count).lpush(&count, "no text").query_async(&mut redis().await).await.unwrap();
    eventually("what is no count is replaced", async || {
        let kind: String = redis::cmd("TYPE").arg(&count).query_async(&mut redis().await).await.unwrap();
        kind == "string"
    })
    .await;
    assert!(counted().await);
    let key = users_key(live);
    eventually("its set is right", async || !scene.conn.sismember::<_, _, bool>(&key, 1).await.unwrap())
        .await;
    assert_eq!(scene.conn.exists::<_, u64>(&keys).await.unwrap(), 0);
}

/// Redis accepts everything and answers nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_redis_holds_no_claim_up() {
    let (system, link) = behind_a_link().await;
    let serving = system.serving().await;
    let mut scene = Scene::start(&system, &serving, 50, 20).await;
    scene.settled().await;
    let _: () = scene.conn.del(users_key(scene.coupon)).await.unwrap();
    link.hang();
    let outcomes = race(&[&serving], scene.coupon, users(200), 1).await;
    assert_eq!(places(&outcomes).len(), 50);
    let refused = outcomes.iter().filter(|(_, outcome)| *outcome == Outcome::SoldOut).count();
    assert_eq!(refused, 150, "{outcomes:?}");
}

/// Nobody of this system would write one, and it must not make the doorman rest for all.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_no_set_is_removed() {
    let system = System::start().await;
    let serving = system.serving().await;
    let mut conn = redis().await;
    let mut admitted = 0;
    // On a busy machine he may be late, and then he rests.
    for _ in 0..10 {
        let coupon = system.coupon(&[&serving], 5).await;
        let _: () = conn.set(users_key(coupon), "no set").await.unwrap();
        assert_eq!(issued(&race(&[&serving], coupon, users(3), 1).await).len(), 3);
        admitted = conn.scard(users_key(coupon)).await.unwrap_or(0);
        if admitted == 3 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1100)).await;
    }
    assert_eq!(admitted, 3, "the doorman has admitted them");

    let mut scene = Scene::start(&system, &serving, 5, 8).await;
    scene.settled().await;
    let _: () = scene.conn.set(users_key(scene.coupon), "no set").await.unwrap();
    eventually("it is a set again", async || {
        let kind: String =
            redis::cmd("TYPE").arg(users_key(scene.coupon)).query_async(&mut scene.conn).await.unwrap();
        kind == "set"
    })
    .await;
    scene.level("it is filled").await;
}
