//! Our own processes: names, command lines, environment, and when they are ready (passing in Consul under their own
//! pid, which a registration left by an earlier process does not have).

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::build::Binaries;
use crate::http;
use crate::ports::listens;
use crate::secrets;
use crate::state::{Folder, Ports};
use crate::supervisor::{Endpoint, Kind, Spec};

/// A kind of process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Service {
    /// The name in Consul.
    pub(crate) group: &'static str,
    binary: &'static str,
    subcommand: Option<&'static str>,
    /// How many `up` starts.
    instances: usize,
    /// A fixed port allows only one.
    pub(crate) scales: bool,
    /// Setting and secret file.
    secrets: &'static [(&'static str, &'static str)],
}

const MYSQL: (&str, &str) = ("FIRSTCOME_MYSQL__PASSWORD_FILE", secrets::MYSQL);
const REDIS: (&str, &str) = ("FIRSTCOME_REDIS__PASSWORD_FILE", secrets::REDIS);
const IDENTITY: (&str, &str) = ("FIRSTCOME_IDENTITY__SECRET_FILE", secrets::IDENTITY);
const ADMIN: (&str, &str) = ("FIRSTCOME_ADMIN__TOKEN_FILE", secrets::ADMIN_TOKEN);
const MAC: (&str, &str) = ("FIRSTCOME_DEFINITION__MAC_SECRET_FILE", secrets::MAC);
const KEY_STORE: (&str, &str) = ("FIRSTCOME_TOKEN__KEY_STORE", secrets::KEY_STORE);
const FIRST_ADMIN: (&str, &str) = ("FIRSTCOME_FIRST_ADMIN__PASSWORD_FILE", secrets::ADMIN_PASSWORD);

pub(crate) const CONFIG_SERVER: &str = "config-server";
pub(crate) const GATEWAY: &str = "gateway";
/// On a port of its own, beside the first one.
pub(crate) const SECOND_GATEWAY: &str = "gateway-2";

/// In the order of their start; each inner list starts together.
pub(crate) const WAVES: [&[Service]; 4] = [
    &[Service {
        group: CONFIG_SERVER,
        binary: "config-server",
        subcommand: None,
        instances: 1,
        scales: false,
        secrets: &[ADMIN],
    }],
    &[
        Service {
            group: "user-service",
            binary: "user-service",
            subcommand: None,
            instances: 1,
            scales: true,
            secrets: &[MYSQL, REDIS, IDENTITY, ADMIN, KEY_STORE, FIRST_ADMIN],
        },
        Service {
            group: "coupon-service",
            binary: "coupon-service",
            subcommand: None,
            instances: 1,
            scales: true,
            secrets: &[MYSQL, REDIS, IDENTITY, ADMIN, MAC],
        },
    ],
    &[
        Service {
            group: "issue-service",
            binary: "issue-service",
            subcommand: Some("serve"),
            instances: 2,
            scales: true,
            secrets: &[MYSQL, REDIS, IDENTITY, ADMIN, MAC],
        },
        Service {
            group: "issue-consumer",
            binary: "issue-service",
            subcommand: Some("consume"),
            instances: 2,
            scales: true,
            secrets: &[MYSQL, REDIS, IDENTITY, ADMIN, MAC],
        },
    ],
    &[Service {
        group: GATEWAY,
        binary: "gateway",
        subcommand: None,
        instances: 1,
        scales: false,
        secrets: &[REDIS, IDENTITY, ADMIN],
    }],
];

pub(crate) fn named(group: &str) -> Option<Service> {
    WAVES.iter().flat_map(|wave| wave.iter()).find(|service| service.group == group).copied()
}

impl Service {
    /// Names of the instances that a run begins with. The configuration server's address is one, so there is only one
    /// of it also in a doubled run.
    pub(crate) fn names(&self, doubled: bool) -> Vec<String> {
        let instances = if doubled && self.group != CONFIG_SERVER { 2 } else { self.instances };
        (1..=instances).map(|number| self.name(number)).collect()
    }

    /// The single one is named as the service; where there are several, each has a number.
    pub(crate) fn name(&self, number: usize) -> String {
        if self.instances == 1 && number == 1 {
            self.group.to_owned()
        } else {
            format!("{}-{number}", self.group)
        }
    }

    /// With these running: which to start and which to stop, so that `count` run.
    pub(crate) fn scaling(&self, running: &[&str], count: usize) -> (Vec<String>, Vec<String>) {
        let wanted: Vec<String> = (1..=count).map(|number| self.name(number)).collect();
        let surplus = running.iter().filter(|name| wanted.iter().all(|wanted| wanted != *name));
        let surplus = surplus.map(|name| (*name).to_owned()).collect();
        let missing = wanted.into_iter().filter(|name| !running.contains(&name.as_str())).collect();
        (missing, surplus)
    }

    /// Variables that name the files of its secrets.
    pub(crate) fn secret_files(&self, folder: &Folder) -> Vec<(String, String)> {
        let of = |(setting, secret): &(&str, &str)| {
            ((*setting).to_owned(), folder.secret(secret).display().to_string())
        };
        self.secrets.iter().map(of).collect()
    }

