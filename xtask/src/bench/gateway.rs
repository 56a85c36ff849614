//! Benchmark of the gateway beside nginx: builds `gateway-bench`, finds or gets nginx and Redis, and keeps what it finds.

use std::fs;
use std::process::{Command, ExitCode};

use anyhow::Result;

use super::program::{self, load_average};
use crate::build::{self, workspace};
use crate::cli::Measure;
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::servers::fetch::Fetch;
use crate::servers::{nginx, redis};
use crate::tools;

const NAME: &str = "gateway";
const PROGRAM: &str = "gateway-bench";

pub(super) fn measure(arguments: &Measure) -> Result<ExitCode> {
    let interrupt = Interrupt::install()?;
    let progress = Progress::new();
    tools::for_builds(&interrupt, &progress)?;
    let fetch = Fetch::new(interrupt.clone(), progress.clone())?;
    let (nginx, redis) = (nginx::obtain(&fetch)?, redis::obtain(&fetch)?);
    let binaries = build::build_benchmarks(&[NAME], &interrupt, &progress)?;
    let folder = workspace().join("target/gateway-bench");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let out = folder.join("bench.json");
    let config = workspace().join("config-repo");
    let mut command = Command::new(binaries.path(PROGRAM)?);
    for (option, value) in [
        ("--gateway", binaries.path(NAME)?),
        ("--nginx", nginx.path.as_path()),
        ("--redis", redis.path.as_path()),
        ("--config", config.as_path()),
        ("--folder", folder.as_path()),
        ("--out", out.as_path()),
    ] {
        command.arg(option).arg(value);
    }
    if arguments.quick {
        command.arg("--quick");
    }
    // Where they were unpacked, they bring their libraries along.
    let libraries: Vec<String> =
        nginx.environment.into_iter().chain(redis.environment).map(|(_, value)| value).collect();
    if !libraries.is_empty() {
        command.env("LD_LIBRARY_PATH", libraries.join(":"));
    }
    let load = load_average();
    let outcome = program::run(&command, NAME, &folder.join("bench.log"), &out, &interrupt, &progress)?;
    let about = format!("Load average of the machine before it: {load}.");
    outcome.publish(NAME, arguments, binaries.commit(), &load, &about)
}
