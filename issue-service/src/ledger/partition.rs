//! One partition of the log as this process sees it: its ledger, and everybody who waits for it.
//!
//! Invariant: whoever waits is answered by what the ledger *applied*, never by what was sent. A claim in
//! flight has exactly one entry here, from before it is handed to the producer until its record was read back
//! or its delivery failed.

mod answer;
mod upkeep;
mod waiting;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Coupon, Decided, Decision, Definition, Entry, Ledger, Record, Stop, Winner};
use crate::control::{Guard, without};
use crate::ids::{CouponId, UserId, partition_of};
pub use answer::{Answer, Entrance, Pass, Standing};
pub use waiting::Turn;
use waiting::{Shown, Waiting, push};

/// The most claims of one coupon that an instance holds in flight without the doorman's word.
const OWN_DOOR: u32 = 4096;
/// Without an acknowledgement for this long, claims of the partition are turned away unqueued.
const STALL: Duration = Duration::from_secs(1);

type Key = (CouponId, UserId);

#[derive(Debug)]
pub struct Partition {
    id: u32,
    inner: Mutex<Inner>,
    /// Mirrors `ledger.next()` for whoever only looks.
    next: AtomicU64,
    stopped: AtomicBool,
}

#[derive(Debug)]
struct Inner {
    ledger: Ledger,
    in_flight: HashMap<Key, InFlight>,
    per_coupon: HashMap<CouponId, Waiting>,
    at_offset: BTreeMap<u64, Vec<oneshot::Sender<()>>>,
    /// Who waits for a user to show as a winner.
    shown: HashMap<Key, Vec<oneshot::Sender<()>>>,
    /// Coupons with news that nobody has taken yet.
    changed: HashSet<CouponId>,
    /// Coupons for which claims went past the doorman, and nobody has taken them yet.
    own_doors: HashSet<CouponId>,
    attempts: u64,
    unacked: u32,
    /// The last acknowledgement, or when the first of the claims that now lack one was sent.
    progress: Instant,
    last_test: Option<Instant>,
}

#[derive(Debug)]
struct InFlight {
    attempt: u64,
    enqueued: Instant,
    waiters: Vec<Waiter>,
    acked: Option<u64>,
    /// Refusals read back before the acknowledgement named the offset that counts.
    refused: Vec<(u64, Decision)>,
}

#[derive(Debug)]
struct Waiter {
    arrived: Instant,
    answer: oneshot::Sender<Answer>,
}

/// The one that holds every record of this coupon.
pub fn holding(partitions: &[Partition], coupon: CouponId) -> &Partition {
    #[expect(clippy::cast_possible_truncation, reason = "the length is the number of partitions, a u32")]
    let number = partition_of(coupon, partitions.len() as u32);
    &partitions[number as usize]
}

impl Partition {
    pub fn new(ledger: Ledger) -> Self {
        Self {
            id: ledger.partition(),
            next: AtomicU64::new(ledger.next()),
            stopped: AtomicBool::new(false),
            inner: Mutex::new(Inner {
                ledger,
                in_flight: HashMap::new(),
                per_coupon: HashMap::new(),
                at_offset: BTreeMap::new(),
                shown: HashMap::new(),
                changed: HashSet::new(),
                own_doors: HashSet::new(),
                attempts: 0,
                unacked: 0,
                progress: Instant::now(),
                last_test: None,
            }),
        }
    }

    pub fn id(&self) -> u32 {
        self.id
    }

    /// The offset up to which this process has applied the partition.
    pub fn next(&self) -> u64 {
        self.next.load(Ordering::Acquire)
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Stops the partition for good in this process. Known receipts are still given; whoever waits is let go
    /// and finds the partition stopped.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        let mut inner = self.inner.lock();
        inner.at_offset.clear();
        inner.shown.clear();
        inner.per_coupon.values_mut().for_each(Waiting::wake_all);
    }

