//! Sentinels that are dead, hang, know nothing or are wrong, among which one is right.

use std::net::TcpListener;
use std::time::Duration;

use platform::config::RedisSettings;
use platform::lifecycle::Lifecycle;
use platform::redis::Redis;
use platform::testing::free_address;

use super::fake::FakeSentinel;
use super::server::{MASTER, PASSWORD, Server};
use super::{SCRIPT, SOON, connected, server_of};

fn settings(sentinels: &[&str]) -> RedisSettings {
    RedisSettings {
        sentinels: sentinels.iter().map(|&sentinel| sentinel.to_owned()).collect(),
        master: MASTER.to_owned(),
        password: PASSWORD.into(),
        ..RedisSettings::default()
    }
}

/// Takes connections and never answers.
fn black_hole() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waited = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, waited).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_sentinel_that_is_right_is_enough() {
    let master = Server::redis(None, "").await;
    let replica = Server::redis(None, &format!("replicaof 127.0.0.1 {}\n", master.port())).await;
    let deposed = Server::redis(None, "").await;
    let (_listener, hanging) = black_hole();
    // The tests' servers listen on another loopback address.
    let dead = format!("127.9.9.9:{}", free_address().port());
    let knows_nothing = FakeSentinel::start();
    let names = |address: &str, failover| FakeSentinel::naming(address, failover);
    let wrong = [names(&replica.address, 9), names(&dead, 8), names(&hanging, 7), names(&deposed.address, 4)];
    let right = names(&master.address, 5);
    right.answer_slowly();
    let mut sentinels: Vec<&str> = vec![&dead, &hanging, &knows_nothing.address];
    sentinels.extend(wrong.iter().map(|sentinel| sentinel.address.as_str()));
    sentinels.push(&right.address);
    for _ in 0..5 {
        let lifecycle = Lifecycle::new();
        let redis = Redis::connect(settings(&sentinels), &lifecycle, &[SCRIPT]);
        let connection = connected(&redis, 0).await;
        // Nobody else was taken before.
        assert_eq!((server_of(&connection).await, connection.epoch), (master.address.clone(), 1));
        // And nobody else is taken later, though the others go on saying what they say.
        let asked = right.asked();
        until("asked again", || right.asked() > asked).await;
        assert_eq!(redis.connection().unwrap().epoch, 1);
        lifecycle.stop_background(Duration::from_secs(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_always_names_somebody_new_does_not_keep_a_look_from_ending() {
    let mut master = Server::redis(None, "").await;
    master.kill();
    // On every loopback address.
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (right, fickle) = (FakeSentinel::naming(&master.address, 1), FakeSentinel::start());
    let lifecycle = Lifecycle::new();
    let redis = Redis::connect(settings(&[&right.address, &fickle.address]), &lifecycle, &[SCRIPT]);
    let names_others = async {
        for number in (2..250).cycle() {
            fickle.say(&format!("127.0.0.{number}:{port}"), 0);
            fickle.announce(MASTER);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let comes_late = async {
        // The look that finds it dead has begun.
        until("asked", || right.asked() > 1).await;
        master.start_again().await;
        connected(&redis, 0).await
    };
    tokio::select! {
        connection = comes_late => assert_eq!(server_of(&connection).await, master.address),
        () = names_others => {}
    }
    lifecycle.stop_background(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deposed_master_is_left_when_a_sentinel_knows_better() {
    let (deposed, master) = (Server::redis(None, "").await, Server::redis(None, "").await);
    let behind = FakeSentinel::naming(&deposed.address, 4);
    let knows = FakeSentinel::naming(&deposed.address, 4);
    let lifecycle = Lifecycle::new();
    let redis = Redis::connect(settings(&[&behind.address, &knows.address]), &lifecycle, &[SCRIPT]);
    let first = connected(&redis, 0).await;
    assert_eq!(server_of(&first).await, deposed.address);
    // Without a message: an operator may have told it.
    knows.say(&master.address, 5);
    let second = connected(&redis, first.epoch).await;
    assert_eq!(server_of(&second).await, master.address);
    lifecycle.stop_background(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_is_heard_when_it_is_told() {
    let servers = [Server::redis(None, "").await, Server::redis(None, "").await];
    let sentinel = FakeSentinel::naming(&servers[0].address, 0);
    let lifecycle = Lifecycle::new();
    let redis = Redis::connect(settings(&[&sentinel.address]), &lifecycle, &[SCRIPT]);
    let mut epoch = connected(&redis, 0).await.epoch;
    let switches = async {
        for failover in 1..=20 {
            let master = &servers[failover % 2];
            sentinel.say(&master.address, u64::try_from(failover).unwrap());
            sentinel.announce(MASTER);
            let connection = connected(&redis, epoch).await;
            assert_eq!(server_of(&connection).await, master.address);
            epoch = connection.epoch;
        }
    };
    // Who only asks each second would need twice as long.
    tokio::time::timeout(Duration::from_secs(10), switches).await.unwrap();
    lifecycle.stop_background(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_of_another_master_is_ignored() {
    let server = Server::redis(None, "").await;
    let sentinel = FakeSentinel::naming(&server.address, 0);
    let lifecycle = Lifecycle::new();
    let redis = Redis::connect(settings(&[&sentinel.address]), &lifecycle, &[SCRIPT]);
    connected(&redis, 0).await;
    let asked = sentinel.asked();
    for _ in 0..100 {
        sentinel.announce("another");
        sentinel.announce(&format!("{MASTER}-too"));
    }
    // What was told before this was heard before this.
    until("asked twice more", || sentinel.asked() >= asked + 2).await;
    assert!(sentinel.asked() < asked + 10, "{} times", sentinel.asked() - asked);
    assert_eq!(redis.connection().unwrap().epoch, 1);
    lifecycle.stop_background(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinel_that_falls_silent_is_left_and_tried_again() {
    let server = Server::redis(None, "").await;
    let sentinel = FakeSentinel::naming(&server.address, 0);
    let lifecycle = Lifecycle::new();
    let redis = Redis::connect(settings(&[&sentinel.address]), &lifecycle, &[SCRIPT]);
    connected(&redis, 0).await;
    assert_eq!(sentinel.connections(), 1);
    sentinel.fall_silent();
    // A second time too: it takes the connection and doesn't greet.
    until("new connections", || sentinel.connections() > 2).await;
    // The master is well, whoever has named it.
    assert_eq!(redis.connection().unwrap().epoch, 1);
    lifecycle.stop_background(Duration::from_secs(1)).await;
}
