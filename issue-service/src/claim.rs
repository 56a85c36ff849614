//! A claim, from its arrival to its answer, in six steps: the ledger, the definition, the window, the doorman,
//! the append, the read-back.
//!
//! Invariants: nobody is told ISSUED unless the local ledger has applied the accepted record; nobody is told
//! "no" but at the offset that was acknowledged for this very claim, or by the rule of refusal.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use platform::http::trace::Trace;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::control::{Guard, without};
use crate::definition::Definitions;
use crate::doorman::{Doorman, Word};
use crate::ids::{CouponId, UserId};
use crate::ledger::partition::{Answer, Entrance, Partition, Pass, Standing, Turn, holding};
use crate::ledger::{Decision, Definition, Winner};
use crate::outside::{Away, Outside};
use crate::refusal::Refusals;
use crate::store::Won;

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

#[derive(Debug)]
pub struct Claims<O> {
    pub partitions: Arc<[Partition]>,
    pub outside: Arc<O>,
    pub doorman: Doorman<O>,
    pub definitions: Definitions<O>,
    pub refusals: Arc<Refusals>,
    pub waiting: Arc<Waiting>,
}

impl<O> Clone for Claims<O> {
    fn clone(&self) -> Self {
        Self {
            partitions: self.partitions.clone(),
            outside: self.outside.clone(),
            doorman: self.doorman.clone(),
            definitions: self.definitions.clone(),
            refusals: self.refusals.clone(),
            waiting: self.waiting.clone(),
        }
    }
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
struct Journey<'a, O> {
    claims: &'a Claims<O>,
    partition: &'a Partition,
    coupon: CouponId,
    user: UserId,
    arrived: Instant,
    stage: Stage,
    door: Door<'a>,
}

/// Where the claim goes in.
#[derive(Debug)]
enum Door<'a> {
    /// The doorman is asked.
    Doorman,
    /// Past the doorman, who is away or whose set holds leaked slots.
    Own,
    /// Called at the own door.
    Called(#[expect(dead_code, reason = "held for its end")] Turn<'a>),
}

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Definition,
    /// The database, which alone knows the winners of a retired coupon.
    Index,
    /// An end of the log that was asked for after the request arrived.
    News,
    Doorman,
    /// An admission that Redis remembers, to show in the ledger.
    Echo,
    /// The last slots, to be used up.
    LastSlots,
    /// A place at the own door.
    OwnDoor,
    /// Its record, to be read back: something of this request is in flight.
    ReadBack,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Definition => "definition",
            Self::Index => "index",
            Self::News => "news",
            Self::Doorman => "doorman",
            Self::Echo => "echo",
            Self::LastSlots => "last_slots",
            Self::OwnDoor => "own_door",
            Self::ReadBack => "read_back",
        }
    }
}

impl<O: Outside> Claims<O> {
    pub async fn claim(&self, coupon: CouponId, user: UserId) -> Outcome {
        let arrived = Instant::now();
        let partition = holding(&self.partitions, coupon);
        // A winner is answered without any I/O, also outside the window and after sell-out.
        if let Standing::Winner(winner) = partition.standing(coupon, user, 0) {
            return Outcome::Already(winner);
        }
        let Some(_seat) = self.waiting.enter() else { return Outcome::Overloaded };
        let mut journey = Journey {
            claims: self,
            partition,
            coupon,
            user,
            arrived,
            stage: Stage::Definition,
            door: Door::Doorman,
        };
        if let Ok(outcome) = tokio::time::timeout(BUDGET, journey.run()).await {
            return outcome;
        }
        let stage = journey.stage.name();
        metrics::counter!("firstcome_claims_out_of_time_total", "stage" => stage).increment(1);
        tracing::debug!(coupon.id = coupon.0, user.id = user.0, stage, "a claim's budget has ended");
        if journey.stage == Stage::ReadBack { Outcome::Pending } else { Outcome::Unavailable }
    }