    /// Reads the ledger.
    pub fn with<T>(&self, read: impl FnOnce(&Ledger) -> T) -> T {
        read(&self.inner.lock().ledger)
    }

    /// What the ledger says of this user now. `at` is this instance's clock, used for the window only.
    pub fn standing(&self, coupon: CouponId, user: UserId, at: u64) -> Standing {
        let inner = self.inner.lock();
        let coupon = inner.ledger.coupon(coupon);
        let stock_first = without(Guard::MembershipFirst)
            && coupon.is_some_and(|coupon| coupon.count() >= coupon.definition.stock);
        if let Some(winner) = coupon.and_then(|coupon| coupon.winners.get(user))
            && !stock_first
        {
            return Standing::Winner(winner);
        }
        let evicted = coupon.filter(|coupon| coupon.winners.are_evicted());
        if let Some(retired_at) = evicted.and_then(|coupon| coupon.retired_at) {
            return Standing::Evicted { retired_at };
        }
        if self.is_stopped() {
            return Standing::Stopped;
        }
        let Some(coupon) = coupon else { return Standing::NoDefinition };
        let version = coupon.definition.version;
        if coupon.retired_at.is_some() {
            return Standing::Refused { version, decision: Decision::Retired };
        }
        match coupon.refusal(at) {
            Some(decision) => Standing::Refused { version, decision },
            None => Standing::Open { stock: coupon.definition.stock },
        }
    }

    /// The definition in force and the count, as of the offset that is due next.
    pub fn definition(&self, coupon: CouponId) -> Option<(Definition, u32, u64)> {
        let inner = self.inner.lock();
        inner.ledger.coupon(coupon).map(|found| (found.definition, found.count(), inner.ledger.next()))
    }

    /// Whether a claim of this user is in flight from this process.
    pub fn is_in_flight(&self, coupon: CouponId, user: UserId) -> bool {
        self.inner.lock().in_flight.contains_key(&(coupon, user))
    }

    /// Applies a record of the log and answers everybody whom it concerns.
    pub fn apply(&self, entry: Entry<'_>) -> Result<Decided, Stop> {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        let decided = inner.ledger.apply(entry)?;
        self.next.store(inner.ledger.next(), Ordering::Release);
        match decided.record {
            Some(Record::Claim { coupon, user }) => {
                inner.read_back((coupon, user), entry.offset, decided.decision);
            }
            Some(Record::Definition(definition)) => {
                inner.changed.insert(definition.coupon);
                inner.wake_all(definition.coupon);
            }
            Some(Record::Retire { coupon }) => inner.wake_all(coupon),
            Some(Record::Noop) | None => {}
        }
        let next = inner.ledger.next();
        while let Some(first) = inner.at_offset.first_entry().filter(|first| *first.key() <= next) {
            for waiter in first.remove() {
                let _ = waiter.send(());
            }
        }
        Ok(decided)
    }

