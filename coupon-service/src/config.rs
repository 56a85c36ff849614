//! The service's settings. Invariant: what passed [`Settings::validate`] can start the service; every problem is
//! reported at once, and none shows a secret.

use std::time::Duration;

use platform::config::{
    AdminSettings, Common, ConsulSettings, IdentitySettings, MysqlSettings, Problems, RedisSettings, Secret,
    ServerSettings, Settings, TelemetrySettings,
};
use serde::{Deserialize, Serialize};

/// A cached definition that is never changed is asked for anew after this.
const CACHE_TTL: Duration = Duration::from_secs(60);
/// What `GET /coupons/{id}` may lag behind the ledger.
const WRITE_BACK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a Redis that forgets or lies can be believed.
const AUTHORITATIVE_INTERVAL: Duration = Duration::from_secs(30);
/// HMAC-SHA256 with a shorter key is weaker than its output.
const MIN_SECRET: usize = 32;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct CouponSettings {
    pub server: ServerSettings,
    pub admin: AdminSettings,
    pub consul: ConsulSettings,
    pub telemetry: TelemetrySettings,
    pub mysql: MysqlSettings,
    pub redis: RedisSettings,
    pub identity: IdentitySettings,
    pub definition: DefinitionSettings,
    pub write_back: WriteBackSettings,
}

/// Definitions in the cache.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct DefinitionSettings {
    /// Proves to the issue service that a cached definition is this service's; the same there.
    pub mac_secret: Secret,
    #[serde(with = "platform::config::duration")]
    pub cache_ttl: Duration,
}

impl Default for DefinitionSettings {
    fn default() -> Self {
        Self { mac_secret: Secret::default(), cache_ttl: CACHE_TTL }
    }
}

/// The job that copies issued counts to the coupons' rows.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct WriteBackSettings {
    /// Between two looks at Redis.
    #[serde(with = "platform::config::duration")]
    pub interval: Duration,
    /// Between two questions to the issue service about every active coupon.
    #[serde(with = "platform::config::duration")]
    pub authoritative_interval: Duration,
}

impl Default for WriteBackSettings {
    fn default() -> Self {
        Self { interval: WRITE_BACK_INTERVAL, authoritative_interval: AUTHORITATIVE_INTERVAL }
    }
}

impl Settings for CouponSettings {
    fn common(&self) -> Common<'_> {
        Common { server: &self.server, admin: &self.admin, consul: &self.consul, telemetry: &self.telemetry }
    }

    fn validate(&self, problems: &mut Problems) {
        self.mysql.validate(problems);
        self.redis.validate(problems);
        self.identity.validate(problems);
        self.definition.validate(problems);
        self.write_back.validate(problems);
    }
}

impl DefinitionSettings {
    fn validate(&self, problems: &mut Problems) {
        if self.mac_secret.expose().len() < MIN_SECRET {
            problems.add(
                "definition.mac-secret",
                format_args!("must have at least {MIN_SECRET} bytes: give definition.mac-secret-file"),
            );
        }
        if self.cache_ttl < Duration::from_secs(1) || self.cache_ttl > Duration::from_secs(3600) {
            problems.add("definition.cache-ttl", "must be between 1s and 1h");
        }
    }
}

impl WriteBackSettings {
    fn validate(&self, problems: &mut Problems) {
        if self.interval < Duration::from_millis(50) || self.interval > Duration::from_secs(60) {
            problems.add("write-back.interval", "must be between 50ms and 60s");
        }
        if self.authoritative_interval < self.interval {
            problems.add("write-back.authoritative-interval", "must not be shorter than write-back.interval");
        }
    }
}
