//! The model test: many histories of a small world, each told from a seed, in which everything fails that can.
//!
//! What runs is the production code of the processes: the claim's journey, doorman, definitions, refusals, ledger,
//! tail, and the consumers' workers. What surrounds it is the model's: a log that answers late, twice or never, a
//! database that goes away and back, a Redis that may say anything at all, processes that freeze and die, clocks that
//! differ. Time is tokio's paused time, so a history of many seconds takes less than a millisecond, and the same seed
//! tells the same history.
//!
//! After each history the invariants are checked by rules written down a second time (`check`). A seed that breaks one
//! is printed and shrunk:
//!
//! ```sh
//! FIRSTCOME_MODEL_SEED=7 cargo test -p issue-service model::replay -- --nocapture
//! ```

mod broker;
mod check;
mod consumer;
mod database;
mod dice;
mod gate;
mod plan;
mod redis;
mod server;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::claim::{Outcome, Status};
use crate::control::{self, Guard};
use plan::{LAST_EVENT, Plan};
use world::{Answer, Said, World};

/// 2026-01-01T00:00:00Z
const START: u64 = 1_767_225_600_000;
const MAC_SECRET: &str = "a definition secret of at least 32 bytes";
/// How often a client asks again before the model gives up on an answer.
const TRIES: usize = 60;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Everything that clients were told in a history, in order.
type Story = Vec<Said>;

/// Tells a history; the error is the invariant that broke.
fn tell(plan: Plan) -> Result<Story, String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let world = World::new(plan);
        let begun = tokio::time::Instant::now();
        for (at, event) in &world.plan.events.clone() {
            tokio::time::sleep_until(begun + ms(*at)).await;
            world.happen(*event);
        }
        tokio::time::sleep_until(begun + ms(LAST_EVENT + 2_000)).await;
        world.heal();
        let told = settle(&world).await.and_then(|()| check::check(&world));
        // What a server keeps holds the world, too.
        world.servers.lock().unwrap().clear();
        told.map(|()| std::mem::take(&mut *world.said.lock().unwrap()))
    })
}

/// Everybody asks until they have an answer, winners ask everywhere, and the consumers get level.
async fn settle(world: &Arc<World>) -> Result<(), String> {
    let coupons: Vec<_> = world.coupons.lock().unwrap().values().copied().collect();
    let persons: Vec<_> = world.persons.lock().unwrap().values().copied().collect();
    let mut asking = Vec::new();
    for coupon in coupons {
        for person in &persons {
            let (own, person) = (world.clone(), *person);
            asking.push(world.spawn(async move {
                let mut last = None;
                for _ in 0..TRIES {
                    let server = own.dice.index(own.plan.servers);
                    last = own.ask(person, coupon, server, false).await;
                    if last.is_some_and(Answer::is_final) {
                        break;
                    }
                    tokio::time::sleep(ms(250)).await;
                }
                match last {
                    Some(Answer::Claim(Outcome::Issued(_) | Outcome::Already(_))) => {
                        for server in 0..own.plan.servers {
                            own.ask(person, coupon, server, false).await;
                            own.ask(person, coupon, server, true).await;
                        }
                        Ok(())
                    }
                    Some(answer) if answer.is_final() => Ok(()),
                    other => Err(format!("I4: user {} gets no answer: {other:?}", person.id)),
                }
            }));
        }
    }
    for asked in asking {
        asked.await.map_err(|error| error.to_string())??;
    }
    for _ in 0..1_200 {
        if world.is_level() {
            return Ok(());
        }
        tokio::time::sleep(ms(100)).await;
    }
    let alarms = world.alarms.lock().unwrap().clone();
    Err(format!("I1: the consumers do not get level: {alarms:?}"))
}

/// Histories from `first` on, on all processors; the first seed that breaks one of these invariants, or any.
fn search(first: u64, count: u64, without: Option<Guard>, breaks: &[&str]) -> Option<(u64, String)> {
    let found = |why: &String| breaks.is_empty() || breaks.iter().any(|name| why.starts_with(name));
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        let searching: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    control::take_out(without);
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= first + count {
                            return None;
                        }
                        if let Some(why) = tell(Plan::draw(seed)).err().filter(found) {
                            next.store(first + count, Ordering::Relaxed);
                            return Some((seed, why));
                        }
                    }
                })
            })
            .collect();
        searching.into_iter().filter_map(|thread| thread.join().unwrap()).min()
    })
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

