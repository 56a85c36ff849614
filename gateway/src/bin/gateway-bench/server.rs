//! A program that is measured: started, asked for its time and memory, and ended.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};
use platform::lifecycle::BoxError;

const STOPS_WITHIN: Duration = Duration::from_secs(8);

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    child: Child,
    /// What it says; emptied now and then, as an access log has no end.
    log: File,
    log_path: PathBuf,
}

impl Server {
    pub(crate) fn start(
        name: &str,
        address: SocketAddr,
        command: &mut Command,
        folder: &Path,
    ) -> io::Result<Self> {
        let log_path = folder.join(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(&log_path)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?);
        // A child has the signals blocked that we have, and would not hear that it is to end.
        let blocked = SigSet::thread_get_mask()?;
        SigSet::empty().thread_set_mask()?;
        let child = command.spawn();
        blocked.thread_set_mask()?;
        let child = child.map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
        Ok(Self { address, child, log, log_path })
    }

    /// Waits until it answers as it should.
    pub(crate) fn ready<T>(
        &mut self,
        mut ask: impl FnMut(SocketAddr) -> io::Result<T>,
    ) -> Result<(), BoxError> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let Err(error) = ask(self.address) else { return Ok(()) };
            if Instant::now() > deadline || self.child.try_wait()?.is_some() {
                let said = fs::read_to_string(&self.log_path).unwrap_or_default();
                let lines: Vec<&str> = said.lines().rev().take(5).collect();
                return Err(format!("{}: {error}\n{}", self.log_path.display(), lines.join("\n")).into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn forget_log(&self) -> io::Result<()> {
        self.log.set_len(0)
    }

    /// CPU time that it and its workers have taken since they began.
    pub(crate) fn cpu(&self) -> Result<Duration, BoxError> {
        let ticks = sysconf(SysconfVar::CLK_TCK)?.ok_or("no clock ticks")?;
        let mut taken = 0;
        for pid in self.processes() {
            taken += ticks_in(&fs::read_to_string(format!("/proc/{pid}/stat"))?).ok_or("an odd stat")?;
        }
        Ok(Duration::from_secs_f64(taken as f64 / ticks as f64))
    }

    /// Bytes in memory, of it and its workers; what workers share counts for each.
    pub(crate) fn resident(&self) -> Result<u64, BoxError> {
        let mut kib = 0;
        for pid in self.processes() {
            let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
            kib += line.trim().trim_end_matches(" kB").parse::<u64>()?;
        }
        Ok(kib * 1024)
    }

    fn processes(&self) -> Vec<u32> {
        let own = self.child.id();
        let workers = fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
        std::iter::once(own).chain(workers.split_whitespace().filter_map(|pid| pid.parse().ok())).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Ok(pid) = i32::try_from(self.child.id()) else { return };
        // nginx's workers end by their master's word, and by nothing else.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        let begun = Instant::now();
        while let Ok(None) = self.child.try_wait() {
            if begun.elapsed() > STOPS_WITHIN {
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// User and system time, fields 14 and 15 of `/proc/PID/stat`.
fn ticks_in(stat: &str) -> Option<u64> {
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// One that nobody uses now.
pub(crate) fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let line = "7 (a b) c) S 1 7 7 0 -1 4194304 120 0 0 0 35 17 0 0 20 0 4 0 100 1000 10";
        assert_eq!(ticks_in(line), Some(52));
        assert_eq!(ticks_in("7 (x"), None);
    }
}
