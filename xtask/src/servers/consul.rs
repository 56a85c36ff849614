//! Consul, one agent in development mode (its state is in memory; services register anew when it comes back).

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

use super::Program;
use super::debian::{Release, unpack};
use super::fetch::{Fetch, advice, on_path};
use crate::http;
use crate::ports::listens;
use crate::state::{Folder, Ports};
use crate::supervisor::{Kind, Spec};

/// The last releases that carry Consul; the program is linked statically and runs anywhere.
const RELEASE: Release = Release::Other { debian: Some("bullseye"), ubuntu: Some("jammy") };

pub(crate) fn obtain(fetch: &Fetch) -> Result<Program> {
    if let Some(path) = on_path("consul") {
        return Ok(Program::found(path));
    }
    let gotten = fetch.folder("consul", "Consul", |folder, step| {
        unpack(fetch, Release::Host, &["consul"], folder, step)
            .or_else(|_| {
                fetch.interrupt.check()?;
                unpack(fetch, RELEASE, &["consul"], folder, step)
            })
            .and_then(|()| fetch.interrupt.run(program(folder).command().arg("version")).map(drop))
    });
    let advice = advice(gotten, "Consul", "the single binary `consul`, any version from 1.8, on PATH")?;
    Ok(program(&advice))
}

fn program(root: &Path) -> Program {
    Program::found(root.join("usr/bin/consul"))
}

pub(crate) fn spec(program: &Program, folder: &Folder, ports: &Ports) -> Result<Spec> {
    // Whatever lies in the working folder may be taken for data: it gets an empty one.
    let working_folder = folder.data().join("consul");
    fs::create_dir_all(&working_folder)?;
    let port = |name: &str| ports.get(name).copied().unwrap_or_default();
    let (told, http) = (port("consul"), listens(ports, "consul"));
    let arguments = [
        "agent".to_owned(),
        "-dev".to_owned(),
        "-bind=127.0.0.1".to_owned(),
        "-client=127.0.0.1".to_owned(),
        format!("-http-port={http}"),
        format!("-server-port={}", port("consul-rpc")),
        format!("-serf-lan-port={}", port("consul-serf")),
        "-serf-wan-port=-1".to_owned(),
        "-dns-port=-1".to_owned(),
        "-grpc-port=-1".to_owned(),
        "-log-level=warn".to_owned(),
        "-node=local".to_owned(),
    ];
    Ok(Spec {
        name: "consul".to_owned(),
        group: "consul".to_owned(),
        kind: Kind::Server,
        address: Some(format!("127.0.0.1:{told}")),
        program: program.path.clone(),
        arguments: program.arguments(arguments.to_vec()),
        environment: program.environment.clone(),
        working_folder,
        before_start: None,
        ready: Box::new(move |_| {
            let leader = http::get_text(&format!("http://127.0.0.1:{http}/v1/status/leader"))?;
            if leader.trim().trim_matches('"').is_empty() {
                bail!("no leader yet");
            }
            Ok(None)
        }),
        first_pause: Duration::from_millis(500),
        patience: Duration::from_secs(60),
    })
}
