//! Guards are taken out of the running services, one at a time, and a broken promise has to be found each time: what
//! finds nothing when a guard is missing says nothing when it is there.
//!
//! `issue-service/src/control.rs` has them all. Those that are missing here need an order of events that no fault of ours
//! can bring about; the model finds them.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::control::empty_index;
use super::faults::unguarded;
use super::random::Random;
use super::round::{self, Order};
use super::scenario::{Part, Scenario};
use super::stage::Stage;
use crate::progress::Step;
use crate::supervisor::Child;

/// A broken promise is found within so many.
pub(crate) const ROUNDS: u32 = 5;
/// Claims a second at most: who asks again has to come upon what the others have left.
const RATE: u64 = 300;
const VARIABLE: &str = "FIRSTCOME_WITHOUT";
const PROCESSES: [&str; 2] = ["issue-service", "issue-consumer"];
const GRACE: Duration = Duration::from_secs(10);

pub(crate) struct Guard {
    /// As the services know it.
    name: &'static str,
    /// What happens without it.
    without: &'static str,
    /// With which settings the services run for it.
    settings: &'static [(&'static str, &'static str)],
    /// What has to be found then, as the verdict on the round has it.
    breaks: &'static str,
    /// Its name is the one by which this control is chosen.
    pub(crate) fault: Scenario,
}

const LOST: &str = "told ISSUED and without a row";
const REFUSED: &str = "I7 no winner was refused";

pub(crate) static ALL: &[Guard] = &[
    Guard {
        name: "ReadBack",
        without: "ISSUED is said at the acknowledgement, without reading the record back",
        settings: &[],
        breaks: LOST,
        fault: Scenario::new(
            "without-read-back",
            Part::Redis,
            12,
            unguarded::doorman_away_at_the_end,
            "a black hole in front of all of Redis until the stock is gone",
        ),
    },
    Guard {
        name: "LogDecides",
        without: "ISSUED is said on the doorman's word",
        settings: &[],
        breaks: LOST,
        fault: Scenario::new(
            "without-log-decides",
            Part::IssueService,
            10,
            unguarded::log_cut_then_kill,
            "an issue service is cut off from the log for 0.8 s and then killed",
        ),
    },
    Guard {
        name: "EndOffset",
        without: "a no is said without an end of the log that was asked for after the request arrived",
        settings: &[],
        breaks: REFUSED,
        fault: Scenario::new(
            "without-end-offset",
            Part::Coupon,
            18,
            unguarded::deaf_to_new_stock,
            "the stock is raised when it is gone, an issue service hears nothing of it, and winners ask again",
        ),
    },
    Guard {
        name: "OneTransaction",
        without: "the watermark moves in a transaction of its own",
        settings: &[],
        breaks: LOST,
        fault: Scenario::new(
            "without-one-transaction",
            Part::Mysql,
            10,
            unguarded::database_killed_in_a_batch,
            "twice the database answers 30 ms late, and is killed in the middle of a batch",
        ),
    },
    Guard {
        name: "IdleLook",
        without: "an idle consumer does not read its watermark again",
        settings: &[],
        breaks: LOST,
        fault: Scenario::new(
            "without-idle-look",
            Part::Mysql,
            10,
            unguarded::database_goes_back,
            "when all is sold and written, the database loses it and goes back to its beginning",
        ),
    },
    Guard {
        name: "MembershipFirst",
        without: "the stock is looked at before membership",
        settings: &[],
        breaks: REFUSED,
        fault: Scenario::new(
            "without-membership-first",
            Part::IssueService,
            10,
            unguarded::winners_ask_again,
            "none: winners ask again when the stock is gone",
        ),
    },
    Guard {
        name: "EvictLate",
        without: "winners of a retired coupon leave memory before they are rows, and the database is asked for them all \
                  the same",
        settings: &[("FIRSTCOME_RETIREMENT__AFTER", "1m")],
        breaks: REFUSED,
        fault: Scenario::new(
            "without-evict-late",
            Part::Coupon,
            10,
            unguarded::retired_while_nobody_writes,
            "both consumers are killed, the coupon ends and is retired, and winners ask again",
        ),
    },
];

