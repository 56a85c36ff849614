//! One round: a coupon, a sale, a fault in its middle, everything level again, and what came of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::check::Promises;
use super::crowd::Shape;
use super::live::Live;
use super::random::Random;
use super::record::Record;
use super::sale::{Found, Sale};
use super::scenario::{Part, Scenario};
use super::site::{Expected, IN_FLIGHT, Site};
use super::stage::Stage;
use super::statistics::quantile;
use super::whole;
use crate::progress::Step;

/// For consumers, write-back and Redis, when everything else is whole.
const LEVEL_WITHIN: &str = "60s";
/// As long as the load waits for an answer.
const FOR_EVER_MS: u64 = 10_000;
/// Before the strike, for comparison.
const CALM_MS: u64 = 2_000;

/// What came of a round. It stays in a file, for `--resume` and for scripts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Round {
    pub(crate) scenario: String,
    /// From 1, void ones included.
    pub(crate) number: u32,
    pub(crate) seed: u64,
    /// Of a soak: the two that struck.
    pub(crate) faults: Vec<String>,
    pub(crate) coupon: u64,
    pub(crate) stock: u64,
    /// Why it doesn't count.
    pub(crate) void: Option<String>,
    /// Each promise that was broken.
    pub(crate) broken: Vec<String>,
    /// Claims in flight at each strike.
    pub(crate) in_flight: Vec<u64>,
    /// The signs that the faults were felt.
    pub(crate) signs: Vec<String>,
    /// From the first strike until the last fault was lifted.
    pub(crate) fault_ms: u64,
    #[serde(flatten)]
    pub(crate) promises: Promises,
    /// Attempts of the sale by their answer.
    pub(crate) answers: BTreeMap<String, u64>,
    /// The longest time from the strike on in which nobody got a final answer.
    pub(crate) gap_ms: Option<u64>,
    /// From when the last fault was lifted to the next ISSUED.
    pub(crate) resumed_ms: Option<u64>,
    pub(crate) p99_before_ms: Option<u64>,
    pub(crate) p99_during_ms: Option<u64>,
    /// Of everything that was sent from the strike on, the longest time to an answer.
    pub(crate) slowest_ms: Option<u64>,
    /// Where the records of a round that broke lie.
    pub(crate) kept: Option<PathBuf>,
}

impl Round {
    /// It was a fault, felt by a crowd.
    pub(crate) fn counts(&self) -> bool {
        self.void.is_none()
    }
}

/// What struck, and when.
struct Struck {
    /// From the strike until nothing was broken any more; or why it did not come to that.
    time: Result<(u64, u64), String>,
    expected: Expected,
    signs: Vec<(String, bool)>,
    broken: Vec<String>,
}

/// Which round it is.
pub(crate) struct Order<'a> {
    pub(crate) scenario: &'a str,
    pub(crate) number: u32,
    pub(crate) seed: u64,
    /// Claims a second.
    pub(crate) rate: u64,
    /// All strike in the same sale.
    pub(crate) faults: &'a [&'a Scenario],
}

pub(crate) fn run(stage: &Stage, order: &Order<'_>, step: &Step) -> Result<Round> {
    let Order { scenario, number, seed, rate, faults } = *order;
    let folder = stage.rounds.join(format!("{scenario}-{number}"));
    let lead = lead(faults);
    let seconds = faults.iter().map(|fault| fault.seconds + lead - fault.lead).max().unwrap_or_default();
    step.say("gathering the crowd");
    let mut sale = Sale::open(stage, Shape { rate, seconds }, &folder, scenario)?;
    step.say("the sale is on");
    let struck = sale.claim(|live| strike(stage, live, &sale, order))?;
    step.say("waiting until everything is whole");
    let recovered = whole::wait(&stage.stack, whole::PATIENCE)?;
    step.say("everybody asks once more");
    let settled = sale.ask_again()?;
    step.say("auditing");
    let expected = struck.iter().map(|struck| struck.expected).find(|it| *it != Expected::All);
    let expected = expected.unwrap_or(Expected::All);
    let flags = audit_flags(faults, expected);
    let Found { audit, promises, mut broken } = sale.judge(expected, &[], LEVEL_WITHIN, &flags)?;
    broken.extend(recovered.err().map(|missing| format!("not whole again: {missing}")));
    broken.extend(settled.err());
    broken.extend(struck.iter().flat_map(|struck| struck.broken.iter().cloned()));
    let record = sale.record()?;
    let mut round = Round {
        scenario: scenario.to_owned(),
        number,
        seed,
        faults: faults.iter().map(|fault| fault.name.to_owned()).collect(),
        coupon: sale.coupon,
        stock: sale.stock,
        broken,
        promises,
        answers: record.answers(),
        ..Round::default()
    };
    round.take_in(struck, &record);
    if round.broken.is_empty() {
        fs::remove_dir_all(&folder)?;
    } else {
        fs::write(folder.join("audit.json"), serde_json::to_vec_pretty(&audit)?)?;
        round.kept = Some(folder);
    }
    Ok(round)
}

