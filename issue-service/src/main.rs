//! `issue-service`: claims over HTTP (`serve`), the ledger into the database (`consume`), or both (`all`).

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use issue_service::app;
use platform::config::Bootstrap;

/// Issues coupons to the users who ask first.
///
/// All settings come from the config server: FIRSTCOME_CONFIG_URL, FIRSTCOME_PROFILE; secrets from the environment.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:\n  issue-service serve\n  issue-service consume --instance issue-consumer-1"
)]
struct Arguments {
    #[command(subcommand)]
    role: Role,
    /// The name of this instance in Consul, unique among all.
    #[arg(long, global = true)]
    instance: Option<String>,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Role {
    /// Answers claims over HTTP.
    Serve,
    /// Writes what the log decided into the database.
    Consume,
    /// Both in one process.
    All,
}

/// Whatever its role, the process takes the settings of this name.
const SETTINGS: &str = "issue-service";
/// The name of one that only writes: it answers no requests, so nobody must find it as the issue service.
const CONSUMER: &str = "issue-consumer";

pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let bootstrap = Bootstrap { settings_of: Some(SETTINGS), ..Bootstrap::from_env(arguments.instance) };
    match arguments.role {
        Role::Serve => platform::lifecycle::run(SETTINGS, bootstrap, app::serve),
        Role::Consume => platform::lifecycle::run(CONSUMER, bootstrap, app::consume),
        Role::All => platform::lifecycle::run(SETTINGS, bootstrap, app::all),
    }
}
