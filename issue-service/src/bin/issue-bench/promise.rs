//! What the promise costs: the same claims answered at three places of their way.

use std::time::Duration;

use issue_service::app::Serving;
use issue_service::claim::Outcome;
use issue_service::doorman::{Word, users_key};
use issue_service::ids::CouponId;
use issue_service::ledger::Record;
use platform::lifecycle::{BoxError, Lifecycle};
use platform::redis::Redis;
use serde_json::{Value, json};

use crate::backlog::user;
use crate::clients::{Load, arriving, closed};
use crate::figures::{Latencies, per_second, whole};
use crate::ground::{Ground, PLENTY, System};
use crate::report::{Progress, Report, Section};

const ROUNDS: usize = 5;
const SLICE: Duration = Duration::from_secs(2);
/// Before the first slice that counts, of each kind.
const WARM_UP: Duration = Duration::from_secs(2);
/// For Redis to be found.
const FOUND_WITHIN: Duration = Duration::from_secs(10);

/// After what a claim is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answered {
    Doorman,
    Acknowledged,
    ReadBack,
}

const ALL: [Answered; 3] = [Answered::Doorman, Answered::Acknowledged, Answered::ReadBack];

#[derive(Debug, Clone, Copy)]
enum Shape {
    InFlight(usize),
    Arriving(u32),
}

const SHAPES: [Shape; 3] = [Shape::InFlight(64), Shape::InFlight(256), Shape::Arriving(750)];

impl Answered {
    fn name(self) -> &'static str {
        match self {
            Self::Doorman => "the doorman's word",
            Self::Acknowledged => "the log's acknowledgement",
            Self::ReadBack => "reading it back",
        }
    }
}

impl Shape {
    fn name(self) -> String {
        match self {
            Self::InFlight(count) => format!("{count} in flight"),
            Self::Arriving(rate) => format!("{rate} arrivals/s"),
        }
    }
}

/// What was measured of one way to answer under one load.
#[derive(Default)]
struct Measured {
    claims: u64,
    taken: Duration,
    slices: Vec<Vec<u32>>,
}

impl Measured {
    fn rate(&self) -> f64 {
        per_second(self.claims, self.taken)
    }
}

struct Bench<'a> {
    ground: &'a Ground,
    system: System,
    serving: Serving,
    /// To empty the doorman's sets.
    redis: Redis,
    /// Claims made so far: everybody is a new user.
    users: u64,
}

pub(crate) async fn measure(ground: &Ground, share: u64) -> Result<Report, BoxError> {
    let slice = SLICE / u32::try_from(share)?;
    let system = ground.system().await?;
    let serving = system.serving().await?;
    let lifecycle = Lifecycle::new();
    let redis = Redis::connect(system.settings.redis.clone(), &lifecycle, &[]);
    find(&redis).await?;
    let mut bench = Bench { ground, system, serving, redis, users: 0 };
    let mut progress = Progress::new((ROUNDS * SHAPES.len() * ALL.len() + ALL.len()) as u64);
    for answered in ALL {
        progress.step("warming up");
        bench.slice(answered, Shape::InFlight(256), WARM_UP / u32::try_from(share)?).await?;
    }
    let mut measured: [[Measured; 3]; 3] = Default::default();
    for round in 0..ROUNDS {
        for (shape, measured) in SHAPES.into_iter().zip(&mut measured) {
            for turn in 0..ALL.len() {
                let index = (turn + round) % ALL.len();
                let answered = ALL[index];
                let (shown, after) = (shape.name(), answered.name());
                progress.step(&format!("{shown}: answered after {after}, round {} of {ROUNDS}", round + 1));
                let load = bench.slice(answered, shape, slice).await?;
                let measured = &mut measured[index];
                measured.claims += load.latencies.len() as u64;
                measured.taken += load.taken;
                measured.slices.push(load.latencies);
            }
        }
    }
    lifecycle.stop_background(Duration::from_secs(5)).await;
    bench.serving.stop().await;
    ground.remove(bench.system).await?;
    Ok(report(measured))
}

