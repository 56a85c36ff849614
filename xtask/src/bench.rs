//! `bench smoke`: what the running stack weighs and how quick it is, as a report with the machine that it ran on.
//!
//! Every figure comes from this run; every claim's load is audited, and a load that does not add up has no figures.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::build::workspace;
use crate::couponctl::{Couponctl, text};
use crate::first_coupon::{admin_token, create, now, rfc3339};
use crate::http::Client;
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::state::{Folder, Phase, ProcessState, State};

const OPEN: Duration = Duration::from_secs(24 * 3600);
/// Of the race: as many as there are users is no race.
const STOCK: u32 = 1_000;
const USERS: u64 = 15_000;
/// Enough that nobody is refused in a closed loop.
const PLENTY: u32 = 10_000_000;
/// Tokens for a closed loop; it ends earlier by time where the machine is slower.
const CLOSED_TOKENS: u64 = 300_000;
const CLOSED_FOR: &str = "10s";

pub(crate) fn smoke(folder: &Folder, out: Option<PathBuf>) -> Result<ExitCode> {
    let interrupt = Interrupt::install()?;
    let progress = Progress::new();
    let state = folder.read_state().context("nothing runs here: start it by `cargo xtask up`")?;
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
    let report = bench.run()?;
    fs::remove_dir_all(&bench.place)?;
    let out = out.unwrap_or_else(|| workspace().join("docs/benchmarks/smoke.md"));
    if let Some(parent) = out.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(&out, &report)?;
    println!("{report}\nwritten to {}", out.display());
    Ok(ExitCode::SUCCESS)
}

struct Bench {
    couponctl: Couponctl,
    client: Client,
    gateway: String,
    state: State,
    place: PathBuf,
    progress: Progress,
}

impl Bench {
    fn run(&self) -> Result<String> {
        let race = self.claims("race", STOCK, USERS, &["--ramp", "1s", "--repeat", "2"])?;
        let memory = self.memory()?;
        let steady = self.claims("750 arrivals/s", PLENTY, USERS, &["--rate", "750", "--duration", "20s"])?;
        let mut closed = Vec::new();
        for connections in ["64", "256"] {
            let name = format!("{connections} connections");
            let noop = self.noop(connections)?;
            let shape = ["--connections", connections, "--duration", CLOSED_FOR];
            closed.push((connections, self.claims(&name, PLENTY, CLOSED_TOKENS, &shape)?, noop));
        }
        self.report(&race, &memory, &steady, &closed)
    }

    /// A load of claims on a coupon of its own, audited.
    fn claims(&self, name: &str, stock: u32, users: u64, shape: &[&str]) -> Result<Value> {
        let step = self.progress.step(name);
        let token = admin_token(&self.client, &self.state)?;
        let coupon = create(&self.client, &self.gateway, &token, name, stock, OPEN)?;
        let (tokens, answers) = (self.place.join("tokens.csv"), self.place.join("claims.ndjson"));
        step.say("signing tokens");
        self.couponctl.tokens(users, &tokens)?;
        step.say("claiming");
        let id = coupon.to_string();
        let mut arguments = vec!["--coupon", &id];
        let (tokens, answers_text) = (text(&tokens), text(&answers));
        arguments.extend(["--tokens", &tokens, "--answers", &answers_text, "--follow-pending", "30s"]);
        arguments.extend(shape);
        let load = self.couponctl.load(&arguments)?;
        step.say("auditing");
        // A machine driven to its limit makes Redis late, and whoever passed without it is not in its set; the rows
        // and the answers must add up all the same.
        let audit = self.couponctl.audit(coupon, &answers, &["--redis-may-differ"])?;
        if audit["ok"] != true {
            bail!("{name}: the audit of coupon {coupon} failed: {}", audit["checks"]);
        }
        step.done("adds up");
        Ok(load)
    }

    /// The same client on a route that the gateway answers by itself; each token used once, too.
    fn noop(&self, connections: &str) -> Result<Value> {
        let step = self.progress.step(&format!("no-op, {connections}"));
        let tokens = self.place.join("tokens.csv");
        self.couponctl.tokens(CLOSED_TOKENS, &tokens)?;
        let tokens = text(&tokens);
        let shape =
            ["--path", "/noop", "--tokens", &tokens, "--connections", connections, "--duration", CLOSED_FOR];
        let load = self.couponctl.load(&shape)?;
        step.done("measured");
        Ok(load)
    }

