//! The doorman: one Redis script that tells most losers apart before they reach the log.
//!
//! Redis may lose data, fail over, lie or be gone. What it answers costs or saves appends and never decides:
//! nobody wins or loses by it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::ids::{CouponId, UserId};
use crate::ledger::partition::{Partition, holding};
use crate::outside::{Mend, Outside};

/// Checked into Redis on every new connection.
pub const ADMIT: &str = include_str!("doorman/admit.lua");

/// Users in one script call; a call of this size takes Redis a fraction of a millisecond.
const BATCH: usize = 512;
/// A doorman who is later than this is gone.
const LATE: Duration = Duration::from_millis(100);
/// After a late or failed call, nobody asks for this long.
const REST: Duration = Duration::from_secs(1);

/// Between two rounds of setting right what was missed.
const CATCH_UP: Duration = Duration::from_millis(500);
/// Users that are remembered as doubtful; the set may stay wrong for others, which costs appends and nothing else.
const MOST_DOUBTFUL: usize = 200_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    Admitted,
    /// In the set already: a double click, or an earlier attempt that died.
    Already,
    SoldOut,
    /// Late, failing over or gone.
    Away,
}

#[derive(Debug)]
pub struct Doorman<O> {
    shared: Arc<Shared<O>>,
}

#[derive(Debug)]
struct Shared<O> {
    outside: Arc<O>,
    /// Who waits for the next call, by coupon. A coupon has an entry while a call of it is in flight.
    gathering: Mutex<HashMap<CouponId, Vec<Asking>>>,
    /// Users whom the set may hold wrongly or lack, because an answer was late or never asked for.
    doubtful: Mutex<BTreeSet<(CouponId, UserId)>>,
    start: Instant,
    /// Milliseconds after `start` until which nobody asks.
    resting_until: AtomicU64,
}

#[derive(Debug)]
struct Asking {
    user: UserId,
    stock: u32,
    word: oneshot::Sender<Word>,
}

