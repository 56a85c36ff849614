//! The live line of a run, drawn by a thread of its own from the shared counters, so that it costs the load nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::outcome::Outcome;
use super::run::Run;
use crate::terminal;

const REFRESH: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(crate) struct Display {
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Display {
    pub(crate) fn start(run: &Arc<Run>, quiet: bool) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let thread = {
            let (run, done) = (Arc::clone(run), Arc::clone(&done));
            thread::Builder::new().name("display".to_owned()).spawn(move || draw(&run, &done, quiet)).ok()
        };
        Self { done, thread }
    }

    pub(crate) fn finish(mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn draw(run: &Run, done: &AtomicBool, quiet: bool) {
    let bar = terminal::bar(run.plan.total(), "{elapsed:>4} {bar:24} {pos}/{len}  {msg}", quiet);
    let mut before = (Instant::now(), 0);
    while !done.load(Ordering::Relaxed) {
        thread::sleep(REFRESH);
        // What was answered reaches the file also when nothing more is sent.
        if let Some(record) = &run.record {
            let _ = record.flush();
        }
        let (now, sent) = (Instant::now(), run.live.sent());
        let rate = (sent - before.1) as f64 / (now - before.0).as_secs_f64().max(1e-3);
        before = (now, sent);
        bar.set_position(sent);
        bar.set_message(line(run, rate));
    }
    bar.finish_and_clear();
}

fn line(run: &Run, rate: f64) -> String {
    let mut line = format!("{rate:.0}/s  in flight {}", run.live.in_flight());
    for (outcome, name) in [
        (Outcome::Ok, "ok"),
        (Outcome::Issued, "issued"),
        (Outcome::AlreadyIssued, "already"),
        (Outcome::SoldOut, "sold out"),
        (Outcome::Pending, "pending"),
        (Outcome::Refused, "refused"),
        (Outcome::NotSent, "not sent"),
        (Outcome::Unknown, "unknown"),
    ] {
        let count = run.live.count(outcome);
        if count > 0 {
            let text = format!("  {name} {}", terminal::grouped(count));
            let bad = !outcome.expected();
            line.push_str(&if bad { console::style(text).red().for_stderr().to_string() } else { text });
        }
    }
    line
}
