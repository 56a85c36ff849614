//! Builds our binaries by cargo, with progress, and learns from it where they lie.

use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::interrupt::Interrupt;
use crate::progress::Progress;

/// Packages whose binaries a running stack needs.
pub(crate) const PACKAGES: [&str; 6] =
    ["config-server", "user-service", "coupon-service", "issue-service", "gateway", "couponctl"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Release,
    Debug,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Binaries {
    paths: BTreeMap<String, PathBuf>,
}

impl Binaries {
    pub(crate) fn path(&self, name: &str) -> Result<&Path> {
        self.paths.get(name).map(PathBuf::as_path).with_context(|| format!("cargo built no binary {name}"))
    }
}

/// The folder of the workspace.
pub(crate) fn workspace() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    own.parent().map_or(own.clone(), Path::to_path_buf)
}

pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    command
}

pub(crate) fn build(profile: Profile, interrupt: &Interrupt, progress: &Progress) -> Result<Binaries> {
    let total = packages_in_tree(interrupt).unwrap_or(0);
    let step = progress.bar("build", total);
    let mut command = cargo();
    command.args(["build", "--message-format=json-render-diagnostics"]);
    for package in PACKAGES {
        command.args(["--package", package]);
    }
    if profile == Profile::Release {
        command.arg("--release");
    }
    let mut tool = interrupt.spawn(&command, (Stdio::piped(), Stdio::piped()))?;
    let stderr = tool.child.stderr.take().map(|pipe| {
        std::thread::spawn(move || {
            let mut text = String::new();
            for line in BufReader::new(pipe).lines().map_while(std::io::Result::ok) {
                if !line.trim_start().starts_with("Compiling") && !line.trim_start().starts_with("Finished") {
                    text.push_str(&line);
                    text.push('\n');
                }
            }
            text
        })
    });
    let mut seen = HashSet::new();
    let mut binaries = Binaries::default();
    if let Some(pipe) = tool.child.stdout.take() {
        for line in BufReader::new(pipe).lines() {
            let Ok(message) = serde_json::from_str::<Value>(&line?) else { continue };
            let Some((name, executable)) = artifact(&message) else { continue };
            seen.insert(message["package_id"].as_str().unwrap_or_default().to_owned());
            let fresh = message["fresh"] == true;
            if !fresh {
                step.say(&format!("{} of about {total} crates: {name}", seen.len()));
            }
            step.position(u64::try_from(seen.len())?);
            if let Some(executable) = executable {
                binaries.paths.insert(name, executable);
            }
        }
    }
    let status = tool.child.wait()?;
    let errors = stderr.and_then(|thread| thread.join().ok()).unwrap_or_default();
    step.clear();
    interrupt.check()?;
    if !status.success() {
        bail!("the build failed\n{errors}");
    }
    for package in PACKAGES {
        binaries.path(package)?;
    }
    step.done(match profile {
        Profile::Release => "release binaries",
        Profile::Debug => "debug binaries",
    });
    Ok(binaries)
}

/// Name of a compiled target, and its path if it can be run.
fn artifact(message: &Value) -> Option<(String, Option<PathBuf>)> {
    if message["reason"] != "compiler-artifact" {
        return None;
    }
    let name = message["target"]["name"].as_str()?.to_owned();
    Some((name, message["executable"].as_str().map(PathBuf::from)))
}

/// How many packages the build will touch, for the length of the bar.
fn packages_in_tree(interrupt: &Interrupt) -> Result<u64> {
    let mut command = cargo();
    command.args(["tree", "--prefix=none", "--edges=normal,build", "--format={p}"]);
    for package in PACKAGES {
        command.args(["--package", package]);
    }
    let text = interrupt.run(&command)?;
    let packages: HashSet<&str> =
        text.lines().filter(|line| !line.is_empty()).map(|line| line.trim_end_matches(" (*)")).collect();
    Ok(u64::try_from(packages.len())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn artifacts_of_cargo() {
        let library = json!({"reason": "compiler-artifact", "target": {"name": "serde"}, "executable": null});
        assert_eq!(artifact(&library), Some(("serde".to_owned(), None)));
        let binary =
            json!({"reason": "compiler-artifact", "target": {"name": "gateway"}, "executable": "/t/gateway"});
        assert_eq!(artifact(&binary), Some(("gateway".to_owned(), Some(PathBuf::from("/t/gateway")))));
        assert_eq!(artifact(&json!({"reason": "build-finished"})), None);
    }
}