/// Waits until it is connected.
pub(crate) async fn find(redis: &Redis) -> Result<(), BoxError> {
    let found = async {
        while redis.connection().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    Ok(tokio::time::timeout(FOUND_WITHIN, found).await.map_err(|_| "no Redis master was found")?)
}

impl Bench<'_> {
    /// A coupon of its own for each slice, always in the same partition: how many have won before is no matter.
    async fn slice(
        &mut self,
        answered: Answered,
        shape: Shape,
        duration: Duration,
    ) -> Result<Load, BoxError> {
        let coupon = std::iter::repeat_with(|| self.ground.new_coupon())
            .find(|coupon| self.system.partition_of(*coupon) == 0)
            .ok_or("no coupon")?;
        self.system.define(&self.serving, coupon).await?;
        let (claims, before) = (self.serving.claims.clone(), self.users);
        let claim = move |number| {
            let claims = claims.clone();
            let user = user(before + number);
            async move {
                if answered == Answered::ReadBack {
                    return matches!(claims.claim(coupon, user).await, Outcome::Issued(_));
                }
                let admitted = claims.doorman.ask(coupon, user, PLENTY).await == Word::Admitted;
                if answered == Answered::Doorman {
                    return admitted;
                }
                let record = Record::Claim { coupon, user };
                admitted && claims.outside.log.append(0, record).await.is_ok()
            }
        };
        let load = match shape {
            Shape::InFlight(count) => closed(count, duration, claim).await?,
            Shape::Arriving(rate) => arriving(rate, duration, claim).await?,
        };
        let told = load.latencies.len() as u64;
        self.users += told + load.failed;
        if load.failed > 0 {
            let after = answered.name();
            return Err(format!(
                "{} claims got no yes after {after}: the machine is overloaded",
                load.failed
            )
            .into());
        }
        self.settle(coupon, if answered == Answered::Doorman { 0 } else { told }).await?;
        Ok(load)
    }

    /// Leaves no work to the next slice, and sees that the log holds what clients were told.
    async fn settle(&self, coupon: CouponId, winners: u64) -> Result<(), BoxError> {
        let claims = &self.serving.claims;
        claims.refusals.news(0).await?;
        let count = claims.partitions[0].definition(coupon).map_or(0, |(_, count, _)| u64::from(count));
        if count != winners {
            return Err(format!("{winners} were told yes, and the log has {count} winners").into());
        }
        let mut connection = self.redis.connection().ok_or("Redis is away")?.conn;
        redis::cmd("UNLINK").arg(users_key(coupon)).query_async::<()>(&mut connection).await?;
        Ok(())
    }
}

fn report(measured: [[Measured; 3]; 3]) -> Report {
    let mut rows = Vec::new();
    let mut figures = Vec::new();
    for (shape, measured) in SHAPES.into_iter().zip(measured) {
        let most = measured[0].rate();
        for (answered, mut measured) in ALL.into_iter().zip(measured) {
            let latencies = Latencies::of(std::mem::take(&mut measured.slices));
            let (rate, average) = (measured.rate(), latencies.average_ms());
            let p99 = latencies.percentile_ms(0.99);
            rows.push(vec![
                shape.name(),
                answered.name().to_owned(),
                whole(rate),
                format!("{:.2}", rate / most),
                format!("{average:.2}"),
                format!("{p99:.2}"),
            ]);
            let figure: Value = json!({"load": shape.name(), "answeredAfter": answered.name(),
                "claims": measured.claims, "claimsPerSecond": rate, "averageMs": average, "p99Ms": p99});
            figures.push(figure);
        }
    }
    let section = Section {
        heading: "Claims on one coupon",
        about: format!(
            "One instance, one coupon with stock for all, every claim of another user; without HTTP and without a \
             consumer. {ROUNDS} rounds of {} s of each, in turn, after a warm-up. The ratio is to the doorman's word under \
             the same load. Arrivals are timed from when they were due. Every claim was answered with yes, and the log \
             holds as many winners as were told so.",
            SLICE.as_secs()
        ),
        columns: vec!["load", "answered after", "claims/s", "ratio", "average ms", "p99 ms"],
        rows,
    };
    Report {
        title: "What the promise costs",
        about: "A claim can be answered at three places of its way. After the *doorman's word*: the script in Redis has \
                let the user in, and nothing is written yet; it is the least that a claim can cost, and a lost Redis \
                loses what was promised. After the *log's acknowledgement*: the claim is in the log, but who won is not \
                known, as another instance or a doorman who forgot may have let in more than there is. After *reading it \
                back*, as this service does: the log has decided. The first two exist only here, made of the same parts."
            .into(),
        sections: vec![section],
        checks: Vec::new(),
        figures: json!({"loads": figures}),
    }
}