    pub(crate) fn spec(
        &self,
        name: &str,
        folder: &Folder,
        ports: &Ports,
        binaries: &Binaries,
    ) -> Result<Spec> {
        let port = |name: &str| ports.get(name).copied().unwrap_or_default();
        let program = binaries.path(self.binary)?;
        let mut arguments: Vec<String> = self.subcommand.iter().map(|it| (*it).to_owned()).collect();
        arguments.extend(["--instance".to_owned(), name.to_owned()]);
        let mut environment = self.secret_files(folder);
        // What /actuator/info shows.
        if let Some(commit) = binaries.commit() {
            environment.push(("FIRSTCOME_GIT_COMMIT".to_owned(), commit.to_owned()));
        }
        if binaries.with_faults && self.binary == "issue-service" {
            let failpoint = folder.failpoint(name).display().to_string();
            environment.push(("FIRSTCOME_FAILPOINT".to_owned(), failpoint));
        }
        if self.group == CONFIG_SERVER {
            arguments.extend([
                "--repository".to_owned(),
                folder.config_git().display().to_string(),
                "--address".to_owned(),
                format!("127.0.0.1:{}", port(CONFIG_SERVER)),
                "--admin-address".to_owned(),
                "127.0.0.1:0".to_owned(),
                "--consul-url".to_owned(),
                format!("http://127.0.0.1:{}", port("consul")),
            ]);
        } else {
            let url = format!("http://127.0.0.1:{}", port(CONFIG_SERVER));
            environment.push(("FIRSTCOME_CONFIG_URL".to_owned(), url));
            environment.push(("FIRSTCOME_PROFILE".to_owned(), "local".to_owned()));
        }
        if name == SECOND_GATEWAY {
            environment.push(("FIRSTCOME_SERVER__PORT".to_owned(), port(name).to_string()));
        }
        let (instance, group, consul) = (name.to_owned(), self.group, listens(ports, "consul"));
        Ok(Spec {
            name: name.to_owned(),
            group: self.group.to_owned(),
            kind: Kind::Service,
            address: None,
            program: PathBuf::from(program),
            arguments,
            environment,
            working_folder: folder.root().to_owned(),
            before_start: None,
            ready: Box::new(move |pid| passing(consul, group, &instance, pid).map(Some)),
            first_pause: Duration::from_millis(500),
            patience: Duration::from_secs(60),
        })
    }
}

fn passing(consul: u16, group: &str, instance: &str, pid: i32) -> Result<Endpoint> {
    let text = http::get_text(&format!("http://127.0.0.1:{consul}/v1/health/service/{group}?passing=1"))
        .context("ask Consul")?;
    endpoint(&serde_json::from_str(&text)?, instance, pid)
}

fn endpoint(entries: &Value, instance: &str, pid: i32) -> Result<Endpoint> {
    let pid = pid.to_string();
    let service = entries
        .as_array()
        .into_iter()
        .flatten()
        .map(|entry| &entry["Service"])
        .find(|service| service["ID"] == instance && service["Meta"]["pid"].as_str() == Some(&pid));
    let Some(service) = service else { bail!("not passing in Consul yet") };
    let address = service["Address"].as_str().context("no address in Consul")?;
    let url = format!("http://{address}:{}", service["Port"]);
    let admin_url = service["Meta"]["admin-port"].as_str().map(|port| format!("http://{address}:{port}"));
    Ok(Endpoint { url, admin_url })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_of_instances() {
        assert_eq!(named("issue-service").unwrap().names(false), ["issue-service-1", "issue-service-2"]);
        let coupon = named("coupon-service").unwrap();
        assert_eq!(coupon.names(false), ["coupon-service"]);
        assert_eq!(coupon.names(true), ["coupon-service", "coupon-service-2"]);
        assert_eq!(named(GATEWAY).unwrap().names(true), [GATEWAY, SECOND_GATEWAY]);
        assert_eq!(named(CONFIG_SERVER).unwrap().names(true), [CONFIG_SERVER]);
        assert_eq!(coupon.name(2), "coupon-service-2");
        assert!(named("redis").is_none());
    }

    #[test]
    fn a_service_is_scaled_up_and_down() {
        let issue = named("issue-service").unwrap();
        let names = |some: &[&str]| some.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let two = ["issue-service-1", "issue-service-2"];
        assert_eq!(issue.scaling(&two, 3), (names(&["issue-service-3"]), Vec::new()));
        assert_eq!(issue.scaling(&two, 2), (Vec::new(), Vec::new()));
        assert_eq!(issue.scaling(&two, 1), (Vec::new(), names(&["issue-service-2"])));
        assert_eq!(issue.scaling(&two, 0), (Vec::new(), names(&two)));
        let coupon = named("coupon-service").unwrap();
        assert_eq!(coupon.scaling(&["coupon-service"], 2), (names(&["coupon-service-2"]), Vec::new()));
    }

    #[test]
    fn a_registration_of_an_earlier_process_is_not_ready() {
        let entry = |pid: &str| {
            json!([{"Service": {"ID": "gateway", "Address": "127.0.0.1", "Port": 8080,
                "Meta": {"pid": pid, "admin-port": "9000"}}}])
        };
        let found = endpoint(&entry("7"), "gateway", 7).unwrap();
        assert_eq!(found.url, "http://127.0.0.1:8080");
        assert_eq!(found.admin_url.as_deref(), Some("http://127.0.0.1:9000"));
        assert!(endpoint(&entry("6"), "gateway", 7).is_err());
        assert!(endpoint(&json!([]), "gateway", 7).is_err());
    }
}
