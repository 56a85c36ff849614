//! The folder of one run and what is written there for others: `state.json`, ports, secrets, logs, records of pids.
//!
//! `state.json` is replaced in one step, so a reader never sees half of it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::process::Record;

/// Paths of one run. Absolute, so that children may have other working folders.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    root: PathBuf,
}

impl Folder {
    pub(crate) fn new(root: &Path) -> Result<Self> {
        Ok(Self { root: std::path::absolute(root)? })
    }

    pub(crate) fn create(&self) -> Result<()> {
        for folder in [self.root.clone(), self.logs(), self.data(), self.run()] {
            fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        }
        fs::create_dir_all(self.secrets())?;
        fs::set_permissions(self.secrets(), fs::Permissions::from_mode(0o700))?;
        Ok(())
    }

    /// Made by this tool, and not the home of something else: it may be removed.
    pub(crate) fn is_ours(&self) -> bool {
        let created = [self.logs(), self.data(), self.secrets()].iter().all(|folder| folder.is_dir());
        self.ports_file().exists() || self.state_file().exists() || (created && self.lock_file().is_file())
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.logs().join(format!("{name}.log"))
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    pub(crate) fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    pub(crate) fn record(&self, name: &str) -> PathBuf {
        self.run().join(format!("{name}.pid"))
    }

    /// By which a process is told where to die.
    pub(crate) fn failpoint(&self, name: &str) -> PathBuf {
        self.run().join(format!("{name}.failpoint"))
    }

    pub(crate) fn lock_file(&self) -> PathBuf {
        self.run().join("lock")
    }

    pub(crate) fn secrets(&self) -> PathBuf {
        self.root.join("secrets")
    }

    pub(crate) fn secret(&self, name: &str) -> PathBuf {
        self.secrets().join(name)
    }

    pub(crate) fn state_file(&self) -> PathBuf {
        self.root.join("state.json")
    }

    pub(crate) fn ports_file(&self) -> PathBuf {
        self.root.join("ports.json")
    }

    pub(crate) fn config_git(&self) -> PathBuf {
        self.root.join("config.git")
    }

    pub(crate) fn test_servers_file(&self) -> PathBuf {
        self.root.join("servers.json")
    }

    pub(crate) fn read_state(&self) -> Result<State> {
        let path = self.state_file();
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                bail!("nothing was started in {} yet: start it by `cargo xtask up`", self.root.display())
            }
            other => other.with_context(|| format!("read {}", path.display()))?,
        };
        serde_json::from_slice(&text).with_context(|| {
            format!(
                "{} was written by another version of this tool: end its run by `cargo xtask down` and start anew, or \
                 remove it by `cargo xtask reset`",
                path.display()
            )
        })
    }
}

/// Held by the supervisor of a folder for as long as it lives; the kernel lets go of it when the process ends,
/// however it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closed alone, it would be held by every process that is just being started, until that has closed it, too.
        let _ = self.file.unlock();
    }
}

impl Lock {
    /// `None` while another supervisor runs on this folder.
    pub(crate) fn take(folder: &Folder) -> Result<Option<Self>> {
        fs::create_dir_all(folder.run())?;
        let file = File::options().create(true).append(true).open(folder.lock_file())?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { file })),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error).context("lock the state folder"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    Starting,
    Ready,
    Stopping,
    Stopped,
}

