//! The sections that the platform knows, one struct each, with their defaults and checks. Every default is a constant
//! with its reason, or plainly the usual place of a server.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Problems, Secret, TlsSettings};
use crate::identity::MIN_SECRET_BYTES;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// A client that takes longer to send its headers is holding a connection for nothing.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Above what balancers keep their connections for, 60 s as a rule: who closes first is the one who asks.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// Longer than any budget of a handler.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// A client on a bad network takes something within that time; one that takes nothing does not want its answer.
const WRITE_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Below the usual limit of open files, with room for everything else.
const MAX_CONNECTIONS: usize = 10_000;
/// The API's limit: no request of ours comes near it.
const BODY_LIMIT: usize = 16 * 1024;
/// Time for those who watch Consul to hear of the deregistration.
const DRAIN_DELAY: Duration = Duration::from_millis(500);
/// What is still being answered after that is cut, so that the whole shutdown stays below 10 s.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer drains would meet the `kill -9` of most supervisors.
const MAX_DRAIN: Duration = Duration::from_secs(6);

/// The public port.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct ServerSettings {
    pub address: IpAddr,
    /// 0 is any free port; Consul is told which.
    pub port: u16,
    #[serde(with = "super::duration")]
    pub header_timeout: Duration,
    /// How long a connection may be quiet after an answer.
    #[serde(with = "super::duration")]
    pub idle_timeout: Duration,
    /// From the request's head to the answer's head.
    #[serde(with = "super::duration")]
    pub request_timeout: Duration,
    /// How long a client may take nothing of an answer that is there.
    #[serde(with = "super::duration")]
    pub write_idle_timeout: Duration,
    /// Connections beyond that wait in the backlog.
    pub max_connections: usize,
    #[serde(with = "super::size")]
    pub body_limit: usize,
    #[serde(with = "super::duration")]
    pub drain_delay: Duration,
    #[serde(with = "super::duration")]
    pub drain_timeout: Duration,
    /// So many runtimes of one thread, each with its own listener; 0 is the one shared runtime.
    pub workers: usize,
    /// TLS with HTTP/2 and HTTP/1.1; without it, plain HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<DoorTlsSettings>,
}

/// Files in PEM, which are looked at each second: a new certificate counts for new connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DoorTlsSettings {
    /// The chain, the server's own first.
    pub certificate: PathBuf,
    pub private_key: PathBuf,
    /// Those that are spoken, and no others.
    #[serde(default = "TlsVersion::all")]
    pub versions: Vec<TlsVersion>,
}

/// A version of TLS, under Java's name. Older ones are never spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TlsVersion {
    #[serde(rename = "TLSv1.2")]
    V12,
    #[serde(rename = "TLSv1.3")]
    V13,
}

impl TlsVersion {
    #[must_use]
    pub fn all() -> Vec<Self> {
        vec![Self::V12, Self::V13]
    }

    /// By its name, in any case.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "tlsv1.2" => Some(Self::V12),
            "tlsv1.3" => Some(Self::V13),
            _ => None,
        }
    }
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            address: LOOPBACK,
            port: 0,
            header_timeout: HEADER_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            request_timeout: REQUEST_TIMEOUT,
            write_idle_timeout: WRITE_IDLE_TIMEOUT,
            max_connections: MAX_CONNECTIONS,
            body_limit: BODY_LIMIT,
            drain_delay: DRAIN_DELAY,
            drain_timeout: DRAIN_TIMEOUT,
            workers: 0,
            tls: None,
        }
    }
}

impl ServerSettings {
    pub fn validate(&self, problems: &mut Problems) {
        if self.max_connections == 0 {
            problems.add("server.max-connections", "must be at least 1");
        } else if self.max_connections < self.workers {
            // Each listener takes one before somebody comes: one that gets none would never answer.
            let workers = self.workers;
            problems.add(
                "server.max-connections",
                format_args!("must be at least one for each of the {workers} server.workers"),
            );
        }
        if self.header_timeout.is_zero() {
            problems.add("server.header-timeout", "must be longer than 0s");
        }
        if self.idle_timeout.is_zero() {
            problems.add("server.idle-timeout", "must be longer than 0s");
        }
        if self.request_timeout.is_zero() {
            problems.add("server.request-timeout", "must be longer than 0s");
        }
        if self.write_idle_timeout.is_zero() {
            problems.add("server.write-idle-timeout", "must be longer than 0s");
        }
        if self.drain_delay + self.drain_timeout > MAX_DRAIN {
            problems.add("server.drain-timeout", "must with server.drain-delay be at most 6s");
        }
        if let Some(Err(problem)) = self.tls.as_ref().map(crate::http::server::check_tls) {
            problems.add("server.tls", problem);
        }
    }
}

/// The admin port.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct AdminSettings {
    pub address: IpAddr,
    pub port: u16,
    /// Bearer token of the protected endpoints; empty: they answer 401.
    pub token: Secret,
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self { address: LOOPBACK, port: 0, token: Secret::default() }
    }
}

/// Discovery.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct ConsulSettings {
    pub url: String,
    pub enabled: bool,
    pub token: Secret,
    /// Where this instance is: callers prefer instances of their own zone. Empty for nowhere in particular.
    pub zone: String,
    /// This instance's share of the requests, relative to the others'; 0 for none.
    pub weight: u32,
}

impl Default for ConsulSettings {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:8500".to_owned(),
            enabled: true,
            token: Secret::default(),
            zone: String::new(),
            weight: 1,
        }
    }
}

