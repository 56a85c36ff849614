//! The tool as its users run it: the built program, real files, real sockets, and for the audit real servers.

#![expect(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod admin;
mod audit;
mod dlt;
mod keys;
mod ledger;
mod load;
mod log;
mod replay;
mod routes;
mod sale;
mod scene;
mod servers;
mod shop;
mod tokens;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// Runs the tool; no state of a stack that happens to run here.
fn couponctl(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_couponctl"))
        .args(args)
        .env_remove("FIRSTCOME_STATE")
        .current_dir(std::env::temp_dir())
        .output()
        .unwrap()
}

/// Runs it with `--json`; it must succeed.
fn json(args: &[&str]) -> Value {
    let output = couponctl(&[args, &["--json"]].concat());
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{args:?}: {out} {err}");
    serde_json::from_str(&out).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
