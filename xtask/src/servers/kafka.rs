//! Kafka, one broker in KRaft mode, from the jars of Maven Central.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Program;
use super::fetch::{Fetch, advice};
use super::java::{PLUGIN, Tools};
use crate::interrupt::Interrupt;
use crate::state::Folder;
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

/// One broker with its ports.
pub(crate) struct Broker {
    pub(crate) java: Program,
    pub(crate) jars: PathBuf,
    pub(crate) folder: Folder,
    pub(crate) listens: u16,
    /// The port that clients are told.
    pub(crate) port: u16,
    pub(crate) controller: u16,
}

impl Broker {
    fn data(&self) -> PathBuf {
        self.folder.data().join("kafka")
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
        let data = self.data();
        fs::create_dir_all(&data)?;
        let file = data.join("server.properties");
        fs::write(&file, settings(&data.join("log"), self.listens, self.port, self.controller))?;
        if !data.join("log/meta.properties").exists() {
            let cluster = URL_SAFE_NO_PAD.encode(crate::secrets::random::<16>()?);
            let mut command = self.java.command();
            command.args(self.flags()).args(["kafka.tools.StorageTool", "format", "-t"]);
            // An id that begins with a dash would be taken for an option.
            command.arg(cluster.replacen('-', "_", 1)).arg("-c").arg(&file);
            interrupt.run(&command).context("format the storage of Kafka")?;
        }
        Ok(())
    }

    pub(crate) fn spec(&self) -> Spec {
        let mut arguments = self.flags();
        arguments.push("kafka.Kafka".to_owned());
        arguments.push(self.data().join("server.properties").display().to_string());
        let (port, listens) = (self.port, self.listens);
        Spec {
            name: "kafka".to_owned(),
            group: "kafka".to_owned(),
            kind: Kind::Server,
            address: Some(format!("127.0.0.1:{port}")),
            program: self.java.path.clone(),
            arguments: self.java.arguments(arguments),
            environment: self.java.environment.clone(),
            working_folder: self.data(),
            before_start: None,
            ready: Box::new(move |_| metadata(listens).map(|()| None)),
            first_pause: Duration::from_millis(500),
            patience: Duration::from_secs(90),
        }
    }
}

fn settings(log: &Path, listens: u16, told: u16, controller: u16) -> String {
    format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
         listeners=PLAINTEXT://127.0.0.1:{listens},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{told}\ncontroller.listener.names=CONTROLLER\n\
         log.dirs={}\nauto.create.topics.enable=false\ndefault.replication.factor=1\n\
         unclean.leader.election.enable=false\n\
         offsets.topic.replication.factor=1\noffsets.topic.num.partitions=8\n\
         transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
         share.coordinator.state.topic.replication.factor=1\nshare.coordinator.state.topic.min.isr=1\n\
         group.initial.rebalance.delay.ms=0\nlog.cleaner.dedupe.buffer.size=16777216\n",
        log.display()
    )
}

/// Ready means that the broker names itself, and a controller, in an answer to Metadata (key 3, version 1).
fn metadata(port: u16) -> Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(500)).context("connect")?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(&metadata_request())?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length))?.min(1 << 20);
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    let (brokers, controller) = metadata_answer(&answer).context("not an answer of Kafka")?;
    if brokers == 0 || controller < 0 {
        bail!("{brokers} brokers, controller {controller}");
    }
    Ok(())
}

fn metadata_request() -> Vec<u8> {
    let client = b"xtask";
    let mut body = vec![0, 3, 0, 1, 0, 0, 0, 1, 0, 5];
    body.extend(client);
    // No topic at all.
    body.extend([0, 0, 0, 0]);
    let mut request = u32::try_from(body.len()).unwrap_or(0).to_be_bytes().to_vec();
    request.extend(body);
    request
}

/// How many brokers, and which one is the controller.
fn metadata_answer(bytes: &[u8]) -> Option<(i32, i32)> {
    fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
        let (head, tail) = rest.split_at_checked(count)?;
        *rest = tail;
        Some(head)
    }
    fn number(rest: &mut &[u8]) -> Option<i32> {
        Some(i32::from_be_bytes(take(rest, 4)?.try_into().ok()?))
    }
    fn text(rest: &mut &[u8]) -> Option<()> {
        let length = i16::from_be_bytes(take(rest, 2)?.try_into().ok()?);
        take(rest, usize::try_from(length).unwrap_or(0)).map(drop)
    }
    let mut rest = bytes;
    let _correlation = number(&mut rest)?;
    let brokers = number(&mut rest)?;
    for _ in 0..brokers {
        let _node = number(&mut rest)?;
        text(&mut rest)?;
        let _port = number(&mut rest)?;
        text(&mut rest)?;
    }
    Some((brokers, number(&mut rest)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_understood() {
        let mut answer = vec![0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 9];
        answer.extend(b"127.0.0.1");
        answer.extend([0, 0, 0x23, 0x84, 0xff, 0xff, 0, 0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(metadata_answer(&answer), Some((1, 1)));
        assert_eq!(metadata_answer(&answer[..12]), None);
        assert_eq!(metadata_request().len(), 4 + 10 + 5 + 4);
    }

    #[test]
    fn behind_a_proxy_clients_are_told_its_port() {
        let settings = settings(Path::new("/log"), 2, 1, 3);
        assert!(
            settings.contains("\nlisteners=PLAINTEXT://127.0.0.1:2,CONTROLLER://127.0.0.1:3\n"),
            "{settings}"
        );
        assert!(settings.contains("\nadvertised.listeners=PLAINTEXT://127.0.0.1:1\n"), "{settings}");
    }
}
