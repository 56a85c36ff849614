//! What is left of coupons that end and retire, one wave after the other.

use std::collections::HashSet;
use std::time::Duration;

use issue_service::app::Serving;
use issue_service::claim::Outcome;
use issue_service::ids::CouponId;
use issue_service::ledger::partition::Standing;
use issue_service::ledger::{Definition, Record};
use platform::clock::now_ms;
use platform::lifecycle::{BoxError, Lifecycle};
use platform::redis::Redis;
use serde::Serialize;
use serde_json::json;

use crate::backlog::user;
use crate::figures::whole;
use crate::ground::{Ground, System, definition, resident};
use crate::promise::find;
use crate::report::{Check, Progress, Report, Section};

/// The first half of them brings every table to the size of the largest burst, which it keeps.
const COUPONS: u64 = 2_000;
const WAVES: u64 = 20;
const STOCK: u32 = 1_000;
/// Who claim each coupon: some of them are refused.
const CLAIMANTS: u64 = 1_200;
/// Retirements are written and winners evicted in rounds of seconds, and the counts' and the reconciler's rounds follow.
const GONE_WITHIN: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(200);

/// After a wave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Left {
    /// Coupons that were made so far, all of them retired.
    coupons: u64,
    winners: u64,
    /// Of these coupons, in Redis.
    redis_keys: u64,
    winners_in_memory: u64,
    /// Records that the producer still holds.
    queued: u64,
    resident_bytes: u64,
}

struct Bench<'a> {
    ground: &'a Ground,
    system: System,
    serving: Serving,
    redis: Redis,
    coupons: Vec<CouponId>,
    winners: u64,
}

pub(crate) async fn measure(ground: &Ground, share: u64) -> Result<Report, BoxError> {
    let mut system = ground.system().await?;
    system.settings.retirement.after = Duration::ZERO;
    let (serving, consumer) = (system.serving().await?, system.consumer()?);
    let lifecycle = Lifecycle::new();
    let redis = Redis::connect(system.settings.redis.clone(), &lifecycle, &[]);
    find(&redis).await?;
    let mut bench = Bench { ground, system, serving, redis, coupons: Vec::new(), winners: 0 };
    let mut progress = Progress::new(WAVES);
    let mut left = Vec::new();
    for wave in 1..=WAVES {
        progress.step(&format!("coupons end and retire, wave {wave} of {WAVES}"));
        left.push(bench.wave(COUPONS / WAVES / share).await?);
    }
    consumer.stop().await;
    lifecycle.stop_background(Duration::from_secs(5)).await;
    bench.serving.stop().await;
    ground.remove(bench.system).await?;
    Ok(report(&left))
}

