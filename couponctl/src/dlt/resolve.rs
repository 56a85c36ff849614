//! `dlt redrive` and `dlt discard`: each ends a letter's waiting with a record of its own beside it.

use std::collections::BTreeSet;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde::Serialize;
use tokio::runtime::Runtime;

use super::Place;
use super::letters::{AT, BY, Letter, REASON, REDRIVEN_TO, RESOLUTION};
use crate::clock;
use crate::ids::partition_of;
use crate::kafka::Kafka;
use crate::replay::record::{Record, Unreadable, decode};
use crate::terminal::time;

const REDRIVE_EXAMPLES: &str = "\
Examples:
  couponctl dlt redrive 3/1742
  couponctl dlt redrive --all --yes --json

The value goes to the end of the partition where its coupon belongs, and is decided there: the window is judged by
the new time. A letter that is no record by the rules of its version stays so for ever, and is refused.";

const DISCARD_EXAMPLES: &str = "\
Examples:
  couponctl dlt discard 3/1742 --reason sent-by-a-test
  couponctl dlt discard --all --reason damaged-by-a-test --yes";

const TIMEOUT: Duration = Duration::from_secs(10);

/// Which letters, and who decides it.
#[derive(Debug, clap::Args)]
struct Choice {
    /// Letters, as `list` names them
    #[arg(value_name = "LETTER", required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<String>,
    /// All that wait
    #[arg(long)]
    all: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Who decides it [default: the user of this shell]
    #[arg(
        long,
        value_name = "NAME",
        env = "USER",
        hide_env = true,
        default_value = "unknown",
        hide_default_value = true
    )]
    by: String,
    #[command(flatten)]
    place: Place,
}

/// Append letters to the log again, where their coupons belong
#[derive(Debug, clap::Args)]
#[command(after_help = REDRIVE_EXAMPLES)]
pub(super) struct RedriveArgs {
    #[command(flatten)]
    choice: Choice,
    /// Why, for those who come after
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
}

/// Put letters away for good
#[derive(Debug, clap::Args)]
#[command(after_help = DISCARD_EXAMPLES)]
pub(super) struct DiscardArgs {
    #[command(flatten)]
    choice: Choice,
    /// Why, for those who come after
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Resolved {
    letter: String,
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    redriven_to: Option<String>,
}

#[derive(Debug, Serialize)]
struct Refused {
    letter: String,
    why: String,
}

#[derive(Debug, Default, Serialize)]
struct Report {
    resolved: Vec<Resolved>,
    refused: Vec<Refused>,
}

pub(super) fn redrive(args: &RedriveArgs, json: bool) -> Result<ExitCode> {
    let kafka = args.choice.place.kafka()?;
    let (name, letters) = args.choice.place.read(&kafka)?;
    let chosen = choose(&letters, &args.choice)?;
    let mut report = Report::default();
    let mut good = Vec::new();
    for letter in chosen {
        match readable(letter) {
            Ok(record) => good.push((letter, record)),
            Err(why) => report.refused.push(Refused { letter: letter.id.clone(), why }),
        }
    }
    let partitions = kafka.open(&kafka.topic)?.partitions;
    let lines = good.iter().map(|(letter, record)| {
        let partition = record.coupon().map_or(0, |coupon| partition_of(coupon, partitions));
        (format!("{}: {}, to partition {partition}", letter.id, describe(record)), *letter, partition)
    });
    let lines: Vec<_> = lines.collect();
    if !lines.is_empty() && confirm(&args.choice, "redrive", lines.iter().map(|(line, ..)| line))? {
        let writer = Writer::open(&kafka)?;
        for (_, letter, partition) in lines {
            let partition = i32::try_from(partition)?;
            let record = FutureRecord::to(&kafka.topic).partition(partition).payload(letter.value.as_slice());
            let to = writer.append(record)?;
            let headers = resolution("redriven", &args.choice.by, &args.reason)
                .insert(Header { key: REDRIVEN_TO, value: Some(&to) });
            writer.resolve(&name, letter, headers)?;
            report.resolved.push(Resolved {
                letter: letter.id.clone(),
                action: "redriven",
                redriven_to: Some(to),
            });
        }
    }
    report.end(json)
}

pub(super) fn discard(args: &DiscardArgs, json: bool) -> Result<ExitCode> {
    if args.reason.trim().is_empty() {
        bail!("--reason is empty: say why, for those who come after");
    }
    let kafka = args.choice.place.kafka()?;
    let (name, letters) = args.choice.place.read(&kafka)?;
    let chosen = choose(&letters, &args.choice)?;
    let mut report = Report::default();
    let lines: Vec<String> =
        chosen.iter().map(|letter| format!("{}: {}", letter.id, letter.reason)).collect();
    if !lines.is_empty() && confirm(&args.choice, "discard", &lines)? {
        let writer = Writer::open(&kafka)?;
        for letter in chosen {
            writer.resolve(&name, letter, resolution("discarded", &args.choice.by, &args.reason))?;
            report.resolved.push(Resolved {
                letter: letter.id.clone(),
                action: "discarded",
                redriven_to: None,
            });
        }
    }
    report.end(json)
}

/// The record that a letter holds, or why it is none and never will be.
pub(super) fn readable(letter: &Letter) -> Result<Record, String> {
    match decode(&letter.value) {
        Ok(Record::Noop) => Err("it is a probe, which belongs nowhere".to_owned()),
        Ok(record) => Ok(record),
        Err(Unreadable::Malformed(why)) => Err(format!("it is malformed, and stays so: {why}")),
        Err(Unreadable::Invalid(why)) => Err(format!("it is invalid, and stays so: {why}")),
        Err(Unreadable::Unknown { kind, version }) => {
            Err(format!("it is of kind {kind}, version {version}, which a newer couponctl may know"))
        }
    }
}

pub(super) fn describe(record: &Record) -> String {
    match record {
        Record::Definition { coupon, definition } => {
            format!("version {} of coupon {coupon}'s definition", definition.version)
        }
        Record::Claim { coupon, user } => format!("user {user}'s claim on coupon {coupon}"),
        Record::Retire { coupon } => format!("the retirement of coupon {coupon}"),
        Record::Noop => "a probe".to_owned(),
    }
}

fn choose<'a>(letters: &'a [Letter], choice: &Choice) -> Result<Vec<&'a Letter>> {
    if choice.all {
        return Ok(letters.iter().filter(|letter| letter.waits()).collect());
    }
    let ids: BTreeSet<&String> = choice.ids.iter().collect();
    ids.into_iter()
        .map(|id| match letters.iter().find(|letter| letter.id == *id) {
            None => bail!("there is no letter {id}: see `couponctl dlt list --all`"),
            Some(letter) if !letter.waits() => {
                bail!("letter {id} is resolved: see `couponctl dlt show {id}`")
            }
            Some(letter) => Ok(letter),
        })
        .collect()
}

