//! Redis servers and Sentinels of a test's own, started from the same program as the run's: the run's are others'
//! business. They end with their value.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use platform::config::{RedisSettings, Secret, TlsSettings};
use platform::lifecycle::Lifecycle;
use platform::redis::Redis;
use platform::testing::{Servers, free_address, signal};
use redis::{Cmd, FromRedisValue, RedisResult};
use tokio::sync::OnceCell;

use super::certificates::Certificates;
use super::{SOON, connected};

/// Words that are found in no log by chance.
pub(super) const PASSWORD: &str = "swordfish-of-redis";
pub(super) const SENTINEL_PASSWORD: &str = "swordfish-of-sentinel";

/// The program that the run's Redis is, with its folders of libraries if it is an unpacked one.
async fn program() -> &'static (PathBuf, String) {
    static PROGRAM: OnceCell<(PathBuf, String)> = OnceCell::const_new();
    PROGRAM
        .get_or_init(async || {
            let lifecycle = Lifecycle::new();
            let redis = Redis::connect(Servers::get().redis(), &lifecycle, &[]);
            let mut conn = connected(&redis, 0).await.conn;
            let info: String = redis::cmd("INFO").arg("server").query_async(&mut conn).await.unwrap();
            let pid = info.lines().find_map(|line| line.strip_prefix("process_id:")).unwrap().trim();
            lifecycle.stop_background(Duration::from_secs(1)).await;
            // Its own environment is gone, as Redis writes its title there.
            let programs =
                std::fs::read_link(format!("/proc/{pid}/exe")).unwrap().parent().unwrap().to_owned();
            let libraries: Vec<String> = std::fs::read_dir(programs.join("../lib"))
                .unwrap()
                .map(|entry| entry.unwrap().path().display().to_string())
                .filter(|folder| folder.ends_with("-linux-gnu"))
                .collect();
            (programs.join("redis-server"), libraries.join(":"))
        })
        .await
}

pub(super) struct Server {
    folder: tempfile::TempDir,
    sentinel: bool,
    password: &'static str,
    /// Without TLS, for the test itself.
    plain_port: u16,
    /// Where clients shall go: TLS if there are certificates.
    pub(super) address: String,
    child: Child,
}

impl Server {
    /// A master, unless the configuration says otherwise; with a password, and in TLS with certificates.
    pub(super) async fn redis(certificates: Option<&Certificates>, config: &str) -> Self {
        let config = format!(
            "requirepass {PASSWORD}\nmasterauth {PASSWORD}\nsave \"\"\nrepl-diskless-sync-delay 0\n\
             enable-debug-command local\n{config}"
        );
        Self::start(false, PASSWORD, certificates, &config).await
    }

    pub(super) async fn sentinel(certificates: Option<&Certificates>, config: &str) -> Self {
        let config =
            format!("requirepass {SENTINEL_PASSWORD}\nsentinel sentinel-pass {SENTINEL_PASSWORD}\n{config}");
        Self::start(true, SENTINEL_PASSWORD, certificates, &config).await
    }

    async fn start(
        sentinel: bool,
        password: &'static str,
        certificates: Option<&Certificates>,
        config: &str,
    ) -> Self {
        loop {
            let folder = tempfile::tempdir().unwrap();
            let (plain_port, tls_port) = (free_address().port(), free_address().port());
            let mut text = format!("port {plain_port}\nbind 127.0.0.1\ndir {}\n", folder.path().display());
            if let Some(certificates) = certificates {
                let (cert, key, ca) = certificates.write(folder.path());
                text += &format!(
                    "tls-port {tls_port}\ntls-cert-file {cert}\ntls-key-file {key}\ntls-ca-cert-file {ca}\n\
                     tls-auth-clients yes\ntls-replication yes\n"
                );
            }
            std::fs::write(folder.path().join("redis.conf"), text + config).unwrap();
            let child = spawn(folder.path(), sentinel).await;
            let address = format!("127.0.0.1:{}", if certificates.is_some() { tls_port } else { plain_port });
            let mut server = Self { folder, sentinel, password, plain_port, address, child };
            if tokio::time::timeout(SOON, server.comes_up()).await.unwrap() {
                return server;
            }
        }
    }

    /// False if somebody else was quicker to take one of its ports; perhaps another server of the same password.
    async fn comes_up(&mut self) -> bool {
        let pid = format!("process_id:{}\r", self.child.id());
        while self.child.try_wait().unwrap().is_none() {
            let info: RedisResult<String> = self.ask(redis::cmd("INFO").arg("server")).await;
            if info.is_ok_and(|info| info.contains(&pid)) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }

    /// Asks it without TLS, on a connection of its own.
    pub(super) async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        let url = format!("redis://:{}@127.0.0.1:{}", self.password, self.plain_port);
        let mut conn = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
        command.query_async(&mut conn).await
    }