    pub async fn status(&self, coupon: CouponId, user: UserId) -> Status {
        let partition = holding(&self.partitions, coupon);
        if let Standing::Winner(winner) = partition.standing(coupon, user, 0) {
            return Status::Issued(winner);
        }
        let Some(_seat) = self.waiting.enter() else { return Status::Unavailable };
        let look = async {
            let mut news = false;
            loop {
                // Read first: a claim that is decided in between shows as its decision.
                let in_flight = partition.is_in_flight(coupon, user);
                match partition.standing(coupon, user, 0) {
                    Standing::Winner(winner) => return Status::Issued(winner),
                    Standing::Evicted { retired_at } => {
                        match self.outside.won(retired_at, coupon, user).await {
                            Won::Yes(winner) => return Status::Issued(winner),
                            // Nothing of a retired coupon changes any more: no news is needed.
                            Won::No => return Status::None,
                            Won::Unknown => return Status::Unavailable,
                        }
                    }
                    Standing::Stopped => return Status::Unavailable,
                    _ if in_flight => return Status::Pending,
                    _ if news => return Status::None,
                    _ => {}
                }
                news = self.refusals.news(partition.id()).await.is_ok();
                if !news {
                    return Status::Unavailable;
                }
            }
        };
        tokio::time::timeout(BUDGET, look).await.unwrap_or(Status::Unavailable)
    }
}

