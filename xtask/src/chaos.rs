//! `chaos`: a sale on the running system, a fault in its middle, everything level again, and a comparison of what was
//! promised with what is there; again and again, for each kind of fault.
//!
//! Servers are reached through proxies alone, so that links can be broken as well as processes. It fails if a promise
//! was broken, if a check did not find what was broken by hand, or if a fault could not be made to count.

mod bounds;
mod check;
mod control;
mod crowd;
mod failpoint;
mod faults;
mod guards;
mod live;
pub(crate) mod metrics;
mod random;
mod record;
pub(crate) mod report;
mod results;
mod round;
mod sale;
mod scenario;
mod site;
mod stage;
mod statistics;
mod summary;
mod whole;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use console::style;

use self::random::Random;
use self::results::{Results, Setup, set_aside};
use self::round::{Order, Round};
use self::scenario::{ALL, Part, SOAK, SOAK_REPLICATED, Scenario};
use self::stage::Stage;
use crate::bench::machine;
use crate::build::{Profile, workspace};
use crate::cli::Chaos;
use crate::first_coupon::{now, rfc3339};
use crate::interrupt::Interrupt;
use crate::ports::behind;
use crate::progress::{Progress, Step};
use crate::stack::{self, Options, Stack};
use crate::state::{Folder, Lock, Phase};
use crate::up;

/// What `--ci` may take from the first sale on.
const CI_LIMIT: Duration = Duration::from_secs(600);
/// No round is begun later than this before the limit.
const ROUND: Duration = Duration::from_secs(90);
/// Rounds of a scenario that may be void in a run, for each that is wanted, and some.
const VOID_EACH: u64 = 1;
const VOID_ANYHOW: u64 = 2;
/// What shells give for the end by Ctrl-C.
const INTERRUPTED: u8 = 130;
const DOCUMENT: &str = "docs/reliability.md";

pub(crate) fn chaos(arguments: &Chaos) -> Result<ExitCode> {
    let mut scenarios = scenario::chosen(&arguments.scenarios, arguments.ci)?;
    if arguments.controls && arguments.scenarios.is_empty() {
        scenarios.clear();
    }
    if arguments.list {
        println!("{}", scenario::list());
        return Ok(ExitCode::SUCCESS);
    }
    let interrupt = Interrupt::install()?;
    let progress = Progress::new();
    let root = arguments.dir.clone().unwrap_or_else(|| workspace().join("target/chaos"));
    let folder = Folder::new(&root)?;
    let file = folder.root().join("chaos.json");
    // Each stack takes the lock of its folder; the rounds of all are in this one.
    let _alone = alone(&Folder::new(&root.join("alone"))?)?;
    if !arguments.resume {
        begin_anew(&folder, true, &progress)?;
        if let Some(old) = set_aside(&file)? {
            progress.note(&format!("earlier rounds are kept in {}", old.display()));
        }
    }
    let mut results = None;
    let mut outcome = Ok(());
    for replicated in [false, true] {
        let part: Vec<_> = scenarios.iter().copied().filter(|it| it.replicated == replicated).collect();
        let more = wants_more(arguments, replicated);
        if outcome.is_ok() && (more || !part.is_empty()) {
            let place = Place { folder: &folder, file: &file, replicated };
            outcome = on_a_stack(&place, arguments, &part, &mut results, (&interrupt, &progress));
        }
    }
    // Half a run is not published: the tree would no longer be the commit that `--resume` goes on with.
    let publish = arguments.publish && outcome.is_ok();
    let faults = results.as_ref().map(|results| conclude(results, publish, &file)).transpose()?;
    match outcome {
        Err(_) if interrupt.requested() => Ok(ExitCode::from(INTERRUPTED)),
        Err(error) => Err(error),
        Ok(()) if faults.is_some_and(|faults| faults.is_empty()) => Ok(ExitCode::SUCCESS),
        Ok(()) => Ok(ExitCode::FAILURE),
    }
}

/// Whether something is wanted of this stack that is not in the list of scenarios.
fn wants_more(arguments: &Chaos, replicated: bool) -> bool {
    if replicated {
        return arguments.wants(SOAK_REPLICATED);
    }
    let guards = guards::ALL.iter().map(|guard| guard.fault.name);
    arguments.controls || guards.chain([SOAK]).any(|name| arguments.wants(name))
}

