//! `bench`: measurements, each kept as a report with the commit and the machine that it ran on.

mod gateway;
mod issue;
mod outcome;
mod program;
mod rolling;
mod smoke;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;

use crate::build::workspace;
use crate::cli::Bench;
use crate::first_coupon::{now, rfc3339};
use crate::up;

pub(crate) fn bench(what: Bench) -> Result<ExitCode> {
    match what {
        Bench::Smoke { place, out } => smoke::smoke(&up::folder(&place)?, out),
        Bench::Sink(arguments) => issue::measure("sink", &arguments),
        Bench::Promise(arguments) => issue::measure("promise", &arguments),
        Bench::Retire(arguments) => issue::measure("retire", &arguments),
        Bench::Start(arguments) => issue::measure("start", &arguments),
        Bench::Gateway(arguments) => gateway::measure(&arguments),
        Bench::Rolling(arguments) => rolling::rolling(&arguments),
    }
}

/// Writes a report where it was asked for, else to its place in the docs, and tells where.
fn keep(name: &str, out: Option<PathBuf>, report: &str) -> Result<PathBuf> {
    let out = out.unwrap_or_else(|| workspace().join(format!("docs/benchmarks/{name}.md")));
    if let Some(parent) = out.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(&out, report)?;
    Ok(out)
}

/// When, what and where.
fn provenance(commit: Option<&str>) -> Result<String> {
    let commit = commit.map_or_else(|| "unknown".to_owned(), short);
    Ok(format!("{}, commit {commit}, {}", rfc3339(now()?), machine()))
}

/// Of a commit's id as many digits as people compare, and its mark for a changed tree.
pub(crate) fn short(commit: &str) -> String {
    let (id, mark) = commit.strip_suffix('+').map_or((commit, ""), |id| (id, "+"));
    format!("{}{mark}", &id[..id.len().min(9)])
}

pub(crate) fn machine() -> String {
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
    format!("{processors} cores of {model}, {} GiB", (kib + (1 << 19)) >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_shortened_and_keep_their_mark() {
        assert_eq!(short("0123456789abcdef"), "012345678");
        assert_eq!(short("0123456789abcdef+"), "012345678+");
    }
}
