//! The settings of this service, as the config server gives them.

use std::time::Duration;

use platform::config::{
    AdminSettings, Common, ConsulSettings, IdentitySettings, KafkaSettings, MysqlSettings, Problems,
    RedisSettings, Secret, ServerSettings, TelemetrySettings, duration,
};
use serde::{Deserialize, Serialize};

use crate::log;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Most winners look at their coupon within it, and memory is cheap.
const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Settings {
    pub server: ServerSettings,
    pub admin: AdminSettings,
    pub consul: ConsulSettings,
    pub telemetry: TelemetrySettings,
    pub mysql: MysqlSettings,
    pub redis: RedisSettings,
    pub kafka: KafkaSettings,
    pub identity: IdentitySettings,
    pub definition: DefinitionSettings,
    #[serde(default)]
    pub claims: ClaimSettings,
    #[serde(default)]
    pub consumer: ConsumerSettings,
    #[serde(default)]
    pub retirement: RetirementSettings,
}

/// Cached definitions.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DefinitionSettings {
    /// With it the coupon service signs the definitions that it puts into Redis.
    pub mac_secret: Secret,
    /// Used by the coupon service only.
    #[serde(default, with = "duration")]
    pub cache_ttl: Duration,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct ClaimSettings {
    /// How many requests of a process may wait for a decision; beyond that 503 at once.
    pub max_waiting: usize,
    /// How long the producer gathers records before it sends them. A little saves a third of the CPU.
    #[serde(with = "duration")]
    pub linger: Duration,
}

impl Default for ClaimSettings {
    fn default() -> Self {
        Self { max_waiting: 20_000, linger: Duration::from_millis(1) }
    }
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct ConsumerSettings {
    pub group: String,
    /// After this long without a sign of life, a consumer's partitions go to others. The broker's
    /// `group.min.session.timeout.ms` (6 s by default) bounds it below.
    #[serde(with = "duration")]
    pub session_timeout: Duration,
}

impl Default for ConsumerSettings {
    fn default() -> Self {
        Self { group: "issue-consumer".into(), session_timeout: Duration::from_secs(6) }
    }
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct RetirementSettings {
    /// How long after its end a coupon is retired. Its winners' receipts come from memory until then, from the database
    /// ever after.
    #[serde(with = "duration")]
    pub after: Duration,
}

impl Default for RetirementSettings {
    fn default() -> Self {
        Self { after: WEEK }
    }
}

impl Settings {
    pub fn log(&self) -> log::Settings {
        log::Settings {
            bootstrap_servers: self.kafka.bootstrap_servers.clone(),
            topic: self.kafka.topic.clone(),
            dead_letter_topic: self.kafka.dead_letter_topic.clone(),
            partitions: self.kafka.partitions,
            replication_factor: i32::from(self.kafka.replication_factor),
            linger: self.claims.linger,
        }
    }
}

impl platform::config::Settings for Settings {
    fn common(&self) -> Common<'_> {
        Common { server: &self.server, admin: &self.admin, consul: &self.consul, telemetry: &self.telemetry }
    }

    fn validate(&self, problems: &mut Problems) {
        if self.definition.mac_secret.expose().len() < 32 {
            problems.add("definition.mac-secret", "needs at least 32 bytes");
        }
        if !(1..=1024).contains(&self.kafka.partitions) {
            problems.add("kafka.partitions", "must be between 1 and 1024");
        }
        if !(1..=1_000_000).contains(&self.claims.max_waiting) {
            problems.add("claims.max-waiting", "must be between 1 and 1000000");
        }
        if self.claims.linger > Duration::from_millis(100) {
            problems.add("claims.linger", "must be at most 100ms");
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(300)).contains(&self.consumer.session_timeout) {
            problems.add("consumer.session-timeout", "must be between 1s and 5m");
        }
        if !(Duration::from_secs(60)..=3660 * DAY).contains(&self.retirement.after) {
            problems.add("retirement.after", "must be between 1m and 3660d");
        }
    }
}
