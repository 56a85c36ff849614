//! Redis: one master, two replicas, three Sentinels.
//!
//! Who is master is remembered by the Sentinels' own files alone. Before a node starts, the Sentinels (or, when all
//! are down, what they wrote last) are asked, so that an old master comes back as a replica and never takes a write.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};

use super::debian::{Release, library_path, unpack};
use super::fetch::{Fetch, advice, on_path, version_in};
use super::resp::{Connection, Value};
use super::{Program, fetch};
use crate::ports::listens;
use crate::state::{Folder, Ports, write_atomically};
use crate::supervisor::{Kind, Spec};

/// The name by which Sentinels know the master.
pub(crate) const MASTER: &str = "firstcome";
pub(crate) const NODES: [&str; 3] = ["redis-1", "redis-2", "redis-3"];
pub(crate) const SENTINELS: [&str; 3] = ["sentinel-1", "sentinel-2", "sentinel-3"];

pub(crate) fn obtain(fetch: &Fetch) -> Result<Program> {
    if let Some(path) = on_path("redis-server") {
        let version = fetch.interrupt.run(std::process::Command::new(&path).arg("--version"))?;
        if fetch::version_in(&version) >= Some((6, 2)) {
            return Ok(Program::found(path));
        }
    }
    let gotten = fetch.folder("redis", "Redis", |folder, step| {
        unpack(fetch, Release::Host, &["redis-server"], folder, step)?;
        let program = unpacked(folder);
        let version = fetch.interrupt.run(program.command().arg("--version"))?;
        match version_in(&version) {
            Some(version) if version >= (6, 2) => Ok(()),
            _ => bail!("too old: {}", version.trim()),
        }
    });
    Ok(unpacked(&advice(gotten, "Redis", "Debian, Ubuntu: apt install redis-server; 6.2 or newer")?))
}

fn unpacked(root: &Path) -> Program {
    let environment = vec![("LD_LIBRARY_PATH".to_owned(), library_path(root))];
    Program { path: root.join("usr/bin/redis-server"), leading: Vec::new(), environment }
}

/// What all six processes share.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) program: Program,
    pub(crate) folder: Folder,
    pub(crate) ports: Ports,
    pub(crate) password: String,
}

impl Cluster {
    /// What everybody is told.
    fn port(&self, name: &str) -> u16 {
        self.ports.get(name).copied().unwrap_or_default()
    }

    /// Where it listens, and where this tool asks it.
    fn listens(&self, name: &str) -> u16 {
        listens(&self.ports, name)
    }

    fn data(&self, name: &str) -> PathBuf {
        self.folder.data().join(name)
    }

