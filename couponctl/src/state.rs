//! The running stack's state file: where its gateway, servers and keys are.
//!
//! Everything in it can be given by an option instead, so that the tool also works against a stack that
//! something else started. Secrets are read from the files that it names, and never printed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// Where a stack started from the repository's root keeps its state.
const DEFAULT_FOLDER: &str = "target/firstcome";
const FILE: &str = "state.json";

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct State {
    pub(crate) gateway: Option<String>,
    pub(crate) admin: Option<Admin>,
    pub(crate) mysql: Option<Mysql>,
    pub(crate) redis: Option<Redis>,
    pub(crate) kafka: Option<Kafka>,
    pub(crate) key_store: Option<PathBuf>,
    pub(crate) jwt: Option<Jwt>,
}

/// The first administrator of a local run.
#[derive(Deserialize)]
pub(crate) struct Admin {
    pub(crate) email: String,
    pub(crate) password: String,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").field("email", &self.email).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Mysql {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) username: String,
    pub(crate) password_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Redis {
    #[serde(default)]
    pub(crate) sentinels: Vec<String>,
    #[serde(default)]
    pub(crate) master: String,
    pub(crate) password_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Kafka {
    pub(crate) bootstrap_servers: String,
    pub(crate) topic: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Jwt {
    pub(crate) issuer: String,
    pub(crate) audience: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct StateArgs {
    /// State folder of the running stack: addresses, keys, secrets [default: target/firstcome]
    #[arg(long, value_name = "DIR", env = "FIRSTCOME_STATE", hide_env_values = true)]
    state: Option<PathBuf>,
}

impl StateArgs {
    /// The state of the stack that was named, else of the default folder. Only a stack that was named must exist.
    pub(crate) fn find(&self) -> Result<State> {
        State::find(self.state.as_deref())
    }
}

impl State {
    fn find(folder: Option<&Path>) -> Result<Self> {
        let explicit = folder.is_some();
        let place = folder.unwrap_or(Path::new(DEFAULT_FOLDER));
        let file = if place.is_dir() || !explicit { place.join(FILE) } else { place.to_owned() };
        match fs::read_to_string(&file) {
            Ok(text) => Self::parse(&text, &file),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !explicit => Ok(Self::default()),
            Err(error) => {
                Err(error).with_context(|| format!("no running stack's state at {}", file.display()))
            }
        }
    }

    fn parse(text: &str, file: &Path) -> Result<Self> {
        let mut state: Self =
            serde_json::from_str(text).with_context(|| format!("{} is not a state file", file.display()))?;
        // Paths in the file may be relative to it.
        let base = file.parent().unwrap_or(Path::new(""));
        let paths = [
            state.key_store.as_mut(),
            state.mysql.as_mut().and_then(|m| m.password_file.as_mut()),
            state.redis.as_mut().and_then(|r| r.password_file.as_mut()),
        ];
        for path in paths.into_iter().flatten() {
            if path.is_relative() && !path.exists() {
                *path = base.join(&*path);
            }
        }
        Ok(state)
    }
}

/// A secret's file, without the newline at its end.
pub(crate) fn read_secret(file: &Path) -> Result<String> {
    let text = fs::read_to_string(file)
        .with_context(|| format!("cannot read the secret file {}", file.display()))?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        bail!("the secret file {} is empty", file.display());
    }
    Ok(secret.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_file_names_what_is_needed_and_more() {
        let text = r#"{"gateway":"http://127.0.0.1:8080","admin":{"email":"a","password":"b"},"services":[],
            "mysql":{"host":"127.0.0.1","port":3306,"username":"firstcome","passwordFile":"secrets/mysql"},
            "redis":{"sentinels":["127.0.0.1:26379"],"master":"firstcome","passwordFile":"/x/redis"},
            "kafka":{"bootstrapServers":"127.0.0.1:9092","topic":"coupon.issued"},
            "keyStore":"secrets/keys.json","jwt":{"issuer":"i","audience":"a"}}"#;
        let state = State::parse(text, Path::new("/run/s/state.json")).unwrap();
        assert_eq!(state.gateway.as_deref(), Some("http://127.0.0.1:8080"));
        assert!(!format!("{:?}", state.admin.unwrap()).contains("\"b\""));
        assert_eq!(state.mysql.unwrap().password_file.unwrap(), Path::new("/run/s/secrets/mysql"));
        assert_eq!(state.redis.unwrap().password_file.unwrap(), Path::new("/x/redis"));
        assert_eq!(state.key_store.unwrap(), Path::new("/run/s/secrets/keys.json"));
    }

    #[test]
    fn a_named_stack_must_exist() {
        let error = State::find(Some(Path::new("/nowhere/at/all"))).unwrap_err();
        assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
    }
}
