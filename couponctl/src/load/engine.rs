//! Sends what the plan says: each connection is a task that takes the next attempt, waits for its due time,
//! writes it down, sends it, and records what came back. A thread has its own runtime and its own percentiles.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use tokio::task::JoinSet;

use super::answers::Answer;
use super::client::{Connection, Exchange, Failure};
use super::follow::Follows;
use super::jtl::Sample;
use super::outcome::{self, Judged, Outcome};
use super::run::Run;
use super::shape::Job;
use super::tally::Tally;
use crate::clock;

/// A sleeping task wakes up to a timer tick late. That is this client's lateness and not the server's, so up to
/// here the latency counts from the waking; beyond, from the due time.
const TIMER_SLACK: Duration = Duration::from_millis(2);
/// A refused connection is tried no faster than this by one task of a closed loop.
const CONNECT_BACK_OFF: Duration = Duration::from_millis(100);

/// Runs to the end on `threads` threads with `connections` in all.
pub(crate) fn run(run: &Arc<Run>, threads: usize, connections: usize) -> Result<Tally> {
    let threads = threads.clamp(1, connections.max(1));
    let handles: Vec<_> = (0..threads)
        .map(|thread| {
            // Shares differ by one at most.
            let numbers: Vec<usize> = (thread..connections).step_by(threads).collect();
            let run = Arc::clone(run);
            thread::Builder::new().name(format!("load-{thread}")).spawn(move || one_thread(&run, numbers))
        })
        .collect();
    let mut all = Tally::new()?;
    for handle in handles {
        let tally = handle?.join().map_err(|_| anyhow!("a load thread panicked"))??;
        all.merge(&tally);
    }
    if let Some(record) = &run.record {
        record.flush().context("cannot write the answers")?;
    }
    if let Some(jtl) = &run.jtl {
        jtl.flush().context("cannot write the results")?;
    }
    run.take_failure().map_or(Ok(all), Err)
}

fn one_thread(run: &Arc<Run>, numbers: Vec<usize>) -> Result<Tally> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tally = Arc::new(Mutex::new(Tally::new()?));
    runtime.block_on(async {
        let (follows, following) = Follows::start(run, &tally);
        let mut tasks = JoinSet::new();
        for number in numbers {
            let worker = Worker {
                run: Arc::clone(run),
                tally: Arc::clone(&tally),
                number,
                connection: Connection::starting_at(number),
                follows: follows.clone(),
            };
            tasks.spawn(worker.work());
        }
        drop(follows);
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                run.fail(anyhow!("a connection's task ended: {error}"));
            }
        }
        following.await;
    });
    drop(runtime);
    let tally = Arc::try_unwrap(tally).map_err(|_| anyhow!("a task outlived its runtime"))?;
    Ok(tally.into_inner().unwrap_or_else(PoisonError::into_inner))
}

struct Worker {
    run: Arc<Run>,
    tally: Arc<Mutex<Tally>>,
    number: usize,
    connection: Connection,
    follows: Follows,
}

impl Worker {
    async fn work(mut self) {
        let mut request = Vec::with_capacity(1_024);
        while !self.run.stop.is_cancelled() {
            let Some(job) = self.run.plan.next(self.run.elapsed()) else { return };
            let Some(begin) = self.wait(job).await else { return };
            if let Err(error) = self.attempt(job, begin, &mut request).await {
                self.run.fail(error);
                return;
            }
        }
    }

    /// Waits for the due time; the moment from which the latency counts, or `None` when the run was stopped.
    async fn wait(&self, job: Job) -> Option<Instant> {
        let now = Instant::now();
        let Some(due) = job.due else { return Some(now) };
        let due = self.run.started + due;
        if due <= now {
            return Some(due); // every connection was busy
        }
        tokio::select! {
            () = tokio::time::sleep_until(due.into()) => {}
            () = self.run.stop.cancelled() => return None,
        }
        let now = Instant::now();
        Some(if now.saturating_duration_since(due) <= TIMER_SLACK { now } else { due })
    }

