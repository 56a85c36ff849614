//! The load's record, read back: what each user asked and heard, and what nobody can know.
//!
//! Every attempt was written down before it was sent. Without an answer it is *unknown*, and so it is after an
//! answer of a broken link (a 5xx other than 503, which is said only where nothing is in flight): such an attempt
//! may have won. Lines are in the order of events, so an attempt below a user's receipt was sent after it.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;
use serde::Deserialize;

use crate::clock;
use crate::ids;
use crate::load::answers::is_locked;
use crate::verdict::Offender;

/// What a question of a user came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// No answer, or one of a broken link: it may have won.
    Nothing,
    /// It may win.
    Pending,
    /// PENDING at first, and a receipt later.
    Settled,
    Receipt,
    SoldOut,
    NotStarted,
    Ended,
    NotFound,
    /// The status API knew of no coupon.
    None,
    /// It can't have won and was not judged: never sent, 503, or the request itself was at fault.
    Other,
}

impl Heard {
    /// The refusal, if a winner must not hear it.
    pub(crate) fn refusal(self) -> Option<&'static str> {
        match self {
            Self::SoldOut => Some("SOLD_OUT"),
            Self::NotStarted => Some("NOT_STARTED"),
            Self::Ended => Some("ENDED"),
            Self::NotFound => Some("NOT_FOUND"),
            Self::None => Some("NONE"),
            Self::Nothing | Self::Pending | Self::Settled | Self::Receipt | Self::Other => None,
        }
    }

    pub(crate) fn is_open(self) -> bool {
        matches!(self, Self::Nothing | Self::Pending)
    }
}

/// One question. Times are unix milliseconds by the load's clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt {
    pub(crate) user: u64,
    /// Not later than its first byte.
    pub(crate) sent: u64,
    /// Not earlier than its answer; 0 without one.
    pub(crate) heard_at: u64,
    /// Lines of one run are in the order of events: an answer on a line above was there before.
    pub(crate) run: u32,
    pub(crate) sent_line: u32,
    pub(crate) heard_line: u32,
    pub(crate) heard: Heard,
}

/// What a winner was told. Records of before these were written down have neither.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Receipt {
    pub(crate) user: u64,
    pub(crate) place: Option<u64>,
    /// Unix milliseconds.
    pub(crate) issued_at: Option<u64>,
}

/// What is recorded of one coupon.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// By user, and in the order of their sending.
    asked: Vec<Attempt>,
    /// By user, and in the order of their arrival.
    receipts: Vec<Receipt>,
    /// Receipts that are not those of their claims.
    pub(crate) wrong: Vec<Offender>,
    /// Claims; questions for the status are not among them.
    pub(crate) attempts: u64,
    pub(crate) pending: u64,
    pub(crate) unknown: u64,
}

impl Record {
    /// All questions of each user.
    pub(crate) fn users(&self) -> impl Iterator<Item = (u64, &[Attempt])> {
        self.asked.chunk_by(|one, other| one.user == other.user).map(|asked| (asked[0].user, asked))
    }

    pub(crate) fn of_user(&self, user: u64) -> &[Attempt] {
        let start = self.asked.partition_point(|asked| asked.user < user);
        let end = self.asked.partition_point(|asked| asked.user <= user);
        &self.asked[start..end]
    }

    /// All receipts of each user who holds one.
    pub(crate) fn receipts(&self) -> impl Iterator<Item = &[Receipt]> {
        self.receipts.chunk_by(|one, other| one.user == other.user)
    }

    /// Users who hold a receipt.
    pub(crate) fn winners(&self) -> impl Iterator<Item = u64> {
        self.users().filter(|(_, asked)| has_receipt(asked)).map(|(user, _)| user)
    }
}

pub(crate) fn has_receipt(asked: &[Attempt]) -> bool {
    asked.iter().any(|attempt| attempt.heard == Heard::Receipt)
}

/// One of three: the header of a run, an attempt, an answer.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    run: Option<&'a str>,
    coupon: Option<u64>,
    attempt: Option<u64>,
    user: Option<u64>,
    answer: Option<u64>,
    at: u64,
    status: Option<u16>,
    outcome: Option<&'a str>,
    code: Option<&'a str>,
    issue_id: Option<&'a str>,
    place: Option<u64>,
    issued_at: Option<&'a str>,
    /// The answer is the status API's, who was asked at this time.
    #[serde(default)]
    followed: bool,
    asked: Option<u64>,
}

