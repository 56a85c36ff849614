//! Kafka in KRaft mode, one broker or three of which each is a controller as well, from the jars of Maven Central.

pub(crate) mod metadata;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Program;
use super::fetch::{Fetch, advice};
use super::java::{PLUGIN, Tools};
use crate::interrupt::Interrupt;
use crate::ports::listens;
use crate::state::{Folder, Ports};
use crate::supervisor::{Kind, Spec};

const VERSION: &str = "4.3.1";
const POM: &str = r#"<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>firstcome</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>VERSION</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
"#;

/// The folder of jars.
pub(crate) fn obtain(fetch: &Fetch, tools: &Tools) -> Result<PathBuf> {
    let gotten = fetch.folder(&format!("kafka-{VERSION}"), "Kafka", |folder, step| {
        step.say("downloading by Maven");
        fs::write(folder.join("pom.xml"), POM.replace("VERSION", VERSION))?;
        let goal = [format!("{PLUGIN}:copy-dependencies"), "-DoutputDirectory=lib".to_owned()];
        tools.maven(fetch, folder, &goal)
    });
    advice(gotten, "Kafka", "a Maven that reaches its repository").map(|folder| folder.join("lib"))
}

/// All that there can be; a run has the first one, or all of them.
pub(crate) const BROKERS: [&str; 3] = ["kafka", "kafka-2", "kafka-3"];

/// Those of a run, by its ports.
pub(crate) fn of_run(ports: &Ports) -> Vec<&'static str> {
    BROKERS.into_iter().filter(|name| ports.contains_key(*name)).collect()
}

pub(crate) fn bootstrap_servers(ports: &Ports) -> String {
    let told = of_run(ports).into_iter().map(|name| format!("127.0.0.1:{}", ports[name]));
    told.collect::<Vec<_>>().join(",")
}

/// The name of the port where a broker is controller.
pub(crate) fn controller(broker: &str) -> String {
    format!("{broker}-controller")
}

/// The broker with this id.
pub(crate) fn named(id: i32) -> Option<&'static str> {
    BROKERS.get(usize::try_from(id).ok()?.checked_sub(1)?).copied()
}

/// What the brokers of a run have in common.
pub(crate) struct Cluster {
    pub(crate) java: Program,
    pub(crate) jars: PathBuf,
    pub(crate) folder: Folder,
    pub(crate) ports: Ports,
}

impl Cluster {
    fn data(&self, broker: &str) -> PathBuf {
        self.folder.data().join(broker)
    }

    fn flags(&self) -> Vec<String> {
        let fixed =
            ["-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"];
        let mut flags = fixed.map(str::to_owned).to_vec();
        flags.push("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn".to_owned());
        flags.push("-Dorg.slf4j.simpleLogger.showDateTime=true".to_owned());
        flags.push("-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS".to_owned());
        flags.extend(["-cp".to_owned(), format!("{}/*", self.jars.display())]);
        flags
    }

    /// Writes the settings, and formats the storage of a new folder.
    pub(crate) fn prepare(&self, interrupt: &Interrupt) -> Result<()> {
        let mut id = None;
        for broker in of_run(&self.ports) {
            let data = self.data(broker);
            fs::create_dir_all(&data)?;
            let file = data.join("server.properties");
            fs::write(&file, settings(&data.join("log"), broker, &self.ports))?;
            let formatted = data.join("log/meta.properties");
            if !formatted.exists() {
                let id = id.clone().map_or_else(new_id, Ok)?;
                let mut command = self.java.command();
                command.args(self.flags()).args(["kafka.tools.StorageTool", "format", "-t"]);
                interrupt.run(command.arg(id).arg("-c").arg(&file)).context("format the storage of Kafka")?;
            }
            let text = fs::read_to_string(&formatted)?;
            id = text.lines().find_map(|line| line.strip_prefix("cluster.id=")).map(str::to_owned);
        }
        Ok(())
    }

    pub(crate) fn specs(&self) -> Vec<Spec> {
        of_run(&self.ports).into_iter().map(|broker| self.spec(broker)).collect()
    }

    fn spec(&self, broker: &str) -> Spec {
        let mut arguments = self.flags();
        arguments.push("kafka.Kafka".to_owned());
        arguments.push(self.data(broker).join("server.properties").display().to_string());
        let (listens, all) = (listens(&self.ports, broker), of_run(&self.ports).len());
        Spec {
            name: broker.to_owned(),
            group: "kafka".to_owned(),
            kind: Kind::Server,
            address: Some(format!("127.0.0.1:{}", self.ports.get(broker).copied().unwrap_or_default())),
            program: self.java.path.clone(),
            arguments: self.java.arguments(arguments),
            environment: self.java.environment.clone(),
            working_folder: self.data(broker),
            before_start: None,
            ready: Box::new(move |_| in_step(listens, all).map(|()| None)),
            first_pause: Duration::from_millis(500),
            patience: Duration::from_secs(90),
        }
    }
}

