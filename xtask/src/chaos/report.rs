//! The summary for people: two tables on the terminal, and the same in Markdown.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::bounds::{self, Bound};
use super::guards::Removal;
use super::results::Results;
use super::summary::{Pooled, Summary};
use crate::bench::short;
use crate::table;

/// The marks in the document have this name.
const MARKS: &str = "chaos";

const ALREADY: &str = "409 COUPON_ALREADY_ISSUED";
const SOLD_OUT: &str = "409 COUPON_SOLD_OUT";
const NOT_STARTED: &str = "409 COUPON_NOT_STARTED";
const ENDED: &str = "409 COUPON_ENDED";
/// Every answer that has a column of its own.
const COLUMNS: [&str; 9] = ["200", "202", ALREADY, SOLD_OUT, NOT_STARTED, ENDED, "503", "none", "not sent"];

/// A header and rows.
struct Sheet {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

fn promises(summaries: &[Summary]) -> Sheet {
    let header = vec![
        "scenario",
        "rounds",
        "void",
        "told ISSUED",
        "rows",
        "lost",
        "duplicates",
        "over-issued",
        "leaked",
        "winners refused",
        "rounds broken",
        "a round breaks (95 %)",
    ];
    let row = |it: &Summary| {
        vec![
            it.scenario.clone(),
            it.rounds.to_string(),
            it.void.to_string(),
            it.promises.told_issued.to_string(),
            it.promises.rows.to_string(),
            it.promises.lost.to_string(),
            it.promises.duplicates.to_string(),
            it.promises.over_issued.to_string(),
            some(it.promises.leaked),
            it.promises.winners_refused.to_string(),
            it.broken.to_string(),
            at_most(it.round_breaks_at_most),
        ]
    };
    Sheet { header, rows: summaries.iter().map(row).collect() }
}

fn answers(summaries: &[Summary]) -> Sheet {
    let header = vec![
        "scenario",
        "claims",
        "200",
        "202",
        "409 already",
        "409 sold out",
        "409 not started",
        "409 ended",
        "503",
        "none",
        "not sent",
        "other",
        "unknown became rows",
        "gap ms, median",
        "gap ms, longest",
        "resumed ms, longest",
        "p99 ms before",
        "p99 ms during",
        "slowest ms",
    ];
    let row = |it: &Summary| {
        let mut row = vec![it.scenario.clone(), it.claims.to_string()];
        row.extend(COLUMNS.map(|name| it.answered(&[name]).to_string()));
        row.push((it.claims - it.answered(&COLUMNS)).to_string());
        row.push(it.promises.unknown_became_rows.to_string());
        let times = [it.gap_median_ms, it.gap_max_ms, it.resumed_max_ms];
        row.extend(times.map(some));
        row.extend([it.p99_before_ms, it.p99_during_ms, it.slowest_ms].map(some));
        row
    };
    Sheet { header, rows: summaries.iter().map(row).collect() }
}

/// What clients noticed, where there is a bound for it.
fn bounds(summaries: &[Summary]) -> Sheet {
    let header = vec!["scenario", "what clients notice", "is", "at most", "kept"];
    let row = |bound: &Bound| {
        let summary = summaries.iter().find(|it| it.scenario == bound.scenario)?;
        let is = bound.figure(summary)?;
        let shown = |figure: f64| format!("{figure} {}", bound.unit).trim().to_owned();
        // Up, so that rounding hides no breach.
        let rounded = (is * 100.0).ceil() / 100.0;
        let kept = if is <= bound.at_most { "yes" } else { "NO" };
        let cells = [bound.scenario, bound.what, &shown(rounded), &shown(bound.at_most), kept];
        Some(cells.map(str::to_owned).to_vec())
    };
    Sheet { header, rows: bounds::ALL.iter().filter_map(row).collect() }
}

/// Guards that were taken out of the services.
fn guards(results: &Results) -> Sheet {
    let header =
        vec!["control", "without the guard", "fault", "found in round", "its seed", "what was found"];
    let row = |it: &Removal| {
        let (round, seed) = match (&it.found, it.seeds.last()) {
            (Some(_), Some(seed)) => (it.seeds.len().to_string(), seed.to_string()),
            _ => (format!("none of {}", it.seeds.len()), "–".to_owned()),
        };
        let found = it.found.clone().unwrap_or_else(|| "–".to_owned());
        vec![it.control.clone(), it.without.clone(), it.fault.clone(), round, seed, found]
    };
    Sheet { header, rows: results.guards.iter().map(row).collect() }
}

fn some(figure: Option<u64>) -> String {
    figure.map_or_else(|| "–".to_owned(), |figure| figure.to_string())
}

fn at_most(share: f64) -> String {
    format!("≤ {}", percent(share))
}

/// In as many digits as say something.
fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    if percent >= 1.0 { format!("{percent:.1} %") } else { format!("{percent:.4} %") }
}

