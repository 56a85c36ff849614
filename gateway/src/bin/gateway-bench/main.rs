//! `gateway-bench`: what the gateway costs, beside nginx as a proxy and the bare service behind both.
//!
//! `cargo xtask bench gateway` starts it. Everything runs as it would elsewhere: the gateway's own release binary with
//! the settings of the configuration repository, nginx, and a Redis with ended logins in it; the one client is a raw
//! socket, the same for all. Progress goes to standard error, the outcome into a file.
#![expect(clippy::print_stderr, reason = "progress and errors are for whoever runs it")]

mod client;
mod figures;
mod fresh;
mod ground;
mod idle;
mod proxied;
mod report;
mod server;
mod tokens;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::unistd::{getpgrp, getpid};
use platform::lifecycle::BoxError;
use serde_json::json;

use ground::Ground;
use report::{Progress, Report};

/// Both ends of the idle connections, and what else is open.
const OPEN_FILES: u64 = 30_000;

/// Measures the gateway. Run it by `cargo xtask bench`.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The binary `gateway`
    #[arg(long)]
    gateway: PathBuf,
    #[arg(long)]
    nginx: PathBuf,
    /// The binary `redis-server`
    #[arg(long)]
    redis: PathBuf,
    /// The configuration repository
    #[arg(long)]
    config: PathBuf,
    /// For files of the run; has to exist
    #[arg(long)]
    folder: PathBuf,
    /// Where the outcome goes, as JSON
    #[arg(long, default_value = "gateway-bench.json")]
    out: PathBuf,
    /// A tenth of the time for all but idle connections, to try it out
    #[arg(long)]
    quick: bool,
}

fn main() -> ExitCode {
    match measure(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<(), BoxError> {
    end_all_by_signal()?;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // What is started inherits it.
    setrlimit(Resource::RLIMIT_NOFILE, most.min(OPEN_FILES), most)?;
    let share = if arguments.quick { 10 } else { 1 };
    let mut ground = Ground::prepare(arguments)?;
    let mut progress = Progress::new(proxied::STEPS + fresh::STEPS + idle::STEPS);
    let proxied = proxied::measure(&ground, share, &mut progress)?;
    let fresh = fresh::measure(&ground, share, &mut progress)?;
    let idle = idle::measure(&mut ground, &mut progress)?;
    let report = Report {
        title: "What the gateway costs",
        about: ground.about(),
        sections: vec![proxied.section, fresh.section, idle.section, ground.configurations()],
        checks: proxied.checks.into_iter().chain(idle.checks).collect(),
        figures: json!({"proxied": proxied.figures, "freshTokens": fresh.figures, "idle": idle.figures}),
    };
    std::fs::write(&arguments.out, serde_json::to_vec(&report)?)?;
    Ok(())
}

/// A signal ends what was started, too. Call it before any other thread starts.
fn end_all_by_signal() -> Result<(), BoxError> {
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    signals.thread_block()?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if signals.wait().is_ok() {
            // All of them are of this group; whoever shares one with others has to look for himself.
            if getpgrp() == getpid() {
                let _ = killpg(getpgrp(), Signal::SIGTERM);
            }
            std::process::exit(1);
        }
    })?;
    Ok(())
}
