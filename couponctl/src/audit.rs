//! `audit`: does it add up? What was told is compared with what was written, kept and shown.
//!
//! Everything is read by this tool itself: rows from MySQL, the log and the dead letters from Kafka, the set from
//! Redis, counts from the public API, and promises from the load's own record. It fails when anything differs, and
//! names whom it concerns.

mod again;
mod api;
mod checks;
mod coupon;
mod doorman;
mod history;
mod level;
mod live;
mod log;
mod promises;
mod record;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use self::coupon::Subject;
use self::doorman::{Redis, RedisArgs};
use self::live::Live;
use self::record::Records;
use self::report::Findings;
use crate::csv::Tokens;
use crate::dlt::letters::{self, Letter};
use crate::ids::partition_of;
use crate::index::{Coupon, Snapshot, Watermark};
use crate::kafka::{Kafka, KafkaArgs, Topic};
use crate::load::target::Target;
use crate::servers::IssuesArgs;
use crate::state::{State, StateArgs};
use crate::verdict::Check;
use crate::{compare, terminal};

const LEVEL: &str = "consumers are level with the log";

const EXAMPLES: &str = "\
Examples:
  # after a load, everything of the running stack, and the log read again from its start
  couponctl audit --coupon 244019838763171 --answers claims.ndjson --replay
  # every coupon there is, for a script
  couponctl audit --all --replay --json
  # claims came from elsewhere too, and the doorman lost an instance's claims
  couponctl audit --coupon 244019838763171 --answers claims.ndjson --partial \\
      --redis-may-differ --json
  # without a running stack's state
  couponctl audit --coupon 244019838763171 --mysql mysql://firstcome@127.0.0.1:3306 \\
      --mysql-password-file f --redis 127.0.0.1:6379 --api http://127.0.0.1:8080

It ends with 0 if everything that could be judged is right, else with 1; what can't be judged says why.";

/// Check that every promise was kept: log, rows, Redis, API and the load's record against each other
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["coupon", "all"]))]
pub(crate) struct Args {
    /// The coupon to check
    #[arg(long, value_name = "ID")]
    coupon: Option<u64>,
    /// Every coupon of the database and of the log
    #[arg(long)]
    all: bool,
    /// Records of answers that `load` wrote, when it has ended
    #[arg(long, value_name = "FILE", num_args = 1..)]
    answers: Vec<PathBuf>,
    /// Read the log from its start, decide every record again, and compare: with --coupon its partition, with --all
    /// the whole
    #[arg(long)]
    replay: bool,
    #[command(flatten)]
    state: StateArgs,
    #[command(flatten)]
    issues: IssuesArgs,
    #[command(flatten)]
    redis: RedisArgs,
    /// The gateway instead of the stack's own: http://HOST:PORT
    #[arg(long, value_name = "URL")]
    api: Option<String>,
    #[command(flatten)]
    kafka: KafkaArgs,
    /// The dead letters' topic [default: the ledger's name and .dlt]
    #[arg(long, value_name = "NAME")]
    dead_letter_topic: Option<String>,
    /// So many dead letters wait, because records were damaged on purpose
    #[arg(long, value_name = "N", default_value_t = 0)]
    dead_letters_expected: u64,
    /// How much earlier than it could be read a record may be stamped: what the broker takes for it, and the
    /// difference of the clocks of brokers and load where they are not on one machine
    #[arg(long, value_name = "TIME", default_value = "50ms", value_parser = crate::clock::duration)]
    clock_tolerance: Duration,
    /// How long to wait for consumers, write-back and Redis to be level
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = crate::clock::duration)]
    wait: Duration,
    /// Without Kafka: rows that rested so long are taken as all
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = crate::clock::duration)]
    rest: Duration,
    /// Token file of winners who ask again [default: short tokens signed with the stack's key]
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// How many winners ask again; with --all of all coupons together, but at least one of each
    #[arg(long, value_name = "N", default_value_t = 100)]
    sample: usize,
    /// The record does not hold all claims: rows of users who are not in it are no fault
    #[arg(long)]
    partial: bool,
    /// The stock was changed since the first claim (with --replay the log says so itself)
    #[arg(long)]
    stock_changed: bool,
    /// A Redis set that differs is reported, not faulted
    #[arg(long)]
    redis_may_differ: bool,
    /// Permit a gateway that is not on this machine
    #[arg(long)]
    allow_remote: bool,
}

