//! `logs -f`: a log that grows, one that is replaced or begun anew by the next run, and the end by Ctrl-C.

#![expect(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const XTASK: &str = env!("CARGO_BIN_EXE_xtask");

struct Followed {
    log: PathBuf,
    child: Child,
    lines: Receiver<String>,
    _folder: tempfile::TempDir,
}

impl Followed {
    fn new(content: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("logs")).unwrap();
        let log = folder.path().join("logs/redis-1.log");
        fs::write(&log, content).unwrap();
        let mut command = Command::new(XTASK);
        command.args(["logs", "-f", "redis-1", "--dir"]).arg(folder.path()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = lines(child.stdout.take().unwrap());
        Self { log, child, lines, _folder: folder }
    }

    fn next(&self) -> String {
        self.lines.recv_timeout(Duration::from_secs(10)).expect("a line within ten seconds")
    }

    fn interrupt(mut self) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGINT).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        assert_eq!(self.lines.try_iter().count(), 0);
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(output: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn append(log: &Path, text: &str) {
    File::options().append(true).open(log).unwrap().write_all(text.as_bytes()).unwrap();
}

#[test]
fn a_log_is_followed_as_it_grows() {
    let followed = Followed::new("one\n");
    assert_eq!(followed.next(), "one");
    append(&followed.log, "two\nhalf ");
    assert_eq!(followed.next(), "two");
    append(&followed.log, "a line\n");
    assert_eq!(followed.next(), "half a line");
    followed.interrupt();
}

#[test]
fn the_next_run_is_followed_and_nothing_of_the_last_one_is_lost() {
    let followed = Followed::new("one\n");
    assert_eq!(followed.next(), "one");
    // As a new run does it: the old log goes aside, and the new one is there a little later. Whoever has the old one
    // open may write to it until then.
    let mut old = File::options().append(true).open(&followed.log).unwrap();
    fs::rename(&followed.log, followed.log.with_extension("log.old")).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    old.write_all(b"the last words\n").unwrap();
    fs::write(&followed.log, "a new run\n").unwrap();
    assert_eq!(followed.next(), "the last words");
    assert_eq!(followed.next(), "a new run");
    append(&followed.log, "goes on\n");
    assert_eq!(followed.next(), "goes on");
    followed.interrupt();
}

#[test]
fn a_log_that_begins_anew_in_the_same_file_is_read_from_its_begin() {
    let followed = Followed::new("a long line of an earlier run\n");
    assert_eq!(followed.next(), "a long line of an earlier run");
    fs::write(&followed.log, "anew\n").unwrap();
    assert_eq!(followed.next(), "anew");
    followed.interrupt();
}
