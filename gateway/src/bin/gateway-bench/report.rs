//! What a benchmark found, for people and for scripts, and how far it is.

use serde::Serialize;
use serde_json::Value;

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) title: &'static str,
    /// What was done, in a few sentences.
    pub(crate) about: String,
    pub(crate) sections: Vec<Section>,
    pub(crate) checks: Vec<Check>,
    /// The same numbers for scripts.
    pub(crate) figures: Value,
}

/// What one part of the benchmark adds to the report.
pub(crate) struct Part {
    pub(crate) section: Section,
    pub(crate) checks: Vec<Check>,
    pub(crate) figures: Value,
}

#[derive(Debug, Serialize)]
pub(crate) struct Section {
    pub(crate) heading: &'static str,
    pub(crate) about: String,
    pub(crate) columns: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<String>>,
}

/// What is asked of it.
#[derive(Debug, Serialize)]
pub(crate) struct Check {
    pub(crate) what: String,
    pub(crate) is: String,
    pub(crate) must: String,
    pub(crate) ok: bool,
}

/// Tells whoever watches, one line a step: `3/12 what comes next`.
pub(crate) struct Progress {
    done: usize,
    total: usize,
}

impl Progress {
    pub(crate) fn new(total: usize) -> Self {
        Self { done: 0, total }
    }

    /// Begins a step; the one before it is done.
    pub(crate) fn step(&mut self, text: &str) {
        eprintln!("{}/{} {text}", self.done, self.total);
        self.done += 1;
    }
}
