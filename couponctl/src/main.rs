//! The operator's tool: signs token files, makes load, audits what was promised, looks at the log and its dead letters,
//! rotates keys, makes administrators.
//!
//! It stands alone: what it checks, it decodes by itself, so that an error in the services cannot hide itself
//! in code that both share.

mod admin;
mod audit;
mod clock;
mod compare;
mod csv;
mod dlt;
mod ids;
mod index;
mod kafka;
mod keys;
mod ledger;
mod load;
mod replay;
mod routes;
mod servers;
mod state;
mod terminal;
mod tokens;
mod verdict;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  # 15,000 users claim a coupon over 20 s; then everything is compared
  couponctl tokens --count 15000 --out tokens.csv
  couponctl load --coupon 244019838763171 --tokens tokens.csv --ramp 20s --answers claims.ndjson
  couponctl audit --coupon 244019838763171 --answers claims.ndjson --replay
  # the log and its tables, and what could not be read
  couponctl ledger show
  couponctl ledger verify
  couponctl dlt list
  # a gateway's routes, before it has them
  couponctl routes check config-repo/gateway.yml
  # the keys that sign access tokens, and who is an administrator
  couponctl keys show
  couponctl admin grant --email kim@example.com
  # for scripts, and against the run in another folder
  couponctl audit --all --replay --state /tmp/second --json

Each command has more. Addresses, keys and secrets come from the state folder of the running stack: --state, else \
FIRSTCOME_STATE, else target/firstcome below the working folder. Without one, options name all that is needed.";

/// The operator's tool of Firstcome: token files, load, audit, the log and its dead letters, keys, administrators.
#[derive(Debug, Parser)]
#[command(name = "couponctl", version, max_term_width = 110, after_help = EXAMPLES)]
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
    Ledger(ledger::Args),
    Dlt(dlt::Args),
    Routes(routes::Args),
    Keys(keys::Args),
    Admin(admin::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Tokens(args) => tokens::run(&args, cli.json),
        Command::Load(args) => load::run(&args, cli.json),
        Command::Audit(args) => audit::run(&args, cli.json),
        Command::Ledger(args) => ledger::run(&args, cli.json),
        Command::Dlt(args) => dlt::run(&args, cli.json),
        Command::Routes(args) => routes::run(&args, cli.json),
        Command::Keys(args) => keys::run(&args, cli.json),
        Command::Admin(args) => admin::run(&args, cli.json),
    };
    result.unwrap_or_else(|error| {
        eprintln!("{} {error:#}", console::style("couponctl:").red().bold().for_stderr());
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// A command with all below it.
    fn all(command: clap::Command) -> Vec<clap::Command> {
        let below: Vec<_> = command.get_subcommands().cloned().flat_map(all).collect();
        std::iter::once(command).chain(below).collect()
    }

    #[test]
    fn every_help_has_examples_that_parse() {
        Cli::command().debug_assert();
        for command in all(Cli::command()) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let examples = help.replace("\\\n", "");
            let lines: Vec<_> = examples.lines().filter(|line| line.starts_with("  couponctl ")).collect();
            assert!(!lines.is_empty(), "{}", command.get_name());
            for line in lines {
                if let Err(error) = Cli::try_parse_from(line.split_whitespace()) {
                    panic!("{line}: {error}");
                }
            }
        }
    }

    #[test]
    fn help_names_the_state_folder() {
        // A route file is checked without any stack.
        let about_a_stack = |it: &clap::Command| !it.has_subcommands() && it.get_name() != "check";
        for mut command in all(Cli::command()).into_iter().filter(about_a_stack) {
            let help = command.render_long_help().to_string();
            assert!(help.contains("[default: target/firstcome]"), "{help}");
            assert!(help.contains("[env: FIRSTCOME_STATE]"), "{help}");
        }
    }
}