    /// Resolves when everything below `end` was applied; fails if the partition stops first.
    pub fn passed(&self, end: u64) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.wake_at(end, sender);
        receiver
    }

    /// Wakes `waiter` when everything below `end` was applied; drops it if the partition stops first.
    pub fn wake_at(&self, end: u64, waiter: oneshot::Sender<()>) {
        let mut inner = self.inner.lock();
        if self.is_stopped() {
            return;
        }
        if inner.ledger.next() >= end {
            let _ = waiter.send(());
        } else {
            push(inner.at_offset.entry(end).or_default(), waiter);
        }
    }

    /// Resolves when the ledger holds this user as a winner of this coupon.
    pub async fn shown(&self, coupon: CouponId, user: UserId) {
        let (sender, receiver) = oneshot::channel();
        {
            let mut inner = self.inner.lock();
            if inner.ledger.coupon(coupon).is_some_and(|coupon| coupon.winners.get(user).is_some()) {
                return;
            }
            inner.shown.entry((coupon, user)).or_default().push(sender);
        }
        let mut waiting = Shown { partition: self, key: (coupon, user), receiver };
        // Fails only when the partition stops, which whoever waits will see.
        let _ = (&mut waiting.receiver).await;
    }

    /// Resolves when the coupon's stock is used up in the ledger, or its definition has changed.
    pub fn settled(&self, coupon: CouponId) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let mut inner = self.inner.lock();
        if inner.left(coupon) == 0 {
            let _ = sender.send(());
        } else {
            push(&mut inner.per_coupon.entry(coupon).or_default().settled, sender);
        }
        receiver
    }

    /// Registers a claim before it is sent. Past the doorman, the own door lets in no more than could still win.
    pub fn enter(&self, coupon: CouponId, user: UserId, arrived: Instant, pass: Pass) -> Entrance<'_> {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        if self.is_stopped() {
            return Entrance::Stopped;
        }
        let (sender, answer) = oneshot::channel();
        if let Some(in_flight) = inner.in_flight.get_mut(&(coupon, user)) {
            in_flight.waiters.retain(|waiter| !waiter.answer.is_closed());
            in_flight.waiters.push(Waiter { arrived, answer: sender });
            return Entrance::Joined(answer);
        }
        let now = Instant::now();
        let left = inner.left(coupon);
        let waiting = inner.per_coupon.get(&coupon);
        let others = waiting.map_or(0, |it| it.in_flight + it.called) - u32::from(pass == Pass::Turn);
        let must_wait = pass != Pass::Doorman && left > 0 && others >= left.min(OWN_DOOR);
        // Who must wait sends nothing, so the test of a silent log is for somebody else.
        if inner.is_stalled(now, !must_wait) {
            return Entrance::Stalled;
        }
        let waiting = inner.per_coupon.entry(coupon).or_default();
        if must_wait {
            let (sender, call) = oneshot::channel();
            waiting.arrivals += 1;
            if waiting.arrivals >= (waiting.door.len() / 2).max(1024) {
                waiting.arrivals = 0;
                waiting.door.retain(|waiter| !waiter.is_closed());
            }
            if pass == Pass::Turn {
                waiting.door.push_front(sender); // the doorman's have come in between
            } else {
                waiting.door.push_back(sender);
            }
            return Entrance::Wait(Turn { partition: self, coupon, call, called: false });
        }
        waiting.in_flight += 1;
        if pass != Pass::Doorman {
            inner.own_doors.insert(coupon);
        }
        if inner.unacked == 0 {
            inner.progress = now;
        }
        inner.unacked += 1;
        inner.attempts += 1;
        let attempt = inner.attempts;
        inner.in_flight.insert(
            (coupon, user),
            InFlight {
                attempt,
                enqueued: now,
                waiters: vec![Waiter { arrived, answer: sender }],
                acked: None,
                refused: Vec::new(),
            },
        );
        Entrance::Send { attempt, answer }
    }

    /// The log has acknowledged a claim at this offset.
    pub fn acked(&self, coupon: CouponId, user: UserId, attempt: u64, offset: u64) {
        let mut inner = self.inner.lock();
        inner.unacked = inner.unacked.saturating_sub(1);
        inner.progress = Instant::now();
        inner.last_test = None;
        let key = (coupon, user);
        let Some(in_flight) = inner.in_flight.get_mut(&key).filter(|found| found.attempt == attempt) else {
            return;
        };
        in_flight.acked = Some(offset);
        if without(Guard::ReadBack) {
            for waiter in in_flight.waiters.drain(..) {
                let _ = waiter.answer.send(Answer::Issued(Winner { place: 0, issued_at: 0 }));
            }
        }
        if let Some((_, decision)) = in_flight.refused.iter().find(|(at, _)| *at == offset) {
            let decision = *decision;
            inner.lost(key, decision);
        }
    }

    /// A claim was not acknowledged (`Unknown`) or never sent (`NotSent`).
    pub fn failed(&self, coupon: CouponId, user: UserId, attempt: u64, answer: Answer) {
        let mut inner = self.inner.lock();
        inner.unacked = inner.unacked.saturating_sub(1);
        let key = (coupon, user);
        if inner.in_flight.get(&key).is_some_and(|found| found.attempt == attempt)
            && let Some(in_flight) = inner.take(key)
        {
            for waiter in in_flight.waiters {
                let _ = waiter.answer.send(answer);
            }
        }
    }
}

