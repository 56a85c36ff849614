//! What users asked and heard, out of the records that loads write: pure.
//!
//! An attempt stands in its record before it is sent, so one without an answer was sent and is *unknown*, never
//! forgotten. Times are unix milliseconds of this machine's clock.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// A line of a record, of any kind.
#[derive(Debug, Deserialize)]
pub(crate) struct Line {
    pub(crate) attempt: Option<u64>,
    pub(crate) answer: Option<u64>,
    user: Option<u64>,
    pub(crate) at: u64,
    /// When the load should have sent it, if that was earlier.
    due: Option<u64>,
    status: Option<u16>,
    pub(crate) outcome: Option<String>,
    pub(crate) code: Option<String>,
    /// What the status API said later of a claim that was answered PENDING.
    #[serde(default)]
    pub(crate) followed: bool,
}

/// What an attempt heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    Issued,
    Pending,
    Already,
    /// A refusal, or that nobody can say at the moment: the status, with the code of a 409.
    Refused(u16, Option<String>),
    Nothing,
    /// There was no connection to send it over.
    NotSent,
}

impl Heard {
    fn of(line: &Line) -> Self {
        match line.outcome.as_deref().unwrap_or_default() {
            "ISSUED" => Self::Issued,
            "PENDING" => Self::Pending,
            "ALREADY_ISSUED" => Self::Already,
            "SOLD_OUT" => Self::Refused(409, Some("COUPON_SOLD_OUT".to_owned())),
            "REFUSED" => {
                let status = line.status.unwrap_or_default();
                Self::Refused(status, line.code.clone().filter(|_| status == 409))
            }
            "NOT_SENT" => Self::NotSent,
            _ => Self::Nothing,
        }
    }

    /// The column in which it is counted.
    pub(crate) fn column(&self) -> String {
        match self {
            Self::Issued => "200".to_owned(),
            Self::Pending => "202".to_owned(),
            Self::Already => "409 COUPON_ALREADY_ISSUED".to_owned(),
            Self::Refused(status, Some(code)) => format!("{status} {code}"),
            Self::Refused(status, None) => status.to_string(),
            Self::Nothing => "none".to_owned(),
            Self::NotSent => "not sent".to_owned(),
        }
    }

    fn receipt(&self) -> bool {
        matches!(self, Self::Issued | Self::Already)
    }

    /// That lasts.
    fn is_no(&self) -> bool {
        matches!(self, Self::Refused(404 | 409, _))
    }

    /// The question is settled: a receipt, or a no.
    pub(crate) fn is_final(&self) -> bool {
        self.receipt() || self.is_no()
    }

    /// It may have won without anybody having heard it.
    fn is_open(&self) -> bool {
        match self {
            Self::Pending | Self::Nothing => true,
            // 503 is said only where nothing is in flight.
            Self::Refused(status, _) => *status >= 500 && *status != 503,
            Self::Issued | Self::Already | Self::NotSent => false,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) user: u64,
    /// When it was to be sent: earlier than it was if every connection waited for an answer.
    due: u64,
    pub(crate) sent: u64,
    /// None is for ever.
    pub(crate) answered: Option<u64>,
    pub(crate) heard: Heard,
    /// What became of a PENDING: whether the status API gave a receipt.
    pub(crate) followed: Option<bool>,
}

/// Several files of one load, as one.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) attempts: Vec<Attempt>,
}

impl Record {
    pub(crate) fn read(files: &[PathBuf]) -> Result<Self> {
        let mut record = Self::default();
        for file in files {
            let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
            record.add(&text, file)?;
        }
        Ok(record)
    }

