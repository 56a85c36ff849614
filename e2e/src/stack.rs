//! The running stack, as its state file tells, and who may use it at the same time.

use std::path::PathBuf;

use serde::Deserialize;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The folder that holds `state.json`.
const VARIABLE: &str = "FIRSTCOME_STATE";

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stack {
    pub supervisor: Supervisor,
    pub gateway: String,
    pub admin: Admin,
    pub services: Vec<Service>,
    pub servers: Vec<Server>,
    pub mysql: Mysql,
    pub redis: Redis,
    pub key_store: PathBuf,
    pub couponctl: PathBuf,
    pub jwt: Jwt,
    trace_ui: Option<String>,
    pub consul_ui: String,
    #[serde(skip)]
    pub folder: PathBuf,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Supervisor {
    pub pid: i32,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Admin {
    pub email: String,
    pub password: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    pub name: String,
    pub instance: String,
    #[serde(default)]
    pub url: Option<String>,
    #[serde(default)]
    pub admin_url: Option<String>,
    pub pid: i32,
    /// As the supervisor sees it.
    pub ready: bool,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Server {
    pub name: String,
    pub address: String,
    pub pid: i32,
    pub ready: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mysql {
    pub host: String,
    pub port: u16,
    pub username: String,
    pub password_file: PathBuf,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Redis {
    pub sentinels: Vec<String>,
    pub master: String,
    pub password_file: PathBuf,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Jwt {
    pub issuer: String,
    pub audience: String,
}

impl Stack {
    /// Reads the state anew: addresses and pids change when something was restarted.
    ///
    /// # Panics
    /// Without a running stack there is nothing to test, and a silent skip would look like success.
    pub fn load() -> Self {
        let folder = std::env::var_os(VARIABLE).map(PathBuf::from).unwrap_or_else(|| {
            panic!(
                "{VARIABLE} is not set: these tests need a running stack. Run them by `cargo xtask test`, or start one \
                 with `cargo xtask up --detach` and set {VARIABLE} to its folder (target/firstcome)"
            )
        });
        let file = folder.join("state.json");
        // The writer may be replacing it at this moment.
        for _ in 0..20 {
            if let Ok(text) = std::fs::read(&file)
                && let Ok(stack) = serde_json::from_slice::<Self>(&text)
            {
                return Self { folder, ..stack };
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let error = match std::fs::read(&file) {
            Err(error) => error.to_string(),
            Ok(text) => serde_json::from_slice::<Self>(&text)
                .err()
                .map_or_else(String::new, |error| error.to_string()),
        };
        panic!("{} is no state of a running stack: {error}", file.display());
    }

    /// Where Zipkin answers.
    ///
    /// # Panics
    /// When the stack runs none: a trace that nobody can see is not shown.
    pub fn zipkin(&self) -> &str {
        let ui = self.trace_ui.as_deref().unwrap_or_else(|| panic!("the stack runs no trace UI"));
        ui.trim_end_matches('/').trim_end_matches("/zipkin")
    }

    /// Where Consul answers: its UI is below it.
    pub fn consul(&self) -> &str {
        self.consul_ui.trim_end_matches('/').trim_end_matches("/ui")
    }

    /// The instances of a service, in the order of the state.
    pub fn instances(&self, service: &str) -> Vec<&Service> {
        self.services
            .iter()
            .filter(|one| one.name == service || one.name.strip_prefix(service).is_some_and(numbered))
            .collect()
    }

    /// # Panics
    /// When the stack lacks the service.
    pub fn one(&self, service: &str) -> &Service {
        self.instances(service).into_iter().next().unwrap_or_else(|| panic!("the stack runs no {service}"))
    }

    /// What a process has logged in this run.
    ///
    /// # Panics
    /// When it can't be read.
    pub fn log(&self, instance: &str) -> String {
        let file = self.folder.join(format!("logs/{instance}.log"));
        let text =
            std::fs::read(&file).unwrap_or_else(|error| panic!("{} can't be read: {error}", file.display()));
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The content of a file that a secret is in.
    ///
    /// # Panics
    /// When it can't be read.
    pub fn secret(file: &std::path::Path) -> String {
        let text = std::fs::read_to_string(file)
            .unwrap_or_else(|error| panic!("{} can't be read: {error}", file.display()));
        text.trim_end_matches(['\r', '\n']).to_owned()
    }
}

/// "-1", "-2": how instances of one service are told apart.
fn numbered(suffix: &str) -> bool {
    suffix
        .strip_prefix('-')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

static USE: RwLock<()> = RwLock::const_new(());

/// For tests that get along with each other.
pub async fn shared() -> RwLockReadGuard<'static, ()> {
    USE.read().await
}

/// For tests that break something or need the machine for themselves.
pub async fn alone() -> RwLockWriteGuard<'static, ()> {
    USE.write().await
}

#[cfg(test)]
mod tests {
    use super::numbered;

    #[test]
    fn instances_are_told_from_services_that_begin_alike() {
        assert!(numbered("-1") && numbered("-12"));
        assert!(!numbered("") && !numbered("-") && !numbered("-consumer"));
    }
}
