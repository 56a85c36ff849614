//! `ledger tail`: the records of the log, one a line, and what the rules say of them.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;

use anyhow::{Result, bail};
use rdkafka::message::{BorrowedMessage, Message as _};
use serde::Serialize;

use crate::kafka::{KafkaArgs, Topic};
use crate::replay::record::{Definition, Record, Unreadable, decode};
use crate::replay::rules::Decided;
use crate::replay::{self, Replayed};
use crate::state::StateArgs;
use crate::terminal::time;

const EXAMPLES: &str = "\
Examples:
  # the last ten records of each partition
  couponctl ledger tail
  # the last twenty of one, with the decision of each, and what comes after
  couponctl ledger tail --partition 3 --from -20 --decide -f
  # all of it, one JSON object a line
  couponctl ledger tail --partition 3 --from 0 --json

--decide reads the partition from its start: a decision follows from everything before it.";

/// Show records of the log
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Only this one [default: all, one after the other]
    #[arg(long, short, value_name = "P")]
    partition: Option<u32>,
    /// The first offset, or -N for the last N records
    #[arg(long, value_name = "OFFSET|-N", default_value_t = -10, allow_negative_numbers = true)]
    from: i64,
    /// Go on as the log grows; Ctrl-C ends it
    #[arg(long, short)]
    follow: bool,
    /// Say what was decided of each record
    #[arg(long)]
    decide: bool,
    #[command(flatten)]
    state: StateArgs,
    #[command(flatten)]
    kafka: KafkaArgs,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    partition: i32,
    offset: i64,
    /// Unix milliseconds.
    appended_at: i64,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    coupon: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    definition: Option<Definition>,
    /// Why it is no record.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<u64>,
}