    /// Asks until the answer is as it should be.
    pub(super) async fn until<T: FromRedisValue>(
        &self,
        command: Cmd,
        is_right: impl Fn(&RedisResult<T>) -> bool,
    ) {
        let asked = async {
            while !is_right(&self.ask(&command).await) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(SOON, asked).await.unwrap();
    }

    /// `STOP`, `CONT`.
    pub(super) fn signal(&self, name: &str) {
        signal(name, self.child.id());
    }

    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, with the data that it saved; returns before they are loaded.
    pub(super) async fn start_again(&mut self) {
        self.child = spawn(self.folder.path(), self.sentinel).await;
    }

    /// Where clients and other servers shall go.
    pub(super) fn port(&self) -> &str {
        self.address.rsplit_once(':').unwrap().1
    }

    /// Settings for this server alone.
    pub(super) fn settings(&self) -> RedisSettings {
        RedisSettings {
            address: self.address.clone(),
            password: Secret::new(PASSWORD),
            ..RedisSettings::default()
        }
    }
}

async fn spawn(folder: &Path, sentinel: bool) -> Child {
    let (program, libraries) = program().await;
    let mut command = Command::new(program);
    command.arg(folder.join("redis.conf")).args(sentinel.then_some("--sentinel")).stdout(Stdio::null());
    command.env("LD_LIBRARY_PATH", libraries);
    command.spawn().unwrap()
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The name of the master in a [`Cluster`].
pub(super) const MASTER: &str = "mine";
/// A user of the servers, and of the Sentinels, who may do no more than what is needed.
pub(super) const USER: &str = "firstcome";
const USER_PASSWORD: &str = "swordfish-of-firstcome";
const SENTINEL_USER_PASSWORD: &str = "swordfish-of-firstcome-too";

/// A master, a replica and three Sentinels, all with passwords.
pub(super) struct Cluster {
    pub(super) nodes: Vec<Server>,
    pub(super) sentinels: Vec<Server>,
}

impl Cluster {
    /// Returns when every Sentinel knows the replica and the two others.
    pub(super) async fn start(certificates: Option<&Certificates>) -> Self {
        let acl = format!("user {USER} on >{USER_PASSWORD} ~* &* +@all -@dangerous +role\n");
        let master = Server::redis(certificates, &acl).await;
        let port = master.port();
        let replica = Server::redis(certificates, &format!("{acl}replicaof 127.0.0.1 {port}\n")).await;
        let role =
            |word: &'static str| move |role: &RedisResult<redis::Value>| format!("{role:?}").contains(word);
        replica.until(redis::cmd("ROLE"), role("connected")).await;
        let config = format!(
            "user {USER} on >{SENTINEL_USER_PASSWORD} &+switch-master -@all +auth +hello +subscribe +sentinel|master \
             +sentinel|get-master-addr-by-name\nsentinel monitor {MASTER} 127.0.0.1 {port} 2\n\
             sentinel auth-pass {MASTER} {PASSWORD}\nsentinel down-after-milliseconds {MASTER} 500\n\
             sentinel failover-timeout {MASTER} 3000\n"
        );
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            sentinels.push(Server::sentinel(certificates, &config).await);
        }
        for sentinel in &sentinels {
            let about = |what: &str| redis::cmd("SENTINEL").arg(what).arg(MASTER).to_owned();
            sentinel
                .until(about("CKQUORUM"), |text: &RedisResult<String>| {
                    text.as_ref().is_ok_and(|text| text.contains('3'))
                })
                .await;
            sentinel
                .until(about("REPLICAS"), |list: &RedisResult<Vec<redis::Value>>| {
                    list.as_ref().is_ok_and(|list| !list.is_empty())
                })
                .await;
        }
        Self { nodes: vec![master, replica], sentinels }
    }

    pub(super) fn settings(&self) -> RedisSettings {
        RedisSettings {
            sentinels: self.sentinels.iter().map(|sentinel| sentinel.address.clone()).collect(),
            master: MASTER.to_owned(),
            username: USER.to_owned(),
            password: Secret::new(USER_PASSWORD),
            sentinel_username: USER.to_owned(),
            sentinel_password: Secret::new(SENTINEL_USER_PASSWORD),
            tls: TlsSettings::default(),
            ..RedisSettings::default()
        }
    }
}
