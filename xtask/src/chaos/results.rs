//! The file of all rounds: written after each, so that nothing is lost and `--resume` can go on.
//!
//! Invariant: all rounds of a file are of the same code, one load and one seed, so they may be counted together.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::control::Control;
use super::guards::Removal;
use super::round::Round;
use super::summary::Summary;
use crate::build::{same_code, workspace};
use crate::state::write_atomically;

/// What was tried, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Setup {
    /// Of the first round. Those that came later may be of one that differs from it in documents.
    pub(crate) commit: String,
    pub(crate) profile: String,
    pub(crate) engine: String,
    pub(crate) machine: String,
    pub(crate) seed: u64,
    /// Claims a second.
    pub(crate) rate: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Results {
    #[serde(flatten)]
    pub(crate) setup: Setup,
    /// When the first round began, in RFC 3339.
    pub(crate) begun: String,
    /// Each check that was shown to fail where it must.
    #[serde(default)]
    pub(crate) controls: Vec<Control>,
    /// Each guard that was taken out of the services.
    #[serde(default)]
    pub(crate) guards: Vec<Removal>,
    pub(crate) rounds: Vec<Round>,
}

impl Results {
    pub(crate) fn new(setup: Setup, begun: String) -> Self {
        Self { setup, begun, controls: Vec::new(), guards: Vec::new(), rounds: Vec::new() }
    }

    /// Goes on with a file, if it is there and its rounds can be counted with those to come.
    pub(crate) fn resume(path: &Path, setup: Setup, begun: String) -> Result<Self> {
        let text = match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::new(setup, begun)),
            other => other.with_context(|| format!("read {}", path.display()))?,
        };
        let results: Self =
            serde_json::from_slice(&text).with_context(|| format!("{} holds no rounds", path.display()))?;
        let differ = |what: &str, there: &str, here: &str| -> Result<()> {
            if there == here {
                return Ok(());
            }
            bail!(
                "--resume: the rounds in {} are of {what} {there}, and this is {here}: leave out --resume to begin anew",
                path.display()
            )
        };
        let there = &results.setup;
        if !same_code(&workspace(), &there.commit, &setup.commit) {
            bail!(
                "--resume: the rounds in {} are of commit {}, and this is {}: leave out --resume to begin anew ({})",
                path.display(),
                there.commit,
                setup.commit,
                "only documents may differ, and of a changed tree (+) nobody knows what it was"
            );
        }
        differ("profile", &there.profile, &setup.profile)?;
        differ("database", &there.engine, &setup.engine)?;
        differ("machine", &there.machine, &setup.machine)?;
        differ("--seed", &there.seed.to_string(), &setup.seed.to_string())?;
        differ("--rate", &there.rate.to_string(), &setup.rate.to_string())?;
        Ok(results)
    }

    /// Those of a scenario, void ones included.
    pub(crate) fn of<'a>(&'a self, scenario: &'a str) -> impl Iterator<Item = &'a Round> {
        self.rounds.iter().filter(move |round| round.scenario == scenario)
    }

    pub(crate) fn summaries(&self) -> Vec<Summary> {
        let mut names: Vec<&str> = Vec::new();
        for round in &self.rounds {
            if !names.contains(&round.scenario.as_str()) {
                names.push(&round.scenario);
            }
        }
        names.into_iter().map(|name| Summary::of(name, self.of(name))).collect()
    }

    /// Everything that speaks against the system, or against the proof of it.
    pub(crate) fn faults(&self) -> Vec<String> {
        let broken =
            self.rounds.iter().filter(|round| !round.broken.is_empty()).map(|round| {
                format!("{} round {}: {}", round.scenario, round.number, round.broken.join("; "))
            });
        let unfound = self.controls.iter().filter(|control| !control.found);
        let unfound = unfound.map(|control| format!("control: {} was not found", control.what));
        let unmissed = self.guards.iter().filter(|removal| removal.found.is_none()).map(|removal| {
            let Removal { control, breaks, seeds, with_all_guards, .. } = removal;
            if with_all_guards.is_empty() {
                format!("control: {control}: not found in {} rounds: {breaks}", seeds.len())
            } else {
                format!("control: {control}: with all guards: {}", with_all_guards.join("; "))
            }
        });
        broken.chain(unfound).chain(unmissed).collect()
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let mut value = serde_json::to_value(self)?;
        value["scenarios"] = json!(self.summaries());
        value["ok"] = json!(self.faults().is_empty());
        write_atomically(path, &serde_json::to_vec_pretty(&value)?)
    }
}

