//! An instance that answers claims: the production code of one process, in the model's world.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use platform::config::Secret;
use platform::health::Health;
use platform::lifecycle::BoxError;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::gate::Gate;
use super::world::World;
use super::{MAC_SECRET, ms};
use crate::app::hear_the_log;
use crate::claim::{Claims, Waiting};
use crate::definition::Definitions;
use crate::doorman::{Doorman, Word};
use crate::ids::{CouponId, UserId, partition_of};
use crate::ledger::checkpoints::Checkpoints;
use crate::ledger::partition::{Answer, Partition, holding};
use crate::ledger::snapshot::Resume;
use crate::ledger::tail::Tail;
use crate::ledger::{Entry, Ledger, Record};
use crate::outside::{Away, Changed, Mend, Outside, Told};
use crate::refusal::Refusals;
use crate::store::Won;

/// How long a producer tries.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// The world as one instance meets it.
pub(super) struct Seen {
    world: Arc<World>,
    gate: Gate,
    partitions: Arc<[Partition]>,
    /// What this instance's clock is ahead, by the middle of the skew.
    clock: u64,
}

tokio::task_local! {
    /// What the request of this task has sent: for each claim the offset after it, once it is in the log.
    pub(super) static SENT: Arc<Mutex<Vec<Arc<AtomicU64>>>>;
}

/// Of a claim that is not in the log, and may come to be.
pub(super) const ON_ITS_WAY: u64 = u64::MAX;

/// What becomes of an append.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Refused,
    /// Appended this many times; the answer arrives or does not.
    Arrives {
        times: u64,
        answered: bool,
    },
    Lost,
}

