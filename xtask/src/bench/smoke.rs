//! `bench smoke`: what the running stack weighs and how quick it is, as a report with the machine that it ran on.
//!
//! Every figure comes from this run and stands beside its ceiling. Every claims' load is audited, and a load that does
//! not add up has no figures. It fails where a promise is broken or a limit is reached.

mod loads;
mod processes;
mod race;

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use console::style;
use serde_json::Value;

use self::loads::Load;
use self::processes::Process;
use self::race::Race;
use super::{keep, provenance};
use crate::couponctl::{Couponctl, text};
use crate::first_coupon::{admin_token, create};
use crate::http::Client;
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::state::{Folder, Phase, State};

const OPEN: Duration = Duration::from_secs(24 * 3600);
/// Enough that nobody is refused in a closed loop.
const PLENTY: u32 = 10_000_000;
const STEADY_USERS: u64 = 15_000;
/// Tokens for a closed loop; it ends earlier by time where the machine is slower.
const CLOSED_TOKENS: u64 = 300_000;
const CLOSED_FOR: &str = "10s";

pub(crate) fn smoke(folder: &Folder, out: Option<PathBuf>) -> Result<ExitCode> {
    let interrupt = Interrupt::install()?;
    let progress = Progress::new();
    let state = folder.read_state()?;
    if state.phase != Phase::Ready {
        bail!("the stack is not ready: see `cargo xtask status`");
    }
    let place = folder.root().join("bench");
    fs::create_dir_all(&place)?;
    let bench = Bench {
        couponctl: Couponctl::new(&state, folder, &interrupt)?,
        client: Client::new(Duration::from_secs(10)),
        gateway: state.gateway.clone().context("only servers run here: start all by `cargo xtask up`")?,
        state,
        place,
        progress,
    };
    let measured = bench.run()?;
    let report = measured.report(bench.state.commit.as_deref())?;
    fs::remove_dir_all(&bench.place)?;
    let out = keep("smoke", out, &report)?;
    println!("{report}\nwritten to {}", out.display());
    let faults = processes::faults(&measured.processes);
    for fault in &faults {
        println!("{} {fault}", style("LIMIT REACHED:").red().bold());
    }
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Bench {
    couponctl: Couponctl,
    client: Client,
    gateway: String,
    state: State,
    place: PathBuf,
    progress: Progress,
}

/// All figures of a run.
struct Measured {
    race: Race,
    processes: Vec<Process>,
    loads: Vec<Load>,
}

impl Bench {
    fn run(&self) -> Result<Measured> {
        let (race, claims) = self.race()?;
        let faults = race.faults();
        if !faults.is_empty() {
            bail!("the race does not add up: {}", faults.join("; "));
        }
        // Before anything else uses memory.
        std::thread::sleep(processes::REST);
        let processes = processes::read(&self.state.services)?;
        let shape: Vec<&str> = race::SHAPE.to_vec();
        let mut loads = vec![self.with_ceiling(race::TITLE, claims, race::USERS, &shape)?];
        let steady = ["--rate", "750", "--duration", "20s"];
        loads.push(self.winners("750 arrivals/s for 20 s, all win", STEADY_USERS, &steady)?);
        for connections in ["64", "256"] {
            let title = format!("closed loop, {connections} connections, all win");
            let shape = ["--connections", connections, "--duration", CLOSED_FOR];
            loads.push(self.winners(&title, CLOSED_TOKENS, &shape)?);
        }
        Ok(Measured { race, processes, loads })
    }

    /// A load of claims that all win, and its ceiling.
    fn winners(&self, title: &str, users: u64, shape: &[&str]) -> Result<Load> {
        let step = self.progress.step(title);
        let coupon = self.coupon(title, PLENTY)?;
        let (claims, answers) = self.claims(coupon, users, shape)?;
        step.say("auditing");
        // A machine driven to its limit makes Redis late, and whoever passed without it is not in its set; the rows
        // and the answers must add up all the same.
        let audit = self.couponctl.audit(coupon, &[answers], "60s", &["--redis-may-differ"])?;
        if audit["ok"] != true {
            bail!("{title}: the audit of coupon {coupon} failed: {}", audit["checks"]);
        }
        step.done("adds up");
        self.with_ceiling(title, claims, users, shape)
    }

    fn coupon(&self, name: &str, stock: u32) -> Result<u64> {
        let token = admin_token(&self.client, &self.state)?;
        create(&self.client, &self.gateway, &token, name, stock, OPEN)
    }

    /// What the load says, and the file with its answers.
    fn claims(&self, coupon: u64, users: u64, shape: &[&str]) -> Result<(Value, PathBuf)> {
        let (tokens, answers) = (self.tokens(users)?, self.place.join("claims.ndjson"));
        let (id, record) = (coupon.to_string(), text(&answers));
        let mut arguments = vec!["--coupon", &id, "--tokens", &tokens, "--answers", &record];
        arguments.extend(["--follow-pending", "30s"]);
        arguments.extend(shape);
        Ok((self.couponctl.load(&arguments)?, answers))
    }

    /// The same client and shape on a route that the gateway answers by itself; new tokens here, too.
    fn with_ceiling(&self, title: &str, claims: Value, users: u64, shape: &[&str]) -> Result<Load> {
        let step = self.progress.step("its ceiling");
        let tokens = self.tokens(users)?;
        let mut arguments = vec!["--path", "/noop", "--tokens", &tokens];
        arguments.extend(shape);
        let ceiling = self.couponctl.load(&arguments)?;
        step.done("measured");
        Ok(Load { title: title.to_owned(), claims, ceiling })
    }

    fn tokens(&self, users: u64) -> Result<String> {
        let tokens = self.place.join("tokens.csv");
        self.couponctl.tokens(users, &tokens)?;
        Ok(text(&tokens))
    }
}

impl Measured {
    fn report(&self, commit: Option<&str>) -> Result<String> {
        let mut text = String::from("# Smoke benchmark\n\n");
        writeln!(
            text,
            "By `cargo xtask bench smoke`, which rewrites this file and fails where a limit is reached. \
             Client, services and servers share one machine; figures say the order of size.\n"
        )?;
        writeln!(text, "{}\n", provenance(commit)?)?;
        processes::write(&mut text, &self.processes)?;
        self.race.write(&mut text)?;
        loads::write(&mut text, &self.loads)?;
        Ok(text)
    }
}
