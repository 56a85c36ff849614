//! `ledger`: the log and its index, looked at by themselves.

mod show;
mod tail;
mod verify;

use std::process::ExitCode;

use anyhow::Result;

const EXAMPLES: &str = "\
Examples:
  couponctl ledger show
  couponctl ledger tail --partition 3 --from -20 --decide
  couponctl ledger verify --json";

/// Look at the log and its tables, and hold one against the other
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Show(Box<show::Args>),
    Tail(Box<tail::Args>),
    Verify(Box<verify::Args>),
}

pub(crate) fn run(args: &Args, json: bool) -> Result<ExitCode> {
    match &args.command {
        Command::Show(args) => show::run(args, json),
        Command::Tail(args) => tail::run(args, json),
        Command::Verify(args) => verify::run(args, json),
    }
}
