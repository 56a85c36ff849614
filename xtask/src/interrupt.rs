//! What Ctrl-C and SIGTERM do: the first asks for an orderly stop, the second kills at once.
//!
//! The signals are blocked in every thread (children start with a clean mask) and taken by one waiting thread, so no
//! code runs in signal context.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{SigSet, Signal};

type OnHard = Box<dyn Fn() + Send>;

/// Shared by everything that waits.
#[derive(Clone, Default)]
pub(crate) struct Interrupt {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    requested: AtomicBool,
    /// Leading pids of short-lived tools (builds, downloads).
    tools: Mutex<Vec<i32>>,
    on_hard: Mutex<Option<OnHard>>,
}

impl Interrupt {
    /// Call once, before any other thread starts.
    pub(crate) fn install() -> Result<Self> {
        let interrupt = Self::default();
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            signals.add(signal);
        }
        signals.thread_block().context("block signals")?;
        let shared = interrupt.clone();
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            while signals.wait().is_ok() {
                if shared.requested() {
                    shared.hard();
                }
                shared.request();
            }
        })?;
        Ok(interrupt)
    }

    /// Asks for an orderly stop and ends the tools that run.
    pub(crate) fn request(&self) {
        self.inner.requested.store(true, Ordering::SeqCst);
        self.end_tools();
    }

    /// Ends the tools that run, where something else has failed already.
    pub(crate) fn end_tools(&self) {
        for pid in self.inner.tools.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            crate::process::signal_group(*pid, Signal::SIGTERM);
        }
    }

    pub(crate) fn requested(&self) -> bool {
        self.inner.requested.load(Ordering::SeqCst)
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.requested() {
            bail!("interrupted");
        }
        Ok(())
    }

    /// What the second signal does before the process exits.
    pub(crate) fn on_hard(&self, action: impl Fn() + Send + 'static) {
        *self.inner.on_hard.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(action));
    }

    fn hard(&self) -> ! {
        if let Some(action) = &*self.inner.on_hard.lock().unwrap_or_else(PoisonError::into_inner) {
            action();
        }
        std::process::exit(130);
    }

    /// Waits, in short steps, until `done` answers or the user interrupts.
    pub(crate) fn wait_until<T>(&self, mut done: impl FnMut() -> Option<T>) -> Result<T> {
        loop {
            if let Some(value) = done() {
                return Ok(value);
            }
            self.check()?;
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts a tool in a process group of its own that ends with an interrupt.
    pub(crate) fn spawn(&self, command: &Command, output: (Stdio, Stdio)) -> Result<Tool> {
        self.check()?;
        let name = command.get_program().to_string_lossy().into_owned();
        let child = wrapped(command)
            .stdin(Stdio::null())
            .stdout(output.0)
            .stderr(output.1)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let pid = i32::try_from(child.id()).context("pid")?;
        self.inner.tools.lock().unwrap_or_else(PoisonError::into_inner).push(pid);
        Ok(Tool { child, pid, interrupt: self.clone() })
    }

    /// Runs a tool to its end; an error carries the tail of what it said.
    pub(crate) fn run(&self, command: &Command) -> Result<String> {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut tool = self.spawn(command, (Stdio::piped(), Stdio::piped()))?;
        let stderr = tool.child.stderr.take().map(|mut pipe| {
            std::thread::spawn(move || {
                let mut text = String::new();
                let _ = std::io::Read::read_to_string(&mut pipe, &mut text);
                text
            })
        });
        let mut stdout = String::new();
        if let Some(mut pipe) = tool.child.stdout.take() {
            let _ = std::io::Read::read_to_string(&mut pipe, &mut stdout);
        }
        let stderr = stderr.and_then(|thread| thread.join().ok()).unwrap_or_default();
        let status = tool.child.wait()?;
        self.check()?;
        if !status.success() {
            bail!("{name} failed ({status}): {}", gist(&format!("{stdout}\n{stderr}")));
        }
        Ok(stdout)
    }
}

/// The same command by way of the wrapper that ties its life to ours.
fn wrapped(command: &Command) -> Command {
    let arguments: Vec<String> = command.get_args().map(|it| it.to_string_lossy().into_owned()).collect();
    let mut wrapped = crate::process::child_command(None, Path::new(command.get_program()), &arguments);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        wrapped.current_dir(folder);
    }
    wrapped
}

/// A running tool; forgotten by the interrupt when dropped.
pub(crate) struct Tool {
    pub(crate) child: Child,
    pid: i32,
    interrupt: Interrupt,
}

impl Drop for Tool {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            crate::process::signal_group(self.pid, Signal::SIGKILL);
            let _ = self.child.wait();
        }
        let mut tools = self.interrupt.inner.tools.lock().unwrap_or_else(PoisonError::into_inner);
        tools.retain(|pid| *pid != self.pid);
    }
}

/// The first lines that speak of an error, or else the last ones.
fn gist(text: &str) -> String {
    let telling = |line: &&str| {
        let line = line.to_lowercase();
        line.contains("error") || line.starts_with("e: ") || line.starts_with("fatal")
    };
    let lines: Vec<&str> = text.lines().filter(telling).take(3).collect();
    if lines.is_empty() { tail(text, 5) } else { lines.join("\n") }
}

/// The last lines that are not blank.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let lines_of_text: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines_of_text[lines_of_text.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gist_of_an_output() {
        assert_eq!(gist("a\nE: no package x\nb\n"), "E: no package x");
        assert_eq!(gist("a\n\nb\n"), "a\nb");
    }

    #[test]
    fn a_tool_that_fails_tells_why() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo fatal: no such thing >&2; exit 3"]);
        let error = Interrupt::default().run(&command).unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.ends_with("fatal: no such thing"), "{error}");
    }

    #[test]
    fn after_an_interrupt_no_tool_starts() {
        let interrupt = Interrupt::default();
        interrupt.request();
        assert_eq!(interrupt.run(&Command::new("true")).unwrap_err().to_string(), "interrupted");
    }
}