pub(crate) fn run(args: &Args, json: bool) -> Result<ExitCode> {
    let kafka = args.kafka.demand(&args.state.find()?)?;
    let topic = kafka.open(&kafka.topic)?;
    if let Some(partition) = args.partition.filter(|partition| *partition >= topic.partitions) {
        bail!("--partition {partition}: the log has {} partitions, counted from 0", topic.partitions);
    }
    let partitions = args.partition.map_or(0..topic.partitions, |partition| partition..partition + 1);
    let mut tail = Tail {
        json,
        follow: false,
        ledgers: BTreeMap::new(),
        from: BTreeMap::new(),
        out: io::BufWriter::new(io::stdout().lock()),
    };
    match tail.print_all(&topic, args, partitions) {
        // Whoever reads has seen enough.
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        ended => ended.map(|()| ExitCode::SUCCESS),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

struct Tail<W: Write> {
    json: bool,
    follow: bool,
    /// Of the partitions that are decided.
    ledgers: BTreeMap<i32, Replayed>,
    /// The first offset to show.
    from: BTreeMap<i32, i64>,
    out: W,
}

impl<W: Write> Tail<W> {
    fn print_all(&mut self, topic: &Topic, args: &Args, partitions: std::ops::Range<u32>) -> Result<()> {
        let mut ends = Vec::new();
        for partition in partitions {
            let number = i32::try_from(partition)?;
            let bounds = topic.bounds(partition)?;
            let from = match u64::try_from(args.from) {
                Ok(from) => from,
                Err(_) => bounds.end.saturating_sub(args.from.unsigned_abs()),
            };
            let from = from.clamp(bounds.start, bounds.end);
            self.from.insert(number, i64::try_from(from)?);
            if args.decide {
                if bounds.start > 0 {
                    bail!(
                        "--decide: partition {partition} of the log begins at offset {}, not at 0",
                        bounds.start
                    );
                }
                self.ledgers.insert(number, Replayed::new(partition, topic.partitions));
            }
            let start = if args.decide { bounds.start } else { from };
            topic.read(partition, start..bounds.end, |message| self.print(message))?;
            ends.push((partition, bounds.end));
        }
        self.out.flush()?;
        if args.follow {
            self.follow = true;
            topic.follow(ends, |message| self.print(message))?;
        }
        Ok(())
    }

    fn print(&mut self, message: &BorrowedMessage<'_>) -> Result<ControlFlow<()>> {
        let partition = message.partition();
        let mut stopped = None;
        let decided = self.ledgers.get_mut(&partition).and_then(|ledger| {
            let decided = ledger.apply(replay::entry(message));
            stopped = ledger.stopped.take();
            decided
        });
        if self.from.get(&partition).is_none_or(|from| *from <= message.offset()) || stopped.is_some() {
            let line = line(message, decided);
            if self.json {
                serde_json::to_writer(&mut self.out, &line).map_err(io::Error::from)?;
                writeln!(self.out)?;
            } else {
                writeln!(self.out, "{}", line.text())?;
            }
        }
        if self.follow || stopped.is_some() {
            self.out.flush()?;
        }
        match stopped {
            Some(why) => bail!("partition {partition}: {why}; nothing after it can be decided"),
            None => Ok(ControlFlow::Continue(())),
        }
    }
}

fn line(message: &BorrowedMessage<'_>, decided: Option<Decided>) -> Line {
    let record = decode(message.payload().unwrap_or_default());
    let mut line = Line {
        partition: message.partition(),
        offset: message.offset(),
        appended_at: message.timestamp().to_millis().unwrap_or(-1),
        decision: decided.map(|decided| decided.decision.name()),
        place: decided.map(|decided| decided.place).filter(|place| *place > 0),
        ..Line::default()
    };
    match record {
        Ok(record) => {
            (line.kind, line.coupon) = (record.kind(), record.coupon());
            match record {
                Record::Claim { user, .. } => line.user = Some(user),
                Record::Definition { definition, .. } => line.definition = Some(definition),
                Record::Retire { .. } | Record::Noop => {}
            }
        }
        Err(Unreadable::Malformed(why)) => (line.kind, line.problem) = ("malformed", Some(why.to_owned())),
        Err(Unreadable::Invalid(why)) => (line.kind, line.problem) = ("invalid", Some(why.to_owned())),
        Err(Unreadable::Unknown { kind, version }) => {
            line.kind = "unknown";
            line.problem = Some(format!("kind {kind}, version {version}"));
        }
    }
    line
}

impl Line {
    fn text(&self) -> String {
        let place = format!("{}/{}", self.partition, self.offset);
        let at = u64::try_from(self.appended_at).map_or_else(|_| "no time".to_owned(), time);
        let mut text = format!("{place:<12}  {at}  {:<10}", self.kind);
        for (name, id) in [("coupon", self.coupon), ("user", self.user)] {
            if let Some(id) = id {
                text += &format!("  {name} {id}");
            }
        }
        if let Some(Definition { version, stock, starts_at, ends_at, closed }) = self.definition {
            let closed = if closed { ", closed" } else { "" };
            text += &format!(
                "  version {version}, stock {stock}, {} to {}{closed}",
                time(starts_at),
                time(ends_at)
            );
        }
        if let Some(problem) = &self.problem {
            text += &format!("  {problem}");
        }
        match (self.decision, self.place) {
            (Some(decision), Some(place)) => text += &format!("  -> {decision}, place {place}"),
            (Some(decision), None) => text += &format!("  -> {decision}"),
            (None, _) => {}
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_holds_what_the_record_says() {
        let line = Line {
            partition: 3,
            offset: 1_742,
            appended_at: 1_800_000_000_123,
            kind: "claim",
            coupon: Some(7),
            user: Some(9),
            decision: Some("accepted"),
            place: Some(2),
            ..Line::default()
        };
        assert_eq!(
            line.text(),
            "3/1742        2027-01-15T08:00:00.123Z  claim       coupon 7  user 9  -> accepted, place 2"
        );
        let bare =
            Line { kind: "malformed", problem: Some("why".to_owned()), appended_at: -1, ..Line::default() };
        assert_eq!(bare.text(), "0/0           no time  malformed   why");
    }
}