/// Sets an earlier file aside, so that a new run doesn't destroy what an old one took an hour for.
pub(crate) fn set_aside(path: &Path) -> Result<Option<PathBuf>> {
    let old = path.with_extension("old.json");
    match fs::rename(path, &old) {
        Ok(()) => Ok(Some(old)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("set {} aside", path.display())),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::chaos::check::Promises;

    pub(crate) fn setup() -> Setup {
        Setup {
            commit: "0123456789abcdef".to_owned(),
            profile: "release".to_owned(),
            engine: "mariadb".to_owned(),
            machine: "2 cores".to_owned(),
            seed: 1,
            rate: 1_000,
        }
    }

    pub(crate) fn round(scenario: &str, number: u32) -> Round {
        let promises = Promises { told_issued: 10, rows: 11, ..Promises::default() };
        Round { scenario: scenario.to_owned(), number, promises, ..Round::default() }
    }

    pub(crate) fn removal(found: Option<&str>) -> Removal {
        Removal {
            control: "without-x".to_owned(),
            guard: "X".to_owned(),
            without: "x is left out".to_owned(),
            fault: "y dies".to_owned(),
            breaks: "lost".to_owned(),
            with_all_guards: Vec::new(),
            seeds: vec![11, 12],
            found: found.map(str::to_owned),
        }
    }

    #[test]
    fn a_run_goes_on_where_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chaos.json");
        let mut results = Results::resume(&path, setup(), "then".to_owned()).unwrap();
        assert!(results.rounds.is_empty());
        results.rounds.push(round("a", 1));
        results.rounds.push(Round { void: Some("why".to_owned()), ..round("a", 2) });
        results.write(&path).unwrap();
        assert_eq!(Results::resume(&path, setup(), "now".to_owned()).unwrap(), results);
    }

    #[test]
    fn rounds_of_different_runs_are_not_counted_together() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chaos.json");
        Results::new(setup(), "then".to_owned()).write(&path).unwrap();
        let refused = |change: fn(&mut Setup)| {
            let mut other = setup();
            change(&mut other);
            Results::resume(&path, other, String::new()).unwrap_err().to_string()
        };
        let text = refused(|it| it.commit = "fedc".to_owned());
        assert!(
            text.contains(
                "are of commit 0123456789abcdef, and this is fedc: leave out --resume to begin anew ("
            ),
            "{text}"
        );
        assert!(refused(|it| it.commit.push('+')).contains("and this is 0123456789abcdef+: "));
        assert!(refused(|it| it.rate = 300).contains("--rate 1000, and this is 300"));
        assert!(refused(|it| it.seed = 2).contains("--seed 1"));
        assert!(refused(|it| it.profile = "debug".to_owned()).contains("profile release"));
        assert!(refused(|it| it.engine = "mysql".to_owned()).contains("database mariadb"));
        assert!(refused(|it| it.machine = "other".to_owned()).contains("machine 2 cores"));
        fs::write(&path, "rubbish").unwrap();
        let error = Results::resume(&path, setup(), String::new()).unwrap_err().to_string();
        assert!(error.contains("holds no rounds"), "{error}");
    }

    #[test]
    fn what_speaks_against_the_system_is_told() {
        let mut results = Results::new(setup(), "then".to_owned());
        results.rounds.push(round("a", 1));
        results.controls.push(Control { what: "a row is deleted".to_owned(), found: true });
        results.guards.push(removal(Some("lost: 3")));
        assert_eq!(results.faults(), Vec::<String>::new());
        results.rounds.push(Round { broken: vec!["lost: 1".to_owned()], ..round("b", 7) });
        results.controls.push(Control { what: "a false receipt".to_owned(), found: false });
        results.guards.push(removal(None));
        results.guards.push(Removal { with_all_guards: vec!["leaked: 2".to_owned()], ..removal(None) });
        assert_eq!(
            results.faults(),
            [
                "b round 7: lost: 1",
                "control: a false receipt was not found",
                "control: without-x: not found in 2 rounds: lost",
                "control: without-x: with all guards: leaked: 2"
            ]
        );
    }

    #[test]
    fn an_old_file_is_kept_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chaos.json");
        assert_eq!(set_aside(&path).unwrap(), None);
        fs::write(&path, "x").unwrap();
        let old = set_aside(&path).unwrap().unwrap();
        assert!(!path.exists() && old.ends_with("chaos.old.json") && old.exists());
    }
}