    /// Writes the files of a fresh start, with the node that was master last as master.
    pub(crate) fn configure(&self) -> Result<&'static str> {
        let master = self.last_master();
        for name in NODES {
            fs::create_dir_all(self.data(name))?;
            let master = (name != master).then(|| self.port(master));
            let text = node_file(self.listens(name), self.port(name), master, &self.password);
            write_atomically(&self.data(name).join("redis.conf"), text.as_bytes())?;
        }
        for name in SENTINELS {
            fs::create_dir_all(self.data(name))?;
            let text = sentinel_file(self.listens(name), self.port(name), self.port(master), &self.password);
            write_atomically(&self.data(name).join("redis.conf"), text.as_bytes())?;
        }
        fs::write(self.folder.data().join("redis-ports.json"), serde_json::to_vec(&self.ports)?)?;
        Ok(master)
    }

    /// The master that the Sentinels wrote down in the last run, by the ports of that run.
    fn last_master(&self) -> &'static str {
        let ports: Ports = fs::read(self.folder.data().join("redis-ports.json"))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        let newest = SENTINELS
            .iter()
            .filter_map(|name| monitored(&fs::read_to_string(self.data(name).join("redis.conf")).ok()?))
            .max_by_key(|(epoch, _)| *epoch);
        newest
            .and_then(|(_, port)| NODES.into_iter().find(|name| ports.get(*name) == Some(&port)))
            .unwrap_or(NODES[0])
    }

    /// Before a node is started again in the middle of a run: nobody but the Sentinels' master may be one.
    fn rejoin(&self, name: &str) -> Result<()> {
        let Some(master) = told_master(&self.ports) else { return Ok(()) };
        let path = self.data(name).join("redis.conf");
        let text = fs::read_to_string(&path)?;
        let replica_of = (master != self.port(name)).then_some(master);
        write_atomically(&path, with_master(&text, replica_of).as_bytes())
    }

    pub(crate) fn node(&self, name: &'static str) -> Spec {
        let cluster = self.clone();
        let port = self.listens(name);
        let mut spec = self.spec(name, "redis", Vec::new());
        spec.before_start = Some(Box::new(move || cluster.rejoin(name)));
        let password = self.password.clone();
        spec.ready = Box::new(move |_| {
            let info = Connection::open(port, Some(&password))?.ask(&["INFO", "replication"])?;
            if info.text().contains("role:slave") && !info.text().contains("master_link_status:up") {
                bail!("not yet in step with its master");
            }
            Ok(None)
        });
        // Sentinels need about 2.3 s to promote a replica; a master that came back sooner would keep its office, and
        // one that comes back in the middle of the election would delay it.
        spec.first_pause = Duration::from_secs(5);
        spec
    }

    /// To be started when all nodes are there, or it takes a Sentinel ten seconds to learn the replicas.
    pub(crate) fn sentinel(&self, name: &'static str) -> Spec {
        let port = self.listens(name);
        let mut spec = self.spec(name, "sentinel", vec!["--sentinel".to_owned()]);
        spec.ready = Box::new(move |_| {
            let master = Connection::open(port, None)?.ask(&["SENTINEL", "MASTER", MASTER])?;
            let (replicas, others) = (master.field("num-slaves"), master.field("num-other-sentinels"));
            if replicas != Some("2") || others != Some("2") {
                bail!(
                    "knows {} replicas and {} other Sentinels",
                    replicas.unwrap_or("no"),
                    others.unwrap_or("no")
                );
            }
            Ok(None)
        });
        spec
    }

    /// Lets the Sentinels find each other in half a second instead of two and ten.
    pub(crate) fn hurry_sentinels(&self) -> Result<()> {
        for name in SENTINELS {
            let words =
                ["SENTINEL", "DEBUG", "info-period", "500", "publish-period", "500", "ping-period", "200"];
            // Only a matter of speed; Sentinels before 7.0 don't know it.
            let _ = Connection::open(self.listens(name), None)?.ask(&words);
        }
        Ok(())
    }

    fn spec(&self, name: &str, group: &str, more: Vec<String>) -> Spec {
        let mut arguments = vec![self.data(name).join("redis.conf").display().to_string()];
        arguments.extend(more);
        Spec {
            name: name.to_owned(),
            group: group.to_owned(),
            kind: Kind::Server,
            address: Some(format!("127.0.0.1:{}", self.port(name))),
            program: self.program.path.clone(),
            arguments: self.program.arguments(arguments),
            environment: self.program.environment.clone(),
            working_folder: self.data(name),
            before_start: None,
            ready: Box::new(|_| Ok(None)),
            first_pause: Duration::from_secs(1),
            patience: Duration::from_secs(60),
        }
    }
}

/// Whether a Sentinel answers; readiness asks for more.
pub(crate) fn answers(port: u16) -> bool {
    Connection::open(port, None).and_then(|mut it| it.ask(&["PING"])).is_ok()
}

/// The port that the first Sentinel to answer names as the master's.
fn told_master(ports: &Ports) -> Option<u16> {
    SENTINELS.iter().find_map(|sentinel| master_port(listens(ports, sentinel)))
}

