//! `test`: format, lints and all tests, on real servers that live for this run only.
//!
//! One profile is built, once: the end-to-end tests run the same debug binaries as the integration tests.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::build::{self, Built, workspace};
use crate::cli::{END_TO_END, Test};
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::stack::{self, Options, Stack};
use crate::state::{Folder, Phase};
use crate::{table, tools, up};

const SERVERS: &str = "FIRSTCOME_TEST_SERVERS";
const STATE: &str = "FIRSTCOME_STATE";

pub(crate) fn test(arguments: &Test) -> Result<ExitCode> {
    let interrupt = Interrupt::install()?;
    let progress = Progress::new();
    let parent = workspace().join("target/xtask-test");
    stack::sweep(&parent, &progress)?;
    let options = Options {
        trace_ui: arguments.end_to_end(),
        ..Options::plain(
            Folder::new(&parent.join(std::process::id().to_string()))?,
            up::engine(arguments.mysql),
        )
    };
    let stack = Stack::prepare(options, interrupt.clone(), progress.clone())?;
    let mut run = Run { arguments, stack: &stack, results: Vec::new() };
    let outcome = if arguments.servers_only { run.only_servers() } else { run.all() };
    stack.stop();
    let results = run.results;
    if arguments.servers_only {
        fs::remove_dir_all(stack.folder.root())?;
        return outcome.map(|()| ExitCode::SUCCESS);
    }
    let failed: u64 = results.iter().map(|result| result.failed).sum();
    if failed == 0 && outcome.is_ok() {
        fs::remove_dir_all(stack.folder.root())?;
    } else {
        println!("logs of servers and services: {}", stack.folder.logs().display());
    }
    report(&results);
    // What could not be run counts as failed, whatever came before it.
    println!("{}", totals(&results, u64::from(outcome.is_err())));
    outcome?;
    if let Some(filter) = &arguments.filter {
        something_ran(filter, &results)?;
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Run<'a> {
    arguments: &'a Test,
    stack: &'a Arc<Stack>,
    results: Vec<Outcome>,
}

/// What one step found.
struct Outcome {
    name: String,
    passed: u64,
    failed: u64,
    ignored: u64,
    took: Duration,
}

impl Run<'_> {
    fn only_servers(&self) -> Result<()> {
        let programs = up::obtain(self.stack, self.arguments.mysql)?;
        self.stack.start_servers(&programs)?;
        self.stack.set_phase(Phase::Ready);
        println!("export {SERVERS}={}", self.stack.folder.test_servers_file().display());
        self.stack.progress.note("Ctrl-C stops the servers");
        while !self.stack.interrupt.requested() {
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn all(&mut self) -> Result<()> {
        let stack = self.stack;
        let mysql = self.arguments.mysql;
        tools::for_builds(&stack.interrupt, &stack.progress)?;
        // Servers are gotten and started while the compiler works.
        std::thread::scope(|scope| {
            let servers = scope.spawn(move || {
                let started = up::obtain(stack, mysql).and_then(|programs| stack.start_servers(&programs));
                if let Err(error) = &started {
                    stack.progress.note(&format!("servers: {error:#}"));
                }
                started
            });
            let checked = self.check();
            let servers = servers.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            checked?;
            servers.context("the tests need all servers")
        })?;
        // For one package the whole need not be built.
        if self.arguments.package.as_deref().is_some_and(|it| it != END_TO_END) {
            return self.integration();
        }
        let built = build::build_all(&stack.interrupt, &stack.progress)?;
        self.integration()?;
        if self.arguments.end_to_end() { self.end_to_end(built) } else { Ok(()) }
    }

    /// What needs no server: format and lints.
    fn check(&mut self) -> Result<()> {
        if self.arguments.filter.is_some() || self.arguments.package.is_some() {
            return Ok(());
        }
        let mut format = build::cargo();
        format.args(["fmt", "--all", "--check"]);
        self.step("format", &format)?;
        let mut lints = build::cargo();
        lints.args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
        self.step("lints", &lints)?;
        // Code that no other step compiles. Of the workspace, so that no dependency is checked again.
        let mut faults = build::cargo();
        faults.args(["clippy", "--workspace", "--all-targets", "--features=issue-service/fault-injection"]);
        self.step("lints of fault injection", faults.args(["--", "-D", "warnings"]))
    }

    /// A command that is one check: it passes or fails.
    fn step(&mut self, name: &str, command: &Command) -> Result<()> {
        let begun = Instant::now();
        self.stack.progress.note(&format!("{name}: {}", shown(command)));
        let (success, _) = self.echo(command)?;
        let took = begun.elapsed();
        let text = format!("{name}: {}", if success { "ok" } else { "FAILED" });
        self.stack.progress.note(&self.stack.progress.timed(&text, took));
        let (passed, failed) = (u64::from(success), u64::from(!success));
        self.results.push(Outcome { name: name.to_owned(), passed, failed, ignored: 0, took });
        Ok(())
    }

    fn integration(&mut self) -> Result<()> {
        let mut command = build::cargo();
        command.args(["test", "--workspace", "--exclude", END_TO_END, "--no-fail-fast"]);
        if let Some(package) = &self.arguments.package {
            if package == END_TO_END {
                return Ok(());
            }
            command = build::cargo();
            command.args(["test", "--package", package, "--no-fail-fast"]);
        }
        if let Some(filter) = &self.arguments.filter {
            command.args(["--", filter]);
        }
        command.env(SERVERS, self.stack.folder.test_servers_file()).env_remove(STATE);
        self.tests("tests", &command)
    }

    fn end_to_end(&mut self, built: Built) -> Result<()> {
        let tests = built.tests_of(END_TO_END);
        if tests.is_empty() {
            bail!("no end-to-end tests were built");
        }
        tools::for_tests(&self.stack.interrupt, &self.stack.progress)?;
        self.stack.start_services(built.binaries)?;
        self.stack.set_phase(Phase::Ready);
        for program in tests {
            let mut command = Command::new(&program);
            command.current_dir(workspace().join(END_TO_END));
            command.args(self.arguments.filter.iter());
            tools::with_path(&mut command);
            command.env(STATE, self.stack.folder.root()).env(SERVERS, self.stack.folder.test_servers_file());
            self.tests("end to end", &command)?;
        }
        Ok(())
    }

    /// A command that runs many tests and says how many.
    fn tests(&mut self, name: &str, command: &Command) -> Result<()> {
        let begun = Instant::now();
        self.stack.progress.note(&format!("{name}: {}", shown(command)));
        let (success, lines) = self.echo(command)?;
        let mut outcome =
            Outcome { name: name.to_owned(), passed: 0, failed: 0, ignored: 0, took: begun.elapsed() };
        for [passed, failed, ignored] in lines.iter().filter_map(|line| counts(line)) {
            outcome.passed += passed;
            outcome.failed += failed;
            outcome.ignored += ignored;
        }
        // A test program that crashed counted nothing.
        if !success && outcome.failed == 0 {
            outcome.failed = 1;
        }
        self.results.push(outcome);
        Ok(())
    }

    /// Runs it, passing its output on; returns the lines that count.
    fn echo(&self, command: &Command) -> Result<(bool, Vec<String>)> {
        let mut tool = self.stack.interrupt.spawn(command, (Stdio::piped(), Stdio::inherit()))?;
        let mut lines = Vec::new();
        if let Some(pipe) = tool.child.stdout.take() {
            for line in BufReader::new(pipe).split(b'\n') {
                let line = String::from_utf8_lossy(&line?).into_owned();
                let _ = writeln!(std::io::stdout(), "{line}");
                if line.starts_with("test result:") {
                    lines.push(line);
                }
            }
        }
        let status = tool.child.wait()?;
        self.stack.interrupt.check()?;
        Ok((status.success(), lines))
    }
}

fn shown(command: &Command) -> String {
    let program =
        Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let arguments = command.get_args().map(|it| it.to_string_lossy().into_owned());
    std::iter::once(program).chain(arguments).collect::<Vec<_>>().join(" ")
}

/// Passed, failed and ignored of a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; ...`.
fn counts(line: &str) -> Option<[u64; 3]> {
    let rest = line.strip_prefix("test result:")?;
    let count = |what: &str| {
        rest.split([';', '.']).find_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok())
    };
    Some([count("passed")?, count("failed")?, count("ignored")?])
}

fn totals(results: &[Outcome], not_run: u64) -> String {
    let sum = |of: fn(&Outcome) -> u64| results.iter().map(of).sum::<u64>();
    let failed = sum(|it| it.failed) + not_run;
    format!("{} passed, {failed} failed, {} ignored", sum(|it| it.passed), sum(|it| it.ignored))
}

/// A filter that selects nothing would pass for a success.
fn something_ran(filter: &str, results: &[Outcome]) -> Result<()> {
    if results.iter().any(|it| it.passed + it.failed > 0) {
        return Ok(());
    }
    match results.iter().map(|it| it.ignored).sum::<u64>() {
        0 => bail!("no test ran: none has {filter} in its name"),
        ignored => bail!("no test ran: {ignored} with {filter} in the name are ignored"),
    }
}

fn report(results: &[Outcome]) {
    let mut table = table::new(&["", "passed", "failed", "ignored", "time"]);
    for result in results {
        table.add_row([
            result.name.clone(),
            result.passed.to_string(),
            result.failed.to_string(),
            result.ignored.to_string(),
            format!("{:.1} s", result.took.as_secs_f64()),
        ]);
    }
    println!("{table}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_counted() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.07s";
        assert_eq!(counts(line), Some([12, 3, 1]));
        assert_eq!(counts("test platform::x ... ok"), None);
    }

    fn outcome([passed, failed, ignored]: [u64; 3]) -> Outcome {
        Outcome { name: String::new(), passed, failed, ignored, took: Duration::ZERO }
    }

    #[test]
    fn ignored_tests_are_told() {
        let results = [outcome([3, 1, 2]), outcome([4, 0, 5])];
        assert_eq!(totals(&results, 0), "7 passed, 1 failed, 7 ignored");
        assert_eq!(totals(&results, 1), "7 passed, 2 failed, 7 ignored");
    }

    #[test]
    fn a_filter_that_selects_nothing_fails() {
        let error = |results: &[Outcome]| something_ran("typo", results).unwrap_err().to_string();
        assert_eq!(error(&[outcome([0; 3]), outcome([0; 3])]), "no test ran: none has typo in its name");
        assert_eq!(error(&[outcome([0, 0, 2])]), "no test ran: 2 with typo in the name are ignored");
        assert!(something_ran("x", &[outcome([0; 3]), outcome([1, 0, 0])]).is_ok());
        assert!(something_ran("x", &[outcome([0, 1, 0])]).is_ok());
    }
}
