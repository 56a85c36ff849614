//! `up`, `status`, `down`, `reset`.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;

use crate::build::{self, Binaries, Profile, workspace};
use crate::cli::{Place, Up};
use crate::control::{self, Request};
use crate::interrupt::{Interrupt, tail};
use crate::process::{self, Record};
use crate::progress::Progress;
use crate::servers::fetch::Fetch;
use crate::servers::sql::Engine;
use crate::servers::{self, Programs};
use crate::stack::{self, Options, Stack};
use crate::state::{Folder, Lock, Phase, State};
use crate::{first_coupon, table, tools};

/// Longer than the supervisor's own ten seconds.
const DOWN_PATIENCE: Duration = Duration::from_secs(15);

/// What shells give for the end by Ctrl-C.
const INTERRUPTED: u8 = 130;

pub(crate) fn folder(place: &Place) -> Result<Folder> {
    let root = place.dir.clone().unwrap_or_else(|| workspace().join("target/firstcome"));
    Folder::new(&root)
}

pub(crate) fn engine(mysql: bool) -> Engine {
    if mysql { Engine::MySql } else { Engine::MariaDb }
}

pub(crate) fn up(arguments: &Up) -> Result<ExitCode> {
    if arguments.supervise {
        // A session of its own: closing the terminal is nothing to it.
        let _ = nix::unistd::setsid();
    }
    let interrupt = Interrupt::install()?;
    let progress = Progress::new();
    if arguments.detach {
        return detach(arguments, &interrupt, &progress);
    }
    let options = Options {
        ports: arguments.ports.iter().cloned().collect(),
        well_known_ports: true,
        // Without services nobody sends it anything.
        trace_ui: !arguments.servers_only,
        ..Options::plain(folder(&arguments.place)?, engine(arguments.mysql))
    };
    let stack = Stack::prepare(options, interrupt.clone(), progress.clone())?;
    let result = run(&stack, arguments);
    stack.stop();
    match result {
        // Cut off before it was ready, or in the middle of the demo: no error to explain, but no success either.
        Err(_) if interrupt.requested() => Ok(ExitCode::from(INTERRUPTED)),
        other => other,
    }
}