/// Reads records of any number of coupons.
#[derive(Debug, Default)]
pub(crate) struct Records {
    pub(crate) coupons: BTreeMap<u64, Record>,
    runs: u32,
}

impl Records {
    pub(crate) fn read(files: &[PathBuf], bar: &ProgressBar) -> Result<Self> {
        let mut records = Self::default();
        for file in files {
            let open =
                File::open(file).with_context(|| format!("cannot open the answers {}", file.display()))?;
            if is_locked(&open.try_lock_shared()) {
                let file = file.display();
                bail!(
                    "the load that writes {file} still runs: audit when it has ended, or without --answers"
                );
            }
            bar.inc_length(open.metadata().map_or(0, |file| file.len()));
            records.add(BufReader::with_capacity(1 << 20, bar.wrap_read(open)), file)?;
        }
        for record in records.coupons.values_mut() {
            record.asked.sort_unstable_by_key(|asked| (asked.user, asked.sent, asked.run, asked.sent_line));
            record.receipts.sort_by_key(|receipt| receipt.user);
        }
        Ok(records)
    }

    fn add(&mut self, mut input: impl BufRead, file: &Path) -> Result<()> {
        let mut run: Option<Run<'_>> = None;
        let mut text = Vec::new();
        let mut number = 0;
        loop {
            text.clear();
            number += 1;
            let place = || format!("{}, line {number}", file.display());
            if input.read_until(b'\n', &mut text).with_context(place)? == 0 {
                break;
            }
            let line: Line<'_> = match serde_json::from_slice(&text) {
                Ok(line) => line,
                // Whatever ended the load may have cut its last line, which is no line then.
                Err(_) if !text.ends_with(b"\n") => break,
                Err(error) => return Err(error).with_context(place),
            };
            if let (Some(_), Some(coupon)) = (line.run, line.coupon) {
                if let Some(run) = run.take() {
                    run.end();
                }
                self.runs += 1;
                let record = self.coupons.entry(coupon).or_default();
                run = Some(Run { coupon, record, number: self.runs, open: HashMap::new() });
                continue;
            }
            let Some(run) = &mut run else {
                bail!("{} does not begin with a run's header", file.display());
            };
            run.line(&line, number).with_context(place)?;
        }
        if let Some(run) = run {
            run.end();
        }
        Ok(())
    }
}

/// A run of the load, as it is read.
struct Run<'a> {
    coupon: u64,
    record: &'a mut Record,
    number: u32,
    /// Attempts whose last word was not heard, by their number; where they are in the record.
    open: HashMap<u64, usize>,
}

impl Run<'_> {
    fn line(&mut self, line: &Line<'_>, number: u32) -> Result<()> {
        if let (Some(attempt), Some(user)) = (line.attempt, line.user) {
            if self.open.insert(attempt, self.record.asked.len()).is_some() {
                bail!("attempt {attempt} is there twice");
            }
            self.record.attempts += 1;
            self.record.asked.push(Attempt {
                user,
                sent: line.at,
                heard_at: 0,
                run: self.number,
                sent_line: number,
                heard_line: 0,
                heard: Heard::Nothing,
            });
            return Ok(());
        }
        let (Some(answer), Some(outcome)) = (line.answer, line.outcome) else {
            bail!("it is neither an attempt (attempt, user, at) nor an answer (answer, outcome, at)");
        };
        let Some(&index) = self.open.get(&answer) else { bail!("an answer without its attempt") };
        let heard = heard(line, outcome);
        let asked = &mut self.record.asked[index];
        let user = asked.user;
        if line.followed {
            // Another question, sent when the first answer was there. A NONE is not the end: what was pending may
            // still be on its way to the log.
            let sent = line.asked.unwrap_or(asked.heard_at);
            let question = Attempt {
                sent,
                sent_line: asked.heard_line,
                heard_at: line.at,
                heard_line: number,
                heard,
                ..*asked
            };
            if heard == Heard::Receipt {
                asked.heard = Heard::Settled;
            }
            self.record.asked.push(question);
        } else {
            (asked.heard, asked.heard_at, asked.heard_line) = (heard, line.at, number);
        }
        match heard {
            Heard::Pending => self.record.pending += 1,
            Heard::Nothing => self.record.unknown += 1,
            Heard::Receipt => self.receipt(user, line),
            _ => {}
        }
        if heard != Heard::Pending {
            self.open.remove(&answer);
        }
        Ok(())
    }

    /// A receipt's id encodes its claim, so there is one right one. Place and time are compared when rows are known.
    fn receipt(&mut self, user: u64, line: &Line<'_>) {
        let issued_at = line.issued_at.map(clock::parse);
        let problem = match (line.issue_id, issued_at) {
            (None, _) => Some("told issued without an issue id".to_owned()),
            (Some(id), _) if !ids::is_issue_id(id, self.coupon, user) => {
                Some(format!("issue id {id} is not this coupon's and user's"))
            }
            (_, Some(None)) => Some(format!("told issued at {:?}", line.issued_at.unwrap_or_default())),
            _ => None,
        };
        self.record.wrong.extend(problem.map(|problem| Offender::user(user, problem)));
        self.record.receipts.push(Receipt { user, place: line.place, issued_at: issued_at.flatten() });
    }

    fn end(self) {
        let silent = self.open.values().filter(|&&index| self.record.asked[index].heard == Heard::Nothing);
        self.record.unknown += silent.count() as u64;
    }
}