/// Asks on the terminal; where there is none, only `--yes` is a yes.
fn confirm(
    choice: &Choice,
    verb: &str,
    lines: impl IntoIterator<Item = impl std::fmt::Display>,
) -> Result<bool> {
    if choice.yes {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        bail!("nobody can be asked here: --yes to {verb} without asking");
    }
    let mut error = std::io::stderr();
    for line in lines {
        writeln!(error, "  {line}")?;
    }
    write!(error, "{verb} these? [y/N] ")?;
    error.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn resolution(action: &str, by: &str, reason: &str) -> OwnedHeaders {
    let at = time(clock::now_ms());
    [(RESOLUTION, action), (BY, by), (AT, &at), (REASON, reason)]
        .into_iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }))
}

impl Report {
    fn end(self, json: bool) -> Result<ExitCode> {
        if json {
            println!("{}", serde_json::to_string(&self)?);
        } else {
            for it in &self.resolved {
                let to = it.redriven_to.as_ref().map(|to| format!(" to {to}")).unwrap_or_default();
                println!("{} {}{to}", it.letter, it.action);
            }
            for it in &self.refused {
                println!("{} refused: {}", it.letter, it.why);
            }
            if self.resolved.is_empty() && self.refused.is_empty() {
                println!("nothing was changed");
            }
        }
        Ok(if self.refused.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Appends single records, each acknowledged by all replicas before the next.
struct Writer {
    producer: FutureProducer,
    runtime: Runtime,
}

impl Writer {
    fn open(kafka: &Kafka) -> Result<Self> {
        let mut config = kafka.client();
        config.set("acks", "all").set("enable.idempotence", "true").set("message.timeout.ms", "10000");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { producer: config.create()?, runtime })
    }

    /// Where it went, `PARTITION/OFFSET`.
    fn append(&self, record: FutureRecord<'_, str, [u8]>) -> Result<String> {
        let sent = self.runtime.block_on(self.producer.send(record, TIMEOUT));
        let sent = sent.map_err(|(error, _)| error).context("Kafka did not take it")?;
        Ok(format!("{}/{}", sent.partition, sent.offset))
    }

    fn resolve(&self, topic: &str, letter: &Letter, headers: OwnedHeaders) -> Result<()> {
        let record = FutureRecord::to(topic).key(letter.id.as_str()).payload(&[][..]).headers(headers);
        self.append(record)
            .map(drop)
            .with_context(|| format!("letter {} can't be marked as resolved", letter.id))
    }
}
