//! The supervisor on real servers: the run's, and where it comes to failovers and faults, a test's own.

mod certificates;
mod fake;
mod faults;
mod sentinels;
mod server;
mod tls;

use std::time::Duration;

use platform::config::RedisSettings;
use platform::lifecycle::Lifecycle;
use platform::redis::{Connection, Redis};
use platform::testing::{Servers, free_address, unique_name};

use self::server::Cluster;

const SOON: Duration = Duration::from_secs(20);
const SCRIPT: &str = "return redis.call('SET', KEYS[1], ARGV[1])";

async fn connected(redis: &Redis, after: u64) -> Connection {
    let mut epochs = redis.watch_epoch();
    let found = async {
        loop {
            epochs.wait_for(|epoch| *epoch > after).await.unwrap();
            // In the middle of a failover a connection may be given up as soon as it was made.
            match redis.connection() {
                Some(connection) => break connection,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(SOON, found).await.unwrap()
}

/// Waits until nobody gets a connection.
async fn withdrawn(redis: &Redis) {
    let gone = async {
        while redis.connection().is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, gone).await.unwrap();
}

/// Calls the script as if it were known.
async fn call_script(connection: &Connection) -> redis::RedisResult<()> {
    let mut call = redis::cmd("EVALSHA");
    call.arg(redis::Script::new(SCRIPT).get_hash()).arg(1).arg(unique_name("platform")).arg("v");
    call.exec_async(&mut connection.conn.clone()).await
}

/// The address of the server at the other end.
async fn server_of(connection: &Connection) -> String {
    let mut command = redis::cmd("CLIENT");
    let info: String = command.arg("INFO").query_async(&mut connection.conn.clone()).await.unwrap();
    info.split(' ').find_map(|field| field.strip_prefix("laddr=")).unwrap().to_owned()
}

async fn check(settings: RedisSettings) {
    let lifecycle = Lifecycle::new();
    let redis = Redis::connect(settings, &lifecycle, &[SCRIPT]);
    let channel = unique_name("platform");
    let mut messages = redis.subscribe(&channel);
    let connection = connected(&redis, 0).await;
    call_script(&connection).await.unwrap();
    let Connection { mut conn, epoch } = connection;
    assert_eq!(epoch, 1);
    // Everything is subscribed before the connection is handed out.
    redis::cmd("PUBLISH").arg(&channel).arg("7").exec_async(&mut conn).await.unwrap();
    assert_eq!(tokio::time::timeout(SOON, messages.recv()).await.unwrap().unwrap(), "7");
    // A command's own trouble is nobody else's; a lost connection is.
    let error = redis::cmd("NOSUCHCOMMAND").exec_async(&mut conn).await.unwrap_err();
    redis.report(epoch, &error);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(redis.connection().unwrap().epoch, 1);
    redis.report(epoch, &redis::RedisError::from(std::io::Error::from(std::io::ErrorKind::ConnectionReset)));
    assert_eq!(connected(&redis, 1).await.epoch, 2);
    lifecycle.stop_background(Duration::from_secs(1)).await;
    assert!(!lifecycle.failed());
    assert!(redis.connection().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_master_is_found_through_the_sentinels() {
    check(Servers::get().redis()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standalone_redis_works_the_same() {
    check(Servers::get().standalone_redis()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_sentinel_that_answers_is_enough_and_a_wrong_password_connects_nobody() {
    let mut settings = Servers::get().redis();
    let gone = (0..3).map(|_| free_address().to_string());
    settings.sentinels = gone.chain(settings.sentinels.into_iter().take(1)).collect();
    check(settings.clone()).await;
    let lifecycle = Lifecycle::new();
    let redis = Redis::connect(RedisSettings { password: "wrong".into(), ..settings }, &lifecycle, &[]);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(redis.connection().is_none());
    lifecycle.stop_background(Duration::from_secs(1)).await;
}

/// The master dies. Nobody has to report it, and with the new one there are scripts and subscriptions.
async fn survive_a_failover(cluster: &mut Cluster, settings: RedisSettings) {
    let lifecycle = Lifecycle::new();
    let redis = Redis::connect(settings, &lifecycle, &[SCRIPT]);
    let mut messages = redis.subscribe("changed");
    let first = connected(&redis, 0).await;
    assert_eq!(server_of(&first).await, cluster.nodes[0].address);
    cluster.nodes[0].kill();
    let second = connected(&redis, first.epoch).await;
    assert_eq!(server_of(&second).await, cluster.nodes[1].address);
    call_script(&second).await.unwrap();
    let mut conn = second.conn;
    redis::cmd("PUBLISH").arg("changed").arg("7").exec_async(&mut conn).await.unwrap();
    assert_eq!(tokio::time::timeout(SOON, messages.recv()).await.unwrap().unwrap(), "7");
    lifecycle.stop_background(Duration::from_secs(1)).await;
    assert!(!lifecycle.failed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_is_followed_with_scripts_and_subscriptions() {
    let mut cluster = Cluster::start(None).await;
    let settings = cluster.settings();
    survive_a_failover(&mut cluster, settings).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_master_is_left_for_the_new_one() {
    let cluster = Cluster::start(None).await;
    let lifecycle = Lifecycle::new();
    let redis = Redis::connect(cluster.settings(), &lifecycle, &[]);
    let first = connected(&redis, 0).await;
    cluster.nodes[0].signal("STOP");
    let second = connected(&redis, first.epoch).await;
    let mut conn = second.conn.clone();
    redis::cmd("SET").arg("key").arg("value").exec_async(&mut conn).await.unwrap();
    cluster.nodes[0].signal("CONT");
    assert_eq!(server_of(&second).await, cluster.nodes[1].address);
    lifecycle.stop_background(Duration::from_secs(1)).await;
}