impl<O> Clone for Doorman<O> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<O: Outside> Doorman<O> {
    pub fn new(outside: Arc<O>) -> Self {
        let shared = Shared {
            outside,
            gathering: Mutex::default(),
            doubtful: Mutex::default(),
            start: Instant::now(),
            resting_until: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Asks whether the user may try for a coupon of this stock. Everybody who asks while a call for the coupon
    /// is in flight shares the next one.
    pub async fn ask(&self, coupon: CouponId, user: UserId, stock: u32) -> Word {
        let word = self.ask_in_time(coupon, user, stock).await;
        if word == Word::Away {
            metrics::counter!("firstcome_doorman_away_total").increment(1);
            self.shared.doubt(coupon, user);
        }
        word
    }

    async fn ask_in_time(&self, coupon: CouponId, user: UserId, stock: u32) -> Word {
        if self.shared.is_resting() {
            return Word::Away;
        }
        let (word, answer) = oneshot::channel();
        let asking = Asking { user, stock, word };
        let first = {
            let mut gathering = self.shared.gathering.lock();
            match gathering.get_mut(&coupon) {
                Some(waiting) => {
                    waiting.push(asking);
                    None
                }
                None => {
                    gathering.insert(coupon, Vec::new());
                    Some(asking)
                }
            }
        };
        if let Some(first) = first {
            // Not in this request's own task: others depend on it, and this request may be cancelled.
            let shared = self.shared.clone();
            self.shared.outside.spawn(async move { shared.serve(coupon, first).await });
        }
        answer.await.unwrap_or(Word::Away)
    }

    /// Sets right what he missed while he was late or away: winners are added, others removed. For as long as the
    /// process runs.
    pub async fn catch_up(self, partitions: Arc<[Partition]>) {
        let stop = self.shared.outside.stop();
        while tokio::time::timeout(CATCH_UP, stop.cancelled()).await.is_err() {
            if !self.shared.is_resting() {
                self.shared.catch_up(&partitions).await;
            }
        }
    }

    /// Has the set put right for a user of whom it may not say what the ledger says.
    pub fn doubt(&self, coupon: CouponId, user: UserId) {
        self.shared.doubt(coupon, user);
    }
}

pub fn users_key(coupon: CouponId) -> String {
    format!("coupon:{{{coupon}}}:users")
}

impl<O: Outside> Shared<O> {
    async fn serve(&self, coupon: CouponId, first: Asking) {
        let mut batch = vec![first];
        loop {
            let words = self.admit(coupon, &batch).await;
            for (asking, word) in batch.drain(..).zip(words) {
                if asking.word.send(word).is_err() && word == Word::Admitted {
                    // Nobody is there any more to make use of the slot.
                    self.doubt(coupon, asking.user);
                }
            }
            let mut gathering = self.gathering.lock();
            let Some(waiting) = gathering.get_mut(&coupon) else { return };
            if waiting.is_empty() {
                gathering.remove(&coupon);
                return;
            }
            let rest = waiting.split_off(waiting.len().min(BATCH));
            batch = std::mem::replace(waiting, rest);
        }
    }

    async fn admit(&self, coupon: CouponId, batch: &[Asking]) -> Vec<Word> {
        if self.is_resting() {
            // They gathered behind a call that was late.
            return vec![Word::Away; batch.len()];
        }
        // The newest definition anybody in the batch has seen.
        let stock = batch.last().map_or(0, |asking| asking.stock);
        let users: Vec<UserId> = batch.iter().map(|asking| asking.user).collect();
        metrics::counter!("firstcome_doorman_calls_total").increment(1);
        match self.in_time(self.outside.admit(coupon, stock, &users)).await {
            Some(words) if words.len() == batch.len() => words,
            _ => vec![Word::Away; batch.len()],
        }
    }

    fn doubt(&self, coupon: CouponId, user: UserId) {
        let mut doubtful = self.doubtful.lock();
        if doubtful.len() < MOST_DOUBTFUL {
            doubtful.insert((coupon, user));
        }
    }

    async fn catch_up(&self, partitions: &[Partition]) {
        let mut chunks: BTreeMap<(CouponId, Mend), Vec<UserId>> = BTreeMap::new();
        // Taken first: the lock must not be held while those who are in flight are put back.
        let doubtful = std::mem::take(&mut *self.doubtful.lock());
        for (coupon, user) in doubtful {
            let partition = holding(partitions, coupon);
            if partition.with(|ledger| ledger.is_retired(coupon)) {
                continue; // its set is deleted
            }
            // Read first: a claim that is decided in between shows as its decision.
            let in_flight = partition.is_in_flight(coupon, user);
            let won = partition.with(|ledger| {
                ledger.coupon(coupon).is_some_and(|coupon| coupon.winners.get(user).is_some())
            });
            if won {
                chunks.entry((coupon, Mend::Add)).or_default().push(user);
            } else if in_flight {
                self.doubt(coupon, user);
            } else {
                chunks.entry((coupon, Mend::Remove)).or_default().push(user);
            }
        }
        for ((coupon, mend), users) in chunks {
            for users in users.chunks(BATCH) {
                let done = async { self.outside.mend(coupon, mend, users).await.then_some(()) };
                // Late again: the rest has to wait for another round.
                if self.is_resting() || self.in_time(done).await.is_none() {
                    users.iter().for_each(|user| self.doubt(coupon, *user));
                }
            }
        }
    }

    /// One call to Redis. `None` if it failed or was late: nobody asks for a while then. Being late is no proof of
    /// anything; the supervisor has checks of its own.
    async fn in_time<T>(&self, call: impl Future<Output = Option<T>>) -> Option<T> {
        let answer = tokio::time::timeout(LATE, call).await.ok().flatten();
        if answer.is_none() {
            self.rest();
        }
        answer
    }

    fn is_resting(&self) -> bool {
        self.elapsed() < self.resting_until.load(Ordering::Relaxed)
    }

    fn rest(&self) {
        let rest = u64::try_from(REST.as_millis()).unwrap_or(u64::MAX);
        self.resting_until.store(self.elapsed() + rest, Ordering::Relaxed);
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
