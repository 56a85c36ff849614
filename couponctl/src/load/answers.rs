//! The record of answers: every attempt is in the file before its first byte is sent, its answer follows.
//!
//! So an attempt without an answer is *unknown*, never forgotten, whatever ends this process. Lines are in the
//! order of events: an attempt below an answer was sent after that answer had arrived. `at` of an attempt is not
//! later than its first byte, `at` of an answer not earlier than its last. An attempt has `due` if it was to be sent
//! earlier than it was, when every connection waited for an answer.
//!
//! ```text
//! {"run":"…","coupon":7,"target":"127.0.0.1:8080","at":1800000000000}
//! {"attempt":0,"user":42,"at":1800000000001,"due":1799999999990}
//! {"answer":0,"at":1800000000003,"status":202,"outcome":"PENDING"}
//! {"answer":0,"at":1800000000254,"status":200,"outcome":"ISSUED","issueId":"…","place":3,"issuedAt":"2027-01-15T08:00:00.002Z","followed":true,"asked":1800000000253}
//! ```
//!
//! The file is locked as long as the load runs, so that nobody takes half of a record for the whole.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::outcome::Judged;

#[derive(Debug)]
pub(crate) struct Record {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: File,
    pending: Vec<u8>,
}

#[derive(Serialize)]
struct Header<'a> {
    run: String,
    coupon: u64,
    target: &'a str,
    at: u64,
}

#[derive(Serialize)]
struct Attempt {
    attempt: u64,
    user: u64,
    at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    due: Option<u64>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Answer<'a> {
    pub(crate) answer: u64,
    pub(crate) at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<u16>,
    pub(crate) outcome: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) issue_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) place: Option<u64>,
    /// As the receipt says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) issued_at: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<&'a str>,
    /// The answer of the status API after a PENDING.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) followed: bool,
    /// When the status API was asked, not later than the question's first byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) asked: Option<u64>,
}

impl<'a> Answer<'a> {
    pub(crate) fn new(number: u64, at: u64, status: Option<u16>, judged: &'a Judged) -> Self {
        Self {
            answer: number,
            at,
            status,
            outcome: judged.outcome.name(),
            code: judged.code.as_deref(),
            issue_id: judged.receipt.issue_id.as_deref(),
            place: judged.receipt.place,
            issued_at: judged.receipt.issued_at.as_deref(),
            ..Self::default()
        }
    }
}

impl Record {
    pub(crate) fn create(path: &Path, coupon: u64, target: &str, now_ms: u64) -> Result<Self> {
        let file = open(path).with_context(|| format!("cannot write the answers to {}", path.display()))?;
        let mut inner = Inner { file, pending: Vec::with_capacity(64 << 10) };
        let run = uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string();
        inner.push(&Header { run, coupon, target, at: now_ms })?;
        inner.flush()?;
        Ok(Self { inner: Mutex::new(inner) })
    }

    /// Returns only when the attempt stands in the file, with every answer before it.
    pub(crate) fn attempt(&self, number: u64, user: u64, at: u64, due: u64) -> io::Result<()> {
        let mut inner = self.lock();
        let due = Some(due).filter(|due| *due < at);
        inner.push(&Attempt { attempt: number, user, at, due })?;
        inner.flush()
    }

    /// Goes out with the next attempt, or at the end.
    pub(crate) fn answer(&self, answer: &Answer<'_>) -> io::Result<()> {
        self.lock().push(answer)
    }

    pub(crate) fn flush(&self) -> io::Result<()> {
        self.lock().flush()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an earlier load wrote is thrown away only when that has ended.
fn open(path: &Path) -> Result<File> {
    let file = OpenOptions::new().create(true).write(true).truncate(false).open(path)?;
    ensure!(!is_locked(&file.try_lock()), "another load still writes there");
    if file.metadata()?.is_file() {
        file.set_len(0)?;
    }
    Ok(file)
}

/// Whether somebody else holds it; where files can't be locked, nobody does.
pub(crate) fn is_locked(tried: &std::result::Result<(), TryLockError>) -> bool {
    matches!(tried, Err(TryLockError::WouldBlock))
}

impl Inner {
    fn push(&mut self, line: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.pending, line)?;
        self.pending.push(b'\n');
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.pending)?;
        self.pending.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::outcome::{Outcome, Receipt};

    #[test]
    fn an_attempt_stands_in_the_file_before_it_is_sent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answers.ndjson");
        let record = Record::create(&path, 7, "127.0.0.1:1", 5).unwrap();
        let read = || std::fs::read_to_string(&path).unwrap();
        record.attempt(0, 42, 6, 6).unwrap();
        assert!(read().ends_with("{\"attempt\":0,\"user\":42,\"at\":6}\n"), "{}", read());
        let receipt = Receipt { issue_id: Some("x".into()), place: Some(3), issued_at: Some("t".into()) };
        let judged = Judged { receipt, ..Judged::bare(Outcome::Issued) };
        record.answer(&Answer::new(0, 7, Some(200), &judged)).unwrap();
        record.attempt(1, 43, 8, 5).unwrap();
        let text = read();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[2],
            r#"{"answer":0,"at":7,"status":200,"outcome":"ISSUED","issueId":"x","place":3,"issuedAt":"t"}"#
        );
        assert_eq!(lines[3], r#"{"attempt":1,"user":43,"at":8,"due":5}"#);
    }
}
