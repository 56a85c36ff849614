//! The configuration repository, as somebody who keeps it works with it: clone, change, commit, push.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::stack::Stack;

/// A clone, removed when dropped.
#[derive(Debug)]
pub struct Clone {
    folder: PathBuf,
}

impl Clone {
    /// # Panics
    /// When it can't be cloned.
    pub fn of(stack: &Stack) -> Self {
        let folder = std::env::temp_dir().join(format!("firstcome-e2e-{}", uuid::Uuid::new_v4().simple()));
        let repository = stack.folder.join("config.git");
        git(Path::new("."), &["clone", "--quiet", &repository.to_string_lossy(), &folder.to_string_lossy()]);
        Self { folder }
    }

    /// Replaces a text in a file, pushes that as a commit and returns its id.
    ///
    /// # Panics
    /// When the text is not there, or the push is refused.
    pub fn change(&self, file: &str, from: &str, to: &str) -> String {
        let path = self.folder.join(file);
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file} can't be read: {error}"));
        assert_eq!(text.matches(from).count(), 1, "{file} should hold {from:?} once");
        std::fs::write(&path, text.replace(from, to)).unwrap_or_else(|error| panic!("{file}: {error}"));
        let identity = ["-c", "user.name=e2e", "-c", "user.email=e2e@example.com"];
        git(
            &self.folder,
            &[&identity[..], &["commit", "--quiet", "--all", "--message", "Change it"]].concat(),
        );
        git(&self.folder, &["push", "--quiet", "origin", "HEAD"]);
        git(&self.folder, &["rev-parse", "HEAD"])
    }
}

impl Drop for Clone {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let done = Command::new("git")
        .current_dir(folder)
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .output()
        .unwrap_or_else(|error| panic!("git can't be run: {error}"));
    assert!(done.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}