struct Place<'a> {
    folder: &'a Folder,
    file: &'a Path,
    /// On three brokers, and a database with a replica.
    replicated: bool,
}

/// Starts a stack, runs these scenarios on it, and stops it.
fn on_a_stack(
    place: &Place<'_>,
    arguments: &Chaos,
    scenarios: &[&'static Scenario],
    results: &mut Option<Results>,
    (interrupt, progress): (&Interrupt, &Progress),
) -> Result<()> {
    let mut folder = place.folder.clone();
    if place.replicated {
        folder = Folder::new(&folder.root().join("replicated"))?;
        // Which of the two databases was the primary at last is not known any more.
        begin_anew(&folder, !arguments.resume, progress)?;
    }
    let options = Options {
        proxied: true,
        replicated: place.replicated,
        ..Options::plain(folder, up::engine(arguments.mysql))
    };
    let stack = Stack::prepare(options, interrupt.clone(), progress.clone())?;
    let outcome = run(&stack, arguments, scenarios, place.file, results);
    stack.stop();
    outcome
}

/// Shows what there is, and returns what speaks against the system.
fn conclude(results: &Results, publish: bool, file: &Path) -> Result<Vec<String>> {
    println!("{}\n\nrounds: {}", report::tables(results), file.display());
    if publish {
        report::publish(results, &workspace().join(DOCUMENT))?;
        println!("written to {DOCUMENT}");
    }
    let faults = results.faults();
    for fault in &faults {
        println!("{} {fault}", style("BROKEN:").red().bold());
    }
    if faults.is_empty() && !results.rounds.is_empty() {
        println!("{}", style("no promise was broken").green().bold());
    }
    Ok(faults)
}

/// Forgets the data of an earlier run, and what was kept of its rounds.
fn begin_anew(folder: &Folder, rounds: bool, progress: &Progress) -> Result<()> {
    let foreign = match fs::read_to_string(folder.ports_file()) {
        Ok(ports) => !ports.contains(&behind("kafka")),
        Err(_) => folder.data().exists(),
    };
    if foreign {
        bail!("{} is the folder of something else: give another one by --dir", folder.root().display());
    }
    let _lock = alone(folder)?;
    stack::clean(folder, progress)?;
    let rounds = rounds.then(|| folder.root().join("rounds"));
    for old in rounds.into_iter().chain([folder.data()]).filter(|old| old.exists()) {
        fs::remove_dir_all(&old).with_context(|| format!("remove {}", old.display()))?;
    }
    Ok(())
}

fn alone(folder: &Folder) -> Result<Lock> {
    let lock = Lock::take(folder)?;
    let root = folder.root().display();
    lock.with_context(|| format!("chaos runs in {root} already: give another folder by --dir"))
}

fn run(
    stack: &Arc<Stack>,
    arguments: &Chaos,
    scenarios: &[&'static Scenario],
    file: &Path,
    results: &mut Option<Results>,
) -> Result<()> {
    let profile = if arguments.debug { Profile::Debug } else { Profile::Release };
    up::start(stack, arguments.mysql, true, profile, true)?;
    stack.set_phase(Phase::Ready);
    stack.check_proxied()?;
    let stage = Stage::new(stack, arguments.rate)?;
    let setup = Setup {
        commit: stage.commit(),
        profile: if arguments.debug { "debug" } else { "release" }.to_owned(),
        engine: up::engine(arguments.mysql).name().to_owned(),
        machine: machine(),
        seed: arguments.seed,
        rate: arguments.rate,
    };
    let begun = rfc3339(now()?);
    let results = match results {
        Some(results) => results,
        None if arguments.resume => results.insert(Results::resume(file, setup, begun)?),
        None => results.insert(Results::new(setup, begun)),
    };
    let mut run = Run { stage: &stage, arguments, file, results, begun: Instant::now() };
    run.controls()?;
    if !stack.is_replicated() {
        run.guards()?;
    }
    run.rounds(scenarios)?;
    run.soak()
}

struct Run<'a> {
    stage: &'a Stage,
    arguments: &'a Chaos,
    file: &'a Path,
    results: &'a mut Results,
    begun: Instant,
}

impl Run<'_> {
    fn progress(&self) -> &Progress {
        &self.stage.stack.progress
    }

    fn controls(&mut self) -> Result<()> {
        if self.results.controls.is_empty() {
            let step = self.progress().step("negative controls");
            self.results.controls = control::run(self.stage, &step)?;
            let found = self.results.controls.iter().filter(|control| control.found).count();
            step.done(&format!("{found} of {} faults found", self.results.controls.len()));
            self.results.write(self.file)?;
        }
        Ok(())
    }

    /// Takes out those that the file lacks.
    fn guards(&mut self) -> Result<()> {
        for guard in guards::ALL {
            let name = guard.fault.name;
            let wanted = self.arguments.controls || self.arguments.wants(name);
            if !wanted || self.results.guards.iter().any(|it| it.control == name) {
                continue;
            }
            let step = self.progress().step(name);
            let removal = guards::take_out(self.stage, guard, self.arguments.seed, &step)
                .with_context(|| name.to_owned())?;
            let found = removal.found.clone().unwrap_or_else(|| "it was not found".to_owned());
            step.done(&format!("{found} (round {})", removal.seeds.len()));
            self.results.guards.push(removal);
            self.results.write(self.file)?;
        }
        Ok(())
    }

    /// Those that the file lacks.
    fn rounds(&mut self, scenarios: &[&'static Scenario]) -> Result<()> {
        let wanted = |scenario: &Scenario| match (self.arguments.ci, self.arguments.rounds) {
            (true, _) => 1,
            (false, Some(rounds)) => u64::from(rounds),
            (false, None) => u64::from(scenario.rounds),
        };
        let plan: Vec<(&Scenario, u64)> = scenarios.iter().map(|it| (*it, wanted(it))).collect();
        let total = plan.iter().map(|(_, rounds)| rounds).sum();
        let bar = self.progress().bar("rounds", total);
        let mut done = 0;
        for (scenario, wanted) in plan {
            let mut void = 0;
            loop {
                let counted = self.counted(scenario.name);
                bar.position(done + counted.min(wanted));
                bar.say(scenario.name);
                if counted >= wanted {
                    break;
                }
                let round = self.round(scenario.name, &[scenario], wanted)?;
                void += u64::from(!round.counts());
                if void > wanted * VOID_EACH + VOID_ANYHOW {
                    bail!("{}: {void} rounds in a row of this run don't count", scenario.name);
                }
            }
            done += wanted;
        }
        bar.clear();
        Ok(())
    }

    fn counted(&self, scenario: &str) -> u64 {
        record::count(self.results.of(scenario).filter(|round| round.counts()))
    }

    /// Pairs by chance, until this stack's share of the time is over: a third is the replicated one's.
    fn soak(&mut self) -> Result<()> {
        let replicated = self.stage.stack.is_replicated();
        let (name, thirds) = if replicated { (SOAK_REPLICATED, 1) } else { (SOAK, 2) };
        if !self.arguments.wants(name) {
            return Ok(());
        }
        let until = Instant::now() + Duration::from_secs(self.arguments.minutes * 60 * thirds / 3);
        while Instant::now() < until {
            let number = self.next_number(name);
            let mut random = Random::new(Random::of_round(self.arguments.seed, name, number));
            let pair = pair(&mut random, replicated);
            self.round(name, &pair, 0)?;
        }
        Ok(())
    }

    fn next_number(&self, scenario: &str) -> u32 {
        self.results.of(scenario).map(|round| round.number).max().unwrap_or(0) + 1
    }

    /// One more, and into the file.
    fn round(&mut self, name: &str, faults: &[&Scenario], wanted: u64) -> Result<Round> {
        if self.arguments.ci && self.begun.elapsed() + ROUND > CI_LIMIT {
            bail!("the {} minutes of --ci are over before {name}", CI_LIMIT.as_secs() / 60);
        }
        let number = self.next_number(name);
        let seed = Random::of_round(self.arguments.seed, name, number);
        let step = self.progress().step(name);
        let order = Order { scenario: name, number, seed, rate: self.stage.rate, faults };
        let (round, end) = match round::run(self.stage, &order, &step) {
            Ok(round) => (round, Ok(())),
            Err(error) => {
                // Whoever stops a run breaks no promise; whatever else ends a round may have been one.
                self.stage.stack.interrupt.check()?;
                (round::unjudged(self.stage, &order, &error), Err(error))
            }
        };
        self.results.rounds.push(round.clone());
        self.results.write(self.file)?;
        end.with_context(|| format!("{name} round {number}"))?;
        let of = if wanted > 0 { format!("{} of {wanted}", self.counted(name)) } else { number.to_string() };
        tell(step, &of, &round);
        Ok(round)
    }
}

/// Two faults of different parts. On the replicated stack the first is one of its own; what breaks the only broker, or
/// the only database, breaks nothing there that has a name.
fn pair(random: &mut Random, replicated: bool) -> Vec<&'static Scenario> {
    let any = |random: &mut Random, of: &[&'static Scenario]| {
        of[usize::try_from(random.below(of.len() as u64)).unwrap_or_default()]
    };
    let is_of_one = |it: &Scenario| matches!(it.part, Part::Kafka | Part::Mysql) && !it.replicated;
    let here = |it: &&Scenario| if replicated { !is_of_one(it) } else { !it.replicated };
    let all: Vec<&Scenario> = ALL.iter().filter(here).collect();
    let begins: Vec<&Scenario> = all.iter().filter(|it| it.replicated == replicated).copied().collect();
    let first = any(random, &begins);
    let others: Vec<&Scenario> = all.into_iter().filter(|it| it.part != first.part).collect();
    vec![first, any(random, &others)]
}