    fn add(&mut self, text: &str, file: &Path) -> Result<()> {
        let mut places: BTreeMap<u64, usize> = BTreeMap::new();
        let mut lines = text.lines().enumerate().peekable();
        while let Some((index, line)) = lines.next() {
            let place = || format!("{}, line {}", file.display(), index + 1);
            let line: Line = match serde_json::from_str(line) {
                Ok(line) => line,
                // Whatever ended the load may have cut its last line.
                Err(_) if lines.peek().is_none() => break,
                Err(error) => return Err(error).with_context(place),
            };
            if let (Some(number), Some(user)) = (line.attempt, line.user) {
                places.insert(number, self.attempts.len());
                let heard = Heard::Nothing;
                let (due, sent) = (line.due.unwrap_or(line.at), line.at);
                self.attempts.push(Attempt { user, due, sent, answered: None, heard, followed: None });
            } else if let Some(number) = line.answer {
                let at = places.get(&number).with_context(|| format!("{}: no such attempt", place()))?;
                let attempt = &mut self.attempts[*at];
                if line.followed {
                    attempt.followed = Some(Heard::of(&line).receipt());
                } else {
                    attempt.answered = Some(line.at);
                    attempt.heard = Heard::of(&line);
                }
            }
        }
        Ok(())
    }

    /// How many of each answer.
    pub(crate) fn answers(&self) -> BTreeMap<String, u64> {
        let mut answers = BTreeMap::new();
        for attempt in &self.attempts {
            *answers.entry(attempt.heard.column()).or_default() += 1;
        }
        answers
    }

    /// Attempts that were sent and not answered at this moment.
    pub(crate) fn in_flight(&self, at: u64) -> u64 {
        let open =
            |attempt: &&Attempt| attempt.sent <= at && attempt.answered.is_none_or(|answered| answered > at);
        count(self.attempts.iter().filter(|it| it.heard != Heard::NotSent).filter(open))
    }

    /// The longest time between `from` and the last sending in which nobody got an answer for which the log had to be
    /// asked: a new receipt or a no. A receipt that was had before needs nobody but the instance.
    pub(crate) fn gap(&self, from: u64) -> u64 {
        let to = self.attempts.iter().map(|attempt| attempt.sent).max().unwrap_or(from);
        let by_log = |heard: &Heard| *heard == Heard::Issued || heard.is_no();
        let finals = self.attempts.iter().filter(|attempt| by_log(&attempt.heard));
        let mut times: Vec<u64> =
            finals.filter_map(|attempt| attempt.answered).filter(|at| (from..to).contains(at)).collect();
        times.extend([from, to.max(from)]);
        times.sort_unstable();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
    }

    /// How long after this moment the next user was told ISSUED; if nobody was until the last claim was sent, at least
    /// that long. None: somebody was told a no that lasts instead, or no claim was sent any more.
    pub(crate) fn issued_after(&self, moment: u64) -> Option<u64> {
        let heard = |that: fn(&Heard) -> bool| {
            let these = self.attempts.iter().filter(|attempt| that(&attempt.heard));
            these.filter_map(|attempt| attempt.answered?.checked_sub(moment)).min()
        };
        let last = self.attempts.iter().map(|attempt| attempt.sent).max();
        heard(|heard| *heard == Heard::Issued).or_else(|| match heard(Heard::is_no) {
            Some(_) => None,
            None => last?.checked_sub(moment),
        })
    }

    /// From when a claim was due to its answer, of what was due in this time; who never heard anything waited
    /// `for_ever`.
    pub(crate) fn latencies(&self, due: std::ops::Range<u64>, for_ever: u64) -> Vec<u64> {
        let these = self.attempts.iter().filter(|attempt| due.contains(&attempt.due));
        these
            .map(|attempt| match attempt.heard {
                Heard::Nothing | Heard::NotSent => for_ever,
                _ => attempt.answered.map_or(for_ever, |at| at.saturating_sub(attempt.due)),
            })
            .collect()
    }

    pub(crate) fn users(&self) -> BTreeMap<u64, Said> {
        let mut users: BTreeMap<u64, Said> = BTreeMap::new();
        for attempt in &self.attempts {
            users.entry(attempt.user).or_default().hear(attempt);
        }
        users
    }
}

pub(crate) fn count<T>(of: impl Iterator<Item = T>) -> u64 {
    of.fold(0, |count, _| count + 1)
}