impl<'a, O: Outside> Journey<'a, O> {
    async fn run(&mut self) -> Outcome {
        // Whether the ledger has passed an end of the log that was asked for after this request arrived.
        let mut news = without(Guard::EndOffset);
        // Whether nobody knew the coupon before that.
        let mut unknown = false;
        loop {
            // Read first: a definition that comes into force in between is one that was not yet judged by.
            let known = self.claims.definitions.newest_known(self.coupon);
            match self.partition.standing(self.coupon, self.user, self.claims.outside.now_ms()) {
                Standing::Winner(winner) => return Outcome::Already(winner),
                Standing::Stopped => return Outcome::Unavailable,
                Standing::Open { stock } => {
                    if let Some(outcome) = self.try_to_win(stock).await {
                        return outcome;
                    }
                }
                Standing::Evicted { retired_at } => {
                    self.stage = Stage::Index;
                    return match self.claims.outside.won(retired_at, self.coupon, self.user).await {
                        Won::Yes(winner) => Outcome::Already(winner),
                        Won::Unknown => Outcome::Unavailable,
                        // Nothing of a retired coupon changes any more: no news is needed.
                        Won::No => refused(Decision::Retired),
                    };
                }
                Standing::NoDefinition if known > 0 => {
                    self.wait_for_definition(0).await;
                }
                Standing::NoDefinition if unknown => return Outcome::NotFound,
                Standing::NoDefinition => match self.obtain_definition().await {
                    Ok(Some(_)) => self.wait_for_definition(0).await,
                    Ok(None) if self.hear_news().await => (unknown, news) = (true, true),
                    Ok(None) => return Outcome::Unavailable,
                    Err(_) => return Outcome::Unavailable,
                },
                Standing::Refused { version, .. } if known > version => {
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

    async fn obtain_definition(&mut self) -> Result<Option<Definition>, Away> {
        self.stage = Stage::Definition;
        self.claims.definitions.obtain(self.coupon).await
    }

    async fn hear_news(&mut self) -> bool {
        self.stage = Stage::News;
        self.claims.refusals.news(self.partition.id()).await.is_ok()
    }

    /// Waits until a definition above `version` that is on its way is in force.
    async fn wait_for_definition(&mut self, version: u64) {
        self.stage = Stage::Definition;
        self.claims.definitions.brought(self.coupon, version).await;
    }

    /// `None`: look at the ledger again.
    async fn try_to_win(&mut self, stock: u32) -> Option<Outcome> {
        let word = match self.door {
            Door::Own | Door::Called(_) => Word::Away,
            Door::Doorman => {
                self.stage = Stage::Doorman;
                let span = tracing::info_span!("admit", otel.kind = "client", db.system.name = "redis");
                self.claims.doorman.ask(self.coupon, self.user, stock).instrument(span).await
            }
        };
        match word {
            Word::Admitted | Word::Away => {}
            Word::Already => {
                self.stage = Stage::Echo;
                let shown = self.partition.shown(self.coupon, self.user);
                if tokio::time::timeout(ECHO, shown).await.is_ok() {
                    return None;
                }
            }
            Word::SoldOut => {
                // The last slots are in flight. If the ledger doesn't fill, one of them has leaked.
                self.stage = Stage::LastSlots;
                let settled = self.partition.settled(self.coupon);
                if tokio::time::timeout(LEAK, settled).await.is_err() {
                    self.door = Door::Own;
                }
                return None;
            }
        }
        let pass = match self.door {
            Door::Called(_) => Pass::Turn,
            _ if word == Word::Away => Pass::None,
            _ => Pass::Doorman,
        };
        let entrance = self.partition.enter(self.coupon, self.user, self.arrived, pass);
        if pass == Pass::Turn {
            self.door = Door::Own; // the turn is over; whoever did not use it calls the next
        }
        let topic = self.claims.outside.topic();
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
                self.stage = Stage::ReadBack;
                // Only who exports spans needs the trace at the other end of the log.
                let trace = span.in_scope(Trace::innermost).filter(|trace| trace.sampled);
                let trace = trace.map(|trace| trace.to_string());
                self.claims.outside.send_claim(self.coupon, self.user, attempt, trace.as_deref());
                if without(Guard::LogDecides) && word == Word::Admitted {
                    return Some(Outcome::Issued(Winner { place: 0, issued_at: 0 }));
                }
                answer
            }
            Entrance::Joined(answer) => {
                self.stage = Stage::ReadBack;
                answer
            }
            Entrance::Wait(mut turn) => {
                self.stage = Stage::OwnDoor;
                if turn.comes().await {
                    self.door = Door::Called(turn);
                }
                return None;
            }
            Entrance::Stalled | Entrance::Stopped => return Some(Outcome::Unavailable),
        };
        // Until it is known, the doorman's set may be wrong about this user, whatever becomes of this request.
        let doubt = Doubt { doorman: &self.claims.doorman, coupon: self.coupon, user: self.user };
        let answer = answer.instrument(span).await;
        match (word, &answer) {
            (Word::Admitted, Ok(Answer::Issued(_) | Answer::Already(_)))
            | (Word::Away, Ok(Answer::Lost(_) | Answer::JoinedALoser)) => doubt.settle(),
            _ => drop(doubt),
        }
        match answer {
            Ok(Answer::Issued(winner)) => Some(Outcome::Issued(winner)),
            Ok(Answer::Already(winner)) => Some(Outcome::Already(winner)),
            Ok(Answer::Lost(decision)) => self.lost(decision),
            Ok(Answer::JoinedALoser) => None,
            Ok(Answer::Unknown) | Err(_) => Some(Outcome::Pending),
            Ok(Answer::NotSent) => Some(Outcome::Unavailable),
        }
    }

    /// This very claim was read back as lost, so the news is newer than the request.
    fn lost(&self, decision: Decision) -> Option<Outcome> {
        let version = self.partition.definition(self.coupon).map_or(0, |(definition, ..)| definition.version);
        if self.claims.definitions.newest_known(self.coupon) > version {
            return None;
        }
        Some(refused(decision))
    }
}

/// Has the doorman's set put right for a user, unless it turns out to be right.
struct Doubt<'a, O: Outside> {
    doorman: &'a Doorman<O>,
    coupon: CouponId,
    user: UserId,
}

impl<O: Outside> Doubt<'_, O> {
    fn settle(self) {
        std::mem::forget(self);
    }
}

impl<O: Outside> Drop for Doubt<'_, O> {
    fn drop(&mut self) {
        self.doorman.doubt(self.coupon, self.user);
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

#[cfg(test)]
mod tests;