/// What a failing seed says, with as few events as show it.
fn report(seed: u64, why: &str, without: Option<Guard>) -> String {
    let again = |plan: &Plan| {
        control::take_out(without);
        tell(plan.clone()).is_err()
    };
    let shrunk = Plan::draw(seed).shrink(again);
    control::take_out(without);
    let said = tell(shrunk.clone()).err().unwrap_or_default();
    control::take_out(None);
    format!("seed {seed}: {why}\nshrunk: {said}\n{shrunk:#?}")
}

#[test]
fn no_history_breaks_a_promise() {
    let count = from_environment("FIRSTCOME_MODEL_HISTORIES").unwrap_or(50_000);
    let first = from_environment("FIRSTCOME_MODEL_FIRST").unwrap_or(0);
    let begun = std::time::Instant::now();
    if let Some((seed, why)) = search(first, count, None, &[]) {
        panic!("{}", report(seed, &why, None));
    }
    let took = begun.elapsed().as_secs_f64();
    println!("{count} histories held in {took:.1} s");
}

/// One seed alone, as often as it takes to understand it.
#[test]
fn replay() {
    let Some(seed) = from_environment("FIRSTCOME_MODEL_SEED") else { return };
    if let Err(why) = tell(Plan::draw(seed)) {
        panic!("{}", report(seed, &why, None));
    }
}

/// Within how many seeds each control has to be found.
const FOUND_WITHIN: u64 = 3_000;

/// The promises that don't hold without it: those of docs/issuance.md.
fn breaks(guard: Guard) -> &'static [&'static str] {
    match guard {
        Guard::ReadBack | Guard::LogDecides | Guard::IdleLook | Guard::IdsByTime => &["I1:"],
        Guard::OneTransaction => &["I1:", "I8:"],
        Guard::Mac => &["I2:"],
        Guard::MembershipFirst
        | Guard::EndOffset
        | Guard::JoinersArrival
        | Guard::AckedOffset
        | Guard::IndexIsLevel
        | Guard::EvictLate => &["I7:"],
    }
}

#[test]
fn every_guard_is_missed_when_it_is_taken_out() {
    let mut unnoticed = Vec::new();
    for guard in Guard::ALL {
        match search(0, FOUND_WITHIN, Some(guard), breaks(guard)) {
            Some((seed, why)) => {
                println!("without {guard:?}: seed {seed}: {}", why.lines().next().unwrap_or_default());
            }
            None => unnoticed.push(guard),
        }
    }
    assert!(
        unnoticed.is_empty(),
        "what has to break did not in {FOUND_WITHIN} histories without {unnoticed:?}"
    );
}

#[test]
fn a_seed_tells_the_same_history_again() {
    let told = |seed| format!("{:?}", tell(Plan::draw(seed)).unwrap());
    for seed in 0..200 {
        assert_eq!(told(seed), told(seed), "seed {seed}");
    }
}

/// A world in which nothing but success happens would prove nothing.
#[test]
fn histories_meet_every_answer() {
    let mut met: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in 0..500 {
        for said in tell(Plan::draw(seed)).unwrap() {
            let name = match said.answer {
                Answer::Claim(Outcome::Issued(_)) => "issued",
                Answer::Claim(Outcome::Already(_)) => "already",
                Answer::Claim(Outcome::Pending) => "pending",
                Answer::Claim(Outcome::SoldOut) => "sold out",
                Answer::Claim(Outcome::NotStarted) => "not started",
                Answer::Claim(Outcome::Ended) => "ended",
                Answer::Claim(Outcome::NotFound) => "not found",
                Answer::Claim(Outcome::Unavailable) => "unavailable",
                Answer::Claim(Outcome::Overloaded) => "overloaded",
                Answer::Status(Status::Issued(_)) => "status issued",
                Answer::Status(Status::Pending) => "status pending",
                Answer::Status(Status::None) => "status none",
                Answer::Status(Status::Unavailable) => "status unavailable",
            };
            *met.entry(name).or_default() += 1;
        }
    }
    println!("{met:?}");
    // A thousand may wait at a server of the model, so nobody is overloaded.
    assert_eq!(met.len(), 12, "{met:?}");
    assert!(met.values().all(|count| *count >= 10), "{met:?}");
}