fn run(stack: &Arc<Stack>, arguments: &Up) -> Result<ExitCode> {
    start(stack, arguments.mysql, !arguments.servers_only, profile(arguments), false)?;
    stack.set_phase(Phase::Ready);
    // Behind --detach this would go to a log, where credentials have no place: there the caller prints it.
    if !arguments.supervise {
        let state = stack.state();
        let coupon =
            if arguments.servers_only { None } else { Some(first_coupon::ensure(&stack.folder, &state)?) };
        println!("{}\n{}", table::processes(&state), table::addresses(&state, coupon));
    }
    if arguments.servers_only {
        println!("servers for tests: {}", stack.folder.test_servers_file().display());
    }
    if arguments.demo {
        return crate::demo::demo(
            &crate::demo::defaults(&arguments.place),
            &stack.interrupt,
            &stack.progress,
        );
    }
    let progress = &stack.progress;
    let text = if arguments.supervise { "ready" } else { "ready; Ctrl-C stops everything" };
    progress.note(&progress.timed(text, progress.elapsed()));
    while !stack.interrupt.requested() {
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(ExitCode::SUCCESS)
}

fn profile(arguments: &Up) -> Profile {
    if arguments.debug { Profile::Debug } else { Profile::Release }
}

/// Builds and gets side by side, then starts.
pub(crate) fn start(
    stack: &Arc<Stack>,
    mysql: bool,
    with_services: bool,
    profile: Profile,
    with_faults: bool,
) -> Result<()> {
    let (interrupt, progress) = (&stack.interrupt, &stack.progress);
    if with_services {
        tools::for_builds(interrupt, progress)?;
    }
    let binaries = std::thread::scope(|scope| -> Result<Option<Binaries>> {
        let building =
            with_services.then(|| scope.spawn(|| build::build(profile, with_faults, interrupt, progress)));
        let started = obtain(stack, mysql).and_then(|programs| stack.start_servers(&programs));
        if started.is_err() && !interrupt.requested() {
            // The other half need not go on; its own error matters less.
            interrupt.end_tools();
        }
        let built =
            building.map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        started?;
        built.transpose()
    })?;
    match binaries {
        Some(binaries) => stack.start_services(binaries),
        None => Ok(()),
    }
}

pub(crate) fn obtain(stack: &Stack, mysql: bool) -> Result<Programs> {
    let fetch = Fetch::new(stack.interrupt.clone(), stack.progress.clone())?;
    servers::obtain(&fetch, engine(mysql), stack.ports.contains_key("zipkin"))
}

/// Starts a supervisor in the background and follows its log until the stack is ready.
fn detach(arguments: &Up, interrupt: &Interrupt, progress: &Progress) -> Result<ExitCode> {
    let folder = folder(&arguments.place)?;
    folder.create()?;
    if Lock::take(&folder)?.is_none() {
        bail!("a stack runs in {} already: see `cargo xtask status`", folder.root().display());
    }
    if !arguments.servers_only {
        tools::for_builds(interrupt, progress)?;
        build::build(profile(arguments), false, interrupt, progress)?;
    }
    let log_path = folder.log("xtask");
    let log = File::create(&log_path)?;
    let mut command = Command::new("/proc/self/exe");
    command.args(["up", "--supervise", "--dir"]).arg(folder.root());
    for (flag, given) in [
        ("--debug", arguments.debug),
        ("--mysql", arguments.mysql),
        ("--servers-only", arguments.servers_only),
    ] {
        if given {
            command.arg(flag);
        }
    }
    for (name, port) in &arguments.ports {
        command.arg("--port").arg(format!("{name}={port}"));
    }
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let mut supervisor = command.spawn().context("start the supervisor")?;
    let followed = follow(&folder, &mut supervisor, interrupt, progress);
    if followed.is_err() && interrupt.requested() {
        progress.note("interrupted: stopping what was started");
        process::signal_process(i32::try_from(supervisor.id())?, Signal::SIGTERM);
        supervisor.wait()?;
    }
    let state = followed?;
    let coupon = if arguments.servers_only { None } else { Some(first_coupon::ensure(&folder, &state)?) };
    println!("{}\n{}", table::processes(&state), table::addresses(&state, coupon));
    if arguments.demo {
        return crate::demo::demo(&crate::demo::defaults(&arguments.place), interrupt, progress);
    }
    Ok(ExitCode::SUCCESS)
}

fn follow(
    folder: &Folder,
    supervisor: &mut std::process::Child,
    interrupt: &Interrupt,
    progress: &Progress,
) -> Result<State> {
    let log_path = folder.log("xtask");
    let mut log = BufReader::new(File::open(&log_path)?);
    let pid = i32::try_from(supervisor.id())?;
    let step = progress.step("starting");
    loop {
        let mut line = String::new();
        while log.read_line(&mut line)? > 0 {
            if !line.ends_with('\n') {
                // The rest of the line is yet to come.
                log.seek_relative(-i64::try_from(line.len())?)?;
                break;
            }
            // The table is printed here once more, for this terminal.
            if line.starts_with('[') {
                progress.pass_on(line.trim_end());
            }
            line.clear();
        }
        if let Ok(state) = folder.read_state()
            && state.supervisor.pid == pid
            && state.phase == Phase::Ready
        {
            step.clear();
            return Ok(state);
        }
        if let Some(status) = supervisor.try_wait()? {
            step.clear();
            let text = fs::read_to_string(&log_path).unwrap_or_default();
            bail!("the supervisor ended ({status})\n{}", tail(&text, 20));
        }
        interrupt.check()?;
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub(crate) fn status(folder: &Folder, json: bool) -> Result<ExitCode> {
    let mut state = folder.read_state()?;
    let running = Lock::take(folder)?.is_none();
    if !running {
        state.phase = Phase::Stopped;
        for server in &mut state.servers {
            (server.process.running, server.process.ready) = (false, false);
        }
        for service in &mut state.services {
            (service.process.running, service.process.ready) = (false, false);
        }
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&state)?);
    } else {
        let coupon = running.then(|| first_coupon::known(folder)).flatten();
        println!("{}\n{}", table::processes(&state), table::addresses(&state, coupon));
        println!("{}", table::summary(&state));
    }
    Ok(if running { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(crate) fn down(folder: &Folder) -> Result<ExitCode> {
    let progress = Progress::new();
    if !folder.run().is_dir() {
        println!("nothing runs in {}", folder.root().display());
        return Ok(ExitCode::SUCCESS);
    }
    end_supervisor(folder, DOWN_PATIENCE, &progress)?;
    // Whatever ended the supervisor, nothing of the run outlives this.
    stack::clean(folder, &progress)?;
    println!("stopped");
    Ok(ExitCode::SUCCESS)
}

fn end_supervisor(folder: &Folder, patience: Duration, progress: &Progress) -> Result<()> {
    if Lock::take(folder)?.is_some() {
        return Ok(());
    }
    let step = progress.step("stopping");
    // As it wrote itself down at its start: the state may be of an earlier one, whose pid is somebody else's now.
    let supervisor = folder.read_state().ok().map(|state| state.supervisor);
    if control::ask(folder, &Request::Down).is_err()
        && let Some(supervisor) = supervisor.as_ref().filter(|it| it.alive())
    {
        process::signal_process(supervisor.pid, Signal::SIGTERM);
    }
    let deadline = Instant::now() + patience;
    while Lock::take(folder)?.is_none() {
        if Instant::now() > deadline {
            step.clear();
            let Some(supervisor) = supervisor.filter(Record::alive) else {
                bail!("{} is in use, but its supervisor is not known", folder.root().display());
            };
            progress.note(&format!("the supervisor (pid {}) does not end: killing it", supervisor.pid));
            process::signal_process(supervisor.pid, Signal::SIGKILL);
            while supervisor.alive() {
                std::thread::sleep(Duration::from_millis(10));
            }
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    step.clear();
    Ok(())
}

pub(crate) fn reset(folder: &Folder) -> Result<ExitCode> {
    let ours = folder.is_ours();
    down(folder)?;
    if folder.root().is_dir() {
        if !ours {
            bail!("{} was not made by `cargo xtask up`: not removed", folder.root().display());
        }
        fs::remove_dir_all(folder.root()).with_context(|| format!("remove {}", folder.root().display()))?;
        println!("removed {}", folder.root().display());
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests;
