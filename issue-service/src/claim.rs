//! A claim, from its arrival to its answer, in six steps: the ledger, the definition, the window, the doorman,
//! the append, the read-back.
//!
//! Invariants: nobody is told ISSUED unless the local ledger has applied the accepted record; nobody is told
//! "no" but at the offset that was acknowledged for this very claim, or by the rule of refusal.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use platform::clock::Clock;
use platform::http::trace::Trace;
use tracing::Instrument as _;

use crate::definition::Definitions;
use crate::doorman::{Doorman, Word};
use crate::ids::{CouponId, UserId};
use crate::ledger::partition::{Answer, Entrance, Partition, Standing};
use crate::ledger::{Decision, Winner};
use crate::log::Log;
use crate::refusal::Refusals;

/// The budget of a claim, from its arrival.
pub const BUDGET: Duration = Duration::from_secs(2);
/// How long an admission that Redis remembers may take to show in the ledger before the claim is repeated.
const ECHO: Duration = Duration::from_millis(50);
/// How long the last slots may be in flight before one of them counts as leaked.
const LEAK: Duration = Duration::from_millis(200);

/// What a user is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Issued(Winner),
    Already(Winner),
    /// In the log or on its way there, and not decided within the budget.
    Pending,
    SoldOut,
    NotStarted,
    Ended,
    NotFound,
    /// Nothing of this request is in flight, and nothing can be said at the moment.
    Unavailable,
    /// Too many wait already.
    Overloaded,
}

/// What a user who asks for their status is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Issued(Winner),
    Pending,
    None,
    Unavailable,
}

#[derive(Clone, Debug)]
pub struct Claims {
    pub partitions: Arc<[Partition]>,
    pub log: Log,
    pub doorman: Doorman,
    pub definitions: Definitions,
    pub refusals: Arc<Refusals>,
    pub clock: Clock,
    pub waiting: Arc<Waiting>,
}

/// Bounds how many requests of this process wait for anything.
#[derive(Debug)]
pub struct Waiting {
    now: AtomicUsize,
    most: usize,
}

impl Waiting {
    pub fn new(most: usize) -> Self {
        Self { now: AtomicUsize::new(0), most }
    }

    fn enter(&self) -> Option<Seat<'_>> {
        let seat = Seat(self);
        (self.now.fetch_add(1, Ordering::Relaxed) < self.most).then_some(seat)
    }
}

struct Seat<'a>(&'a Waiting);

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One request under way.
struct Journey<'a> {
    claims: &'a Claims,
    partition: &'a Partition,
    coupon: CouponId,
    user: UserId,
    arrived: Instant,
    /// Whether something of this request is in flight.
    sent: AtomicBool,
}

impl Claims {
    pub async fn claim(&self, coupon: CouponId, user: UserId) -> Outcome {
        let arrived = Instant::now();
        let partition = self.partition_of(coupon);
        // A winner is answered without any I/O, also outside the window and after sell-out.
        if let Standing::Winner(winner) = partition.standing(coupon, user, 0) {
            return Outcome::Already(winner);
        }
        let Some(_seat) = self.waiting.enter() else { return Outcome::Overloaded };
        let journey =
            Journey { claims: self, partition, coupon, user, arrived, sent: AtomicBool::new(false) };
        match tokio::time::timeout(BUDGET, journey.run()).await {
            Ok(outcome) => outcome,
            Err(_) if journey.sent.load(Ordering::Relaxed) => Outcome::Pending,
            Err(_) => Outcome::Unavailable,
        }
    }

    pub async fn status(&self, coupon: CouponId, user: UserId) -> Status {
        let partition = self.partition_of(coupon);
        let look = || match partition.standing(coupon, user, 0) {
            Standing::Winner(winner) => Some(Status::Issued(winner)),
            Standing::Stopped => Some(Status::Unavailable),
            _ if partition.is_in_flight(coupon, user) => Some(Status::Pending),
            _ => None,
        };
        if let Some(known) = look() {
            return known;
        }
        let Some(_seat) = self.waiting.enter() else { return Status::Unavailable };
        match tokio::time::timeout(BUDGET, self.refusals.news(partition.id())).await {
            Ok(Ok(())) => look().unwrap_or(Status::None),
            _ => Status::Unavailable,
        }
    }

    fn partition_of(&self, coupon: CouponId) -> &Partition {
        &self.partitions[self.log.partition_of(coupon) as usize]
    }
}

