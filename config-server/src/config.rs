//! Settings: from arguments and the environment only, because everybody else's come from here.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use platform::config::{
    AdminSettings, Common, ConsulSettings, Exporter, LogFormat, Problems, Secret, ServerSettings, Settings,
    TelemetrySettings,
};
use serde::{Deserialize, Serialize};

use crate::repository;

/// `EX_USAGE` of sysexits.h, as the other services say it.
pub const BAD_SETTINGS: u8 = 64;
/// Often enough that a push is served before its author has restarted anything.
const FETCH_INTERVAL: Duration = Duration::from_secs(30);
/// Anything faster asks more of a git host than it allows.
const MIN_FETCH_INTERVAL: Duration = Duration::from_secs(1);

/// Serves the configuration repository from git, in the wire format of Spring Cloud Config.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Arguments {
    /// The git repository: a folder (bare or not; only its commits are read), or a URL, which is mirrored.
    #[arg(long, env = "FIRSTCOME_CONFIG_REPOSITORY", hide_env_values = true, value_name = "PATH_OR_URL")]
    repository: String,
    /// Where the mirror of a URL is kept.
    #[arg(
        long,
        env = "FIRSTCOME_CONFIG_DATA_FOLDER",
        default_value = "target/config-server",
        value_name = "FOLDER"
    )]
    data_folder: PathBuf,
    /// How often a URL is fetched. A folder is looked at on each request.
    #[arg(long, env = "FIRSTCOME_CONFIG_FETCH_INTERVAL", default_value_t = FETCH_INTERVAL.into())]
    fetch_interval: humantime::Duration,
    /// Where to listen.
    #[arg(long, env = "FIRSTCOME_CONFIG_ADDRESS", default_value = "127.0.0.1:8888")]
    address: SocketAddr,
    /// Where health, metrics and the like are served; port 0 is any free one.
    #[arg(long, env = "FIRSTCOME_CONFIG_ADMIN_ADDRESS", default_value = "127.0.0.1:0")]
    admin_address: SocketAddr,
    /// The file with the bearer token of the admin port's protected endpoints.
    #[arg(long, env = "FIRSTCOME_ADMIN__TOKEN_FILE", value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// The Consul agent to register with; without it there is no registration.
    #[arg(long, env = "FIRSTCOME_CONSUL__URL", value_name = "URL")]
    consul_url: Option<String>,
    /// json or pretty.
    #[arg(long, env = "FIRSTCOME_TELEMETRY__LOG_FORMAT", default_value = "json")]
    log_format: String,
    /// A level, or directives such as "info,config_server=debug".
    #[arg(long, env = "FIRSTCOME_TELEMETRY__LOG_LEVEL", default_value = "info")]
    log_level: String,
    /// none, zipkin or otlp.
    #[arg(long, env = "FIRSTCOME_TELEMETRY__EXPORTER", default_value = "none")]
    trace_exporter: String,
    /// The collector's URL; empty is the exporter's usual place on this machine.
    #[arg(long, env = "FIRSTCOME_TELEMETRY__ENDPOINT", default_value = "", value_name = "URL")]
    trace_endpoint: String,
    /// Name of this instance in Consul, logs and traces; made up when absent.
    #[arg(long)]
    pub instance: Option<String>,
}

impl Arguments {
    /// # Errors
    /// What can't be read. Ranges are checked where every service's are.
    pub fn settings(&self) -> Result<ConfigServerSettings, String> {
        let token = match &self.admin_token_file {
            None => Secret::default(),
            Some(file) => std::fs::read_to_string(file)
                .map(|token| Secret::new(token.trim_end_matches(['\n', '\r'])))
                .map_err(|error| format!("admin.token-file: can't read {}: {error}", file.display()))?,
        };
        let log_format = match self.log_format.as_str() {
            "json" => LogFormat::Json,
            "pretty" => LogFormat::Pretty,
            _ => return Err("telemetry.log-format: must be json or pretty".to_owned()),
        };
        let exporter = match self.trace_exporter.as_str() {
            "none" => Exporter::None,
            "zipkin" => Exporter::Zipkin,
            "otlp" => Exporter::Otlp,
            _ => return Err("telemetry.exporter: must be none, zipkin or otlp".to_owned()),
        };
        Ok(ConfigServerSettings {
            server: ServerSettings {
                address: self.address.ip(),
                port: self.address.port(),
                ..ServerSettings::default()
            },
            admin: AdminSettings { address: self.admin_address.ip(), port: self.admin_address.port(), token },
            consul: ConsulSettings {
                enabled: self.consul_url.is_some(),
                url: self.consul_url.clone().unwrap_or_default(),
                ..ConsulSettings::default()
            },
            telemetry: TelemetrySettings {
                log_format,
                log_level: self.log_level.clone(),
                exporter,
                endpoint: self.trace_endpoint.clone(),
                ..TelemetrySettings::default()
            },
            repository: RepositorySettings {
                uri: Secret::new(self.repository.as_str()),
                data_folder: self.data_folder.clone(),
                fetch_interval: self.fetch_interval.into(),
            },
        })
    }
}

/// All settings of the configuration server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ConfigServerSettings {
    pub server: ServerSettings,
    pub admin: AdminSettings,
    pub consul: ConsulSettings,
    pub telemetry: TelemetrySettings,
    pub repository: RepositorySettings,
}

/// Which repository is served.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RepositorySettings {
    /// A path or URL. Never shown as it is: a URL may carry a password.
    pub uri: Secret,
    pub data_folder: PathBuf,
    #[serde(with = "platform::config::duration")]
    pub fetch_interval: Duration,
}

impl Settings for ConfigServerSettings {
    fn common(&self) -> Common<'_> {
        Common { server: &self.server, admin: &self.admin, consul: &self.consul, telemetry: &self.telemetry }
    }

    fn validate(&self, problems: &mut Problems) {
        self.server.validate(problems);
        self.consul.validate(problems);
        self.telemetry.validate(problems);
        if self.repository.uri.expose().trim().is_empty() {
            problems.add("repository", "must be the path or URL of a git repository");
        } else if let Err(error) = repository::check(self.repository.uri.expose()) {
            problems.add("repository", error);
        }
        if self.repository.fetch_interval < MIN_FETCH_INTERVAL {
            problems.add("fetch-interval", "must be at least 1s");
        }
    }
}