impl Inner {
    fn left(&self, coupon: CouponId) -> u32 {
        self.ledger.coupon(coupon).map_or(0, |found| found.definition.stock.saturating_sub(found.count()))
    }

    /// One claim a second still goes through while the log is silent, to see whether it is back.
    fn is_stalled(&mut self, now: Instant, may_test: bool) -> bool {
        if self.unacked == 0 || now.duration_since(self.progress) < STALL {
            return false;
        }
        let test = may_test && self.last_test.is_none_or(|last| now.duration_since(last) >= STALL);
        if test {
            self.last_test = Some(now);
        }
        !test
    }

    fn read_back(&mut self, key: Key, offset: u64, decision: Decision) {
        // Whatever this record was decided: who has won has won, also before a retirement.
        let winner = self.ledger.coupon(key.0).and_then(|coupon: &Coupon| coupon.winners.get(key.1));
        if let Some(winner) = winner {
            if let Some(in_flight) = self.take(key) {
                let mut first = decision == Decision::Accepted;
                for waiter in in_flight.waiters {
                    let answer = if first { Answer::Issued(winner) } else { Answer::Already(winner) };
                    if waiter.answer.send(answer).is_ok() {
                        first = false; // the first who is still there is the one who has it new
                    }
                }
            }
            for waiter in self.shown.remove(&key).unwrap_or_default() {
                let _ = waiter.send(());
            }
            if decision == Decision::Accepted {
                self.one_more(key.0);
            }
        } else if let Some(in_flight) = self.in_flight.get_mut(&key) {
            match in_flight.acked {
                Some(acked) if acked == offset => self.lost(key, decision),
                _ if without(Guard::AckedOffset) => self.lost(key, decision),
                Some(_) => {}
                None => in_flight.refused.push((offset, decision)),
            }
        }
    }

    /// A claim of this process has lost. Those who arrived before it was sent are refused by it; those who
    /// joined it later have to be refused on news of their own.
    fn lost(&mut self, key: Key, decision: Decision) {
        let Some(in_flight) = self.take(key) else { return };
        for waiter in in_flight.waiters {
            let own = (waiter.arrived <= in_flight.enqueued && decision != Decision::Retired)
                || without(Guard::JoinersArrival);
            let answer = if own { Answer::Lost(decision) } else { Answer::JoinedALoser };
            let _ = waiter.answer.send(answer);
        }
    }

    /// Removes a claim from flight and lets the next in at the own door.
    fn take(&mut self, key: Key) -> Option<InFlight> {
        let in_flight = self.in_flight.remove(&key)?;
        let left = self.left(key.0);
        if let Some(waiting) = self.per_coupon.get_mut(&key.0) {
            waiting.in_flight -= 1;
            waiting.let_in(left.min(OWN_DOOR));
            if waiting.is_idle() {
                self.per_coupon.remove(&key.0);
            }
        }
        Some(in_flight)
    }

    /// Somebody has won: when that was the last one, nobody needs to wait any longer.
    fn one_more(&mut self, coupon: CouponId) {
        self.changed.insert(coupon);
        if self.left(coupon) == 0 {
            self.wake_all(coupon);
        }
    }

    fn wake_all(&mut self, coupon: CouponId) {
        if let Some(waiting) = self.per_coupon.get_mut(&coupon) {
            waiting.wake_all();
            if waiting.is_idle() {
                self.per_coupon.remove(&coupon);
            }
        }
    }
}

#[cfg(test)]
mod tests;
