//! A consumer that is away: what its clients notice, and how soon the rows have caught up.
//!
//! Two systems take the claims in turn, in short slices: one has a consumer, the other has none until the end.

use std::time::{Duration, Instant};

use issue_service::app::Serving;
use issue_service::claim::Outcome as Told;
use issue_service::ids::CouponId;
use platform::lifecycle::BoxError;
use serde_json::{Value, json};

use crate::backlog::user;
use crate::clients::{Load, arriving};
use crate::figures::{Latencies, per_second, percent, whole};
use crate::ground::{Consumer, Ground, System, Watch};
use crate::report::{Check, Progress, Section};

/// Claims a second.
const RATE: u32 = 1_000;
/// Of each kind.
const SLICES: u64 = 12;
const SLICE: Duration = Duration::from_secs(5);
pub(crate) const STEPS: u64 = 2 * SLICES + 1;
/// Rows a second while it catches up, by the rate of arrival.
const ASKED_FOR: f64 = 20.0;
/// Of the average latency with a consumer: what counts as no cost, on a machine where two loads never take the same.
const SAME: f64 = 1.1;
/// The rows are level when they lag behind the log by no more than arrives in 50 ms.
const LEVEL: u64 = 50;
const LOOK: Duration = Duration::from_millis(2);
/// Claims go on while it catches up, and for joining the group before.
const RECOVERY: Duration = Duration::from_secs(10);

pub(crate) struct Outcome {
    pub(crate) section: Section,
    pub(crate) recovery: Section,
    pub(crate) checks: Vec<Check>,
    pub(crate) figures: Value,
}

/// A system with an instance that answers claims on one coupon.
struct Side {
    system: System,
    serving: Serving,
    coupon: CouponId,
    /// Claims made here.
    claims: u64,
    slices: Vec<Vec<u32>>,
}

impl Side {
    async fn new(ground: &Ground) -> Result<Self, BoxError> {
        let system = ground.system().await?;
        let serving = system.serving().await?;
        let coupon = ground.new_coupon();
        system.define(&serving, coupon).await?;
        Ok(Self { system, serving, coupon, claims: 0, slices: Vec::new() })
    }

    async fn claim(&mut self, duration: Duration) -> Result<Load, BoxError> {
        let (claims, coupon, before) = (self.serving.claims.clone(), self.coupon, self.claims);
        let load = arriving(RATE, duration, move |number| {
            let claims = claims.clone();
            async move { matches!(claims.claim(coupon, user(before + number)).await, Told::Issued(_)) }
        })
        .await?;
        self.claims += load.latencies.len() as u64 + load.failed;
        if load.failed > 0 {
            return Err(format!("{} claims at {RATE} a second were not told ISSUED", load.failed).into());
        }
        Ok(load)
    }

    /// Records that this instance has read.
    fn read(serving: &Serving) -> u64 {
        serving.claims.partitions.iter().map(|partition| partition.next()).sum()
    }

    async fn end(self, ground: &Ground) -> Result<(), BoxError> {
        self.serving.stop().await;
        ground.remove(self.system).await
    }
}

/// How a consumer that comes back catches up.
struct Recovery {
    lag: u64,
    /// From its start to its first row.
    joining: Duration,
    rows: u64,
    /// From its first row until it is level.
    taken: Duration,
    latencies: Latencies,
}

pub(crate) async fn measure(
    ground: &Ground,
    share: u64,
    progress: &mut Progress,
) -> Result<Outcome, BoxError> {
    let slice = SLICE / u32::try_from(share)?;
    let (mut with, mut without) = (Side::new(ground).await?, Side::new(ground).await?);
    let consumer = with.system.consumer()?;
    level(&with, &mut with.system.watch().await?).await?;
    for number in 0..SLICES {
        for turn in [number % 2, (number + 1) % 2] {
            let (side, what) = if turn == 0 { (&mut with, "with") } else { (&mut without, "without") };
            progress.step(&format!(
                "{} claims/s {what} a consumer, slice {} of {SLICES}",
                whole(RATE.into()),
                number + 1
            ));
            let load = side.claim(slice).await?;
            side.slices.push(load.latencies);
        }
    }
    level(&with, &mut with.system.watch().await?).await?;
    for (side, rows) in [(&with, with.claims), (&without, 0)] {
        let found = side.system.rows().await?;
        if found != rows {
            return Err(format!("{found} rows where there had to be {rows}").into());
        }
    }
    progress.step("the consumer comes back");
    let recovery = recover(&mut without).await?;
    let found = without.system.rows().await?;
    if found != without.claims {
        return Err(format!("{} claims came to {found} rows", without.claims).into());
    }
    consumer.stop().await;
    let outcome = outcome(&mut with, &mut without, &recovery);
    with.end(ground).await?;
    without.end(ground).await?;
    Ok(outcome)
}

