//! Runs a program that measures, shows how far it is, and takes what it found.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use super::outcome::Outcome;
use crate::interrupt::{Interrupt, tail};
use crate::progress::Progress;

/// `out` is where the program was told to leave its outcome.
pub(super) fn run(
    command: &Command,
    name: &str,
    log: &Path,
    out: &Path,
    interrupt: &Interrupt,
    progress: &Progress,
) -> Result<Outcome> {
    let mut tool = interrupt.spawn(command, (File::create(log)?.into(), Stdio::piped()))?;
    let mut said = Vec::new();
    if let Some(pipe) = tool.child.stderr.take() {
        said = show(BufReader::new(pipe), name, progress)?;
    }
    let status = tool.child.wait()?;
    interrupt.check()?;
    if !status.success() {
        bail!("the benchmark failed ({status})\n{}", why(&said, log));
    }
    Outcome::read(out)
}

/// Lines such as `3/12 what comes next` move a bar; all others are returned.
fn show(lines: impl BufRead, name: &str, progress: &Progress) -> Result<Vec<String>> {
    let mut bar = None;
    let mut others = Vec::new();
    for line in lines.lines() {
        let line = line?;
        let Some((done, total, text)) = step(&line) else {
            others.push(line);
            continue;
        };
        let bar = bar.get_or_insert_with(|| progress.bar(name, total));
        bar.position(done);
        bar.say(&format!("{done} of {total}: {text}"));
    }
    if let Some(bar) = bar {
        bar.done("measured");
    }
    Ok(others)
}

fn step(line: &str) -> Option<(u64, u64, &str)> {
    let (count, text) = line.split_once(' ')?;
    let (done, total) = count.split_once('/')?;
    Some((done.parse().ok()?, total.parse().ok()?, text))
}

/// What it said itself, else the end of its log.
fn why(said: &[String], log: &Path) -> String {
    if said.is_empty() { tail(&fs::read_to_string(log).unwrap_or_default(), 10) } else { said.join("\n") }
}

/// Of the last minute.
pub(super) fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_told_from_other_lines() {
        assert_eq!(step("3/12 one coupon: 5/6 of it"), Some((3, 12, "one coupon: 5/6 of it")));
        assert_eq!(step("error: no/where to go"), None);
        let lines = "0/2 begin\nerror: broken\n1/2 go on\n";
        let others = show(lines.as_bytes(), "sink", &Progress::new()).unwrap();
        assert_eq!(others, ["error: broken"]);
    }
}
