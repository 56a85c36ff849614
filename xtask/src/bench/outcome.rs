//! What a benchmark found, as a report that is kept, as tables on a terminal, and as JSON.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use console::style;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{keep, provenance};
use crate::cli::Measure;
use crate::table;

#[derive(Debug, Deserialize)]
pub(super) struct Outcome {
    pub(super) title: String,
    pub(super) about: String,
    pub(super) sections: Vec<Section>,
    pub(super) checks: Vec<Check>,
    pub(super) figures: Value,
}

#[derive(Debug, Deserialize)]
pub(super) struct Section {
    pub(super) heading: String,
    pub(super) about: String,
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Check {
    pub(super) what: String,
    pub(super) is: String,
    pub(super) must: String,
    pub(super) ok: bool,
}

impl Outcome {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is no outcome", path.display()))
    }

    /// Keeps the report and shows what is asked for; a check that failed makes the command fail. `about` is on this run.
    pub(super) fn publish(
        &self,
        name: &str,
        arguments: &Measure,
        commit: Option<&str>,
        load: &str,
        about: &str,
    ) -> Result<ExitCode> {
        let report = self.markdown(name, &format!("{}\n\n{about}", provenance(commit)?));
        let kept = match &arguments.out {
            None if arguments.quick => None,
            out => Some(keep(name, out.clone(), &report)?),
        };
        if arguments.json {
            println!("{}", serde_json::to_string_pretty(&self.json(commit, load))?);
        } else {
            println!("{}", self.tables());
            if let Some(path) = kept {
                println!("written to {}", path.display());
            }
            for fault in self.faults() {
                println!("{} {fault}", style("BELOW WHAT IS ASKED FOR:").red().bold());
            }
        }
        Ok(if self.faults().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Each check that failed, in words.
    pub(super) fn faults(&self) -> Vec<String> {
        let failed = self.checks.iter().filter(|check| !check.ok);
        failed.map(|Check { what, is, must, .. }| format!("{what}: {is}, must be {must}")).collect()
    }

    /// `about` is on the run: when, where, and what else there is to know of it.
    pub(super) fn markdown(&self, name: &str, about: &str) -> String {
        let mut text = format!(
            "# {}\n\nBy `cargo xtask bench {name}`, which rewrites this file. Load, service and servers share one \
             machine: the ratios say more than the figures.\n\n{about}\n\n{}\n",
            self.title, self.about
        );
        self.write_sections(&mut text, "##");
        text
    }

    /// `level`: the marks of their headings.
    pub(super) fn write_sections(&self, text: &mut String, level: &str) {
        for section in &self.sections {
            let _ = write!(text, "\n{level} {}\n\n{}\n\n", section.heading, section.about);
            markdown_table(text, &section.columns, &section.rows);
        }
        if !self.checks.is_empty() {
            let _ = write!(text, "\n{level} What is asked for\n\n");
            let columns = ["", "is", "must be"].map(str::to_owned);
            let row = |check: &Check| vec![check.what.clone(), check.is.clone(), check.must.clone()];
            markdown_table(text, &columns, &self.checks.iter().map(row).collect::<Vec<_>>());
        }
    }

    pub(super) fn tables(&self) -> String {
        let mut text = String::new();
        for section in &self.sections {
            let _ = writeln!(text, "{}", style(&section.heading).bold());
            let columns: Vec<&str> = section.columns.iter().map(String::as_str).collect();
            let mut table = table::new(&columns);
            for row in &section.rows {
                table.add_row(row);
            }
            let _ = writeln!(text, "{table}\n");
        }
        if !self.checks.is_empty() {
            let mut table = table::new(&["asked for", "is", "must be", ""]);
            for Check { what, is, must, ok } in &self.checks {
                let mark = if *ok { style("ok").green() } else { style("no").red() };
                table.add_row([what, is, must, &mark.to_string()]);
            }
            let _ = writeln!(text, "{table}");
        }
        text
    }

    pub(super) fn json(&self, commit: Option<&str>, load: &str) -> Value {
        let ok = self.faults().is_empty();
        json!({"ok": ok, "commit": commit, "loadAverage": load, "checks": self.checks, "figures": self.figures})
    }
}

/// The first column on the left, the figures on the right.
fn markdown_table(text: &mut String, columns: &[String], rows: &[Vec<String>]) {
    let figures = |index: usize| {
        rows.iter()
            .all(|row| row.get(index).is_some_and(|cell| cell.starts_with(|c: char| c.is_ascii_digit())))
    };
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    text.push_str(&line(columns));
    for index in 0..columns.len() {
        text.push_str(if index > 0 && figures(index) { "|---:" } else { "|---" });
    }
    text.push_str("|\n");
    for row in rows {
        text.push_str(&line(row));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(ok: bool) -> Outcome {
        serde_json::from_value(json!({
            "title": "A title", "about": "What it is about.",
            "sections": [{"heading": "A backlog", "about": "How.", "columns": ["backlog", "who", "rows/s"],
                "rows": [["one", "a", "1,000"], ["two", "b", "2,000"]]}],
            "checks": [{"what": "share", "is": "59 %", "must": "at least 60 %", "ok": ok}],
            "figures": {"rows": 7},
        }))
        .unwrap()
    }

    #[test]
    fn a_report_says_how_to_repeat_it_and_where_it_was_made() {
        let text = outcome(true).markdown("sink", "2026-11-21, 2 cores");
        for part in [
            "# A title\n",
            "`cargo xtask bench sink`",
            "\n2026-11-21, 2 cores\n",
            "\n## A backlog\n\nHow.\n\n| backlog | who | rows/s |\n|---|---|---:|\n| one | a | 1,000 |\n",
            "|  | is | must be |\n|---|---:|---|\n| share | 59 % | at least 60 % |\n",
        ] {
            assert!(text.contains(part), "{part}\n---\n{text}");
        }
    }

    #[test]
    fn what_is_below_what_is_asked_for_is_a_fault() {
        assert_eq!(outcome(true).faults(), Vec::<String>::new());
        assert_eq!(outcome(false).faults(), ["share: 59 %, must be at least 60 %"]);
        assert_eq!(outcome(true).json(Some("c"), "0.1")["ok"], true);
        assert_eq!(outcome(false).json(Some("c"), "0.1")["ok"], false);
        let shown = console::strip_ansi_codes(&outcome(false).tables()).into_owned();
        assert!(shown.contains("1,000") && shown.contains("at least 60 %"), "{shown}");
    }
}
