//! Lines go to standard output by a thread of their own, many in one write. Invariant: no line is dropped: who logs
//! faster than the output takes writes along, and an error is out before the caller goes on.

use std::io::Write as _;
use std::sync::Once;
use std::time::Duration;

use parking_lot::Mutex;

/// At most so much waits; beyond it the caller writes.
const LIMIT: usize = 256 * 1024;
/// How late a line may be.
const INTERVAL: Duration = Duration::from_millis(50);

static PENDING: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static WRITER: Once = Once::new();

/// Takes a whole line. `now`: it is written before this returns.
pub(super) fn write(line: &[u8], now: bool) {
    WRITER.call_once(|| {
        let work = || {
            loop {
                std::thread::sleep(INTERVAL);
                flush();
            }
        };
        // Without the thread, lines go out when the buffer is full and at the end.
        let _ = std::thread::Builder::new().name("log".to_owned()).spawn(work);
    });
    let mut pending = PENDING.lock();
    pending.extend_from_slice(line);
    if now || pending.len() > LIMIT {
        put(&mut pending);
    }
}

/// Writes what waits.
pub(crate) fn flush() {
    put(&mut PENDING.lock());
}

fn put(pending: &mut Vec<u8>) {
    if !pending.is_empty() {
        let mut output = std::io::stdout().lock();
        // A closed output is nothing that could be logged.
        let _ = output.write_all(pending).and_then(|()| output.flush());
        pending.clear();
    }
}
