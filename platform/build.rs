//! Tells the crate which commit it is built from: `FIRSTCOME_GIT_COMMIT` from the environment (images are built without
//! git), otherwise what git says. Debug builds don't ask: every commit would build everything that stands on this crate
//! anew.

use std::path::Path;
use std::process::Command;

const VARIABLE: &str = "FIRSTCOME_GIT_COMMIT";

fn main() {
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    println!("cargo::rerun-if-changed=build.rs");
    let given = std::env::var(VARIABLE).ok().filter(|commit| !commit.is_empty());
    let release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = given.or_else(|| release.then(ask_git).flatten());
    if let Some(commit) = commit {
        println!("cargo::rustc-env={VARIABLE}={commit}");
    }
}

fn ask_git() -> Option<String> {
    // A commit appends to the log of HEAD. (To watch a file that is missing would build anew each time.)
    let log = "../.git/logs/HEAD";
    if Path::new(log).exists() {
        println!("cargo::rerun-if-changed={log}");
    }
    let output = Command::new("git").args(["rev-parse", "HEAD"]).output().ok()?;
    let commit = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !commit.is_empty()).then_some(commit)
}