/// Everything that one user heard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) receipt: bool,
    /// A no that is true for ever, as long as nobody raises the stock or moves the window.
    pub(crate) refused: bool,
    /// Attempts of which nobody knows what became.
    pub(crate) open: u64,
    /// Of these, those sent after a refusal.
    pub(crate) open_later: u64,
    /// What the first attempt heard.
    pub(crate) first: Option<Heard>,
    /// When the first receipt arrived, and when the last attempt was sent that heard a no.
    receipt_at: Option<u64>,
    refused_at: Option<u64>,
}

impl Said {
    /// A no that came after everything that may have won.
    pub(crate) fn refused_at_last(&self) -> bool {
        self.refused && self.open_later == 0
    }

    /// A no to a question that was asked with the receipt in hand.
    pub(crate) fn refused_with_receipt(&self) -> bool {
        self.receipt_at.zip(self.refused_at).is_some_and(|(receipt, refused)| receipt < refused)
    }

    fn hear(&mut self, attempt: &Attempt) {
        let heard = &attempt.heard;
        if heard.receipt() {
            self.receipt_at = self.receipt_at.into_iter().chain(attempt.answered).min();
        }
        if heard.is_no() {
            self.refused_at = self.refused_at.max(Some(attempt.sent));
        }
        self.receipt |= heard.receipt() || attempt.followed == Some(true);
        // That the status API knew of no win yet says nothing of a claim that was still on its way to the log.
        let open = heard.is_open() && attempt.followed != Some(true);
        self.open += u64::from(open);
        self.open_later += u64::from(open && self.refused);
        self.refused |= heard.is_no();
        self.first.get_or_insert_with(|| heard.clone());
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A record with these lines after its header.
    pub(crate) fn record(lines: &[&str]) -> Record {
        let header = r#"{"run":"r","coupon":7,"target":"t","at":1}"#;
        let text = [&[header], lines].concat().join("\n");
        let mut record = Record::default();
        record.add(&text, Path::new("f")).unwrap();
        record
    }

    const ASKED: [&str; 5] = [
        r#"{"attempt":0,"user":1,"at":1000}"#,
        r#"{"attempt":1,"user":2,"at":1010}"#,
        r#"{"attempt":2,"user":3,"at":1020}"#,
        r#"{"attempt":3,"user":4,"at":1030}"#,
        r#"{"attempt":4,"user":5,"at":1500}"#,
    ];
    const ANSWERED: [&str; 5] = [
        r#"{"answer":0,"at":1005,"status":200,"outcome":"ISSUED","issueId":"x"}"#,
        r#"{"answer":1,"at":1300,"status":409,"outcome":"SOLD_OUT"}"#,
        r#"{"answer":2,"at":1400,"status":202,"outcome":"PENDING"}"#,
        r#"{"answer":2,"at":9000,"status":200,"outcome":"ISSUED","issueId":"y","followed":true}"#,
        r#"{"answer":4,"at":1503,"status":503,"outcome":"REFUSED","code":"OVERLOADED"}"#,
    ];

    fn some() -> Record {
        record(&[ASKED.as_slice(), ANSWERED.as_slice()].concat())
    }

    #[test]
    fn every_attempt_is_in_one_column() {
        let answers = some().answers();
        let expected = [("200", 1), ("202", 1), ("409 COUPON_SOLD_OUT", 1), ("503", 1), ("none", 1)];
        assert_eq!(answers, expected.map(|(name, count)| (name.to_owned(), count)).into());
        let ended = record(&[
            ASKED[0],
            r#"{"answer":0,"at":2,"status":409,"outcome":"REFUSED","code":"COUPON_ENDED"}"#,
        ]);
        assert_eq!(ended.answers(), BTreeMap::from([("409 COUPON_ENDED".to_owned(), 1)]));
    }

    #[test]
    fn in_flight_is_what_was_sent_and_not_answered() {
        let record = some();
        assert_eq!(
            [999, 1000, 1004, 1005, 1025, 1350, 2000].map(|at| record.in_flight(at)),
            [0, 1, 1, 0, 2, 2, 1]
        );
    }

    #[test]
    fn the_gap_is_the_longest_time_without_an_answer_of_the_log() {
        // A receipt at 1005 and a no at 1300; the last attempt was sent at 1500.
        assert_eq!(some().gap(1000), 295);
        assert_eq!(some().gap(1250), 200);
        assert_eq!(some().gap(1400), 100);
        assert_eq!(some().gap(1600), 0);
        // Who has it already is told so without the log.
        let already = r#"{"answer":2,"at":1100,"status":409,"outcome":"ALREADY_ISSUED","issueId":"x"}"#;
        assert_eq!(record(&[&ASKED[..], &ANSWERED[..2], &[already]].concat()).gap(1000), 295);
    }

    #[test]
    fn claims_go_on_with_the_next_receipt() {
        // ISSUED at 1005, SOLD_OUT at 1300; what followed later is the status API's.
        assert_eq!([900, 1005, 1006].map(|moment| some().issued_after(moment)), [Some(105), Some(0), None]);
        // Nobody heard either until the last claim, at 1500.
        assert_eq!([1301, 1501].map(|moment| some().issued_after(moment)), [Some(199), None]);
    }

    #[test]
    fn who_hears_nothing_waits_for_ever() {
        let mut all = some().latencies(1000..1500, 10_000);
        all.sort_unstable();
        assert_eq!(all, [5, 290, 380, 10_000]);
        assert_eq!(some().latencies(1500..1501, 10_000), [3]);
        let unsent = r#"{"answer":4,"at":1503,"outcome":"NOT_SENT"}"#;
        assert_eq!(record(&[ASKED[4], unsent]).latencies(1500..1501, 10_000), [10_000]);
    }

    /// Else a load whose connections all wait would tell of the few that it sent.
    #[test]
    fn who_could_not_even_be_sent_in_time_waits_since_then() {
        let late = r#"{"attempt":0,"user":1,"at":1000,"due":400}"#;
        let record = record(&[late, ANSWERED[0]]);
        assert_eq!(record.latencies(400..401, 10_000), [605]);
        assert_eq!(record.latencies(1000..1001, 10_000), [] as [u64; 0]);
        assert_eq!((record.in_flight(999), record.in_flight(1000)), (0, 1));
    }

    #[test]
    fn what_each_user_heard() {
        let users = some().users();
        let of = |user: u64| (users[&user].receipt, users[&user].refused, users[&user].open);
        assert_eq!(of(1), (true, false, 0));
        assert_eq!(of(2), (false, true, 0));
        // Told later by the status API.
        assert_eq!(of(3), (true, false, 0));
        assert_eq!(of(4), (false, false, 1));
        // Nothing is in flight behind a 503.
        assert_eq!(of(5), (false, false, 0));
        let again = |at: u64| {
            let asked = format!(r#"{{"attempt":7,"user":1,"at":{at}}}"#);
            let sold_out = r#"{"answer":7,"at":1300,"status":409,"outcome":"SOLD_OUT"}"#;
            record(&[ASKED[0], &asked, ANSWERED[0], sold_out]).users()[&1].refused_with_receipt()
        };
        assert_eq!([1004, 1005, 1006].map(again), [false, false, true]);
        let none = r#"{"answer":2,"at":9000,"status":200,"outcome":"REFUSED","code":"NONE","followed":true}"#;
        let pending = record(&[ASKED[2], ANSWERED[2], none]);
        assert_eq!(pending.users()[&3].open, 1);
        let lost = record(&[
            ASKED[0],
            r#"{"answer":0,"at":2,"status":502,"outcome":"REFUSED","code":"UPSTREAM_ERROR"}"#,
        ]);
        assert_eq!(lost.users()[&1].open, 1);
    }

    #[test]
    fn a_cut_last_line_is_none_and_a_broken_one_is_an_error() {
        let mut record = Record::default();
        let text = format!("{}\n{{\"ans", ASKED[0]);
        record.add(&text, Path::new("f")).unwrap();
        assert_eq!(record.attempts.len(), 1);
        assert!(Record::default().add(&format!("rubbish\n{}", ASKED[0]), Path::new("f")).is_err());
        assert!(Record::default().add(ANSWERED[0], Path::new("f")).is_err());
    }
}
