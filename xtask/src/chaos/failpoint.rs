//! An issue service or a consumer is told to die or to stand still between two steps: by a file that it watches, as
//! `issue-service/src/failpoint.rs` has it.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;

use super::stage::Stage;
use crate::state::write_atomically;
use crate::supervisor::Child;

/// Disarmed when it is dropped, if nothing has reached it.
pub(super) struct Armed {
    instance: Arc<Child>,
    file: PathBuf,
    reached: PathBuf,
}

impl Armed {
    /// `claims` have to be under way in the instance.
    pub(super) fn new(
        stage: &Stage,
        instance: &Arc<Child>,
        point: &str,
        action: &str,
        claims: u32,
    ) -> Result<Self> {
        let file = stage.stack.folder.failpoint(&instance.spec.name);
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
            self.instance.expect_end(false);
            // Who is armed takes this file away, too.
            let _ = write_atomically(&self.file, b"disarm\n");
        }
        let _ = fs::remove_file(&self.reached);
    }
}
