//! Asks the status API what became of claims that were answered PENDING, beside the load and bounded in time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::answers::Answer;
use super::client::Connection;
use super::outcome::{Body, Judged, Outcome};
use super::run::Run;
use super::shape::Job;
use super::tally::Tally;

/// Between two questions about one claim.
const INTERVAL: Duration = Duration::from_millis(250);
/// Questions at once.
const AT_ONCE: usize = 32;

/// Hands pending claims over; those who follow end when every handle is gone and all is known or too late.
#[derive(Debug, Clone)]
pub(crate) struct Follows {
    sender: Option<mpsc::UnboundedSender<Job>>,
}

impl Follows {
    pub(crate) fn start(run: &Arc<Run>, tally: &Arc<Mutex<Tally>>) -> (Self, impl Future<Output = ()>) {
        let started = run.follow.is_some().then(|| {
            // As many as there are attempts at most.
            let (sender, receiver) = mpsc::unbounded_channel();
            let mut tasks = JoinSet::new();
            tasks.spawn(follow_all(Arc::clone(run), Arc::clone(tally), receiver));
            (sender, tasks)
        });
        let (sender, tasks) = started.unzip();
        let ended = async move {
            if let Some(tasks) = tasks {
                tasks.join_all().await;
            }
        };
        (Self { sender }, ended)
    }

    pub(crate) fn follow(&self, job: Job) {
        if let Some(sender) = &self.sender {
            let _ = sender.send(job); // the receiver lives as long as there are senders
        }
    }
}

async fn follow_all(run: Arc<Run>, tally: Arc<Mutex<Tally>>, mut jobs: mpsc::UnboundedReceiver<Job>) {
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    while let Some(job) = jobs.recv().await {
        let (run, tally, permits) = (Arc::clone(&run), Arc::clone(&tally), Arc::clone(&permits));
        tasks.spawn(async move {
            let fate = follow(&run, job, &permits).await;
            let fate = match fate {
                Some(Outcome::Issued) => 0,
                Some(_) => 1,
                None => 2,
            };
            tally.lock().unwrap_or_else(PoisonError::into_inner).followed[fate] += 1;
        });
    }
    tasks.join_all().await;
}

/// Asks until the answer is final; `None` if it was not in time.
async fn follow(run: &Run, job: Job, permits: &Semaphore) -> Option<Outcome> {
    let (within, question) = run.follow.as_ref()?;
    let (_, token) = run.tokens.get(job.token)?;
    let until = Instant::now() + *within;
    let mut request = Vec::new();
    question.write(token, &mut request);
    while Instant::now() < until {
        tokio::time::sleep(INTERVAL).await;
        let _permit = permits.acquire().await.ok()?;
        let asked = run.unix_ms(Instant::now());
        let answer = Connection::default().exchange(&run.target, &request, run.timeout).await;
        let Ok(exchange) = answer else { continue };
        let Some(judged) = judge(exchange.response.status, &exchange.response.body) else { continue };
        if let Some(record) = &run.record {
            let now = run.unix_ms_after(Instant::now());
            let mut answer = Answer::new(job.number, now, Some(exchange.response.status), &judged);
            (answer.followed, answer.asked) = (true, Some(asked));
            if let Err(error) = record.answer(&answer) {
                run.fail(error.into());
            }
        }
        return Some(judged.outcome);
    }
    None
}

/// ISSUED and NONE are final, all else is not.
fn judge(status: u16, body: &[u8]) -> Option<Judged> {
    let body: Body = serde_json::from_slice(body).ok()?;
    match (status, body.status.as_str()?) {
        (200, "ISSUED") => Some(Judged { receipt: body.into_receipt(), ..Judged::bare(Outcome::Issued) }),
        (200, "NONE") => Some(Judged::refused("NONE".to_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_issued_and_none_are_final() {
        let issued = judge(200, br#"{"issueId":"x","place":3,"status":"ISSUED"}"#).unwrap();
        assert_eq!((issued.outcome, issued.receipt.place), (Outcome::Issued, Some(3)));
        assert_eq!(issued.receipt.issue_id.as_deref(), Some("x"));
        assert_eq!(judge(200, br#"{"status":"NONE"}"#).unwrap().code.as_deref(), Some("NONE"));
        assert_eq!(judge(200, br#"{"status":"PENDING"}"#), None);
        assert_eq!(judge(503, br#"{"status":503,"code":"OVERLOADED"}"#), None);
        assert_eq!(judge(200, b"<html>"), None);
    }
}