/// A round that came to no verdict. It counts as one in which something broke.
pub(crate) fn unjudged(stage: &Stage, order: &Order<'_>, error: &anyhow::Error) -> Round {
    let Order { scenario, number, seed, faults, .. } = *order;
    Round {
        scenario: scenario.to_owned(),
        number,
        seed,
        faults: faults.iter().map(|fault| fault.name.to_owned()).collect(),
        broken: vec![format!("it came to no verdict: {error:#}")],
        kept: Some(stage.rounds.join(format!("{scenario}-{number}"))),
        ..Round::default()
    }
}

impl Round {
    /// When what struck, what it did to answers, and whether the round counts. A broken promise always does.
    fn take_in(&mut self, struck: Vec<Struck>, sale: &Record) {
        let mut why = Vec::new();
        let mut times: Vec<(u64, u64)> = Vec::new();
        for struck in struck {
            match struck.time {
                Ok((at, until)) => {
                    let in_flight = sale.in_flight(at);
                    if in_flight < IN_FLIGHT {
                        why.push(format!("only {in_flight} claims were in flight"));
                    }
                    let unseen = struck.signs.iter().filter(|(_, seen)| !seen);
                    why.extend(unseen.map(|(what, _)| format!("not seen: {what}")));
                    self.in_flight.push(in_flight);
                    self.signs.extend(struck.signs.into_iter().map(|(what, _)| what));
                    times.push((at, until));
                }
                Err(error) => why.push(error),
            }
        }
        if let (Some(from), Some(until)) =
            (times.iter().map(|(from, _)| *from).min(), times.iter().map(|(_, until)| *until).max())
        {
            let p99 = |sent: std::ops::Range<u64>| quantile(&sale.latencies(sent, FOR_EVER_MS), 0.99);
            self.fault_ms = until.saturating_sub(from);
            self.gap_ms = Some(sale.gap(from));
            self.resumed_ms = sale.issued_after(until);
            self.slowest_ms = sale.latencies(from..u64::MAX, FOR_EVER_MS).into_iter().max();
            self.p99_before_ms = p99(from.saturating_sub(CALM_MS)..from);
            self.p99_during_ms = p99(from..until.max(from + 1));
        }
        if self.broken.is_empty() && !why.is_empty() {
            self.void = Some(why.join("; "));
        }
    }
}

/// All wait for the one that takes longest before it can strike, in seconds.
fn lead(faults: &[&Scenario]) -> u64 {
    faults.iter().map(|fault| fault.lead).max().unwrap_or_default()
}

/// Every fault in a thread of its own.
fn strike(stage: &Stage, live: &Live, sale: &Sale<'_>, order: &Order<'_>) -> Result<Vec<Struck>> {
    let one = |index: u64, fault: &Scenario| -> Struck {
        let random = Random::new(order.seed.wrapping_add(index));
        let mut site = Site::new(stage, live, sale, random, order.faults.len() == 1);
        site.lead = Duration::from_secs(lead(order.faults));
        let outcome = (fault.strike)(&mut site);
        let Site { struck, lifted, signs, expected, broken, .. } = site;
        let time = outcome
            .and_then(|()| Ok((struck.context("it never struck")?, lifted.context("it was never lifted")?)));
        Struck { time: time.map_err(|error| format!("{error:#}")), expected, signs, broken }
    };
    std::thread::scope(|scope| {
        let faults = (0..).zip(order.faults);
        let one = &one;
        let threads: Vec<_> = faults.map(|(index, fault)| scope.spawn(move || one(index, fault))).collect();
        let all = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        let all = all.collect();
        stage.stack.interrupt.check()?;
        Ok(all)
    })
}

/// What the audit is told of the round.
fn audit_flags(faults: &[&Scenario], expected: Expected) -> Vec<&'static str> {
    let any = |part: Part| faults.iter().any(|fault| fault.part == part);
    let mut flags = Vec::new();
    if any(Part::Coupon) || expected != Expected::All {
        flags.push("--stock-changed");
    }
    if any(Part::Kafka) {
        // A record's time may be that much before it could be read.
        flags.extend(["--clock-tolerance", "12s"]);
    }
    flags
}