impl Journey<'_> {
    async fn run(&self) -> Outcome {
        // Whether the ledger has passed an end of the log that was asked for after this request arrived.
        let mut news = false;
        let mut own_door = false;
        let mut unknown = false;
        loop {
            match self.partition.standing(self.coupon, self.user, self.claims.clock.now_ms()) {
                Standing::Winner(winner) => return Outcome::Already(winner),
                Standing::Stopped => return Outcome::Unavailable,
                Standing::Open { stock } => {
                    if let Some(outcome) = self.try_to_win(stock, &mut own_door).await {
                        return outcome;
                    }
                }
                Standing::NoDefinition if self.claims.definitions.is_newer_known(self.coupon, 0) => {
                    self.wait_for_definition(0).await;
                }
                Standing::NoDefinition if unknown && news => return Outcome::NotFound,
                Standing::NoDefinition => match self.claims.definitions.obtain(self.coupon).await {
                    Ok(Some(_)) => self.wait_for_definition(0).await,
                    Ok(None) => {
                        unknown = true;
                        news = self.hear_news().await;
                        if !news {
                            return Outcome::Unavailable;
                        }
                    }
                    Err(_) => return Outcome::Unavailable,
                },
                Standing::Refused { version, .. }
                    if self.claims.definitions.is_newer_known(self.coupon, version) =>
                {
                    self.wait_for_definition(version).await;
                }
                Standing::Refused { decision, .. } if news => return refused(decision),
                Standing::Refused { .. } => {
                    news = self.hear_news().await;
                    if !news {
                        return Outcome::Unavailable;
                    }
                }
            }
        }
    }

    async fn hear_news(&self) -> bool {
        self.claims.refusals.news(self.partition.id()).await.is_ok()
    }

    /// Waits until a definition above `version` that is on its way is in force.
    async fn wait_for_definition(&self, version: u64) {
        let mut applied = self.claims.definitions.applied();
        while self.claims.definitions.is_newer_known(self.coupon, version) {
            if applied.changed().await.is_err() {
                return;
            }
        }
    }

    /// `None`: look at the ledger again.
    async fn try_to_win(&self, stock: u32, own_door: &mut bool) -> Option<Outcome> {
        let word = match *own_door {
            true => Word::Away,
            false => {
                let span = tracing::info_span!("admit", otel.kind = "client", db.system.name = "redis");
                self.claims.doorman.ask(self.coupon, self.user, stock).instrument(span).await
            }
        };
        match word {
            Word::Admitted | Word::Away => {}
            Word::Already => {
                let shown = self.partition.shown(self.coupon, self.user);
                if tokio::time::timeout(ECHO, shown).await.is_ok() {
                    return None;
                }
                self.partition.forget_shown(self.coupon, self.user);
            }
            Word::SoldOut => {
                // The last slots are in flight. If the ledger doesn't fill, one of them has leaked.
                let settled = self.partition.settled(self.coupon);
                *own_door = tokio::time::timeout(LEAK, settled).await.is_err();
                return None;
            }
        }
        let entrance = self.partition.enter(self.coupon, self.user, self.arrived, word != Word::Away);
        let topic = self.claims.log.topic();
        let span = tracing::info_span!(
            "send",
            otel.name = format!("send {topic}"),
            otel.kind = "producer",
            messaging.system = "kafka",
            messaging.destination.name = topic,
            messaging.destination.partition.id = self.partition.id(),
        );
        let answer = match entrance {
            Entrance::Send { attempt, answer } => {
                self.sent.store(true, Ordering::Relaxed);
                // Only who exports spans needs the trace at the other end of the log.
                let trace = span.in_scope(Trace::innermost).filter(|trace| trace.sampled);
                let trace = trace.map(|trace| trace.to_string());
                self.claims.log.send_claim(self.coupon, self.user, attempt, trace.as_deref());
                answer
            }
            Entrance::Joined(answer) => {
                self.sent.store(true, Ordering::Relaxed);
                answer
            }
            Entrance::Wait(turn) => {
                // Woken when somebody else's claim has ended, or when there is nothing left to wait for.
                *own_door = true;
                let _ = turn.await;
                return None;
            }
            Entrance::Stalled | Entrance::Stopped => return Some(Outcome::Unavailable),
        };
        let answer = answer.instrument(span).await;
        if matches!(answer, Ok(Answer::Lost(_) | Answer::JoinedALoser | Answer::NotSent)) {
            self.sent.store(false, Ordering::Relaxed);
        }
        if !matches!(answer, Ok(Answer::Lost(_) | Answer::JoinedALoser)) && word != Word::Admitted
            || matches!(answer, Ok(Answer::Unknown | Answer::NotSent) | Err(_))
        {
            // Won past the doorman, or admitted by him and not known to have won.
            self.claims.doorman.doubt(self.coupon, self.user);
        }
        match answer {
            Ok(Answer::Issued(winner)) => Some(Outcome::Issued(winner)),
            Ok(Answer::Already(winner)) => Some(Outcome::Already(winner)),
            Ok(Answer::Lost(decision)) => {
                if word == Word::Admitted {
                    self.claims.doorman.doubt(self.coupon, self.user);
                }
                self.lost(decision)
            }
            Ok(Answer::JoinedALoser) => None,
            Ok(Answer::Unknown) | Err(_) => Some(Outcome::Pending),
            Ok(Answer::NotSent) => Some(Outcome::Unavailable),
        }
    }

    /// This very claim was read back as lost, so the news is newer than the request.
    fn lost(&self, decision: Decision) -> Option<Outcome> {
        let version = self.partition.definition(self.coupon).map_or(0, |(definition, ..)| definition.version);
        if self.claims.definitions.is_newer_known(self.coupon, version) {
            return None;
        }
        Some(refused(decision))
    }
}

fn refused(decision: Decision) -> Outcome {
    match decision {
        Decision::SoldOut => Outcome::SoldOut,
        Decision::NotStarted => Outcome::NotStarted,
        Decision::Ended | Decision::Closed | Decision::Retired => Outcome::Ended,
        Decision::Accepted
        | Decision::Already
        | Decision::Unknown
        | Decision::Taken
        | Decision::Stale
        | Decision::RetireTaken
        | Decision::Ignored
        | Decision::Malformed
        | Decision::Invalid
        | Decision::Noop => {
            tracing::error!(?decision, "a claim was decided in a way that can't be: nothing is promised");
            metrics::counter!("firstcome_contradictions_total").increment(1);
            Outcome::Unavailable
        }
    }
}