/// What the rounds together bound, in a sentence.
fn pooled(summaries: &[Summary]) -> String {
    let all = Pooled::of(summaries);
    if all.rounds == 0 {
        return "No round counts yet.".to_owned();
    }
    format!(
        "All {} rounds together: {} broke a promise, so a round of this mixture breaks one with a probability of at \
         most {}; of {} users who were told ISSUED {} lost it, so a promise is lost with a probability of at most {}, \
         if losses came one by one (95 % upper bounds, Clopper and Pearson).",
        all.rounds,
        all.broken,
        percent(all.round_breaks_at_most()),
        all.told_issued,
        all.lost,
        percent(all.promise_lost_at_most())
    )
}

fn controls(results: &Results) -> String {
    let found = results.controls.iter().filter(|control| control.found).count();
    let what: Vec<&str> = results.controls.iter().map(|control| control.what.as_str()).collect();
    format!("Negative controls: {found} of {} faults found ({}).", what.len(), what.join("; "))
}

fn sheets(results: &Results) -> [Sheet; 4] {
    let summaries = results.summaries();
    [promises(&summaries), answers(&summaries), bounds(&summaries), guards(results)]
}

/// For a terminal.
pub(crate) fn tables(results: &Results) -> String {
    let shown = sheets(results).into_iter().filter(|sheet| !sheet.rows.is_empty()).map(|sheet| {
        let mut table = table::new(&sheet.header);
        for row in sheet.rows {
            table.add_row(row);
        }
        table.to_string()
    });
    let shown: Vec<String> = shown.collect();
    format!("{}\n\n{}\n{}", shown.join("\n\n"), pooled(&results.summaries()), controls(results))
}

/// For the documentation.
fn markdown(results: &Results) -> String {
    let setup = &results.setup;
    let [promises, answers, bounds, guards] = sheets(results).map(|sheet| {
        if sheet.rows.is_empty() {
            return String::new();
        }
        // What is counted stands at the right.
        let counted = |column: usize| {
            let digits = |row: &Vec<String>| {
                row[column].starts_with(|it: char| it.is_ascii_digit() || "≤–".contains(it))
            };
            sheet.rows.iter().all(digits)
        };
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let mut text = line(&sheet.header.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>());
        let rules = (0..sheet.header.len()).map(|column| if counted(column) { "---:" } else { "---" });
        text.push_str(&format!("|{}|\n", rules.collect::<Vec<_>>().join("|")));
        text.extend(sheet.rows.iter().map(|row| line(row)));
        text
    });
    format!(
        "{}, commit {}, {} build, {}, seed {}, {} claims a second, {}\n\n{promises}\n{answers}\n{bounds}\n{}\n\n{}\n\n{guards}",
        results.begun,
        short(&setup.commit),
        setup.profile,
        setup.machine,
        setup.seed,
        setup.rate,
        setup.engine,
        pooled(&results.summaries()),
        controls(results),
    )
}

/// Puts the tables between the marks of a file.
pub(crate) fn publish(results: &Results, path: &Path) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let text = between_marks(&text, MARKS, &markdown(results)).with_context(|| path.display().to_string())?;
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

