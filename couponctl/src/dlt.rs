//! `dlt`: the dead letters, which are records that could not be read, and what an operator does with them.

pub(crate) mod letters;
mod list;
mod resolve;

use std::process::ExitCode;

use anyhow::Result;

use self::letters::Letter;
use crate::kafka::{Kafka, KafkaArgs};
use crate::state::StateArgs;

const EXAMPLES: &str = "\
Examples:
  couponctl dlt list
  couponctl dlt show 3/1742
  couponctl dlt redrive 3/1742
  couponctl dlt discard --all --reason damaged-by-a-test --yes";

/// Look at dead letters, append them to the log again, or put them away
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    List(Box<list::ListArgs>),
    Show(Box<list::ShowArgs>),
    Redrive(Box<resolve::RedriveArgs>),
    Discard(Box<resolve::DiscardArgs>),
}

/// Where the letters are.
#[derive(Debug, clap::Args)]
struct Place {
    #[command(flatten)]
    state: StateArgs,
    #[command(flatten)]
    kafka: KafkaArgs,
    /// The dead letters' topic [default: the ledger's name and .dlt]
    #[arg(long, value_name = "NAME")]
    dead_letter_topic: Option<String>,
}

impl Place {
    fn kafka(&self) -> Result<Kafka> {
        self.kafka.demand(&self.state.find()?)
    }

    /// The topic's name, and every letter in it.
    fn read(&self, kafka: &Kafka) -> Result<(String, Vec<Letter>)> {
        let name = kafka.dead_letter_topic(self.dead_letter_topic.as_deref());
        let letters = letters::read(&kafka.open(&name)?)?;
        Ok((name, letters))
    }
}

pub(crate) fn run(args: &Args, json: bool) -> Result<ExitCode> {
    match &args.command {
        Command::List(args) => list::list(args, json),
        Command::Show(args) => list::show(args, json),
        Command::Redrive(args) => resolve::redrive(args, json),
        Command::Discard(args) => resolve::discard(args, json),
    }
}
