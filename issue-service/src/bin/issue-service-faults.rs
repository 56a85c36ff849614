//! The issue service with places where it can be made to die, and with guards that can be taken out, for
//! `cargo xtask chaos`. A program of its own, so that it never lies where the real one is looked for.

use std::process::ExitCode;

#[path = "../main.rs"]
mod service;

fn main() -> ExitCode {
    issue_service::failpoint::watch();
    service::main()
}