/// Waits until the database has followed as far as the instance has read.
async fn level(side: &Side, watch: &mut Watch) -> Result<(), BoxError> {
    let begun = Instant::now();
    while watch.written().await? < Side::read(&side.serving) {
        if begun.elapsed() > RECOVERY * 3 {
            return Err("the consumer does not follow: see its log".into());
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Claims go on meanwhile.
async fn recover(side: &mut Side) -> Result<Recovery, BoxError> {
    let mut watch = side.system.watch().await?;
    let read = {
        let partitions = side.serving.claims.partitions.clone();
        move || -> u64 { partitions.iter().map(|partition| partition.next()).sum() }
    };
    let lag = read();
    let consumer: Consumer = side.system.consumer()?;
    let begun = Instant::now();
    let catching_up = async {
        let first = loop {
            let written = watch.written().await?;
            if written > 0 {
                break written;
            }
            tokio::time::sleep(LOOK).await;
        };
        let (joining, writing) = (begun.elapsed(), Instant::now());
        loop {
            let written = watch.written().await?;
            if written + LEVEL >= read() {
                return Ok::<_, BoxError>((joining, written - first, writing.elapsed()));
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let catching_up = async {
        tokio::time::timeout(RECOVERY * 3, catching_up)
            .await
            .map_err(|_| "the consumer did not catch up in time: see its log")?
    };
    let (load, caught_up) = tokio::join!(side.claim(RECOVERY), catching_up);
    let (joining, rows, taken) = caught_up?;
    level(side, &mut watch).await?;
    consumer.stop().await;
    Ok(Recovery { lag, joining, rows, taken, latencies: Latencies::of([load?.latencies]) })
}

fn outcome(with: &mut Side, without: &mut Side, recovery: &Recovery) -> Outcome {
    let claims = without.slices.iter().map(Vec::len).sum::<usize>();
    let with = Latencies::of(std::mem::take(&mut with.slices));
    let without = Latencies::of(std::mem::take(&mut without.slices));
    let row = |what: &str, latencies: &Latencies| {
        let mut row = vec![what.to_owned(), format!("{:.2}", latencies.average_ms())];
        row.extend([0.5, 0.99, 1.0].map(|share| format!("{:.2}", latencies.percentile_ms(share))));
        row
    };
    let shown = |latencies: &Latencies| {
        json!({"average": latencies.average_ms(),
        "p50": latencies.percentile_ms(0.5), "p99": latencies.percentile_ms(0.99),
        "max": latencies.percentile_ms(1.0)})
    };
    let rate = per_second(recovery.rows, recovery.taken);
    let (times, cost) = (rate / f64::from(RATE), without.average_ms() / with.average_ms());
    let section = Section {
        heading: "An outage of the consumer",
        about: format!(
            "{} claims at {} a second with no consumer running, in slices of {} s between slices of another log whose \
             consumer runs. All were told ISSUED. Milliseconds from when a claim was due to its answer.",
            whole(claims as f64),
            whole(RATE.into()),
            SLICE.as_secs()
        ),
        columns: vec!["consumer", "average ms", "p50 ms", "p99 ms", "max ms"],
        rows: vec![
            row("runs", &with),
            row("is away", &without),
            row("comes back and catches up", &recovery.latencies),
        ],
    };
    let back = Section {
        heading: "Catching up",
        about: "The consumer is started while claims go on arriving, and is level when its rows are less than 50 ms of \
                arrivals behind the log."
            .into(),
        columns: vec!["records behind", "from its start to its first row", "until level", "rows/s", "of the arrivals"],
        rows: vec![vec![
            whole(recovery.lag as f64),
            format!("{:.1} s", recovery.joining.as_secs_f64()),
            format!("{:.2} s", recovery.taken.as_secs_f64()),
            whole(rate),
            format!("{times:.0} times"),
        ]],
    };
    let checks = vec![
        Check {
            what: "average latency without a consumer, of that with one".into(),
            is: percent(cost),
            must: format!("at most {}", percent(SAME)),
            ok: cost <= SAME,
        },
        Check {
            what: "rate of catching up, by the rate of arrival".into(),
            is: format!("{times:.0} times"),
            must: format!("at least {ASKED_FOR:.0} times"),
            ok: times >= ASKED_FOR,
        },
    ];
    let figures = json!({
        "claimsPerSecond": RATE,
        "claims": claims,
        "latencyMs": {"with": shown(&with), "without": shown(&without), "catchingUp": shown(&recovery.latencies)},
        "behind": recovery.lag,
        "joiningSeconds": recovery.joining.as_secs_f64(),
        "catchingUpSeconds": recovery.taken.as_secs_f64(),
        "rowsPerSecond": rate,
    });
    Outcome { section, recovery: back, checks, figures }
}