/// Runs until it is killed; `ready` is called as soon as it answers.
pub(super) async fn serve(world: Arc<World>, gate: Gate, number: usize) {
    let wanted: Vec<u32> = (0..world.plan.partitions).collect();
    let snapshots = loop {
        match world.database.snapshots(&wanted, world.plan.partitions).await {
            Ok(snapshots) => break snapshots,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    let resumes: Vec<Resume> = snapshots.iter().map(|snapshot| Resume::new(snapshot.watermark)).collect();
    let partitions: Arc<[Partition]> =
        snapshots.into_iter().map(|snapshot| Partition::new(snapshot.ledger)).collect();
    for partition in 0..world.plan.partitions {
        let (own, resumes, partitions) = (world.clone(), resumes.clone(), partitions.clone());
        gate.spawn(async move { follow(&own, partition, resumes, partitions).await });
    }
    let (own, leaving) = (world.clone(), partitions.clone());
    gate.spawn(async move { evict(&own, &leaving).await });
    let clock = world.dice.below(world.plan.skew + 1);
    let seen = Seen { world: world.clone(), gate: gate.clone(), partitions: partitions.clone(), clock };
    let outside = Arc::new(seen);
    let (refusals, answering) = Refusals::new(outside.clone(), partitions.clone());
    gate.spawn(answering);
    hear_the_log(&*outside, &partitions, &refusals).await;
    let secret: Secret = serde_json::from_value(MAC_SECRET.into()).unwrap();
    let definitions = Definitions::new(outside.clone(), secret, partitions.clone());
    gate.spawn(definitions.clone().follow_changes());
    let doorman = Doorman::new(outside.clone());
    gate.spawn(doorman.clone().catch_up(partitions.clone()));
    let waiting = Arc::new(Waiting::new(1_000));
    let claims = Claims { partitions, outside, doorman, definitions, refusals: Arc::new(refusals), waiting };
    world.servers.lock().unwrap()[number].claims = Some(claims);
}

async fn follow(world: &World, partition: u32, resumes: Vec<Resume>, partitions: Arc<[Partition]>) {
    let mut next = resumes[partition as usize].start();
    let checkpoints = Arc::new(Checkpoints::new(world.plan.partitions));
    let mut tail = Tail::new(partitions, resumes, checkpoints, Health::new().optional_component("ledger"));
    loop {
        let stored = world.broker.read(partition, next).await;
        world.dice.pause(world.plan.lag).await;
        let entry = Entry { offset: next, appended_at: stored.at, value: &stored.value };
        if let Err(why) = tail.apply(partition, entry) {
            return world.alarm(format!("a server stopped following: {why}"));
        }
        next += 1;
    }
}

/// As the retirement does it.
async fn evict(world: &World, partitions: &[Partition]) {
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        for partition in partitions {
            if partition.with(Ledger::is_leaving)
                && let Ok(watermark) = world.database.watermark(partition.id()).await
            {
                partition.evict(watermark.next);
            }
        }
    }
}

impl Seen {
    fn fate(&self) -> Fate {
        if !self.world.is_rough() {
            return Fate::Arrives { times: 1, answered: true };
        }
        let (fates, dice) = (self.world.plan.fates, &self.world.dice);
        if dice.percent(fates.refused) {
            Fate::Refused
        } else if dice.percent(fates.lost) {
            Fate::Lost
        } else {
            let times = 1 + u64::from(dice.percent(fates.doubled));
            Fate::Arrives { times, answered: !dice.percent(fates.answer_lost) }
        }
    }

    /// On its way to the broker and back; what is on the wire arrives whatever becomes of this process. `sent` learns of
    /// it before anybody else does.
    async fn send(&self, partition: u32, record: Record, sent: Arc<AtomicU64>) -> Result<u64, Answer> {
        let (times, answered) = match self.fate() {
            Fate::Arrives { times, answered } => (times, answered),
            Fate::Refused => {
                sent.store(0, Ordering::Relaxed);
                return Err(Answer::NotSent);
            }
            Fate::Lost => {
                tokio::time::sleep(MESSAGE_TIMEOUT).await;
                return Err(Answer::Unknown);
            }
        };
        self.world.dice.pause(2).await;
        let world = self.world.clone();
        let value = record.encode();
        let late = self.world.is_rough() && self.world.dice.percent(self.world.plan.fates.late);
        let appended = world.clone().spawn(async move {
            if late {
                tokio::time::sleep(ms(world.dice.below(11_000))).await;
            }
            let mut offset = 0;
            for _ in 0..times {
                world.dice.pause(2).await;
                world.broker.there().await;
                offset = world.broker.append(partition, value.clone());
                sent.store(offset + 1, Ordering::Relaxed);
            }
            offset
        });
        let offset = tokio::time::timeout(MESSAGE_TIMEOUT, appended).await;
        let Ok(Ok(offset)) = offset else { return Err(Answer::Unknown) };
        if !answered {
            tokio::time::sleep(MESSAGE_TIMEOUT).await;
            return Err(Answer::Unknown);
        }
        self.world.dice.pause(2).await;
        Ok(offset)
    }
}

impl Outside for Seen {
    fn now_ms(&self) -> u64 {
        self.world.broker.now() + self.clock - self.world.plan.skew / 2
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.gate.spawn(task);
    }

    fn stop(&self) -> CancellationToken {
        CancellationToken::new()
    }

    fn topic(&self) -> &str {
        "coupon.issued"
    }

    fn send_claim(&self, coupon: CouponId, user: UserId, attempt: u64, _: Option<&str>) {
        let seen = Self {
            world: self.world.clone(),
            gate: self.gate.clone(),
            partitions: self.partitions.clone(),
            clock: self.clock,
        };
        let sent = Arc::new(AtomicU64::new(ON_ITS_WAY));
        SENT.with(|all| all.lock().unwrap().push(sent.clone()));
        self.gate.spawn(async move {
            let number = partition_of(coupon, seen.world.plan.partitions);
            let partition = holding(&seen.partitions, coupon);
            match seen.send(number, Record::Claim { coupon, user }, sent).await {
                Ok(offset) => partition.acked(coupon, user, attempt, offset),
                Err(answer) => partition.failed(coupon, user, attempt, answer),
            }
        });
    }

    async fn append(&self, partition: u32, record: Record) -> Result<u64, BoxError> {
        self.send(partition, record, Arc::default()).await.map_err(|_| "not acknowledged".into())
    }

    async fn end_of(&self, partition: u32) -> Option<u64> {
        self.world.dice.pause(1).await;
        self.world.broker.there().await;
        let end = self.world.broker.end(partition);
        self.world.dice.pause(1).await;
        (!self.world.is_rough() || !self.world.dice.percent(3)).then_some(end)
    }

    async fn admit(&self, coupon: CouponId, stock: u32, users: &[UserId]) -> Option<Vec<Word>> {
        self.world.dice.pause(10).await;
        let words = self.world.redis.admit(&self.world.dice, coupon, stock, users);
        self.world.dice.pause(5).await;
        words
    }

    async fn mend(&self, coupon: CouponId, mend: Mend, users: &[UserId]) -> bool {
        self.world.dice.pause(10).await;
        self.world.redis.mend(&self.world.dice, coupon, mend, users)
    }

    async fn cached(&self, coupon: CouponId) -> Option<String> {
        self.world.dice.pause(5).await;
        let known = self.world.definitions_ever(coupon);
        self.world.redis.cached(&self.world.dice, &known)
    }

    async fn told(&self, coupon: CouponId) -> Result<Option<Told>, Away> {
        self.world.dice.pause(5).await;
        let told = self.world.coupon_service()?.get(&coupon).map(told);
        self.world.dice.pause(5).await;
        Ok(told)
    }

    async fn changed_since(&self, version: u64) -> Result<Changed, Away> {
        self.world.dice.pause(5).await;
        let all = self.world.coupon_service()?;
        let items: Vec<Told> = all.values().filter(|it| it.version > version).map(told).collect();
        let version = items.iter().map(|it| it.version).max().unwrap_or(version);
        self.world.dice.pause(5).await;
        Ok(Changed { items, version })
    }

    async fn won(&self, retired_at: u64, coupon: CouponId, user: UserId) -> Won {
        let partition = partition_of(coupon, self.world.plan.partitions);
        self.world.database.won(partition, retired_at, coupon, user).await
    }

    fn announced(&self) -> broadcast::Receiver<Bytes> {
        self.world.announced.subscribe()
    }
}

fn told(definition: &crate::ledger::Definition) -> Told {
    Told {
        coupon_id: definition.coupon,
        version: definition.version,
        quantity: definition.stock,
        starts_at: definition.starts_at,
        ends_at: definition.ends_at,
        closed: definition.closed,
    }
}