impl Bench<'_> {
    /// Coupons that are claimed until they are sold out, end, and retire.
    async fn wave(&mut self, count: u64) -> Result<Left, BoxError> {
        for _ in 0..count {
            let coupon = self.ground.new_coupon();
            self.define(Definition { stock: STOCK, ..definition(coupon) }).await?;
            self.claims(coupon).await?;
            let now = now_ms();
            let ended = Definition { version: 2, stock: STOCK, ends_at: now - 1, ..definition(coupon) };
            self.define(ended).await?;
            self.coupons.push(coupon);
        }
        let gone = async {
            loop {
                let left = self.left().await?;
                if left.winners_in_memory == 0 && left.redis_keys == 0 && left.queued == 0 {
                    return Ok::<_, BoxError>(left);
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        match tokio::time::timeout(GONE_WITHIN, gone).await {
            Ok(left) => left,
            Err(_) => self.left().await,
        }
    }

    async fn define(&self, definition: Definition) -> Result<(), BoxError> {
        let number = self.system.partition_of(definition.coupon);
        let claims = &self.serving.claims;
        let offset = claims.outside.log.append(number, Record::Definition(definition)).await?;
        Ok(claims.partitions[number as usize].passed(offset + 1).await?)
    }

    async fn claims(&mut self, coupon: CouponId) -> Result<(), BoxError> {
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..CLAIMANTS {
            let claims = self.serving.claims.clone();
            tasks.spawn(async move { claims.claim(coupon, user(number + 1)).await });
        }
        let outcomes = tasks.join_all().await;
        let won = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Issued(_))).count();
        if won != STOCK as usize {
            return Err(format!("{won} of {STOCK} were issued: the machine is overloaded").into());
        }
        self.winners += u64::from(STOCK);
        Ok(())
    }

    async fn left(&self) -> Result<Left, BoxError> {
        let claims = &self.serving.claims;
        let mut winners_in_memory = 0;
        let ours: HashSet<CouponId> = self.coupons.iter().copied().collect();
        for partition in &*claims.partitions {
            let held = |id: &CouponId| {
                let evicted = matches!(partition.standing(*id, user(1), 0), Standing::Evicted { .. });
                ours.contains(id) && !evicted
            };
            let all: Vec<(CouponId, u64)> = partition
                .with(|ledger| ledger.coupons().map(|(id, it)| (*id, u64::from(it.count()))).collect());
            winners_in_memory += all.iter().filter(|(id, _)| held(id)).map(|(_, count)| count).sum::<u64>();
        }
        let mut connection = self.redis.connection().ok_or("Redis is away")?.conn;
        let mut redis_keys = 0;
        for coupons in self.coupons.chunks(100) {
            let keys = coupons.iter().flat_map(|coupon| {
                ["users", "info", "count"].map(|name| format!("coupon:{{{coupon}}}:{name}"))
            });
            let keys: Vec<String> = keys.collect();
            redis_keys += redis::cmd("EXISTS").arg(keys).query_async::<u64>(&mut connection).await?;
        }
        Ok(Left {
            coupons: self.coupons.len() as u64,
            winners: self.winners,
            redis_keys,
            winners_in_memory,
            queued: claims.outside.log.queued(),
            resident_bytes: resident()?,
        })
    }
}

fn report(left: &[Left]) -> Report {
    let megabytes = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
    let rows = left.iter().map(|it| {
        let numbers = [it.coupons, it.winners, it.redis_keys, it.winners_in_memory, it.queued];
        let shown = numbers.map(|number| whole(number as f64)).into_iter();
        shown.chain([megabytes(it.resident_bytes)]).collect()
    });
    let section = Section {
        heading: "What is left after each wave",
        about: format!(
            "{} waves. Each coupon has a stock of {}, is claimed by {} users at once, sells out, ends, and is retired at \
             once (`retirement.after` is 0); then the next wave comes. One instance that answers claims and one consumer \
             share a process, whose resident memory is shown in MB of 1,000,000 bytes, the benchmark's own included.",
            left.len(),
            whole(f64::from(STOCK)),
            whole(CLAIMANTS as f64)
        ),
        columns: vec![
            "coupons retired",
            "winners",
            "keys in Redis",
            "winners in memory",
            "records queued",
            "resident MB",
        ],
        rows: rows.collect(),
    };
    let last = left.last().copied().unwrap_or_default();
    let nothing = |what: &str, is: u64| Check {
        what: format!("{what} in the end"),
        is: whole(is as f64),
        must: "0".into(),
        ok: is == 0,
    };
    let middle = left.get(left.len() / 2 - 1).copied().unwrap_or_default();
    let grown = last.resident_bytes.saturating_sub(middle.resident_bytes);
    let winners = (last.winners - middle.winners).max(1);
    let each = grown as f64 / winners as f64;
    let checks = vec![
        nothing("keys in Redis", last.redis_keys),
        nothing("winners in memory", last.winners_in_memory),
        nothing("records queued", last.queued),
        Check {
            what: "memory that a winner of the second half has left behind".into(),
            is: format!("{each:.1} bytes"),
            must: "at most 3.5 bytes, a tenth of what one in memory takes".into(),
            ok: each <= 3.5,
        },
    ];
    Report {
        title: "What is left of coupons that are over",
        about: "Of a retired coupon an instance keeps its definition and its count, for good; winners and all keys in \
                Redis go. Memory that grows by more than those two is not explained."
            .into(),
        sections: vec![section],
        checks,
        figures: json!({"waves": left, "bytesAWinnerOfTheSecondHalf": each}),
    }
}
