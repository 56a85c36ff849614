//! Failovers happen on a Redis of the test's own, started from the same program as the run's: the run's master is
//! others' business.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use platform::config::{RedisSettings, Secret};
use platform::lifecycle::Lifecycle;
use platform::redis::{Connection, Redis};
use platform::testing::{Servers, free_address, signal, unique_name};

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

async fn check(settings: RedisSettings) {
    let lifecycle = Lifecycle::new();
    let redis = Redis::connect(settings, &lifecycle, &[SCRIPT]);
    let mut messages = redis.subscribe("platform.test");
    let Connection { mut conn, epoch } = connected(&redis, 0).await;
    assert_eq!(epoch, 1);
    let key = unique_name("platform");
    let mut call = redis::cmd("EVALSHA");
    call.arg(redis::Script::new(SCRIPT).get_hash()).arg(1).arg(&key).arg("v");
    call.exec_async(&mut conn).await.unwrap();
    redis::cmd("DEL").arg(&key).exec_async(&mut conn).await.unwrap();
    let heard = async {
        loop {
            redis::cmd("PUBLISH").arg("platform.test").arg(&key).exec_async(&mut conn).await.unwrap();
            if let Ok(message) = tokio::time::timeout(Duration::from_millis(50), messages.recv()).await {
                break message.unwrap();
            }
        }
    };
    assert_eq!(tokio::time::timeout(SOON, heard).await.unwrap(), key);
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

/// A master, a replica and three Sentinels with passwords.
struct Cluster {
    folder: tempfile::TempDir,
    program: PathBuf,
    libraries: String,
    nodes: Vec<(u16, Child)>,
    sentinels: Vec<(u16, Child)>,
}

impl Cluster {
    async fn start() -> Self {
        // The program that the run's Redis is.
        let lifecycle = Lifecycle::new();
        let redis = Redis::connect(Servers::get().redis(), &lifecycle, &[]);
        let mut conn = connected(&redis, 0).await.conn;
        let info: String = redis::cmd("INFO").arg("server").query_async(&mut conn).await.unwrap();
        let pid = info.lines().find_map(|line| line.strip_prefix("process_id:")).unwrap().trim().to_owned();
        lifecycle.stop_background(Duration::from_secs(1)).await;
        // An unpacked one has its libraries next to it; its own environment is gone, as Redis writes its title there.
        let programs = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap().parent().unwrap().to_owned();
        let libraries: Vec<String> = std::fs::read_dir(programs.join("../lib"))
            .unwrap()
            .map(|entry| entry.unwrap().path().display().to_string())
            .filter(|folder| folder.ends_with("-linux-gnu"))
            .collect();
        let (program, libraries) = (programs.join("redis-server"), libraries.join(":"));
        let folder = tempfile::tempdir().unwrap();
        let mut cluster = Self { folder, program, libraries, nodes: Vec::new(), sentinels: Vec::new() };
        let master = free_address().port();
        let common = "requirepass pw\nmasterauth pw\nsave \"\"\nrepl-diskless-sync-delay 0\n";
        let node = cluster.run(master, common, false);
        cluster.nodes.push((master, node));
        cluster.ready(master, "master").await;
        let replica = free_address().port();
        let node = cluster.run(replica, &format!("{common}replicaof 127.0.0.1 {master}\n"), false);
        cluster.nodes.push((replica, node));
        cluster.ready(replica, "connected").await;
        for _ in 0..3 {
            let port = free_address().port();
            let config = format!(
                "requirepass sentinel-pw\nsentinel sentinel-pass sentinel-pw\nsentinel monitor mine 127.0.0.1 {master} 2\n\
                 sentinel auth-pass mine pw\nsentinel down-after-milliseconds mine 500\n\
                 sentinel failover-timeout mine 3000\n"
            );
            let node = cluster.run(port, &config, true);
            cluster.sentinels.push((port, node));
        }
        cluster
    }

    fn run(&self, port: u16, config: &str, sentinel: bool) -> Child {
        let file = self.folder.path().join(format!("{port}.conf"));
        let folder = self.folder.path().join(port.to_string());
        std::fs::create_dir(&folder).unwrap();
        let common = format!("port {port}\nbind 127.0.0.1\ndir {}\n", folder.display());
        std::fs::write(&file, common + config).unwrap();
        let mut command = Command::new(&self.program);
        command.arg(file).args(sentinel.then_some("--sentinel")).stdout(Stdio::null());
        command.env("LD_LIBRARY_PATH", &self.libraries);
        command.spawn().unwrap()
    }

    /// Waits until ROLE answers with the word in it.
    async fn ready(&self, port: u16, word: &str) {
        let client = redis::Client::open(format!("redis://:pw@127.0.0.1:{port}")).unwrap();
        let ready = async {
            loop {
                if let Ok(mut conn) = client.get_multiplexed_async_connection().await {
                    let role: redis::RedisResult<redis::Value> =
                        redis::cmd("ROLE").query_async(&mut conn).await;
                    if format!("{role:?}").contains(word) {
                        return;
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(SOON, ready).await.unwrap();
    }

    /// Waits until every Sentinel knows the replica and the two others.
    async fn settled(&self) {
        for (port, _) in &self.sentinels {
            let client = redis::Client::open(format!("redis://:sentinel-pw@127.0.0.1:{port}")).unwrap();
            let settled = async {
                loop {
                    if let Ok(mut conn) = client.get_multiplexed_async_connection().await {
                        let mut ask = redis::cmd("SENTINEL");
                        ask.arg("CKQUORUM").arg("mine");
                        let quorum: redis::RedisResult<String> = ask.query_async(&mut conn).await;
                        let mut ask = redis::cmd("SENTINEL");
                        ask.arg("REPLICAS").arg("mine");
                        let replicas: redis::RedisResult<Vec<redis::Value>> =
                            ask.query_async(&mut conn).await;
                        if quorum.is_ok_and(|text| text.contains('3'))
                            && replicas.is_ok_and(|list| !list.is_empty())
                        {
                            return;
                        }
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            tokio::time::timeout(SOON, settled).await.unwrap();
        }
    }

    fn settings(&self) -> RedisSettings {
        RedisSettings {
            sentinels: self.sentinels.iter().map(|(port, _)| format!("127.0.0.1:{port}")).collect(),
            master: "mine".to_owned(),
            password: Secret::new("pw"),
            sentinel_password: Secret::new("sentinel-pw"),
            ..RedisSettings::default()
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for (_, child) in self.sentinels.iter_mut().chain(&mut self.nodes) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_is_followed_with_scripts_and_subscriptions() {
    let mut cluster = Cluster::start().await;
    cluster.settled().await;
    let lifecycle = Lifecycle::new();
    let redis = Redis::connect(cluster.settings(), &lifecycle, &[SCRIPT]);
    let mut messages = redis.subscribe("changed");
    let first = connected(&redis, 0).await;
    let begun = std::time::Instant::now();
    let (_, master) = &mut cluster.nodes[0];
    master.kill().unwrap();
    master.wait().unwrap();
    // Nobody has to report it.
    let second = tokio::time::timeout(SOON, connected(&redis, first.epoch)).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let mut conn = second.conn;
    let mut call = redis::cmd("EVALSHA");
    call.arg(redis::Script::new(SCRIPT).get_hash()).arg(1).arg("key").arg("v");
    call.exec_async(&mut conn).await.unwrap();
    let heard = async {
        loop {
            redis::cmd("PUBLISH").arg("changed").arg("7").exec_async(&mut conn).await.unwrap();
            if let Ok(message) = tokio::time::timeout(Duration::from_millis(50), messages.recv()).await {
                break message.unwrap();
            }
        }
    };
    assert_eq!(tokio::time::timeout(SOON, heard).await.unwrap(), "7");
    lifecycle.stop_background(Duration::from_secs(1)).await;
    assert!(!lifecycle.failed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_master_is_left_for_the_new_one() {
    let cluster = Cluster::start().await;
    cluster.settled().await;
    let lifecycle = Lifecycle::new();
    let redis = Redis::connect(cluster.settings(), &lifecycle, &[]);
    let first = connected(&redis, 0).await;
    let pid = cluster.nodes[0].1.id();
    signal("STOP", pid);
    let replica = cluster.nodes[1].0;
    let second = connected(&redis, first.epoch).await;
    let mut conn = second.conn;
    redis::cmd("SET").arg("key").arg("value").exec_async(&mut conn).await.unwrap();
    signal("CONT", pid);
    let info: String = redis::cmd("INFO").arg("server").query_async(&mut conn).await.unwrap();
    assert!(info.contains(&format!("tcp_port:{replica}")), "{info}");
    lifecycle.stop_background(Duration::from_secs(1)).await;
}