fn new_id() -> Result<String> {
    // An id that begins with a dash would be taken for an option.
    Ok(URL_SAFE_NO_PAD.encode(crate::secrets::random::<16>()?).replacen('-', "_", 1))
}

/// Ready means that the broker names all brokers, itself among them, and a controller, and misses no replica.
fn in_step(port: u16, all: usize) -> Result<()> {
    let metadata = metadata::ask(port)?;
    if metadata.brokers.len() < all || metadata.controller < 0 {
        bail!("{} of {all} brokers, controller {}", metadata.brokers.len(), metadata.controller);
    }
    let behind = metadata.partitions.iter().filter(|it| it.in_sync < it.replicas).count();
    if behind > 0 {
        bail!("{behind} partitions have replicas that are behind");
    }
    Ok(())
}

/// A lone broker keeps what it has; of three, two must have what is acknowledged.
fn settings(log: &Path, broker: &str, ports: &Ports) -> String {
    let port = |name: &str| ports.get(name).copied().unwrap_or_default();
    let brokers = of_run(ports);
    let ids = || (1..).zip(&brokers);
    let id = ids().find(|(_, name)| **name == broker).map_or(1, |(id, _)| id);
    let voters: Vec<String> =
        ids().map(|(id, name)| format!("{id}@127.0.0.1:{}", port(&controller(name)))).collect();
    let (replicas, in_sync) = if brokers.len() > 1 { (brokers.len(), 2) } else { (1, 1) };
    format!(
        "process.roles=broker,controller\nnode.id={id}\ncontroller.quorum.voters={}\n\
         listeners=PLAINTEXT://127.0.0.1:{},CONTROLLER://127.0.0.1:{}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{}\ncontroller.listener.names=CONTROLLER\n\
         log.dirs={}\nauto.create.topics.enable=false\ndefault.replication.factor={replicas}\n\
         min.insync.replicas={in_sync}\nunclean.leader.election.enable=false\n\
         offsets.topic.replication.factor={replicas}\noffsets.topic.num.partitions=8\n\
         transaction.state.log.replication.factor={replicas}\ntransaction.state.log.min.isr={in_sync}\n\
         share.coordinator.state.topic.replication.factor={replicas}\n\
         share.coordinator.state.topic.min.isr={in_sync}\n\
         group.initial.rebalance.delay.ms=0\nlog.cleaner.dedupe.buffer.size=16777216\n",
        voters.join(","),
        listens(ports, broker),
        port(&controller(broker)),
        port(broker),
        log.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(all: &[(&str, u16)]) -> Ports {
        all.iter().map(|(name, port)| ((*name).to_owned(), *port)).collect()
    }

    #[test]
    fn behind_a_proxy_clients_are_told_its_port() {
        let ports = ports(&[("kafka", 1), ("kafka-behind", 2), ("kafka-controller", 3)]);
        let settings = settings(Path::new("/log"), "kafka", &ports);
        for line in [
            "listeners=PLAINTEXT://127.0.0.1:2,CONTROLLER://127.0.0.1:3",
            "advertised.listeners=PLAINTEXT://127.0.0.1:1",
            "default.replication.factor=1",
            "min.insync.replicas=1",
        ] {
            assert!(settings.lines().any(|it| it == line), "{line} in {settings}");
        }
    }

    #[test]
    fn of_three_brokers_two_must_have_it() {
        let three = [("kafka", 1), ("kafka-2", 2), ("kafka-3", 3)];
        let controllers = [("kafka-controller", 11), ("kafka-2-controller", 12), ("kafka-3-controller", 13)];
        let ports = ports(&[three, controllers].concat());
        let settings = settings(Path::new("/log"), "kafka-2", &ports);
        for line in [
            "node.id=2",
            "controller.quorum.voters=1@127.0.0.1:11,2@127.0.0.1:12,3@127.0.0.1:13",
            "advertised.listeners=PLAINTEXT://127.0.0.1:2",
            "default.replication.factor=3",
            "min.insync.replicas=2",
            "unclean.leader.election.enable=false",
        ] {
            assert!(settings.lines().any(|it| it == line), "{line} in {settings}");
        }
        assert_eq!([named(0), named(2), named(4)], [None, Some("kafka-2"), None]);
    }
}
