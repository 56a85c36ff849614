//! Identity of operating system processes: a pid together with its start time and boot.
//!
//! A pid alone may have been given to somebody else since; nothing here signals a process unless its start time is
//! the recorded one.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A process as it was when it was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) pid: i32,
    /// Clock ticks since boot, field 22 of `/proc/PID/stat`.
    pub(crate) start: u64,
    /// The boot that the ticks count from.
    pub(crate) boot: String,
}

impl Record {
    pub(crate) fn of(pid: i32) -> Option<Self> {
        Some(Self { pid, start: start_time(pid)?, boot: boot_id() })
    }

    pub(crate) fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        crate::state::write_atomically(path, &serde_json::to_vec(self)?)
    }

    /// Whether this very process still runs; a zombie does not.
    pub(crate) fn alive(&self) -> bool {
        self.boot == boot_id()
            && stat(self.pid).is_some_and(|(state, start)| start == self.start && state != 'Z')
    }
}

/// Whether a process stands still by SIGSTOP.
pub(crate) fn stands_still(pid: i32) -> bool {
    stat(pid).is_some_and(|(state, _)| state == 'T')
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn start_time(pid: i32) -> Option<u64> {
    stat(pid).map(|(_, start)| start)
}

fn stat(pid: i32) -> Option<(char, u64)> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// State and start time of a line of `/proc/PID/stat`. The name in it may hold blanks and parentheses.
fn parse_stat(line: &str) -> Option<(char, u64)> {
    let mut fields = line.get(line.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// Signals the whole group of a child that leads its own group.
pub(crate) fn signal_group(pid: i32, signal: Signal) {
    match killpg(Pid::from_raw(pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(_) => {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

/// Signals one process.
pub(crate) fn signal_process(pid: i32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid), signal);
}

/// Runs in the forked child before the real program: ties its life to the parent's, leaves its record, and becomes
/// the program. Doing this in the child itself leaves no moment in which a process runs unrecorded.
pub(crate) fn become_child(record: Option<&Path>, parent: i32, command: &[String]) -> Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGTERM).context("PR_SET_PDEATHSIG")?;
    // The supervisor's blocked signals are inherited, and not every program unblocks what it waits for.
    SigSet::empty().thread_set_mask().context("unblock signals")?;
    if nix::unistd::getppid().as_raw() != parent {
        anyhow::bail!("the supervisor ended");
    }
    if let Some(path) = record {
        let pid = nix::unistd::getpid().as_raw();
        Record::of(pid).context("own start time")?.write(path)?;
    }
    let (program, arguments) = command.split_first().context("no command")?;
    Err(Command::new(program).args(arguments).exec()).with_context(|| format!("start {program}"))
}

/// A command that runs `program` by way of [`become_child`], in a process group of its own, so that the terminal's
/// Ctrl-C reaches only the supervisor, which then ends its children in order.
pub(crate) fn child_command(record: Option<&Path>, program: &Path, arguments: &[String]) -> Command {
    let mut command = if cfg!(test) {
        // A test binary is no wrapper.
        Command::new(program)
    } else {
        // /proc/self/exe still works after the binary was rebuilt underneath.
        let mut command = Command::new("/proc/self/exe");
        command.arg("child").arg("--parent").arg(std::process::id().to_string());
        if let Some(path) = record {
            command.arg("--record").arg(path);
        }
        command.arg("--").arg(program);
        command
    };
    command.args(arguments).process_group(0);
    command
}

/// Ends every process that a dead run left recorded in `folder`; returns the names of those still found alive.
pub(crate) fn clean_stale(folder: &Path, patience: Duration) -> Result<Vec<String>> {
    let mut left: Vec<(String, Record)> = Vec::new();
    for path in records(folder)? {
        match Record::read(&path) {
            Some(record) if record.alive() => {
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                left.push((name, record));
            }
            _ => remove(&path)?,
        }
    }
    let names = left.iter().map(|(name, _)| name.clone()).collect();
    end_all(&left, patience);
    for path in records(folder)? {
        remove(&path)?;
    }
    Ok(names)
}

fn end_all(left: &[(String, Record)], patience: Duration) {
    let records = left.iter().map(|(_, record)| record);
    for record in records.clone() {
        signal_process(record.pid, Signal::SIGTERM);
    }
    let deadline = Instant::now() + patience;
    while left.iter().any(|(_, record)| record.alive()) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    for record in records.filter(|record| record.alive()) {
        signal_group(record.pid, Signal::SIGKILL);
        while record.alive() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn records(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| folder.display().to_string()),
    };
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    Ok(paths.filter(|path| path.extension().is_some_and(|it| it == "pid")).collect())
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| path.display().to_string())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_survives_odd_names() {
        let line = "7 (a b) c) S 1 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4242 1000 1";
        assert_eq!(parse_stat(line), Some(('S', 4242)));
        assert_eq!(parse_stat("nonsense"), None);
    }

    #[test]
    fn what_is_stopped_stands_still_until_it_goes_on() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let until = |still: bool| {
            let begun = Instant::now();
            while stands_still(pid) != still {
                assert!(begun.elapsed() < Duration::from_secs(10), "not within ten seconds");
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        until(false);
        signal_process(pid, Signal::SIGSTOP);
        until(true);
        signal_process(pid, Signal::SIGCONT);
        until(false);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!stands_still(pid));
    }

    #[test]
    fn another_start_time_is_another_process() {
        let own = Record::of(nix::unistd::getpid().as_raw()).unwrap();
        assert!(own.alive());
        assert!(!Record { start: own.start + 1, ..own.clone() }.alive());
        assert!(!Record { boot: "another".to_owned(), ..own }.alive());
    }

    #[test]
    fn stale_processes_end_and_strangers_stay() {
        let folder = tempfile::tempdir().unwrap();
        let mut left = Command::new("sleep").arg("600").process_group(0).spawn().unwrap();
        let mut stranger = Command::new("sleep").arg("600").process_group(0).spawn().unwrap();
        let record = |child: &std::process::Child| Record::of(i32::try_from(child.id()).unwrap()).unwrap();
        record(&left).write(&folder.path().join("left.pid")).unwrap();
        let reused = Record { start: 1, ..record(&stranger) };
        reused.write(&folder.path().join("reused.pid")).unwrap();

        let ended = clean_stale(folder.path(), Duration::from_secs(5)).unwrap();

        assert_eq!(ended, ["left"]);
        assert!(!left.wait().unwrap().success());
        assert!(stranger.try_wait().unwrap().is_none());
        assert!(records(folder.path()).unwrap().is_empty());
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }
}
