//! Benchmarks of the issue service's own parts: builds `issue-bench`, gives it servers and settings, and keeps what it
//! finds.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::outcome::Outcome;
use super::program::{self, load_average};
use crate::build::{self, Binaries, workspace};
use crate::cli::MeasureOnServers;
use crate::config_repository;
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::servers::sql::Engine;
use crate::services;
use crate::stack::{self, Options, Stack};
use crate::state::{Folder, Phase, Ports};
use crate::{tools, up};

const ISSUE_SERVICE: &str = "issue-service";
const PROGRAM: &str = "issue-bench";

pub(super) fn measure(name: &str, arguments: &MeasureOnServers) -> Result<ExitCode> {
    let interrupt = Interrupt::install()?;
    let progress = Progress::new();
    tools::for_builds(&interrupt, &progress)?;
    let binaries = build::build_benchmarks(&[ISSUE_SERVICE, "couponctl"], &interrupt, &progress)?;
    let servers = Servers::find_or_start(&up::folder(&arguments.place)?, &interrupt, &progress)?;
    let load = load_average();
    let found = run(name, arguments.measure.quick, &binaries, &servers, &interrupt, &progress);
    let shared = servers.whole_stack;
    if found.is_err() {
        servers.keep_logs(&progress);
    }
    servers.end()?;
    let mut about = format!("Load average of the machine before it: {load}.");
    if shared {
        about.push_str(" The servers were those of a running system, whose services ran beside.");
    }
    found?.publish(name, &arguments.measure, binaries.commit(), &load, &about)
}

/// Those of a run that goes on, or some for this benchmark alone.
struct Servers {
    folder: Folder,
    ports: Ports,
    /// With them run services, which take their share of the machine.
    whole_stack: bool,
    own: Option<Arc<Stack>>,
}

impl Servers {
    fn find_or_start(folder: &Folder, interrupt: &Interrupt, progress: &Progress) -> Result<Self> {
        if let Ok(state) = folder.read_state()
            && state.phase == Phase::Ready
            && state.supervisor.alive()
        {
            progress.note(&format!("on the servers of {}", folder.root().display()));
            let ports = serde_json::from_slice(&fs::read(folder.ports_file())?)?;
            let whole_stack = !state.services.is_empty();
            return Ok(Self { folder: folder.clone(), ports, whole_stack, own: None });
        }
        let parent = workspace().join("target/xtask-bench");
        stack::sweep(&parent, progress)?;
        let options =
            Options::plain(Folder::new(&parent.join(std::process::id().to_string()))?, Engine::MariaDb);
        let stack = Stack::prepare(options, interrupt.clone(), progress.clone())?;
        let started = up::obtain(&stack, false).and_then(|programs| stack.start_servers(&programs));
        let (folder, ports) = (stack.folder.clone(), stack.ports.clone());
        let servers = Self { folder, ports, whole_stack: false, own: Some(stack) };
        if let Err(error) = started {
            servers.keep_logs(progress);
            servers.end()?;
            return Err(error);
        }
        Ok(servers)
    }

    fn keep_logs(&self, progress: &Progress) {
        let logs = self.folder.logs();
        if self.own.is_none() {
            return progress.note(&format!("logs: {}", logs.display()));
        }
        let kept = workspace().join("target/xtask-bench/failed");
        let _ = fs::remove_dir_all(&kept);
        if fs::rename(&logs, &kept).is_ok() {
            progress.note(&format!("logs: {}", kept.display()));
        }
    }

    fn end(self) -> Result<()> {
        if let Some(stack) = self.own {
            stack.stop();
            remove(self.folder.root())?;
        }
        Ok(())
    }
}

/// A stack that has just stopped may write its state down once more.
fn remove(folder: &Path) -> std::io::Result<()> {
    let mut tries = 0;
    loop {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty && tries < 20 => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(50));
            }
            removed => return removed,
        }
    }
}

fn run(
    name: &str,
    quick: bool,
    binaries: &Binaries,
    servers: &Servers,
    interrupt: &Interrupt,
    progress: &Progress,
) -> Result<Outcome> {
    let folder = &servers.folder;
    let (settings, out) = (folder.run().join("bench-config"), folder.run().join("bench.json"));
    config_repository::write(&workspace().join("config-repo"), &settings, &servers.ports)?;
    let service = services::named(ISSUE_SERVICE).context("no issue service")?;
    let mut command = Command::new(binaries.path(PROGRAM)?);
    command.arg(name).arg("--out").arg(&out);
    if quick {
        command.arg("--quick");
    }
    if name == "start" {
        command.arg("--program").arg(binaries.path(ISSUE_SERVICE)?);
        command.arg("--auditor").arg(binaries.path("couponctl")?);
    }
    command.envs(service.secret_files(folder));
    command.env("FIRSTCOME_CONFIG_URL", format!("file:{}", settings.display()));
    command.env("FIRSTCOME_PROFILE", "local");
    // Nobody is to find the benchmark, nor its spans.
    command.env("FIRSTCOME_CONSUL__ENABLED", "false").env("FIRSTCOME_TELEMETRY__EXPORTER", "none");
    program::run(&command, name, &folder.log(PROGRAM), &out, interrupt, progress)
}
