//! Where the real servers of a test run are. Invariant: a test that needs a server and has none fails loudly.

use std::net::SocketAddr;
use std::sync::OnceLock;

use rand::Rng as _;
use serde::Deserialize;

use crate::config::{ConsulSettings, KafkaSettings, MysqlSettings, RedisSettings, Secret};

/// Names the file that says where the servers are.
pub const VARIABLE: &str = "FIRSTCOME_TEST_SERVERS";

/// The servers, as `cargo xtask test` has started them.
#[derive(Clone, Debug, Deserialize)]
pub struct Servers {
    pub mysql: Mysql,
    pub kafka: Kafka,
    pub redis: Redis,
    pub consul: Consul,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Mysql {
    pub host: String,
    pub port: u16,
    pub username: String,
    pub password: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kafka {
    pub bootstrap_servers: String,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Redis {
    pub sentinels: Vec<String>,
    pub master: String,
    pub password: String,
    /// Of the master when the servers were started.
    pub address: String,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Consul {
    pub url: String,
}

impl Servers {
    /// # Panics
    /// When the test was not started with servers.
    #[must_use]
    pub fn get() -> &'static Self {
        static SERVERS: OnceLock<Servers> = OnceLock::new();
        SERVERS.get_or_init(|| {
            let Some(file) = std::env::var_os(VARIABLE) else {
                panic!(
                    "this test needs real servers and {VARIABLE} is not set: run the tests by `cargo xtask test`, or \
                     start servers by `cargo xtask test --servers-only`"
                );
            };
            let file = std::path::PathBuf::from(file);
            let text = std::fs::read_to_string(&file)
                .unwrap_or_else(|error| panic!("{VARIABLE}: can't read {}: {error}", file.display()));
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{VARIABLE}: {}: {error}", file.display()))
        })
    }

    /// Settings for a database; give each test its own by [`unique_name`]. It is called `test_{name}`, because the
    /// tests' user may make no others.
    #[must_use]
    pub fn mysql(&self, name: &str) -> MysqlSettings {
        let name = name.strip_prefix("test_").unwrap_or(name);
        let Mysql { host, port, username, password } = self.mysql.clone();
        MysqlSettings {
            host,
            port,
            username,
            password: Secret::new(password),
            database: format!("test_{name}"),
            ..MysqlSettings::default()
        }
    }

    /// Settings for Redis behind its Sentinels.
    #[must_use]
    pub fn redis(&self) -> RedisSettings {
        let Redis { sentinels, master, password, .. } = self.redis.clone();
        RedisSettings { sentinels, master, password: Secret::new(password), ..RedisSettings::default() }
    }

    /// Settings for the same Redis without Sentinels.
    #[must_use]
    pub fn standalone_redis(&self) -> RedisSettings {
        RedisSettings { address: self.redis.address.clone(), ..self.redis() }
    }

    /// Settings for a topic; give each test its own by [`unique_name`].
    #[must_use]
    pub fn kafka(&self, topic: &str) -> KafkaSettings {
        KafkaSettings {
            bootstrap_servers: self.kafka.bootstrap_servers.clone(),
            topic: topic.to_owned(),
            dead_letter_topic: format!("{topic}.dlt"),
            ..KafkaSettings::default()
        }
    }

    #[must_use]
    pub fn consul(&self) -> ConsulSettings {
        ConsulSettings { url: self.consul.url.clone(), ..ConsulSettings::default() }
    }
}

/// A name that nobody else uses, for databases, topics, keys and services: letters, digits and underscores.
#[must_use]
pub fn unique_name(prefix: &str) -> String {
    format!("{prefix}_{:016x}", rand::rng().random::<u64>())
}

/// A loopback address with a port that was free a moment ago.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn free_address() -> SocketAddr {
    let listener =
        std::net::TcpListener::bind("127.0.0.1:0").unwrap_or_else(|error| panic!("no port: {error}"));
    listener.local_addr().unwrap_or_else(|error| panic!("no port: {error}"))
}

/// Sends a signal (`KILL`, `STOP`, `CONT`, `TERM`, ...) to a process that a test started. By the shell's own `kill`: a bare
/// machine has no program of that name.
///
/// # Panics
/// When it can't be sent.
pub fn signal(name: &str, pid: u32) {
    let sent = std::process::Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status();
    assert!(sent.is_ok_and(|status| status.success()), "no signal {name} to {pid}");
}
