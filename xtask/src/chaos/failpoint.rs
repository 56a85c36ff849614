//! An issue service or a consumer is told to die or to stand still between two steps: by a file that it watches, as
//! `issue-service/src/failpoint.rs` has it.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::state::write_atomically;
use crate::supervisor::Child;

/// A process looks at its file every 10 ms; one that stands still or is away does not.
const DISARMED_WITHIN: Duration = Duration::from_secs(1);
/// Who has reached the point has written it down by then.
const WRITTEN_WITHIN: Duration = Duration::from_millis(20);

/// Disarmed when it is dropped, if nothing has reached it.
pub(super) struct Armed {
    instance: Arc<Child>,
    file: PathBuf,
    reached: PathBuf,
}

impl Armed {
    /// `claims` have to be under way in the instance.
    pub(super) fn new(
        file: PathBuf,
        instance: &Arc<Child>,
        point: &str,
        action: &str,
        claims: u32,
    ) -> Result<Self> {
        let reached = file.with_added_extension("reached");
        let armed = Self { instance: instance.clone(), file, reached };
        armed.clean();
        instance.expect_end(action == "kill");
        write_atomically(&armed.file, format!("{point} {action} {claims}\n").as_bytes())?;
        Ok(armed)
    }

    /// When a claim reached it, in unix milliseconds.
    pub(super) fn reached(&self) -> Option<u64> {
        fs::read_to_string(&self.reached).ok()?.parse().ok()
    }

    /// A claim may still reach it before the process has taken this file away, too.
    fn disarm(&self) {
        // Without it the process stays armed, and its end is told.
        let _ = write_atomically(&self.file, b"disarm\n");
        let deadline = Instant::now() + DISARMED_WITHIN;
        while self.file.exists() && Instant::now() < deadline {
            thread::sleep(WRITTEN_WITHIN);
        }
        thread::sleep(WRITTEN_WITHIN);
    }

    fn clean(&self) {
        for file in [&self.file, &self.reached] {
            // Usually there is none.
            let _ = fs::remove_file(file);
        }
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        if self.reached().is_none() {
            self.disarm();
        }
        if self.reached().is_none() {
            self.instance.expect_end(false);
        }
        let _ = fs::remove_file(&self.reached);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::tests::Supervised;

    /// What a process that is told to disarm does instead, and how often it is then said to have ended by itself.
    fn told_to_disarm(script: &str) -> u32 {
        let run = Supervised::new();
        let script = format!("while ! grep -qs disarm point; do sleep 0.01; done; {script}");
        let child = run.started("armed", &script);
        let pid = child.pid().unwrap();
        drop(Armed::new(run.path().join("point"), &child, "after-ack", "kill", 1).unwrap());
        child.wait_gone(pid).unwrap();
        child.status().ended_alone
    }

    #[test]
    fn who_reaches_the_point_before_hearing_that_it_is_given_up_was_told_to_end() {
        assert_eq!(told_to_disarm("printf 7 > point.reached; rm point; kill -ABRT $$"), 0);
        assert_eq!(told_to_disarm("rm point; sleep 1; kill -ABRT $$"), 1);
    }
}