    /// Resident memory of each of our processes, in KiB.
    fn memory(&self) -> Result<Vec<(String, u64)>> {
        let of = |service: &crate::state::ServiceState| {
            let pid = service.process.pid.context("not running")?;
            let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
            Ok((service.instance.clone(), resident(&status).context("no VmRSS")?))
        };
        self.state.services.iter().map(of).collect()
    }

    fn report(
        &self,
        race: &Value,
        memory: &[(String, u64)],
        steady: &Value,
        closed: &[(&str, Value, Value)],
    ) -> Result<String> {
        let mut text =
            String::from("# Smoke benchmark\n\nBy `cargo xtask bench smoke`, which rewrites this file. ");
        writeln!(text, "Client, services and servers share one machine; figures say the order of size.\n")?;
        writeln!(text, "{}, commit {}, {}\n", rfc3339(now()?), commit(), machine())?;
        writeln!(
            text,
            "## Size and start\n\nMemory after a race of {USERS} users, each asking twice in parallel, for {STOCK} coupons; "
        )?;
        writeln!(
            text,
            "start from the process's begin until Consul finds it ready (its check runs once a second).\n"
        )?;
        writeln!(text, "| process | resident MiB | ready after ms |\n|---|---:|---:|")?;
        for (name, kib) in memory {
            let service = self.state.services.iter().find(|service| service.instance == *name);
            let started = service.map(|it| started(&it.process)).unwrap_or_default();
            writeln!(text, "| {name} | {:.1} | {started} |", mib(*kib))?;
        }
        let sum: u64 = memory.iter().map(|(_, kib)| kib).sum();
        writeln!(text, "| together | {:.1} | |\n", mib(sum))?;
        writeln!(
            text,
            "## Claims\n\nThrough the gateway, each user's token used once; every load was audited and adds up.\n"
        )?;
        writeln!(
            text,
            "| load | answers/s | p50 ms | p90 ms | p99 ms | max ms |\n|---|---:|---:|---:|---:|---:|"
        )?;
        row(&mut text, "race: 30,000 claims within 1 s, 1,000 coupons", race)?;
        row(&mut text, "750 arrivals/s for 20 s, all win", steady)?;
        for (connections, claims, noop) in closed {
            row(&mut text, &format!("closed loop, {connections} connections, all win"), claims)?;
            row(&mut text, &format!("the same client on the gateway's no-op route, {connections}"), noop)?;
        }
        Ok(text)
    }
}

fn row(text: &mut String, name: &str, load: &Value) -> Result<()> {
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let latency = &load["latencyMs"];
    let percentile = |key: &str| number(&latency[key]);
    writeln!(
        text,
        "| {name} | {:.0} | {:.1} | {:.1} | {:.1} | {:.1} |",
        number(&load["rate"]),
        percentile("p50"),
        percentile("p90"),
        percentile("p99"),
        percentile("max")
    )?;
    Ok(())
}

fn started(process: &ProcessState) -> String {
    process.started_in_ms.map(|ms| ms.to_string()).unwrap_or_default()
}

fn mib(kib: u64) -> f64 {
    // Sizes of processes are far below the 2^53 that a f64 counts exactly.
    #[expect(clippy::cast_precision_loss, reason = "rounded for people")]
    let kib = kib as f64;
    kib / 1_024.0
}

/// KiB of `VmRSS` in `/proc/PID/status`.
fn resident(status: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok())
}

fn commit() -> String {
    let output = Command::new("git").args(["rev-parse", "--short", "HEAD"]).current_dir(workspace()).output();
    output.map(|it| String::from_utf8_lossy(&it.stdout).trim().to_owned()).unwrap_or_default()
}

fn machine() -> String {
    let read = |path: &str| fs::read_to_string(Path::new(path)).unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let cpu = read("/proc/cpuinfo");
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name")?.split(':').nth(1)).unwrap_or("?").trim();
    let memory = read("/proc/meminfo");
    let kib: u64 = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok())
        .unwrap_or_default();
    format!("{processors} cores of {model}, {:.0} GiB", mib(kib) / 1_024.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn resident_memory() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t   12345 kB\n"), Some(12_345));
        assert_eq!(resident("Name:\tx\n"), None);
    }

    #[test]
    fn a_row_of_the_report() {
        let mut text = String::new();
        let load = json!({"rate": 750.02, "latencyMs": {"p50": 1.25, "p90": 2.0, "p99": 5.0, "max": 9.0}});
        row(&mut text, "x", &load).unwrap();
        assert_eq!(text, "| x | 750 | 1.2 | 2.0 | 5.0 | 9.0 |\n");
    }
}
