//! What can be done to a child on purpose: killed, kept from coming back, frozen.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;

use super::{Child, Comeback, Supervisor};
use crate::interrupt::Interrupt;

/// From the signal until nothing is left of a process, its connections included.
const GONE_WITHIN: Duration = Duration::from_secs(10);

impl Supervisor {
    /// SIGKILL: the child stays wanted and comes back.
    pub(crate) fn kill(&self, child: &Child) -> Result<i32> {
        let pid = child.pid()?;
        child.expect_end(true);
        child.signal(Signal::SIGKILL);
        Ok(pid)
    }

    /// SIGKILL; the child comes back when what is returned is dropped, and then at once.
    pub(crate) fn kill_and_hold(&self, child: &Arc<Child>) -> Result<Held> {
        end_and_hold(child, Signal::SIGKILL)
    }

    /// The same in order.
    pub(crate) fn stop_and_hold(&self, child: &Arc<Child>) -> Result<Held> {
        end_and_hold(child, Signal::SIGTERM)
    }

    /// SIGSTOP; the child goes on when what is returned is dropped.
    pub(crate) fn freeze(&self, child: &Arc<Child>) -> Result<Frozen> {
        child.pid()?;
        child.signal(Signal::SIGSTOP);
        Ok(Frozen { child: child.clone() })
    }

    /// Starts children that were stopped, with these variables besides their own until they are started so again, and
    /// waits until they are ready.
    pub(crate) fn start_with(
        self: &Arc<Self>,
        children: &[Arc<Child>],
        environment: &[(String, String)],
        interrupt: &Interrupt,
    ) -> Result<()> {
        for child in children {
            child.lock().more_environment = environment.to_vec();
            self.start_again(child);
        }
        self.wait_ready(children, interrupt)
    }

    /// Name and pid of whatever runs.
    pub(crate) fn processes(&self) -> Vec<(String, i32)> {
        let children = self.children();
        children.iter().filter_map(|child| Some((child.spec.name.clone(), child.status().pid?))).collect()
    }
}

fn end_and_hold(child: &Arc<Child>, signal: Signal) -> Result<Held> {
    child.lock().comeback = Comeback::Held;
    // From here on, an error releases it.
    let held = Held { child: child.clone() };
    let pid = child.pid()?;
    child.expect_end(true);
    child.signal(signal);
    child.wait_gone(pid)?;
    Ok(held)
}

impl Child {
    pub(crate) fn pid(&self) -> Result<i32> {
        self.status().pid.with_context(|| format!("{} does not run", self.spec.name))
    }

    /// Whether its process may end without having been told to from outside.
    pub(crate) fn expect_end(&self, expected: bool) {
        self.lock().doomed = expected;
    }

    /// Waits until the process is gone and its readiness with it: what is ready after that is another.
    pub(crate) fn wait_gone(&self, pid: i32) -> Result<()> {
        let begun = Instant::now();
        loop {
            let status = self.status();
            if status.pid != Some(pid) && (status.pid.is_some() || !status.ready) {
                return Ok(());
            }
            if begun.elapsed() > GONE_WITHIN {
                bail!("{} (pid {pid}) is not gone {GONE_WITHIN:?} after it was told to end", self.spec.name);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// A child that is kept from coming back.
#[must_use = "the child comes back when this is dropped"]
pub(crate) struct Held {
    child: Arc<Child>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.child.lock().comeback = Comeback::AtOnce;
        self.child.changed.notify_all();
    }
}

/// A child that stands still.
#[must_use = "the child goes on when this is dropped"]
pub(crate) struct Frozen {
    child: Arc<Child>,
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.child.signal(Signal::SIGCONT);
    }
}