/// A line for a round.
fn tell(step: Step, of: &str, round: &Round) {
    let mut what = match (&round.void, round.broken.as_slice()) {
        (Some(why), _) => format!("void: {why}"),
        (None, []) => format!(
            "{of}: {} told ISSUED, {} rows; {} in flight, gap {} ms",
            round.promises.told_issued,
            round.promises.rows,
            round.in_flight.iter().map(u64::to_string).collect::<Vec<_>>().join(" and "),
            round.gap_ms.unwrap_or_default()
        ),
        (None, broken) => {
            format!("{of}: {} {}", style("BROKEN:").red().bold().for_stderr(), broken.join("; "))
        }
    };
    if round.faults.len() > 1 {
        what = format!("{}: {what}", round.faults.join(" + "));
    }
    step.done(&what);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A thousand pairs.
    fn pairs(seed: u64, replicated: bool) -> Vec<[&'static Scenario; 2]> {
        let mut random = Random::new(seed);
        let pairs = std::iter::repeat_with(|| pair(&mut random, replicated).try_into().ok().unwrap());
        pairs.take(1_000).collect()
    }

    #[test]
    fn pairs_are_of_different_parts_and_repeat_with_their_seed() {
        for replicated in [false, true] {
            let names = |seed| -> Vec<[&str; 2]> {
                pairs(seed, replicated).iter().map(|pair| pair.map(|it| it.name)).collect()
            };
            assert_eq!(names(1), names(1));
            assert_ne!(names(1), names(2));
            assert!(pairs(1, replicated).iter().all(|[one, other]| one.part != other.part));
        }
    }

    #[test]
    fn each_scenario_is_paired_on_the_stack_that_it_is_of() {
        let paired = |replicated| -> BTreeSet<&str> {
            pairs(1, replicated).iter().flatten().map(|it| it.name).collect()
        };
        let of_one = |it: &&Scenario| !it.replicated;
        assert_eq!(paired(false), ALL.iter().filter(of_one).map(|it| it.name).collect());
        let elsewhere = ["kafka-kill", "kafka-stop", "mysql-kill", "mysql-stop"];
        let names = ALL.iter().map(|it| it.name);
        assert_eq!(paired(true), names.filter(|name| !elsewhere.contains(name)).collect());
        assert!(pairs(1, true).iter().all(|[first, _]| first.replicated));
    }

    #[test]
    fn the_folder_of_something_else_is_left_alone() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::new(temporary.path()).unwrap();
        let anew = || begin_anew(&folder, true, &Progress::new());
        anew().unwrap();
        folder.create().unwrap();
        fs::write(folder.data().join("x"), "").unwrap();
        assert!(anew().unwrap_err().to_string().contains("is the folder of something else"));
        fs::write(folder.ports_file(), r#"{"kafka": 1}"#).unwrap();
        assert!(anew().is_err() && folder.data().join("x").exists());
        fs::write(folder.ports_file(), r#"{"kafka": 1, "kafka-behind": 2}"#).unwrap();
        let rounds = folder.root().join("rounds");
        fs::create_dir_all(&rounds).unwrap();
        begin_anew(&folder, false, &Progress::new()).unwrap();
        assert!(!folder.data().exists() && rounds.exists());
        anew().unwrap();
        assert!(!rounds.exists());
    }
}