/// What came of taking one out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Removal {
    pub(crate) control: String,
    pub(crate) guard: String,
    pub(crate) without: String,
    pub(crate) fault: String,
    pub(crate) breaks: String,
    /// What the same fault broke with all guards in place: nothing.
    pub(crate) with_all_guards: Vec<String>,
    /// Of the rounds that were run; the last one found it, if any.
    pub(crate) seeds: Vec<u64>,
    pub(crate) found: Option<String>,
}

/// Runs a round with all guards, then the services without one until a broken promise is found, and leaves them with all
/// guards.
pub(crate) fn take_out(stage: &Stage, guard: &Guard, seed: u64, step: &Step) -> Result<Removal> {
    let fault = &guard.fault;
    let mut removal = Removal {
        control: fault.name.to_owned(),
        guard: guard.name.to_owned(),
        without: guard.without.to_owned(),
        fault: fault.what.to_owned(),
        breaks: guard.breaks.to_owned(),
        with_all_guards: Vec::new(),
        seeds: Vec::new(),
        found: None,
    };
    let strike = |number| {
        let seed = Random::of_round(seed, fault.name, number);
        let rate = stage.rate.min(RATE);
        let order = Order { scenario: fault.name, number, seed, rate, faults: &[fault] };
        let round = round::run(stage, &order, step)?;
        anyhow::Ok((seed, round))
    };
    let settings = guard.settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let mut environment: Vec<(String, String)> = settings.collect();
    // Numbers beyond those of the rounds without it.
    let mut number = ROUNDS;
    let mut baseline = || loop {
        number += 1;
        let round = strike(number)?.1;
        // What never came about says nothing of the guard.
        let Some(why) = &round.void else { return Ok(round.broken) };
        if number == 2 * ROUNDS {
            bail!("with all guards it does not count: {why}");
        }
    };
    let mut tried = if environment.is_empty() { Ok(()) } else { anew(stage, &environment) };
    tried = tried.and_then(|()| {
        removal.with_all_guards = baseline()?;
        Ok(())
    });
    environment.push((VARIABLE.to_owned(), guard.name.to_owned()));
    for number in 1..=ROUNDS {
        if tried.is_err() || removal.found.is_some() || !removal.with_all_guards.is_empty() {
            break;
        }
        step.say("starting the services without the guard");
        tried = anew(stage, &environment).and_then(|()| {
            let (seed, round) = strike(number)?;
            removal.seeds.push(seed);
            if let Some(folder) = &round.kept {
                fs::remove_dir_all(folder)?;
            }
            removal.found = round.broken.iter().find(|what| what.contains(guard.breaks)).cloned();
            Ok(())
        });
    }
    step.say("starting the services with all guards");
    anew(stage, &[])?;
    tried.map(|()| removal)
}

/// Starts the services again, and has the consumers write the whole log once more: without its guards they may have
/// left anything in the database.
fn anew(stage: &Stage, environment: &[(String, String)]) -> Result<()> {
    let supervisor = &stage.stack.supervisor;
    let processes = PROCESSES.map(|group| supervisor.find(group)).into_iter().collect::<Result<Vec<_>>>()?;
    let processes: Vec<Arc<Child>> = processes.into_iter().flatten().collect();
    supervisor.stop(&processes, Instant::now() + GRACE);
    empty_index(stage)?;
    supervisor.start_with(&processes, environment, &stage.stack.interrupt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::workspace;

    #[test]
    fn the_services_know_every_guard_by_its_name() {
        let known = fs::read_to_string(workspace().join("issue-service/src/control.rs")).unwrap();
        for guard in ALL {
            assert!(known.contains(&format!("\n    {},\n", guard.name)), "{}", guard.name);
        }
        assert!(known.contains(VARIABLE));
    }

    /// What `docs/reliability.md` says of ids: there is no counter that a restored database could set back.
    #[test]
    fn no_table_counts() {
        let services = ["user-service", "coupon-service", "issue-service"];
        let folders = services.map(|service| workspace().join(service).join("migrations"));
        let files = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap());
        let schemas: Vec<String> =
            files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect();
        assert!(schemas.len() >= services.len());
        let statements = schemas.iter().flat_map(|sql| sql.lines()).filter(|line| !line.starts_with("--"));
        assert_eq!(statements.filter(|line| line.to_uppercase().contains("AUTO_INCREMENT")).count(), 0);
    }
}