impl ConsulSettings {
    pub fn validate(&self, problems: &mut Problems) {
        if self.enabled && !self.url.starts_with("http://") {
            problems.add("consul.url", "must begin with http://");
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    Json,
    Pretty,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exporter {
    None,
    Zipkin,
    Otlp,
}

/// Logs and traces.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct TelemetrySettings {
    pub log_format: LogFormat,
    /// A level, or directives such as `info,issue_service=debug`.
    pub log_level: String,
    pub exporter: Exporter,
    /// Where the exporter sends to; empty: its usual place on this machine.
    pub endpoint: String,
    /// 0.0 to 1.0, of the traces that begin here; who called already decided for the others.
    pub sample_ratio: f64,
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self {
            log_format: LogFormat::Json,
            log_level: "info".to_owned(),
            exporter: Exporter::None,
            endpoint: String::new(),
            sample_ratio: 0.1,
        }
    }
}

impl TelemetrySettings {
    pub fn validate(&self, problems: &mut Problems) {
        if let Err(error) = tracing_subscriber::EnvFilter::builder().parse(&self.log_level) {
            problems.add("telemetry.log-level", error);
        }
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            problems.add("telemetry.sample-ratio", "must be between 0.0 and 1.0");
        }
        if !self.endpoint.is_empty() && !self.endpoint.starts_with("http://") {
            problems.add("telemetry.endpoint", "must begin with http://");
        }
    }
}

/// MySQL or MariaDB.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct MysqlSettings {
    pub host: String,
    pub port: u16,
    pub username: String,
    pub password: Secret,
    /// Made at start when it is missing.
    pub database: String,
    pub max_connections: u32,
}

impl Default for MysqlSettings {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 3306,
            username: "firstcome".to_owned(),
            password: Secret::default(),
            database: String::new(),
            max_connections: 10,
        }
    }
}

impl MysqlSettings {
    pub fn validate(&self, problems: &mut Problems) {
        let name = self.database.as_bytes();
        let plain = name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
        // 64 characters are MySQL's own limit.
        if name.is_empty() || name.len() > 64 || !plain {
            problems.add("mysql.database", "must be a name of letters, digits and underscores");
        }
        if self.max_connections == 0 {
            problems.add("mysql.max-connections", "must be at least 1");
        }
    }
}

/// Redis behind Sentinels, or by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct RedisSettings {
    /// `host:port` of each Sentinel.
    pub sentinels: Vec<String>,
    /// The name that the Sentinels know the master by.
    pub master: String,
    /// `host:port` of a standalone Redis; set, it replaces the Sentinels.
    pub address: String,
    pub username: String,
    pub password: Secret,
    pub sentinel_username: String,
    pub sentinel_password: Secret,
    /// Of the servers and of the Sentinels.
    pub tls: TlsSettings,
}

impl Default for RedisSettings {
    fn default() -> Self {
        Self {
            sentinels: vec!["127.0.0.1:26379".to_owned()],
            master: "firstcome".to_owned(),
            address: String::new(),
            username: String::new(),
            password: Secret::default(),
            sentinel_username: String::new(),
            sentinel_password: Secret::default(),
            tls: TlsSettings::default(),
        }
    }
}

impl RedisSettings {
    pub fn validate(&self, problems: &mut Problems) {
        self.tls.validate("redis.tls", problems);
        if self.address.is_empty() {
            if self.sentinels.is_empty() {
                problems.add("redis.sentinels", "must name at least one Sentinel, or set redis.address");
            }
            if self.master.is_empty() {
                problems.add("redis.master", "must not be empty");
            }
        } else if host_and_port(&self.address).is_none() {
            problems.add("redis.address", "must be host:port");
        }
        for sentinel in &self.sentinels {
            if host_and_port(sentinel).is_none() {
                problems.add("redis.sentinels", format_args!("\"{sentinel}\" must be host:port"));
            }
        }
    }
}

/// `host:port`, also `[::1]:port`.
pub(crate) fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port = port.parse().ok().filter(|port| *port != 0)?;
    (!host.is_empty()).then_some((host, port))
}

/// The log of the issued coupons.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct KafkaSettings {
    pub bootstrap_servers: String,
    pub topic: String,
    pub dead_letter_topic: String,
    /// Part of the data's layout: changing it is a migration.
    pub partitions: u32,
    pub replication_factor: u16,
}

impl Default for KafkaSettings {
    fn default() -> Self {
        Self {
            bootstrap_servers: "127.0.0.1:9092".to_owned(),
            topic: "coupon.issued".to_owned(),
            dead_letter_topic: "coupon.issued.dlt".to_owned(),
            partitions: 8,
            replication_factor: 1,
        }
    }
}

impl KafkaSettings {
    pub fn validate(&self, problems: &mut Problems) {
        for (path, value) in [
            ("kafka.bootstrap-servers", &self.bootstrap_servers),
            ("kafka.topic", &self.topic),
            ("kafka.dead-letter-topic", &self.dead_letter_topic),
        ] {
            if value.is_empty() {
                problems.add(path, "must not be empty");
            }
        }
        if !(1..=1024).contains(&self.partitions) {
            problems.add("kafka.partitions", "must be between 1 and 1024");
        }
        if self.replication_factor == 0 {
            problems.add("kafka.replication-factor", "must be at least 1");
        }
    }
}

/// The secret that identities between services are signed with.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct IdentitySettings {
    pub secret: Secret,
}

impl IdentitySettings {
    pub fn validate(&self, problems: &mut Problems) {
        if self.secret.is_empty() {
            problems.add("identity.secret", "is missing: give identity.secret-file");
        } else if self.secret.expose().len() < MIN_SECRET_BYTES {
            problems.add("identity.secret", format_args!("must have at least {MIN_SECRET_BYTES} bytes"));
        }
    }
}