/// A document with what stands between the marks of this name replaced.
pub(crate) fn between_marks(text: &str, name: &str, new: &str) -> Result<String> {
    let [begin, end] = ["begin", "end"].map(|which| format!("<!-- {name}: {which} -->"));
    let (Some((before, rest)), Some((_, after))) = (text.split_once(&begin), text.split_once(&end)) else {
        bail!("the marks {begin} and {end} are missing");
    };
    if !rest.contains(&end) {
        bail!("the mark {end} stands before {begin}");
    }
    Ok(format!("{before}{begin}\n\n{new}\n{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::control::Control;
    use crate::chaos::results::tests::{removal, round, setup};
    use crate::chaos::round::Round;

    fn results() -> Results {
        let mut results = Results::new(setup(), "2026-11-25T10:00:00Z".to_owned());
        let answers = [("200", 10), ("409 COUPON_SOLD_OUT", 4), ("502", 2), ("none", 1)];
        let answers = answers.map(|(name, number)| (name.to_owned(), number)).into();
        let mut kafka = Round { gap_ms: Some(240), answers, ..round("kafka-kill", 1) };
        kafka.promises.leaked = Some(0);
        results.rounds.push(kafka);
        results.rounds.push(round("coupon-closed", 1));
        results.controls.push(Control { what: "a row is deleted".to_owned(), found: true });
        results.guards = vec![removal(Some("lost: 3")), removal(None)];
        results
    }

    #[test]
    fn every_answer_is_in_a_column() {
        let sheet = answers(&results().summaries());
        assert!(sheet.rows.iter().all(|row| row.len() == sheet.header.len()));
        let of = |name: &str| &sheet.rows[0][sheet.header.iter().position(|it| *it == name).unwrap()];
        assert_eq!(
            [of("claims"), of("200"), of("409 sold out"), of("none"), of("other")],
            ["17", "10", "4", "1", "2"]
        );
        let promises = promises(&results().summaries());
        assert!(promises.rows.iter().all(|row| row.len() == promises.header.len()));
        assert_eq!((promises.rows[0][8].as_str(), promises.rows[1][8].as_str()), ("0", "–"));
    }

    #[test]
    fn markdown_says_what_was_measured() {
        let text = markdown(&results());
        assert!(text.starts_with(
            "2026-11-25T10:00:00Z, commit 012345678, release build, 2 cores, seed 1, 1000 claims a second, mariadb\n"
        ));
        assert!(
            text.contains("\n| kafka-kill | 1 | 0 | 10 | 11 | 0 | 0 | 0 | 0 | 0 | 0 | ≤ 95.0 % |\n"),
            "{text}"
        );
        assert!(text.contains("All 2 rounds together: 0 broke a promise"), "{text}");
        assert!(text.contains("Negative controls: 1 of 1 faults found (a row is deleted)."), "{text}");
        assert!(text.contains("\n| without-x | x is left out | y dies | 2 | 12 | lost: 3 |\n"), "{text}");
        assert!(text.ends_with("\n| without-x | x is left out | y dies | none of 2 | – | – |\n"), "{text}");
        assert!(!text.contains("what clients notice"), "{text}");
        assert!(tables(&results()).contains("coupon-closed") && tables(&results()).contains("without-x"));
    }

    #[test]
    fn what_clients_noticed_stands_beside_its_bound() {
        let mut results = results();
        let round = Round { slowest_ms: Some(2_501), resumed_ms: Some(999), ..round("kafka-stop", 1) };
        results.rounds.push(round);
        let text = markdown(&results);
        assert!(text.contains("\n| kafka-stop | slowest answer | 2501 ms | 2500 ms | NO |\n"), "{text}");
        assert!(text.contains("\n| kafka-stop | claims resume after | 999 ms | 1000 ms | yes |\n"), "{text}");
    }

    #[test]
    fn without_rounds_nothing_is_bounded() {
        let none = Results { rounds: Vec::new(), ..results() };
        assert!(!markdown(&none).contains("100.0 %") && markdown(&none).contains("| without-x |"));
        assert!(!tables(&none).contains("100.0 %"));
    }

    #[test]
    fn only_what_is_between_the_marks_changes() {
        const BEGIN: &str = "<!-- x: begin -->";
        const END: &str = "<!-- x: end -->";
        let text = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let new = between_marks(&text, "x", "new\n").unwrap();
        assert_eq!(new, format!("a\n{BEGIN}\n\nnew\n\n{END}\nb\n"));
        assert_eq!(between_marks(&new, "x", "new\n").unwrap(), new);
        assert!(between_marks("a", "x", "x").is_err());
        assert!(between_marks(&text, "y", "x").is_err());
        assert!(between_marks(&format!("{END}{BEGIN}"), "x", "x").is_err());
    }

    #[test]
    fn the_documentation_has_a_place_for_it() {
        let text = fs::read_to_string(crate::build::workspace().join("docs/reliability.md")).unwrap();
        between_marks(&text, MARKS, "new").unwrap();
        for answer in [
            "told ISSUED",
            "leaked",
            "unknown became rows",
            "gap ms",
            "resumed ms",
            "p99 ms during",
            "slowest ms",
        ] {
            assert!(text.contains(answer), "{answer} is not explained");
        }
    }

    #[test]
    fn small_probabilities_keep_their_digits() {
        assert_eq!([0.4507, 0.0123, 0.000_012].map(percent), ["45.1 %", "1.2 %", "0.0012 %"]);
    }
}
