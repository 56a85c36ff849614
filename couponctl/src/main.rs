//! The operator's tool: signs token files, makes load, audits what was promised.
//!
//! It stands alone: what it checks, it decodes by itself, so that an error in the services cannot hide itself
//! in code that both share.

mod audit;
mod clock;
mod csv;
mod ids;
mod load;
mod servers;
mod state;
mod terminal;
mod tokens;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The operator's tool of Firstcome: token files, load, audit.
#[derive(Debug, Parser)]
#[command(name = "couponctl", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print the result as one JSON object on stdout, for scripts
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Tokens(Box<tokens::Args>),
    Load(Box<load::Args>),
    Audit(Box<audit::Args>),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Tokens(args) => tokens::run(&args, cli.json),
        Command::Load(args) => load::run(&args, cli.json),
        Command::Audit(args) => audit::run(&args, cli.json),
    };
    result.unwrap_or_else(|error| {
        eprintln!("{} {error:#}", console::style("couponctl:").red().bold().for_stderr());
        ExitCode::FAILURE
    })
}
