//! What an audit finds: a line for each check, those concerned, and an end that scripts can tell.

use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::terminal::grouped;

/// Shown to people; JSON has all.
const SHOWN: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Verdict {
    Ok,
    Failed,
    /// What it needs was not given, or is not there; it says why.
    NotJudged,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Offender {
    pub(crate) user: u64,
    pub(crate) problem: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Check {
    pub(crate) id: &'static str,
    pub(crate) what: &'static str,
    pub(crate) compared: String,
    pub(crate) verdict: Verdict,
    pub(crate) offenders: Vec<Offender>,
}

impl Check {
    pub(crate) fn new(id: &'static str, what: &'static str, compared: impl Into<String>, good: bool) -> Self {
        let verdict = if good { Verdict::Ok } else { Verdict::Failed };
        Self { id, what, compared: compared.into(), verdict, offenders: Vec::new() }
    }

    /// Good if nobody offends.
    pub(crate) fn of(
        id: &'static str,
        what: &'static str,
        compared: impl Into<String>,
        mut offenders: Vec<Offender>,
    ) -> Self {
        offenders.sort_by_key(|offender| offender.user);
        Self { offenders, ..Self::new(id, what, compared, true) }.judged()
    }

    pub(crate) fn not_judged(id: &'static str, what: &'static str, why: impl Into<String>) -> Self {
        Self { verdict: Verdict::NotJudged, ..Self::new(id, what, why, true) }
    }

    fn judged(mut self) -> Self {
        if !self.offenders.is_empty() {
            self.verdict = Verdict::Failed;
        }
        self
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    pub(crate) coupon: u64,
    pub(crate) ok: bool,
    pub(crate) stock: Option<u64>,
    pub(crate) rows: u64,
    /// Users who hold a receipt, by the record of answers.
    pub(crate) told_issued: u64,
    /// Of these, without a row.
    pub(crate) lost: u64,
    /// Rows beyond the first of a user.
    pub(crate) duplicates: u64,
    pub(crate) over_issued: u64,
    /// Rows of users who were not told so and have nothing open.
    pub(crate) unexplained: u64,
    pub(crate) attempts: u64,
    pub(crate) pending: u64,
    pub(crate) unknown: u64,
    pub(crate) checks: Vec<Check>,
}

impl Report {
    pub(crate) fn print(&self) {
        let colours = console::colors_enabled();
        let mut table = Table::new();
        table
            .load_style(presets::UTF8_FULL_CONDENSED)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_header(["", "invariant", "compared", "verdict"]);
        for check in &self.checks {
            let (text, colour) = match check.verdict {
                Verdict::Ok => ("ok".to_owned(), Color::Green),
                Verdict::Failed if check.offenders.is_empty() => ("FAILED".to_owned(), Color::Red),
                Verdict::Failed => {
                    (format!("FAILED ({})", grouped(check.offenders.len() as u64)), Color::Red)
                }
                Verdict::NotJudged => ("not judged".to_owned(), Color::Yellow),
            };
            let verdict = if colours { Cell::new(text).fg(colour) } else { Cell::new(text) };
            table.add_row([Cell::new(check.id), Cell::new(check.what), Cell::new(&check.compared), verdict]);
        }
        println!("{table}");
        for check in self.checks.iter().filter(|check| !check.offenders.is_empty()) {
            println!("\n{} {}:", check.id, check.what);
            for offender in check.offenders.iter().take(SHOWN) {
                println!("  user {}: {}", offender.user, offender.problem);
            }
            if check.offenders.len() > SHOWN {
                let more = grouped((check.offenders.len() - SHOWN) as u64);
                println!("  and {more} more (--json lists all)");
            }
        }
        println!(
            "\ncoupon {}: told issued {}, rows {}, lost {}, duplicates {}, over-issued {}, unexplained {}: {}",
            self.coupon,
            grouped(self.told_issued),
            grouped(self.rows),
            grouped(self.lost),
            grouped(self.duplicates),
            grouped(self.over_issued),
            grouped(self.unexplained),
            if self.ok { "it adds up" } else { "IT DOES NOT ADD UP" },
        );
    }
}