fn heard(line: &Line<'_>, outcome: &str) -> Heard {
    match outcome {
        "ISSUED" | "ALREADY_ISSUED" => Heard::Receipt,
        "PENDING" => Heard::Pending,
        "SOLD_OUT" => Heard::SoldOut,
        "NOT_SENT" => Heard::Other,
        "REFUSED" => match line.code.unwrap_or_default() {
            "COUPON_NOT_STARTED" => Heard::NotStarted,
            "COUPON_ENDED" => Heard::Ended,
            "COUPON_NOT_FOUND" => Heard::NotFound,
            "NONE" if line.followed => Heard::None,
            _ if line.status.is_some_and(|status| status >= 500 && status != 503) => Heard::Nothing,
            _ => Heard::Other,
        },
        _ => Heard::Nothing,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const COUPON: u64 = 7;
    const HEADER: &str = r#"{"run":"r","coupon":7,"target":"t","at":1}"#;

    fn of_files(files: &[&str]) -> Result<Records> {
        let folder = tempfile::tempdir().unwrap();
        let place = |index: usize| folder.path().join(index.to_string());
        for (index, text) in files.iter().enumerate() {
            std::fs::write(place(index), text).unwrap();
        }
        let paths: Vec<_> = (0..files.len()).map(place).collect();
        Records::read(&paths, &ProgressBar::hidden())
    }

    fn read(lines: &[&str]) -> Result<Record> {
        of_files(&[&[&[HEADER], lines].concat().join("\n")])
            .map(|mut records| records.coupons.remove(&COUPON).unwrap())
    }

    /// A record of one coupon; files are runs of their own.
    pub(crate) fn record(files: &[&[&str]]) -> Record {
        let files: Vec<String> = files.iter().map(|lines| [&[HEADER], *lines].concat().join("\n")).collect();
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        of_files(&files).unwrap().coupons.remove(&COUPON).unwrap()
    }

    #[test]
    fn what_was_told_and_what_is_open() {
        let (one, four) = (ids::issue_id(COUPON, 1), ids::issue_id(COUPON, 4));
        let record = read(&[
            r#"{"attempt":0,"user":1,"at":1}"#,
            r#"{"attempt":1,"user":2,"at":1}"#,
            &format!(r#"{{"answer":0,"at":2,"status":200,"outcome":"ISSUED","issueId":"{one}"}}"#),
            r#"{"attempt":2,"user":3,"at":1}"#,
            r#"{"answer":2,"at":2,"status":502,"outcome":"REFUSED","code":"UPSTREAM_ERROR","error":"a \"b\""}"#,
            r#"{"attempt":3,"user":4,"at":1}"#,
            r#"{"answer":3,"at":2,"status":202,"outcome":"PENDING"}"#,
            &format!(r#"{{"answer":3,"at":2,"status":200,"outcome":"ISSUED","issueId":"{four}","followed":true}}"#),
            r#"{"attempt":4,"user":5,"at":1}"#,
            r#"{"answer":4,"at":2,"status":503,"outcome":"REFUSED","code":"OVERLOADED"}"#,
            r#"{"attempt":5,"us"#,
        ])
        .unwrap();
        assert_eq!((record.attempts, record.pending, record.unknown), (5, 1, 2));
        let open = |user: u64| record.of_user(user).iter().filter(|asked| asked.heard.is_open()).count();
        assert_eq!([open(1), open(2), open(3), open(4), open(5)], [0, 1, 1, 0, 0]);
        assert_eq!(record.winners().collect::<Vec<_>>(), [1, 4]);
        assert_eq!(record.wrong, []);
    }

    #[test]
    fn a_none_that_followed_leaves_the_claim_open() {
        let record = read(&[
            r#"{"attempt":0,"user":1,"at":10}"#,
            r#"{"answer":0,"at":20,"status":202,"outcome":"PENDING"}"#,
            r#"{"answer":0,"at":40,"asked":30,"status":200,"outcome":"REFUSED","code":"NONE","followed":true}"#,
        ])
        .unwrap();
        let heard: Vec<_> = record.of_user(1).iter().map(|asked| (asked.sent, asked.heard)).collect();
        assert_eq!(heard, [(10, Heard::Pending), (30, Heard::None)]);
        assert_eq!((record.attempts, record.unknown), (1, 0));
    }

    #[test]
    fn a_receipt_of_another_claim_or_without_an_id_is_wrong() {
        let other = ids::issue_id(COUPON, 2);
        let record = read(&[
            r#"{"attempt":0,"user":1,"at":1}"#,
            &format!(r#"{{"answer":0,"at":2,"status":200,"outcome":"ISSUED","issueId":"{other}"}}"#),
            r#"{"attempt":1,"user":3,"at":1}"#,
            r#"{"answer":1,"at":2,"status":409,"outcome":"ALREADY_ISSUED"}"#,
        ])
        .unwrap();
        let users: Vec<_> = record.wrong.iter().map(|wrong| wrong.user.unwrap()).collect();
        assert_eq!(users, [1, 3]);
    }

    #[test]
    fn receipts_keep_place_and_time_and_do_without_in_older_records() {
        let id = ids::issue_id(COUPON, 1);
        let answer = |number: u64, more: &str| {
            format!(r#"{{"answer":{number},"at":2,"outcome":"ISSUED","issueId":"{id}"{more}}}"#)
        };
        let record = read(&[
            r#"{"attempt":0,"user":1,"at":1}"#,
            r#"{"attempt":1,"user":1,"at":1}"#,
            r#"{"attempt":2,"user":1,"at":1}"#,
            &answer(0, r#","place":3,"issuedAt":"1970-01-01T00:00:01.002Z""#),
            &answer(1, ""),
            &answer(2, r#","issuedAt":"yesterday""#),
        ])
        .unwrap();
        let told: Vec<_> = record.receipts.iter().map(|told| (told.place, told.issued_at)).collect();
        assert_eq!(told, [(Some(3), Some(1_002)), (None, None), (None, None)]);
        assert_eq!(record.wrong, [Offender::user(1, "told issued at \"yesterday\"")]);
    }

    #[test]
    fn runs_of_several_coupons_are_told_apart_also_in_one_file() {
        let eight = HEADER.replace("\"coupon\":7", "\"coupon\":8");
        let attempt = r#"{"attempt":0,"user":1,"at":1}"#;
        let text = [HEADER, attempt, &eight, attempt, HEADER, attempt].join("\n");
        let records = of_files(&[&text]).unwrap();
        assert_eq!((records.coupons[&7].attempts, records.coupons[&8].attempts), (2, 1));
        assert_eq!((records.coupons[&7].unknown, records.coupons[&8].unknown), (2, 1));
        let runs: Vec<_> = records.coupons[&7].of_user(1).iter().map(|asked| asked.run).collect();
        assert_eq!(runs, [1, 3]);
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let attempt = r#"{"attempt":1,"user":1,"at":1}"#;
        let error = |lines: &[&str]| format!("{:#}", read(lines).unwrap_err());
        assert!(error(&["rubbish", attempt]).contains("line 2"));
        assert!(
            error(&[r#"{"answer":1,"at":1,"outcome":"ISSUED"}"#, attempt]).contains("without its attempt")
        );
        assert!(error(&[attempt, attempt]).contains("is there twice"));
        assert!(error(&[r#"{"at":1}"#, attempt]).contains("neither an attempt"));
        assert!(of_files(&[attempt]).unwrap_err().to_string().contains("does not begin with a run's header"));
    }
}
