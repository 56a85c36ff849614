//! The user service's process: arguments and bootstrap here, everything else in the library.

use std::process::ExitCode;

use clap::Parser;
use platform::config::Bootstrap;

/// Accounts, logins, tokens and the keys that sign them. Settings come from the configuration server
/// (FIRSTCOME_CONFIG_URL, FIRSTCOME_PROFILE).
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// Name of this instance in Consul, logs and traces; made up when absent.
    #[arg(long)]
    instance: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    platform::lifecycle::run(
        user_service::SERVICE,
        Bootstrap::from_env(arguments.instance),
        user_service::start,
    )
}
