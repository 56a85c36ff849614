//! `ledger verify`: reads the whole log, decides it again, and holds the tables against it.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use comfy_table::{Table, presets};
use serde::Serialize;

use crate::compare;
use crate::index::{Coupon, Snapshot, Watermark};
use crate::kafka::{KafkaArgs, Topic};
use crate::replay::replay;
use crate::replay::rules::Digest;
use crate::servers::IssuesArgs;
use crate::state::StateArgs;
use crate::terminal::{self, grouped};

const EXAMPLES: &str = "\
Examples:
  couponctl ledger verify
  couponctl ledger verify --json --state /tmp/second

It ends with 0 if log and tables agree, else with 1. `couponctl audit --all --replay` also compares every row.";

/// Read the whole log, and compare digests, watermarks, definitions and counts
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    state: StateArgs,
    #[command(flatten)]
    issues: IssuesArgs,
    #[command(flatten)]
    kafka: KafkaArgs,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    ok: bool,
    records: u64,
    coupons: usize,
    seconds: f64,
    partitions: Vec<Partition>,
    /// Of no partition in particular.
    problems: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Partition {
    partition: u32,
    /// Decided again: everything below the watermark.
    records: u64,
    watermark: u64,
    digests: usize,
    coupons: usize,
    problems: Vec<String>,
}

/// What the tables hold, as of one moment.
struct Tables {
    partitions: Option<u64>,
    watermarks: Vec<Watermark>,
    digests: BTreeMap<u32, Vec<(u64, Digest)>>,
    coupons: Vec<Coupon>,
}

pub(crate) fn run(args: &Args, json: bool) -> Result<ExitCode> {
    let state = args.state.find()?;
    let kafka = args.kafka.demand(&state)?;
    let topic = kafka.open(&kafka.topic)?;
    let started = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tables = runtime.block_on(async {
        let mut snapshot = Snapshot::take(args.issues.connect(&state).await?).await?;
        let mut digests = BTreeMap::new();
        for partition in 0..topic.partitions {
            digests.insert(partition, snapshot.digests(partition).await?);
        }
        Ok::<_, anyhow::Error>(Tables {
            partitions: snapshot.partitions().await?,
            watermarks: snapshot.watermarks().await?,
            digests,
            coupons: snapshot.coupons().await?,
        })
    })?;
    let mut report = verify(&topic, &tables)?;
    report.seconds = started.elapsed().as_secs_f64();
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        report.print();
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn verify(topic: &Topic, tables: &Tables) -> Result<Report> {
    let problems = compare::partitions(topic.partitions, tables.partitions, &tables.watermarks);
    let mut partitions = Vec::new();
    for partition in 0..topic.partitions {
        partitions.push(verify_partition(topic, partition, tables)?);
    }
    Ok(Report {
        ok: problems.is_empty() && partitions.iter().all(|it| it.problems.is_empty()),
        records: partitions.iter().map(|it| it.records).sum(),
        coupons: partitions.iter().map(|it| it.coupons).sum(),
        seconds: 0.0,
        partitions,
        problems,
    })
}

fn verify_partition(topic: &Topic, partition: u32, tables: &Tables) -> Result<Partition> {
    let found = tables.watermarks.iter().find(|watermark| watermark.partition == u64::from(partition));
    let watermark = found.copied().unwrap_or_default();
    let bar = terminal::replay_bar(partition, watermark.next);
    let replayed = replay(topic, partition, watermark.next, &bar, |_, _, _| {})?;
    bar.finish_and_clear();
    let stored = tables.digests.get(&partition).map_or(&[][..], Vec::as_slice);
    let mut problems = compare::digests(&replayed, &watermark, stored);
    let ours = |id: u64| crate::ids::partition_of(id, topic.partitions) == partition;
    let coupons: BTreeMap<u64, &Coupon> =
        tables.coupons.iter().filter(|coupon| ours(coupon.id)).map(|coupon| (coupon.id, coupon)).collect();
    let decided = &replayed.ledger.coupons;
    if replayed.stopped.is_none() {
        let ids: std::collections::BTreeSet<u64> = coupons.keys().chain(decided.keys()).copied().collect();
        problems
            .extend(ids.into_iter().filter_map(|id| {
                compare::coupon(id, partition, decided.get(&id), coupons.get(&id).copied())
            }));
    }
    Ok(Partition {
        partition,
        records: replayed.ledger.next,
        watermark: watermark.next,
        digests: stored.len(),
        coupons: coupons.len(),
        problems,
    })
}

impl Report {
    fn print(&self) {
        let mut table = Table::new();
        let header = ["partition", "records", "watermark", "stored digests", "coupons", "verdict"];
        table.load_style(presets::UTF8_FULL_CONDENSED).set_header(header);
        for it in &self.partitions {
            table.add_row([
                it.partition.to_string(),
                grouped(it.records),
                grouped(it.watermark),
                grouped(it.digests as u64),
                grouped(it.coupons as u64),
                if it.problems.is_empty() { "agrees" } else { "DIFFERS" }.to_owned(),
            ]);
        }
        println!("{table}");
        let of_partitions = self.partitions.iter().flat_map(|it| {
            it.problems.iter().map(|problem| format!("partition {}: {problem}", it.partition))
        });
        for problem in self.problems.iter().cloned().chain(of_partitions) {
            println!("{problem}");
        }
        println!(
            "{} records in {:.1} s: {}",
            grouped(self.records),
            self.seconds,
            if self.ok { "log and tables agree" } else { "LOG AND TABLES DIFFER" }
        );
    }
}
