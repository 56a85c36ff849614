//! Runs the operator's tool against the running stack: its live display on our standard error, its JSON to us.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::interrupt::Interrupt;
use crate::state::{Folder, State};

pub(crate) struct Couponctl {
    program: PathBuf,
    interrupt: Interrupt,
    folder: PathBuf,
}

impl Couponctl {
    pub(crate) fn new(state: &State, folder: &Folder, interrupt: &Interrupt) -> Result<Self> {
        let program = state.couponctl.clone().context("the stack was started without couponctl")?;
        Ok(Self { program, interrupt: interrupt.clone(), folder: folder.root().to_owned() })
    }

    /// `count` new users with signed tokens.
    pub(crate) fn tokens(&self, count: u64, out: &Path) -> Result<Value> {
        self.run(&["tokens", "--count", &count.to_string(), "--out", &text(out)])
    }

    /// A load as the arguments say; the JSON that it ends with.
    pub(crate) fn load(&self, arguments: &[&str]) -> Result<Value> {
        let mut all = vec!["load"];
        all.extend(arguments);
        self.run(&all)
    }

    /// An audit that finds faults ends without success, and its JSON says which. It decides the log of the coupon's
    /// partition once more.
    /// `patience` is for those who may be behind: consumers, write-back, Redis.
    pub(crate) fn audit(
        &self,
        coupon: u64,
        answers: &[PathBuf],
        patience: &str,
        more: &[&str],
    ) -> Result<Value> {
        let coupon = coupon.to_string();
        let answers: Vec<String> = answers.iter().map(|file| text(file)).collect();
        let mut arguments = vec!["audit", "--coupon", &coupon, "--replay", "--wait", patience, "--answers"];
        arguments.extend(answers.iter().map(String::as_str));
        arguments.extend(more);
        let (value, success) = self.output(&arguments)?;
        if !success && value["checks"].is_null() {
            bail!("couponctl audit failed: {value}");
        }
        Ok(value)
    }

    fn run(&self, arguments: &[&str]) -> Result<Value> {
        let (value, success) = self.output(arguments)?;
        if !success {
            bail!("couponctl {} failed: {value}", arguments[0]);
        }
        Ok(value)
    }

    fn output(&self, arguments: &[&str]) -> Result<(Value, bool)> {
        let mut command = Command::new(&self.program);
        command.args(arguments).arg("--state").arg(&self.folder).arg("--json");
        let mut tool = self.interrupt.spawn(&command, (Stdio::piped(), Stdio::inherit()))?;
        let mut last = String::new();
        if let Some(pipe) = tool.child.stdout.take() {
            for line in BufReader::new(pipe).lines() {
                last = line?;
            }
        }
        let status = tool.child.wait()?;
        self.interrupt.check()?;
        Ok((serde_json::from_str(&last).unwrap_or(Value::String(last)), status.success()))
    }
}

pub(crate) fn text(path: &Path) -> String {
    path.display().to_string()
}
