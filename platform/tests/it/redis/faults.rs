//! What may happen to a master, with nobody to fail over: each time the connection is withdrawn, and there is a good one
//! as soon as there can be.

use std::time::Duration;

use platform::lifecycle::Lifecycle;
use platform::redis::Redis;
use redis::{Cmd, RedisError, RedisResult};

use super::server::Server;
use super::{SCRIPT, call_script, connected, withdrawn};

/// A server that takes some seconds to load its data when it is started again.
async fn slow_to_load() -> Server {
    let server =
        Server::redis(None, "key-load-delay 150\nloading-process-events-interval-bytes 1024\n").await;
    let populate = redis::cmd("DEBUG").arg("POPULATE").arg(20_000).to_owned();
    server.ask::<()>(&populate).await.unwrap();
    server.ask::<()>(&redis::cmd("SAVE")).await.unwrap();
    server
}

/// Starts it again and returns while it loads.
async fn restart_with_much_to_load(server: &mut Server) -> RedisError {
    server.kill();
    server.start_again().await;
    let is_loading =
        |answer: &RedisResult<String>| answer.as_ref().is_err_and(|error| error.code() == Some("LOADING"));
    server.until(redis::cmd("PING"), is_loading).await;
    server.ask::<String>(&redis::cmd("PING")).await.unwrap_err()
}

fn set() -> Cmd {
    redis::cmd("SET").arg("key").arg("value").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_that_speak_against_a_master_make_it_looked_for() {
    let master = Server::redis(None, "").await;
    let replica = Server::redis(None, &format!("replicaof 127.0.0.1 {}\n", master.port())).await;
    let script = redis::cmd("EVAL").arg("redis.call('SET', 'a', 1)").arg(0).to_owned();
    let mut loading = slow_to_load().await;
    let loading_error = restart_with_much_to_load(&mut loading).await;
    let frozen = Server::redis(None, "").await;
    let client = redis::Client::open(format!("redis://{}", frozen.address)).unwrap();
    let mut frozen_connection = client.get_multiplexed_async_connection().await.unwrap();
    frozen_connection.set_response_timeout(Duration::from_millis(50));
    frozen.signal("STOP");
    let mut dead = Server::redis(None, "").await;
    dead.kill();
    let errors = [
        ("READONLY", replica.ask::<()>(&set()).await.unwrap_err()),
        ("READONLY", replica.ask::<()>(&script).await.unwrap_err()),
        ("LOADING", loading_error),
        ("timed out", redis::cmd("PING").exec_async(&mut frozen_connection).await.unwrap_err()),
        ("refused", dead.ask::<()>(&set()).await.unwrap_err()),
    ];

    let lifecycle = Lifecycle::new();
    let redis = Redis::connect(master.settings(), &lifecycle, &[SCRIPT]);
    let mut epoch = connected(&redis, 0).await.epoch;
    for (kind, error) in errors {
        assert!(error.code() == Some(kind) || error.to_string().contains(kind), "{kind}: {error}");
        // The master itself is well: nothing but the report can be the reason.
        redis.report(epoch, &error);
        let next = connected(&redis, epoch).await.epoch;
        assert_eq!(next, epoch + 1, "{kind}");
        epoch = next;
    }
    lifecycle.stop_background(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_was_demoted_is_left_until_it_is_one_again() {
    let (server, other) = (Server::redis(None, "").await, Server::redis(None, "").await);
    let lifecycle = Lifecycle::new();
    let redis = Redis::connect(server.settings(), &lifecycle, &[SCRIPT]);
    let first = connected(&redis, 0).await;
    let demote = redis::cmd("REPLICAOF").arg("127.0.0.1").arg(other.port()).to_owned();
    server.ask::<()>(&demote).await.unwrap();
    withdrawn(&redis).await;
    let promote = redis::cmd("REPLICAOF").arg("NO").arg("ONE").to_owned();
    server.ask::<()>(&promote).await.unwrap();
    let second = connected(&redis, first.epoch).await;
    call_script(&second).await.unwrap();
    lifecycle.stop_background(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_loads_its_data_is_waited_for() {
    let mut server = slow_to_load().await;
    let lifecycle = Lifecycle::new();
    let redis = Redis::connect(server.settings(), &lifecycle, &[SCRIPT]);
    let first = connected(&redis, 0).await;
    restart_with_much_to_load(&mut server).await;
    withdrawn(&redis).await;
    let second = connected(&redis, first.epoch).await;
    call_script(&second).await.unwrap();
    lifecycle.stop_background(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_hangs_is_left_until_it_answers() {
    let server = Server::redis(None, "").await;
    let lifecycle = Lifecycle::new();
    let redis = Redis::connect(server.settings(), &lifecycle, &[SCRIPT]);
    let first = connected(&redis, 0).await;
    server.signal("STOP");
    withdrawn(&redis).await;
    server.signal("CONT");
    let second = connected(&redis, first.epoch).await;
    call_script(&second).await.unwrap();
    lifecycle.stop_background(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_that_were_flushed_come_back_on_the_same_connection() {
    let server = Server::redis(None, "").await;
    let lifecycle = Lifecycle::new();
    let redis = Redis::connect(server.settings(), &lifecycle, &[SCRIPT]);
    let connection = connected(&redis, 0).await;
    server.ask::<()>(redis::cmd("SCRIPT").arg("FLUSH")).await.unwrap();
    let error = call_script(&connection).await.unwrap_err();
    assert_eq!(error.code(), Some("NOSCRIPT"));
    redis.report(connection.epoch, &error);
    let known = redis::cmd("SCRIPT").arg("EXISTS").arg(redis::Script::new(SCRIPT).get_hash()).to_owned();
    server.until(known, |known: &RedisResult<Vec<bool>>| known.as_ref().is_ok_and(|known| known[0])).await;
    call_script(&connection).await.unwrap();
    assert_eq!(redis.connection().unwrap().epoch, connection.epoch);
    lifecycle.stop_background(Duration::from_secs(1)).await;
}
