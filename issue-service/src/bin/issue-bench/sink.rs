//! Rows a second that the consumer writes out of a backlog, beside a loop that only inserts; then an outage of the
//! consumer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use platform::lifecycle::BoxError;
use serde_json::json;

use crate::backlog::Backlog;
use crate::figures::{median, per_second, percent, range, whole};
use crate::ground::Ground;
use crate::report::{Check, Progress, Report, Section};
use crate::{bare, outage};

const ROWS: u64 = 200_000;
const ROUNDS: usize = 5;
/// Of the bare loop's rows a second.
const ASKED_FOR: f64 = 0.6;
/// How often the database is asked how far it follows.
const LOOK: Duration = Duration::from_millis(2);
const WRITTEN_WITHIN: Duration = Duration::from_secs(60);

struct Shape {
    title: &'static str,
    coupons: u64,
    partitions: usize,
    /// Rows a second, round by round.
    consumer: Vec<f64>,
    bare: Vec<f64>,
}

impl Shape {
    fn new(title: &'static str, coupons: u64) -> Self {
        Self { title, coupons, partitions: 0, consumer: Vec::new(), bare: Vec::new() }
    }

    /// Of the rounds.
    fn ratios(&self) -> Vec<f64> {
        self.consumer.iter().zip(&self.bare).map(|(consumer, bare)| consumer / bare).collect()
    }
}

pub(crate) async fn measure(ground: &Ground, share: u64) -> Result<Report, BoxError> {
    let rows = ROWS / share;
    let mut shapes = [Shape::new("one coupon", 1), Shape::new("100 coupons", 100)];
    let mut progress = Progress::new((ROUNDS * shapes.len() * 2) as u64 + outage::STEPS);
    for round in 0..ROUNDS {
        for shape in &mut shapes {
            // Whoever comes second finds the server as the first one left it.
            for turn in [round % 2, (round + 1) % 2] {
                let who = if turn == 0 { "the consumer" } else { "the bare loop" };
                progress.step(&format!("{}: {who}, round {} of {ROUNDS}", shape.title, round + 1));
                let coupons = (0..shape.coupons).map(|_| ground.new_coupon()).collect();
                let backlog = Backlog { coupons, claims: rows };
                if turn == 0 {
                    shape.consumer.push(consume(ground, &backlog).await?);
                } else {
                    let (rate, partitions) = insert(ground, &backlog).await?;
                    shape.bare.push(rate);
                    shape.partitions = partitions;
                }
            }
        }
    }
    let outage = outage::measure(ground, share, &mut progress).await?;
    Ok(report(rows, &shapes, outage))
}

/// The consumer's rows a second, from when it has begun to write to the last row.
async fn consume(ground: &Ground, backlog: &Backlog) -> Result<f64, BoxError> {
    let system = ground.system().await?;
    let ends: BTreeMap<u32, u64> = backlog.write(&system).await?;
    let end: u64 = ends.values().sum();
    let mut watch = system.watch().await?;
    let consumer = system.consumer()?;
    let writing = async {
        let first = loop {
            let written = watch.written().await?;
            if written > 0 {
                break written;
            }
            tokio::time::sleep(LOOK).await;
        };
        // The first transaction of a consumer holds what had come until then, often a single record.
        let begun = Instant::now();
        while watch.written().await? < end {
            tokio::time::sleep(LOOK).await;
        }
        Ok::<_, BoxError>(per_second(end - first, begun.elapsed()))
    };
    let rate = tokio::time::timeout(WRITTEN_WITHIN, writing)
        .await
        .map_err(|_| "the consumer did not write its backlog in time: see its log")??;
    let rows = system.rows().await?;
    if rows != backlog.claims {
        return Err(format!("{} claims in the log came to {rows} rows", backlog.claims).into());
    }
    consumer.stop().await;
    ground.remove(system).await?;
    Ok(rate)
}

/// The bare loop's rows a second, and its connections.
async fn insert(ground: &Ground, backlog: &Backlog) -> Result<(f64, usize), BoxError> {
    let system = ground.system().await?;
    let rows = backlog.rows(&system);
    let taken = bare::insert(&system.pool, &rows).await?;
    ground.remove(system).await?;
    Ok((per_second(backlog.claims, taken), rows.len()))
}

fn report(rows: u64, shapes: &[Shape], outage: outage::Outcome) -> Report {
    let row = |shape: &Shape| {
        vec![
            format!("{}, {} partitions", shape.title, shape.partitions),
            whole(median(&shape.consumer)),
            whole(median(&shape.bare)),
            percent(median(&shape.ratios())),
            range(&shape.ratios(), percent),
        ]
    };
    let check = |shape: &Shape| {
        let ratio = median(&shape.ratios());
        Check {
            what: format!("share of the bare loop, {}", shape.title),
            is: percent(ratio),
            must: format!("at least {}", percent(ASKED_FOR)),
            ok: ratio >= ASKED_FOR,
        }
    };
    let figures = |shape: &Shape| {
        json!({"shape": shape.title, "partitions": shape.partitions,
        "consumerRowsPerSecond": shape.consumer, "bareRowsPerSecond": shape.bare, "ratios": shape.ratios()})
    };
    let section = Section {
        heading: "A backlog",
        about: format!(
            "{} claims, each of another user, lie in the log before the consumer starts; user ids are random to the \
             index. The consumer's clock runs from when it has begun to write to the last row. Beside it a loop that does \
             nothing but insert such rows into the same tables: one connection for each partition that has rows, \
             statements of 1,000 rows written beforehand, sorted, 5,000 rows in a transaction. {ROUNDS} rounds, one after \
             the other in turn; medians, and the ratio of each round's two.",
            whole(rows as f64)
        ),
        columns: vec!["backlog", "consumer rows/s", "bare loop rows/s", "ratio", "over the rounds"],
        rows: shapes.iter().map(row).collect(),
    };
    let mut checks: Vec<Check> = shapes.iter().map(check).collect();
    checks.extend(outage.checks);
    let backlog: Vec<_> = shapes.iter().map(figures).collect();
    Report {
        title: "The way into the database",
        about:
            "How fast the consumer writes what the log decided, and what it means to clients when it is away."
                .into(),
        sections: vec![section, outage.section, outage.recovery],
        checks,
        figures: json!({"rows": rows, "backlog": backlog, "outage": outage.figures}),
    }
}