/// Where everything is.
struct Sources {
    redis: Option<Redis>,
    api: Option<Target>,
    kafka: Option<Kafka>,
    /// Of winners who ask again.
    tokens: Option<Tokens>,
}

pub(crate) fn run(args: &Args, json: bool) -> Result<ExitCode> {
    let state = args.state.find()?;
    let api = args.api.as_ref().or(state.gateway.as_ref());
    let sources = Sources {
        redis: args.redis.resolve(&state)?,
        api: api.map(|url| Target::parse(url, args.allow_remote)).transpose()?,
        kafka: args.kafka.resolve(&state),
        tokens: args.tokens.as_ref().map(|file| Tokens::read(file, None)).transpose()?,
    };
    if args.replay && sources.kafka.is_none() {
        bail!("--replay needs Kafka: give --kafka, or --state with a running stack's folder");
    }
    let bar = terminal::bar(0, "reading the record {wide_bar} {bytes}/{total_bytes} {eta}", false);
    let records = Records::read(&args.answers, &bar)?;
    bar.finish_and_clear();
    if let Some(coupon) = args.coupon
        && let Some(other) = records.coupons.keys().find(|other| **other != coupon)
    {
        bail!("the answers are of claims on coupon {other}, not on {coupon}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let findings = runtime.block_on(audit(args, &state, &sources, &records))?;
    let ok = findings.ok;
    if args.all {
        if json {
            println!("{}", serde_json::to_string(&findings)?);
        } else {
            findings.print();
        }
    } else {
        let report = findings.into_single();
        if json {
            println!("{}", serde_json::to_string(&report)?);
        } else {
            report.print();
        }
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn audit(args: &Args, state: &State, sources: &Sources, records: &Records) -> Result<Findings> {
    let until = Instant::now() + args.wait;
    let spinner = terminal::bar(0, "{elapsed} {msg}", false);
    spinner.enable_steady_tick(Duration::from_millis(250));
    spinner.set_message("waiting for the consumers");
    let mut connection = args.issues.connect(state).await?;
    let level = match &sources.kafka {
        Some(kafka) => level::by_log(kafka, &mut connection, until).await?,
        None => level::by_rest(&mut connection, args.coupon, args.rest, until).await?,
    };
    let is_level = level.is_ok();
    let compared = level.unwrap_or_else(|behind| behind);
    let mut list = vec![match &sources.kafka {
        Some(_) => Check::new("L", LEVEL, compared, is_level),
        None => Check::not_judged("L", LEVEL, compared),
    }];

    spinner.set_message("reading the dead letters");
    let mut snapshot = Snapshot::take(connection).await?;
    // Who was waited for in vain once is not waited for again with each coupon.
    let waits = is_level || sources.kafka.is_none();
    let mut live = Live {
        kafka: sources.kafka.as_ref(),
        connection: args.issues.connect(state).await?,
        until,
        patience: if waits { args.wait.min(live::SETTLE) } else { Duration::ZERO },
    };
    let letters = match &sources.kafka {
        Some(kafka) => dead_letters(kafka, args)?,
        None => None,
    };
    list.push(log::no_dead_letters(letters.as_deref(), args.dead_letters_expected));

    let coupons: BTreeMap<u64, Coupon> =
        snapshot.coupons().await?.into_iter().map(|coupon| (coupon.id, coupon)).collect();
    let watermarks = snapshot.watermarks().await?;
    let mut ids: BTreeSet<u64> = args.coupon.into_iter().collect();
    if args.all {
        ids.extend(coupons.keys());
        ids.extend(snapshot.coupons_with_rows().await?);
        ids.extend(records.coupons.keys());
    }
    let sample = if args.all { (args.sample / ids.len().max(1)).max(1) } else { args.sample };
    let topic =
        sources.kafka.as_ref().filter(|_| args.replay).map(|kafka| kafka.open(&kafka.topic)).transpose()?;
    let mut replays = Replays::default();
    if let Some(topic) = &topic {
        replays.problems = compare::partitions(topic.partitions, snapshot.partitions().await?, &watermarks);
    }
    // A partition of the log after the other, so that no more than one is in memory.
    let mut reports = Vec::new();
    for (partition, mut ids) in by_partition(ids, topic.as_ref(), args.all) {
        let log = match &topic {
            None => None,
            Some(topic) => {
                let stored = snapshot.digests(partition).await?;
                let found = watermarks.iter().find(|it| it.partition == u64::from(partition));
                let watermark = found.copied().unwrap_or_default();
                let log = spinner.suspend(|| {
                    let only = args.coupon;
                    tokio::task::block_in_place(|| replays.read(topic, &watermark, &stored, only, partition))
                })?;
                if args.all {
                    ids.extend(log.replayed.ledger.coupons.keys());
                }
                Some(log)
            }
        };
        for id in ids {
            spinner.set_message(format!("reading the rows of coupon {id}"));
            let coupon = coupons.get(&id);
            if let Some(log) = log.as_ref().filter(|log| log.replayed.stopped.is_none()) {
                let decided = log.replayed.ledger.coupons.get(&id);
                replays.problems.extend(compare::coupon(id, partition, decided, coupon));
            }
            let subject = Subject {
                id,
                coupon,
                rows: snapshot.rows(id).await?,
                record: records.coupons.get(&id),
                log: log.as_ref().map(|log| log.history(id)),
                sample,
            };
            spinner.set_message(format!("comparing coupon {id}"));
            reports.push(subject.audit(args, state, sources, &mut live).await?);
        }
    }
    spinner.finish_and_clear();
    if topic.is_some() {
        list.extend(replays.checks(letters.as_deref().unwrap_or_default()));
    }
    Ok(Findings::new(list, reports))
}

/// `None` without such a topic.
fn dead_letters(kafka: &Kafka, args: &Args) -> Result<Option<Vec<Letter>>> {
    let name = kafka.dead_letter_topic(args.dead_letter_topic.as_deref());
    let read = || kafka.find(&name)?.as_ref().map(letters::read).transpose();
    tokio::task::block_in_place(read).context("the dead letters can't be read")
}

/// Coupons by the partition that holds them. Without the log it does not matter.
fn by_partition(ids: BTreeSet<u64>, topic: Option<&Topic>, all: bool) -> BTreeMap<u32, BTreeSet<u64>> {
    let partitions = topic.map_or(1, |topic| topic.partitions);
    let mut by: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
    if all {
        by.extend((0..partitions).map(|partition| (partition, BTreeSet::new())));
    }
    for id in ids {
        by.entry(partition_of(id, partitions)).or_default().insert(id);
    }
    by
}

/// What reading the log again has shown so far.
#[derive(Default)]
struct Replays {
    problems: Vec<String>,
    records: u64,
    /// Partition, watermark, and the records below it that can't be read.
    unreadable: Vec<(u32, u64, Vec<u64>)>,
}

impl Replays {
    fn read(
        &mut self,
        topic: &Topic,
        watermark: &Watermark,
        stored: &[(u64, crate::replay::rules::Digest)],
        only: Option<u64>,
        partition: u32,
    ) -> Result<log::Partition> {
        let bar = terminal::replay_bar(partition, watermark.next);
        let log = log::read(topic, partition, watermark.next, only, &bar)?;
        bar.finish_and_clear();
        let problems = compare::digests(&log.replayed, watermark, stored);
        self.problems.extend(problems.into_iter().map(|problem| format!("partition {partition}: {problem}")));
        self.records += log.replayed.ledger.next;
        self.unreadable.push((partition, log.replayed.ledger.next, log.unreadable.clone()));
        Ok(log)
    }

    fn checks(self, letters: &[Letter]) -> [Check; 2] {
        [
            log::letters_are_the_logs(letters, &self.unreadable),
            log::tables_are_the_logs(self.records, self.unreadable.len(), self.problems),
        ]
    }
}