/// What `status --json` prints.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct State {
    pub(crate) phase: Phase,
    /// With its start time, so that a pid that was given to somebody else is not taken for it.
    pub(crate) supervisor: Record,
    pub(crate) gateway: Option<String>,
    pub(crate) admin: Option<Admin>,
    pub(crate) services: Vec<ServiceState>,
    pub(crate) servers: Vec<ServerState>,
    pub(crate) trace_ui: Option<String>,
    pub(crate) consul_ui: Option<String>,
    pub(crate) config_server: Option<String>,
    pub(crate) config_repository: Option<String>,
    /// What the services were built from; `+` after it where the tree had changes.
    pub(crate) commit: Option<String>,
    /// The operator's tool, built with the services.
    pub(crate) couponctl: Option<PathBuf>,
    pub(crate) mysql: Mysql,
    pub(crate) redis: Redis,
    pub(crate) kafka: Kafka,
    pub(crate) key_store: PathBuf,
    pub(crate) jwt: Jwt,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Admin {
    pub(crate) email: String,
    pub(crate) password: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServiceState {
    pub(crate) name: String,
    pub(crate) instance: String,
    pub(crate) url: Option<String>,
    pub(crate) admin_url: Option<String>,
    #[serde(flatten)]
    pub(crate) process: ProcessState,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ServerState {
    pub(crate) name: String,
    pub(crate) address: String,
    #[serde(flatten)]
    pub(crate) process: ProcessState,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProcessState {
    /// Of the running process, or of the last one that ran.
    pub(crate) pid: Option<i32>,
    pub(crate) log: PathBuf,
    pub(crate) running: bool,
    pub(crate) ready: bool,
    pub(crate) restarts: u32,
    /// From the start of the process until it was ready.
    pub(crate) started_in_ms: Option<u64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Mysql {
    pub(crate) engine: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) username: String,
    pub(crate) password_file: PathBuf,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Redis {
    pub(crate) sentinels: Vec<String>,
    pub(crate) master: String,
    pub(crate) password_file: PathBuf,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Kafka {
    pub(crate) bootstrap_servers: String,
    pub(crate) topic: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Jwt {
    pub(crate) issuer: String,
    pub(crate) audience: String,
}

/// Ports by name, chosen once for a folder.
pub(crate) type Ports = BTreeMap<String, u16>;

/// Replaces a file in one step; only the owner may read it.
pub(crate) fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    let mut name = path.file_name().context("a file name")?.to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .with_context(|| format!("write {}", temporary.display()))?;
    file.write_all(content)?;
    fs::rename(&temporary, path).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_folder_of_something_else_is_not_ours() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Folder::new(folder.path()).unwrap();
        assert!(!folder.is_ours());
        fs::create_dir_all(folder.run()).unwrap();
        fs::write(folder.lock_file(), "").unwrap();
        assert!(!folder.is_ours(), "others have run/lock, too");
        // A start that failed early has left no more.
        folder.create().unwrap();
        assert!(folder.is_ours());
    }

    pub(crate) fn state() -> State {
        let process = ProcessState {
            pid: Some(7),
            log: "/run/logs/gateway.log".into(),
            running: true,
            ready: true,
            restarts: 0,
            started_in_ms: Some(120),
        };
        State {
            phase: Phase::Ready,
            supervisor: Record { pid: 1, start: 2, boot: "boot".to_owned() },
            gateway: Some("http://127.0.0.1:8080".to_owned()),
            admin: Some(Admin { email: "admin@firstcome.example".to_owned(), password: "x".to_owned() }),
            services: vec![ServiceState {
                name: "gateway".to_owned(),
                instance: "gateway".to_owned(),
                url: Some("http://127.0.0.1:8080".to_owned()),
                admin_url: Some("http://127.0.0.1:9000".to_owned()),
                process: process.clone(),
            }],
            servers: vec![ServerState {
                name: "kafka".to_owned(),
                address: "127.0.0.1:9092".to_owned(),
                process,
            }],
            trace_ui: Some("http://127.0.0.1:9411/zipkin/".to_owned()),
            consul_ui: Some("http://127.0.0.1:8500/ui/".to_owned()),
            config_server: None,
            config_repository: None,
            commit: None,
            couponctl: None,
            mysql: Mysql {
                engine: "mariadb".to_owned(),
                host: "127.0.0.1".to_owned(),
                port: 3306,
                username: "firstcome".to_owned(),
                password_file: "/run/secrets/mysql".into(),
            },
            redis: Redis {
                sentinels: Vec::new(),
                master: "firstcome".to_owned(),
                password_file: "/run/secrets/redis".into(),
            },
            kafka: Kafka {
                bootstrap_servers: "127.0.0.1:9092".to_owned(),
                topic: "coupon.issued".to_owned(),
            },
            key_store: "/run/secrets/token-keys.json".into(),
            jwt: Jwt { issuer: "firstcome".to_owned(), audience: "firstcome".to_owned() },
        }
    }

    /// Scripts, couponctl and the end-to-end tests read these names.
    #[test]
    fn what_scripts_read() {
        let shown = serde_json::to_value(state()).unwrap();
        let some = |value: &Value, names: &[&str]| {
            names.iter().map(|name| ((*name).to_owned(), value[name].clone())).collect::<Value>()
        };
        let service = json!({"name": "gateway", "instance": "gateway", "url": "http://127.0.0.1:8080",
            "adminUrl": "http://127.0.0.1:9000", "pid": 7, "log": "/run/logs/gateway.log", "running": true,
            "ready": true, "restarts": 0, "startedInMs": 120});
        assert_eq!(shown["services"], json!([service]));
        let server = json!({"name": "kafka", "address": "127.0.0.1:9092", "pid": 7, "log": "/run/logs/gateway.log",
            "running": true, "ready": true, "restarts": 0, "startedInMs": 120});
        assert_eq!(shown["servers"], json!([server]));
        let rest = ["phase", "gateway", "admin", "traceUi", "consulUi"];
        assert_eq!(
            some(&shown, &rest),
            json!({"phase": "ready", "gateway": "http://127.0.0.1:8080",
                "admin": {"email": "admin@firstcome.example", "password": "x"},
                "traceUi": "http://127.0.0.1:9411/zipkin/", "consulUi": "http://127.0.0.1:8500/ui/"})
        );
        assert_eq!(shown["mysql"]["passwordFile"], "/run/secrets/mysql");
        assert_eq!(shown["kafka"]["bootstrapServers"], "127.0.0.1:9092");
        assert_eq!(shown["keyStore"], "/run/secrets/token-keys.json");
    }
}
