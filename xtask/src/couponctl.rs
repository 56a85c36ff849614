//! Runs the operator's tool against the running stack: its live display on our standard error, its JSON to us.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::interrupt::{Interrupt, Tool};
use crate::process;
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

    /// The same, while something else goes on.
    pub(crate) fn begin_load(&self, arguments: &[&str]) -> Result<Running> {
        let mut all = vec!["load", "--quiet"];
        all.extend(arguments);
        Ok(Running { tool: self.start(&all)? })
    }

    /// Its signing key is the next one from now on. `couponctl` can't know that nobody holds an older key set than the
    /// one that names it, and that no token of the key before is in use.
    pub(crate) fn rotate_keys(&self) -> Result<Value> {
        self.run(&["keys", "rotate", "--force"])
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
        let told = end_of(self.start(arguments)?)?;
        self.interrupt.check()?;
        Ok(told)
    }

    fn start(&self, arguments: &[&str]) -> Result<Tool> {
        let mut command = Command::new(&self.program);
        command.args(arguments).arg("--state").arg(&self.folder).arg("--json");
        self.interrupt.spawn(&command, (Stdio::piped(), Stdio::inherit()))
    }
}

/// The JSON on its last line, and whether it succeeded.
fn end_of(mut tool: Tool) -> Result<(Value, bool)> {
    let mut last = String::new();
    if let Some(pipe) = tool.child.stdout.take() {
        for line in BufReader::new(pipe).lines() {
            last = line?;
        }
    }
    let status = tool.child.wait()?;
    Ok((serde_json::from_str(&last).unwrap_or(Value::String(last)), status.success()))
}

/// A load under way; killed when it is dropped.
pub(crate) struct Running {
    tool: Tool,
}

impl Running {
    /// Sends no more, and waits for the answers to what was sent.
    pub(crate) fn stop(self) -> Result<Value> {
        process::signal_process(i32::try_from(self.tool.child.id())?, Signal::SIGINT);
        self.wait()
    }

    /// Waits until all of it is sent and answered.
    pub(crate) fn wait(self) -> Result<Value> {
        let (value, success) = end_of(self.tool)?;
        if !success {
            bail!("couponctl load failed: {value}");
        }
        Ok(value)
    }
}

pub(crate) fn text(path: &Path) -> String {
    path.display().to_string()
}
