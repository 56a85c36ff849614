//! Settings: where they come from and what they mean. Invariant: a process starts only with settings that passed every
//! check; all problems are listed at once; no secret is ever shown.

mod bind;
mod bootstrap;
pub mod duration;
mod load;
mod remote;
mod secret;
mod sections;
pub mod size;
mod sources;
mod tls;

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use bootstrap::Bootstrap;
pub(crate) use load::environment;
pub use load::{Configuration, Loaded, load};
pub use secret::Secret;
pub(crate) use sections::host_and_port;
pub use sections::{
    AdminSettings, ConsulSettings, DoorTlsSettings, Exporter, IdentitySettings, KafkaSettings, LogFormat,
    MysqlSettings, RedisSettings, ServerSettings, TelemetrySettings, TlsVersion,
};
pub use tls::TlsSettings;

/// All settings of one service: a struct of sections, each with `deny_unknown_fields`; sections that the service does
/// not name are not its business. Its `Serialize` is what is shown at boot and in `/actuator/env`.
pub trait Settings: DeserializeOwned + Serialize + Send + 'static {
    fn common(&self) -> Common<'_>;

    /// Adds what is wrong beyond types. The platform's own sections are checked already.
    fn validate(&self, problems: &mut Problems);
}

/// The sections that every service has.
#[derive(Clone, Copy, Debug)]
pub struct Common<'a> {
    pub server: &'a ServerSettings,
    pub admin: &'a AdminSettings,
    pub consul: &'a ConsulSettings,
    pub telemetry: &'a TelemetrySettings,
}

/// What is wrong with the settings, in the order in which it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(Vec<String>);

impl Problems {
    /// `path` is the setting's dotted path, as in `mysql.password-file`.
    pub fn add(&mut self, path: &str, message: impl fmt::Display) {
        let line = format!("{path}: {message}");
        if !self.0.contains(&line) {
            self.0.push(line);
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl fmt::Display for Problems {
    /// One a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The configuration server could not be asked, or made no sense.
    #[error("no configuration from {from}: {reason}")]
    Unavailable { from: String, reason: String },
    /// The configuration server answered, and has none to give: asking again changes nothing.
    #[error("no configuration from {from}: {reason}")]
    Refused { from: String, reason: String },
    /// Settings were found, and these are wrong.
    #[error("{0}")]
    Invalid(Problems),
}
