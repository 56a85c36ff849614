//! The load's record of answers, read back: what each user was told, and what nobody can know.
//!
//! A missing answer is *unknown*, and so is an answer of a broken link (a 5xx other than 503, which is said only
//! where nothing is in flight): such an attempt may have won. Lines are in the order of events, so an attempt
//! below a user's receipt was sent after it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// What one user heard, over all attempts.
#[derive(Debug, Default, Clone)]
pub(crate) struct Told {
    pub(crate) attempts: u64,
    /// The issue id of the first receipt.
    pub(crate) issued: Option<String>,
    /// Attempts that may have won without anybody having heard it.
    pub(crate) open: u64,
    pub(crate) sold_out: bool,
    /// What no order of events allows.
    pub(crate) contradictions: Vec<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Answers {
    pub(crate) users: HashMap<u64, Told>,
    pub(crate) attempts: u64,
    pub(crate) pending: u64,
    pub(crate) unknown: u64,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Line {
    Attempt { attempt: u64, user: u64 },
    Answer(Answer),
    Header { run: String, coupon: u64 },
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    answer: u64,
    status: Option<u16>,
    outcome: String,
    code: Option<String>,
    issue_id: Option<String>,
    #[serde(default)]
    followed: bool,
}

/// An attempt of the file being read.
struct Attempt {
    user: u64,
    /// The user had a receipt when it was sent.
    after_receipt: bool,
    answered: bool,
    /// It counts as open in its user's tally.
    open: bool,
}

impl Answers {
    pub(crate) fn read(files: &[PathBuf], coupon: u64) -> Result<Self> {
        let mut answers = Self::default();
        for file in files {
            let open =
                File::open(file).with_context(|| format!("cannot open the answers {}", file.display()))?;
            answers.add(BufReader::with_capacity(1 << 20, open), coupon, file)?;
        }
        Ok(answers)
    }

    fn add(&mut self, input: impl BufRead, coupon: u64, file: &Path) -> Result<()> {
        let mut attempts: HashMap<u64, Attempt> = HashMap::new();
        let mut headed = false;
        let mut lines = input.lines().enumerate().peekable();
        while let Some((index, line)) = lines.next() {
            let place = || format!("{}, line {}", file.display(), index + 1);
            let line = line.with_context(place)?;
            let line: Line = match serde_json::from_str(&line) {
                Ok(line) => line,
                // Whatever ended the load may have cut its last line, which is no line then.
                Err(_) if lines.peek().is_none() => break,
                Err(error) => return Err(error).with_context(place),
            };
            match line {
                Line::Header { coupon: other, run } if other != coupon => {
                    bail!("{}: run {run} claimed coupon {other}, not {coupon}", place())
                }
                Line::Header { .. } => headed = true,
                Line::Attempt { attempt, user } => {
                    let told = self.users.entry(user).or_default();
                    told.attempts += 1;
                    told.open += 1;
                    let after_receipt = told.issued.is_some();
                    let open = Attempt { user, after_receipt, answered: false, open: true };
                    if attempts.insert(attempt, open).is_some() {
                        bail!("{}: attempt {attempt} is there twice", place());
                    }
                }
                Line::Answer(answer) => {
                    let Some(attempt) = attempts.get_mut(&answer.answer) else {
                        bail!("{}: an answer without its attempt", place())
                    };
                    self.answer(&answer, attempt);
                }
            }
        }
        if !headed && !attempts.is_empty() {
            bail!("{} does not begin with a run's header", file.display());
        }
        self.attempts += attempts.len() as u64;
        self.unknown += attempts.values().filter(|attempt| !attempt.answered).count() as u64;
        Ok(())
    }

    fn answer(&mut self, answer: &Answer, attempt: &mut Attempt) {
        attempt.answered = true;
        let told = self.users.entry(attempt.user).or_default();
        let mut settled = true;
        match answer.outcome.as_str() {
            "ISSUED" | "ALREADY_ISSUED" => told.receipt(answer.issue_id.as_deref()),
            "PENDING" => {
                self.pending += 1;
                settled = false;
            }
            "SOLD_OUT" => {
                told.sold_out = true;
                told.refusal("sold out", attempt.after_receipt);
            }
            "NOT_SENT" => {}
            "REFUSED" if answer.status.is_some_and(|status| status >= 500 && status != 503) => {
                self.unknown += 1;
                settled = false;
            }
            "REFUSED" => {
                let code = answer.code.as_deref().unwrap_or_default();
                if answer.followed
                    || matches!(code, "COUPON_NOT_STARTED" | "COUPON_ENDED" | "COUPON_NOT_FOUND")
                {
                    told.refusal(code, attempt.after_receipt);
                }
            }
            _ => {
                self.unknown += 1;
                settled = false;
            }
        }
        if settled && attempt.open {
            attempt.open = false;
            told.open -= 1;
        }
    }

    /// Users who hold a receipt.
    pub(crate) fn winners(&self) -> impl Iterator<Item = (u64, &str)> {
        self.users.iter().filter_map(|(&user, told)| Some((user, told.issued.as_deref()?)))
    }

    pub(crate) fn anybody_sold_out(&self) -> bool {
        self.users.values().any(|told| told.sold_out)
    }
}

impl Told {
    fn receipt(&mut self, id: Option<&str>) {
        match (&self.issued, id) {
            (_, None) => self.contradictions.push("told issued without an issue id".to_owned()),
            (Some(first), Some(id)) if first != id => {
                self.contradictions.push(format!("two issue ids: {first}, then {id}"));
            }
            (Some(_), Some(_)) => {}
            (None, Some(id)) => self.issued = Some(id.to_owned()),
        }
    }

    /// A refusal that was asked for after the receipt had arrived breaks I7.
    fn refusal(&mut self, what: &str, after_receipt: bool) {
        if after_receipt {
            self.contradictions.push(format!("told {what} after a receipt"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = r#"{"run":"r","coupon":7,"target":"t","at":1}"#;

    fn read(lines: &[&str]) -> Result<Answers> {
        let text = [&[HEADER], lines].concat().join("\n");
        let mut answers = Answers::default();
        answers.add(text.as_bytes(), 7, Path::new("f"))?;
        Ok(answers)
    }

    #[test]
    fn what_was_told_and_what_is_open() {
        let answers = read(&[
            r#"{"attempt":0,"user":1,"at":1}"#,
            r#"{"attempt":1,"user":2,"at":1}"#,
            r#"{"answer":0,"at":2,"status":200,"outcome":"ISSUED","issueId":"a"}"#,
            r#"{"attempt":2,"user":3,"at":1}"#,
            r#"{"answer":2,"at":2,"status":502,"outcome":"REFUSED","code":"UPSTREAM_ERROR"}"#,
            r#"{"attempt":3,"user":4,"at":1}"#,
            r#"{"answer":3,"at":2,"status":202,"outcome":"PENDING"}"#,
            r#"{"answer":3,"at":2,"status":200,"outcome":"ISSUED","issueId":"d","followed":true}"#,
            r#"{"attempt":4,"user":5,"at":1}"#,
            r#"{"answer":4,"at":2,"status":503,"outcome":"REFUSED","code":"OVERLOADED"}"#,
            r#"{"attempt":5,"us"#,
        ])
        .unwrap();
        assert_eq!((answers.attempts, answers.pending, answers.unknown), (5, 1, 2));
        let open = |user: u64| answers.users[&user].open;
        assert_eq!([open(1), open(2), open(3), open(4), open(5)], [0, 1, 1, 0, 0]);
        let mut winners: Vec<_> = answers.winners().collect();
        winners.sort_unstable();
        assert_eq!(winners, [(1, "a"), (4, "d")]);
    }

    #[test]
    fn a_refusal_after_the_receipt_is_a_contradiction_but_not_beside_it() {
        let issued = r#"{"answer":0,"at":2,"status":200,"outcome":"ISSUED","issueId":"a"}"#;
        let sold_out = r#"{"answer":1,"at":2,"status":409,"outcome":"SOLD_OUT"}"#;
        let (first, second) = (r#"{"attempt":0,"user":1,"at":1}"#, r#"{"attempt":1,"user":1,"at":1}"#);
        let after = read(&[first, issued, second, sold_out]).unwrap();
        assert_eq!(after.users[&1].contradictions, ["told sold out after a receipt"]);
        let beside = read(&[first, second, issued, sold_out]).unwrap();
        assert!(beside.users[&1].contradictions.is_empty());
        let other = r#"{"answer":1,"at":2,"status":409,"outcome":"ALREADY_ISSUED","issueId":"b"}"#;
        let two = read(&[first, issued, second, other]).unwrap();
        assert_eq!(two.users[&1].contradictions, ["two issue ids: a, then b"]);
    }

    #[test]
    fn what_is_no_record_is_refused() {
        assert!(read(&["rubbish", r#"{"attempt":1,"user":1,"at":1}"#]).is_err());
        assert!(read(&[r#"{"answer":1,"outcome":"ISSUED"}"#, r#"{"attempt":1,"user":1}"#]).is_err());
        let other = r#"{"run":"r","coupon":8,"target":"t","at":1}"#;
        assert!(Answers::default().add(other.as_bytes(), 7, Path::new("f")).is_err());
    }
}
