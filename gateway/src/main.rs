//! The gateway's process.

use std::process::ExitCode;

use clap::Parser;
use platform::config::Bootstrap;

/// The door of Firstcome: routes, tokens, balancing, limits. Its settings come from the config server.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Name of this instance, unique among all; made up if not given.
    #[arg(long)]
    instance: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    platform::lifecycle::run("gateway", Bootstrap::from_env(arguments.instance), gateway::app::start)
}
