//! `ledger show`: how far the log goes, how far the tables follow, and what they hold of each coupon.

use std::process::ExitCode;

use anyhow::{Result, bail};
use comfy_table::{Table, presets};
use serde::Serialize;

use crate::index::{Coupon, Snapshot};
use crate::kafka::{KafkaArgs, Topic};
use crate::replay::record::Definition;
use crate::servers::IssuesArgs;
use crate::state::StateArgs;
use crate::terminal::{grouped, time};

const EXAMPLES: &str = "\
Examples:
  couponctl ledger show
  couponctl ledger show --coupon 244019838763171 --json";

/// Partitions with log, watermark and lag; coupons with definition and count
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Only this coupon and its partition
    #[arg(long, value_name = "ID")]
    coupon: Option<u64>,
    #[command(flatten)]
    state: StateArgs,
    #[command(flatten)]
    issues: IssuesArgs,
    #[command(flatten)]
    kafka: KafkaArgs,
}

#[derive(Debug, Serialize)]
struct Shown {
    partitions: Vec<PartitionShown>,
    coupons: Vec<CouponShown>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PartitionShown {
    partition: u32,
    log_start: u64,
    log_end: u64,
    /// The first offset that the tables do not hold.
    watermark: u64,
    lag: u64,
    /// Of everything below the watermark.
    digest: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CouponShown {
    coupon: u64,
    partition: u64,
    #[serde(flatten)]
    definition: Definition,
    /// Offset of the retirement.
    retired_at: Option<u64>,
    count: u64,
}

pub(crate) fn run(args: &Args, json: bool) -> Result<ExitCode> {
    let state = args.state.find()?;
    let kafka = args.kafka.demand(&state)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (watermarks, coupons) = runtime.block_on(async {
        let mut snapshot = Snapshot::take(args.issues.connect(&state).await?).await?;
        Ok::<_, anyhow::Error>((snapshot.watermarks().await?, snapshot.coupons().await?))
    })?;
    let topic = kafka.open(&kafka.topic)?;
    let wanted = |coupon: &Coupon| args.coupon.is_none_or(|wanted| wanted == coupon.id);
    let coupons: Vec<CouponShown> = coupons.into_iter().filter(wanted).map(shown).collect();
    if let (Some(wanted), true) = (args.coupon, coupons.is_empty()) {
        bail!("the tables hold no coupon {wanted}: `ledger tail` shows whether the log does");
    }
    let partitions = partitions(&topic, args.coupon)?
        .map(|partition| {
            let bounds = topic.bounds(partition)?;
            let found = watermarks.iter().find(|watermark| watermark.partition == u64::from(partition));
            let watermark = found.copied().unwrap_or_default();
            Ok(PartitionShown {
                partition,
                log_start: bounds.start,
                log_end: bounds.end,
                watermark: watermark.next,
                lag: bounds.end.saturating_sub(watermark.next),
                digest: hex::encode(watermark.digest),
            })
        })
        .collect::<Result<_>>()?;
    let shown = Shown { partitions, coupons };
    if json {
        println!("{}", serde_json::to_string(&shown)?);
    } else {
        shown.print();
    }
    Ok(ExitCode::SUCCESS)
}

fn partitions(topic: &Topic, coupon: Option<u64>) -> Result<impl Iterator<Item = u32> + use<>> {
    let only = coupon.map(|coupon| crate::ids::partition_of(coupon, topic.partitions));
    Ok((0..topic.partitions).filter(move |partition| only.is_none_or(|only| only == *partition)))
}

fn shown(coupon: Coupon) -> CouponShown {
    let Coupon { id, partition, definition, retired_at, count } = coupon;
    CouponShown { coupon: id, partition, definition, retired_at, count }
}

impl Shown {
    fn print(&self) {
        let mut table = Table::new();
        let header = ["partition", "log start", "log end", "watermark", "lag", "digest at the watermark"];
        table.load_style(presets::UTF8_FULL_CONDENSED).set_header(header);
        for it in &self.partitions {
            table.add_row([
                it.partition.to_string(),
                grouped(it.log_start),
                grouped(it.log_end),
                grouped(it.watermark),
                grouped(it.lag),
                format!("{}…", &it.digest[..16]),
            ]);
        }
        println!("{table}");
        let mut table = Table::new();
        let header = ["coupon", "partition", "version", "stock", "from", "to", "closed", "retired", "count"];
        table.load_style(presets::UTF8_FULL_CONDENSED).set_header(header);
        for it in &self.coupons {
            let Definition { version, stock, starts_at, ends_at, closed } = it.definition;
            table.add_row([
                it.coupon.to_string(),
                it.partition.to_string(),
                version.to_string(),
                grouped(stock),
                time(starts_at),
                time(ends_at),
                if closed { "closed" } else { "" }.to_owned(),
                it.retired_at.map(|offset| format!("at offset {offset}")).unwrap_or_default(),
                grouped(it.count),
            ]);
        }
        println!("{table}");
    }
}