    async fn attempt(&mut self, job: Job, begin: Instant, request: &mut Vec<u8>) -> Result<()> {
        let run = Arc::clone(&self.run);
        let (user, token) = run.tokens.get(job.token).context("the token file ended")?;
        run.request.write(token, request);
        let sent = Instant::now();
        if let Some(record) = &run.record {
            record
                .attempt(job.number, user, run.unix_ms(sent), run.unix_ms(begin))
                .context("cannot write the attempt down")?;
        }
        self.tally().sent(run.elapsed());
        let in_flight = run.live.begin();
        let result = self.connection.exchange(&run.target, request, run.timeout).await;
        let end = Instant::now();
        if run.fresh_connections {
            self.connection.close();
        }
        let judged = self.judge(&result);
        run.live.end(judged.outcome);
        match &result {
            Ok(exchange) => {
                let mut tally = self.tally();
                tally.elsewhere += u64::from(exchange.refused > 0);
                tally.answered(run.elapsed(), end - begin, end - sent, &judged);
            }
            Err(Failure::NotSent(reason) | Failure::Cut(reason)) => self.tally().failed(reason),
        }
        if let Some(record) = &run.record {
            let status = result.as_ref().ok().map(|exchange| exchange.response.status);
            let mut answer = Answer::new(job.number, run.unix_ms_after(end), status, &judged);
            if let Err(Failure::NotSent(reason) | Failure::Cut(reason)) = &result {
                answer.error = Some(reason);
            }
            record.answer(&answer).context("cannot write an answer down")?;
        }
        let moments = Moments { begin, end, in_flight };
        self.sample(&result, &judged, &moments, request.len()).context("cannot write the results")?;
        match judged.outcome {
            Outcome::Pending => self.follows.follow(job),
            Outcome::NotSent if job.due.is_none() => tokio::time::sleep(CONNECT_BACK_OFF).await,
            _ => {}
        }
        Ok(())
    }

    fn judge(&self, result: &Result<Exchange, Failure>) -> Judged {
        match result {
            Ok(Exchange { response, .. }) if self.run.claim => {
                outcome::of_claim(response.status, &response.body)
            }
            Ok(Exchange { response, .. }) => outcome::of_other(response.status, &response.body),
            Err(Failure::NotSent(_)) => Judged::bare(Outcome::NotSent),
            Err(Failure::Cut(_)) => Judged::bare(Outcome::Unknown),
        }
    }

    fn sample(
        &self,
        result: &Result<Exchange, Failure>,
        judged: &Judged,
        moments: &Moments,
        sent_bytes: usize,
    ) -> std::io::Result<()> {
        let Some(jtl) = &self.run.jtl else { return Ok(()) };
        let status;
        let (code, message, bytes, latency, connect) = match result {
            Ok(Exchange { response, connect, first_byte, .. }) => {
                status = response.status.to_string();
                let latency = first_byte.saturating_duration_since(moments.begin);
                (status.as_str(), response.reason.as_str(), response.length, latency, *connect)
            }
            Err(Failure::NotSent(reason)) => {
                ("Non HTTP: no connection", reason.as_str(), 0, Duration::ZERO, Duration::ZERO)
            }
            Err(Failure::Cut(reason)) => {
                ("Non HTTP: no answer", reason.as_str(), 0, Duration::ZERO, Duration::ZERO)
            }
        };
        jtl.write(&Sample {
            timestamp: self.run.unix_ms(moments.begin),
            elapsed: clock::whole_ms(moments.end - moments.begin),
            label: judged.outcome.label(),
            code,
            message,
            connection: self.number + 1,
            success: judged.outcome.expected(),
            failure: judged.code.as_deref().unwrap_or_default(),
            bytes,
            sent_bytes,
            in_flight: moments.in_flight,
            url: &self.run.url,
            latency: clock::whole_ms(latency),
            connect: clock::whole_ms(connect),
        })
    }

    /// Only this thread's tasks share it, and none holds it across an await.
    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of one attempt.
struct Moments {
    begin: Instant,
    end: Instant,
    in_flight: u64,
}
