//! What our processes weigh and how soon they are ready, against the limits that a small machine sets.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::state::ServiceState;

/// Bytes of resident memory of all our processes together: 200 MB, so that the system fits beside its servers.
const MEMORY_LIMIT: u64 = 200_000_000;
/// From the start of a process, with the servers up, until Consul finds it ready.
const READY_LIMIT_MS: u64 = 1_000;

/// After the race, before memory is read: the gateway keeps an unused connection for 4 s, and every process gives free
/// memory back each 5 s.
pub(super) const REST: Duration = Duration::from_secs(15);

pub(super) struct Process {
    name: String,
    /// Bytes, at rest.
    resident: u64,
    /// Bytes, at the highest.
    peak: u64,
    ready_ms: Option<u64>,
}

pub(super) fn read(services: &[ServiceState]) -> Result<Vec<Process>> {
    let of = |service: &ServiceState| {
        let name = service.instance.clone();
        let pid = service.process.pid.with_context(|| format!("{name} does not run"))?;
        let status =
            fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("{name} ended"))?;
        let bytes = |field| bytes(&status, field).with_context(|| format!("{name}: no {field}"));
        let (resident, peak) = (bytes("VmRSS:")?, bytes("VmHWM:")?);
        Ok(Process { name, resident, peak, ready_ms: service.process.started_in_ms })
    };
    services.iter().map(of).collect()
}

/// Each limit that is reached, in words.
pub(super) fn faults(processes: &[Process]) -> Vec<String> {
    let mut faults = Vec::new();
    let together = together(processes);
    if together >= MEMORY_LIMIT {
        faults.push(format!(
            "all processes together hold {} MB of memory, and must stay below {} MB",
            megabytes(together),
            MEMORY_LIMIT / 1_000_000
        ));
    }
    for Process { name, ready_ms, .. } in processes {
        match ready_ms {
            Some(ms) if *ms < READY_LIMIT_MS => {}
            Some(ms) => {
                faults
                    .push(format!("{name} was ready after {ms} ms, and must be within {READY_LIMIT_MS} ms"));
            }
            None => faults.push(format!("{name} is not ready")),
        }
    }
    faults
}

pub(super) fn write(text: &mut String, processes: &[Process]) -> Result<()> {
    writeln!(
        text,
        "## Size and start\n\nResident memory in MB of 1,000,000 bytes: {} s after the race, when idle connections are \
         closed and free memory is given back, and the highest since the start; start from the process's begin, with the \
         servers up, until Consul finds it ready.\n",
        REST.as_secs()
    )?;
    writeln!(
        text,
        "| process | resident MB | highest MB | ready after ms | must be below |\n|---|---:|---:|---:|---:|"
    )?;
    for Process { name, resident, peak, ready_ms } in processes {
        let ready = ready_ms.map(|ms| ms.to_string()).unwrap_or_default();
        let (resident, peak) = (megabytes(*resident), megabytes(*peak));
        writeln!(text, "| {name} | {resident} | {peak} | {ready} | {READY_LIMIT_MS} ms |")?;
    }
    let limit = MEMORY_LIMIT / 1_000_000;
    let peaks = megabytes(processes.iter().map(|process| process.peak).sum());
    writeln!(text, "| together | {} | {peaks} | | {limit} MB resident |\n", megabytes(together(processes)))?;
    Ok(())
}

fn together(processes: &[Process]) -> u64 {
    processes.iter().map(|process| process.resident).sum()
}

/// With one decimal, rounded down, so that what is below a limit also looks so.
fn megabytes(bytes: u64) -> String {
    format!("{}.{}", bytes / 1_000_000, bytes / 100_000 % 10)
}

/// Bytes of a field of `/proc/PID/status`, which says it in KiB.
fn bytes(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(name: &str, resident: u64, ready_ms: Option<u64>) -> Process {
        Process { name: name.to_owned(), resident, peak: 2 * resident, ready_ms }
    }

    #[test]
    fn resident_memory() {
        assert_eq!(bytes("Name:\tx\nVmRSS:\t   12345 kB\n", "VmRSS:"), Some(12_641_280));
        assert_eq!(bytes("Name:\tx\n", "VmRSS:"), None);
    }

    #[test]
    fn limits_are_reached_not_only_exceeded() {
        let below = [process("a", 150_000_000, Some(999)), process("b", 49_999_999, Some(1))];
        assert_eq!(faults(&below), Vec::<String>::new());
        let reached = [process("a", 150_000_000, Some(1_000)), process("b", 50_000_000, None)];
        assert_eq!(
            faults(&reached),
            [
                "all processes together hold 200.0 MB of memory, and must stay below 200 MB",
                "a was ready after 1000 ms, and must be within 1000 ms",
                "b is not ready",
            ]
        );
    }

    #[test]
    fn limits_stand_beside_the_figures() {
        let mut text = String::new();
        write(&mut text, &[process("a", 50_000_000, Some(7)), process("b", 149_999_999, Some(8))]).unwrap();
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
        assert_eq!(
            rows,
            [
                "| a | 50.0 | 100.0 | 7 | 1000 ms |",
                "| b | 149.9 | 299.9 | 8 | 1000 ms |",
                "| together | 199.9 | 399.9 | | 200 MB resident |",
            ]
        );
    }
}
