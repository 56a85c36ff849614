//! What a check finds: its line, and those whom it concerns.

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
    /// `None` where it is nobody's: a digest, a definition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<u64>,
    pub(crate) problem: String,
}

impl Offender {
    pub(crate) fn user(user: u64, problem: impl Into<String>) -> Self {
        Self { user: Some(user), problem: problem.into() }
    }
}

impl From<String> for Offender {
    fn from(problem: String) -> Self {
        Self { user: None, problem }
    }
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
        Self { id, what, compared: compared.into(), verdict: judge(good), offenders: Vec::new() }
    }

    /// Good if nobody offends.
    pub(crate) fn of(
        id: &'static str,
        what: &'static str,
        compared: impl Into<String>,
        mut offenders: Vec<Offender>,
    ) -> Self {
        offenders.sort_by_key(|offender| offender.user);
        Self { verdict: judge(offenders.is_empty()), offenders, ..Self::new(id, what, compared, true) }
    }

    pub(crate) fn not_judged(id: &'static str, what: &'static str, why: impl Into<String>) -> Self {
        Self { verdict: Verdict::NotJudged, ..Self::new(id, what, why, true) }
    }
}

fn judge(good: bool) -> Verdict {
    if good { Verdict::Ok } else { Verdict::Failed }
}

/// A table of checks, and below it those whom the failed ones concern.
pub(crate) fn print(checks: &[Check]) {
    let colours = console::colors_enabled();
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(["", "invariant", "compared", "verdict"]);
    for check in checks {
        let (text, colour) = match check.verdict {
            Verdict::Ok => ("ok".to_owned(), Color::Green),
            Verdict::Failed if check.offenders.is_empty() => ("FAILED".to_owned(), Color::Red),
            Verdict::Failed => (format!("FAILED ({})", grouped(check.offenders.len() as u64)), Color::Red),
            Verdict::NotJudged => ("not judged".to_owned(), Color::Yellow),
        };
        let verdict = if colours { Cell::new(text).fg(colour) } else { Cell::new(text) };
        table.add_row([Cell::new(check.id), Cell::new(check.what), Cell::new(&check.compared), verdict]);
    }
    println!("{table}");
    for check in checks.iter().filter(|check| !check.offenders.is_empty()) {
        println!("\n{} {}:", check.id, check.what);
        for Offender { user, problem } in check.offenders.iter().take(SHOWN) {
            match user {
                Some(user) => println!("  user {user}: {problem}"),
                None => println!("  {problem}"),
            }
        }
        if check.offenders.len() > SHOWN {
            let more = grouped((check.offenders.len() - SHOWN) as u64);
            println!("  and {more} more (--json lists all)");
        }
    }
}