/// The node that the Sentinels take for the master.
pub(crate) fn master(ports: &Ports) -> Option<&'static str> {
    let master = told_master(ports)?;
    NODES.into_iter().find(|name| ports.get(*name) == Some(&master))
}

fn master_port(sentinel: u16) -> Option<u16> {
    let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER];
    match Connection::open(sentinel, None).ok()?.ask(&words).ok()? {
        Value::List(items) => items.get(1)?.text().parse().ok(),
        _ => None,
    }
}

fn node_file(listens: u16, told: u16, master: Option<u16>, password: &str) -> String {
    let text = format!(
        "port {listens}\nbind 127.0.0.1\ndir ./\nrequirepass {password}\nmasterauth {password}\n\
         appendonly yes\nappendfsync everysec\nsave \"\"\nmaxmemory-policy noeviction\n\
         repl-diskless-sync-delay 0\nreplica-announce-ip 127.0.0.1\nreplica-announce-port {told}\n"
    );
    with_master(&text, master)
}

/// The same file with `replicaof` set or removed.
fn with_master(text: &str, master: Option<u16>) -> String {
    let mut lines: Vec<String> =
        text.lines().filter(|line| !line.starts_with("replicaof ")).map(str::to_owned).collect();
    lines.extend(master.map(|port| format!("replicaof 127.0.0.1 {port}")));
    lines.join("\n") + "\n"
}

fn sentinel_file(listens: u16, told: u16, master: u16, password: &str) -> String {
    format!(
        "port {listens}\nbind 127.0.0.1\ndir ./\nsentinel announce-ip 127.0.0.1\nsentinel announce-port {told}\n\
         sentinel monitor {MASTER} 127.0.0.1 {master} 2\nsentinel auth-pass {MASTER} {password}\n\
         sentinel down-after-milliseconds {MASTER} 1000\nsentinel failover-timeout {MASTER} 6000\n\
         sentinel parallel-syncs {MASTER} 2\n"
    )
}

/// Configuration epoch and port of the master in a Sentinel's file.
fn monitored(text: &str) -> Option<(u64, u16)> {
    let words = |prefix: &str| {
        text.lines()
            .find_map(|line| Some(line.strip_prefix(prefix)?.split_whitespace().map(str::to_owned).collect()))
    };
    let monitor: Vec<String> = words(&format!("sentinel monitor {MASTER} "))?;
    let epoch: Option<Vec<String>> = words(&format!("sentinel config-epoch {MASTER} "));
    let epoch = epoch.and_then(|it| it.first()?.parse().ok()).unwrap_or(0);
    Some((epoch, monitor.get(1)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentinels_last_word_counts() {
        let first = sentinel_file(1, 1, 7001, "x");
        assert_eq!(monitored(&first), Some((0, 7001)));
        let later = format!("{}sentinel config-epoch {MASTER} 3\n", first.replace("7001", "7002"));
        assert_eq!(monitored(&later), Some((3, 7002)));
    }

    #[test]
    fn an_old_master_becomes_a_replica() {
        let master = node_file(7001, 7001, None, "x");
        assert!(!master.contains("replicaof"));
        let replica = with_master(&master, Some(7002));
        assert!(replica.ends_with("replicaof 127.0.0.1 7002\n"));
        assert_eq!(with_master(&replica, None), master);
    }

    #[test]
    fn behind_a_proxy_others_are_told_its_port() {
        let node = node_file(8001, 7001, Some(7002), "x");
        assert!(node.starts_with("port 8001\n") && node.contains("\nreplica-announce-port 7001\n"));
        let sentinel = sentinel_file(8004, 7004, 7001, "x");
        assert!(sentinel.starts_with("port 8004\n") && sentinel.contains("\nsentinel announce-port 7004\n"));
        assert!(sentinel.contains(&format!("sentinel monitor {MASTER} 127.0.0.1 7001 2\n")));
    }
}
