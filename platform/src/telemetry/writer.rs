//! Lines go to standard output by a thread of their own, many in one write. Invariant: no line is dropped: who logs
//! faster than the output takes waits for it, and an error is out before the caller goes on.

use std::io::Write as _;
use std::sync::OnceLock;
use std::thread::{self, Thread};
use std::time::Duration;

use parking_lot::Mutex;

/// At most so much waits; beyond it the caller writes.
const LIMIT: usize = 256 * 1024;
/// How late a line may be.
const INTERVAL: Duration = Duration::from_millis(50);

static PENDING: Mutex<Vec<u8>> = Mutex::new(Vec::new());
/// What is being written. Locked before `PENDING`, so that the order stays; nobody who only adds a line waits for it.
static OUTPUT: Mutex<Vec<u8>> = Mutex::new(Vec::new());
/// None if there could be no thread: then lines go out when the buffer is full and at the end.
static WRITER: OnceLock<Option<Thread>> = OnceLock::new();

/// Takes a whole line. `now`: it is written before this returns.
pub(super) fn write(line: &[u8], now: bool) {
    let (first, length) = {
        let mut pending = PENDING.lock();
        let first = pending.is_empty();
        pending.extend_from_slice(line);
        (first, pending.len())
    };
    if now || length > LIMIT {
        flush();
    } else if first && let Some(writer) = WRITER.get_or_init(start) {
        writer.unpark();
    }
}

/// Writes what waits.
pub(crate) fn flush() {
    let mut output = OUTPUT.lock();
    std::mem::swap(&mut *output, &mut *PENDING.lock());
    if !output.is_empty() {
        let mut stdout = std::io::stdout().lock();
        // A closed output is nothing that could be logged.
        let _ = stdout.write_all(&output).and_then(|()| stdout.flush());
        output.clear();
    }
}

/// The thread sleeps while nothing is logged.
fn start() -> Option<Thread> {
    let work = || {
        loop {
            if PENDING.lock().is_empty() {
                thread::park();
            }
            thread::sleep(INTERVAL);
            flush();
        }
    };
    let started = thread::Builder::new().name("log".to_owned()).spawn(work).ok()?;
    Some(started.thread().clone())
}
