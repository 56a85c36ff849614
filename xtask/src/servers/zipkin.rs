//! Zipkin, the trace UI of a local run; spans are kept in memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Program;
use super::fetch::{Fetch, advice};
use super::java::{PLUGIN, Tools};
use crate::http;
use crate::state::Folder;
use crate::supervisor::{Kind, Spec};

const VERSION: &str = "3.6.1";

/// The runnable jar.
pub(crate) fn obtain(fetch: &Fetch, tools: &Tools) -> Result<PathBuf> {
    let gotten = fetch.folder(&format!("zipkin-{VERSION}"), "Zipkin", |folder, step| {
        step.say("downloading by Maven");
        let goal = [
            format!("{PLUGIN}:copy"),
            format!("-Dartifact=io.zipkin:zipkin-server:{VERSION}:jar:exec"),
            format!("-DoutputDirectory={}", folder.display()),
        ];
        tools.maven(fetch, folder, &goal)?;
        jar(folder).map(drop)
    });
    jar(&advice(gotten, "Zipkin", "a Maven that reaches its repository")?)
}

fn jar(folder: &Path) -> Result<PathBuf> {
    fs::read_dir(folder)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.extension().is_some_and(|it| it == "jar"))
        .context("no jar")
}

pub(crate) fn spec(java: &Program, jar: &Path, folder: &Folder, port: u16) -> Result<Spec> {
    let working_folder = folder.data().join("zipkin");
    fs::create_dir_all(&working_folder)?;
    let flags = ["-Xms32m", "-Xmx192m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"];
    let mut arguments = flags.map(str::to_owned).to_vec();
    arguments.extend([
        format!("-Djava.io.tmpdir={}", working_folder.display()),
        "-jar".to_owned(),
        jar.display().to_string(),
        "--armeria.ports[0].ip=127.0.0.1".to_owned(),
        format!("--armeria.ports[0].port={port}"),
        "--armeria.ports[0].protocols[0]=http".to_owned(),
    ]);
    // The default of 500,000 spans does not fit into this heap.
    let mut environment = java.environment.clone();
    environment.push(("MEM_MAX_SPANS".to_owned(), "100000".to_owned()));
    Ok(Spec {
        name: "zipkin".to_owned(),
        group: "zipkin".to_owned(),
        kind: Kind::Server,
        address: Some(format!("127.0.0.1:{port}")),
        program: java.path.clone(),
        arguments: java.arguments(arguments),
        environment,
        working_folder,
        before_start: None,
        ready: Box::new(move |_| http::get_text(&format!("http://127.0.0.1:{port}/health")).map(|_| None)),
        first_pause: Duration::from_millis(500),
        patience: Duration::from_secs(90),
    })
}
