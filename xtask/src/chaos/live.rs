//! A load's records, followed while it runs: how many claims are in flight right now, and what was answered.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::record::Line;

/// A fault has to strike while claims are in flight, and they are answered within milliseconds.
const ASK_EVERY: Duration = Duration::from_millis(1);

pub(crate) struct Live {
    counts: Arc<Mutex<Counts>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Attempts without an answer by file and number.
    open: HashSet<(usize, u64)>,
    outcomes: BTreeMap<String, u64>,
}

impl Live {
    pub(crate) fn follow(files: Vec<PathBuf>) -> std::io::Result<Self> {
        let (counts, stop) = (Arc::<Mutex<Counts>>::default(), Arc::new(AtomicBool::new(false)));
        let (shared, stopped) = (counts.clone(), stop.clone());
        let thread = std::thread::Builder::new().name("live".to_owned()).spawn(move || {
            let mut tails: Vec<Tail> = files.into_iter().map(Tail::new).collect();
            while !stopped.load(Ordering::Relaxed) {
                for (file, tail) in tails.iter_mut().enumerate() {
                    let lines = tail.lines();
                    if !lines.is_empty() {
                        shared.lock().unwrap_or_else(PoisonError::into_inner).add(file, &lines);
                    }
                }
                std::thread::sleep(ASK_EVERY);
            }
        })?;
        Ok(Self { counts, stop, thread: Some(thread) })
    }

    fn with<T>(&self, look: impl FnOnce(&Counts) -> T) -> T {
        look(&self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.with(|counts| counts.open.len())
    }

    /// By the outcome's name in the record, or by the code of a refusal.
    pub(crate) fn outcome(&self, name: &str) -> u64 {
        self.with(|counts| counts.outcomes.get(name).copied().unwrap_or(0))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Counts {
    fn add(&mut self, file: usize, lines: &[Line]) {
        for line in lines {
            if let Some(number) = line.attempt {
                self.open.insert((file, number));
            } else if let Some(number) = line.answer.filter(|_| !line.followed) {
                self.open.remove(&(file, number));
                *self.outcomes.entry(line.outcome.clone().unwrap_or_default()).or_default() += 1;
                if let Some(code) = &line.code {
                    *self.outcomes.entry(code.clone()).or_default() += 1;
                }
            }
        }
    }
}

/// What is new in a file, line by line.
struct Tail {
    path: PathBuf,
    file: Option<File>,
    rest: Vec<u8>,
}

impl Tail {
    fn new(path: PathBuf) -> Self {
        Self { path, file: None, rest: Vec::new() }
    }

    fn lines(&mut self) -> Vec<Line> {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        let Some(file) = &mut self.file else { return Vec::new() };
        // What can't be read now can be read later, and the load itself fails where it can't write.
        let _ = file.read_to_end(&mut self.rest);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
        let whole: Vec<u8> = self.rest.drain(..=end).collect();
        whole.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::Instant;

    use super::*;

    fn until(mut done: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !done() {
            assert!(begun.elapsed() < Duration::from_secs(10), "not within ten seconds");
            std::thread::sleep(ASK_EVERY);
        }
    }

    #[test]
    fn the_record_is_counted_as_it_grows() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["a", "b"].map(|name| folder.path().join(name));
        let live = Live::follow(paths.to_vec()).unwrap();
        let mut files = paths.map(|path| File::create(path).unwrap());
        for (file, user) in files.iter_mut().zip([1, 2]) {
            write!(
                file,
                "{{\"run\":\"r\",\"coupon\":7,\"at\":1}}\n{{\"attempt\":0,\"user\":{user},\"at\":5{user}}}\n"
            )
            .unwrap();
        }
        until(|| live.in_flight() == 2);
        // Half of a line is no line yet.
        write!(files[0], "{{\"answer\":0,\"at\":60,\"outcome\":").unwrap();
        writeln!(files[1], "{{\"answer\":0,\"at\":60,\"status\":200,\"outcome\":\"ISSUED\"}}").unwrap();
        until(|| live.outcome("ISSUED") == 1);
        assert_eq!((live.in_flight(), live.outcome("UNKNOWN")), (1, 0));
        writeln!(files[0], "\"UNKNOWN\"}}").unwrap();
        until(|| live.in_flight() == 0);
        assert_eq!(live.outcome("UNKNOWN"), 1);
    }
}
