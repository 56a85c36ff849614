//! The wrapper that every supervised process goes through: it leaves a record, and it dies with its supervisor.

use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

const XTASK: &str = env!("CARGO_BIN_EXE_xtask");

/// A shell in the supervisor's place, which starts `command` by way of the wrapper and waits.
fn supervisor(record: &Path, command: &str) -> Child {
    let script = format!("{XTASK} child --parent $$ --record '{}' -- {command} & wait", record.display());
    Command::new("sh").args(["-c", &script]).spawn().expect("a shell")
}

fn until<T>(mut done: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within ten seconds");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn recorded_pid(record: &Path) -> Option<u64> {
    serde_json::from_slice::<serde_json::Value>(&std::fs::read(record).ok()?).ok()?["pid"].as_u64()
}

/// The program that a pid runs; none for a zombie.
fn program(pid: u64) -> Option<String> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    (!line.is_empty()).then(|| String::from_utf8_lossy(&line).into_owned())
}

#[test]
fn a_child_is_recorded_and_dies_with_its_supervisor() {
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("sleep.pid");
    let mut supervisor = supervisor(&record, "sleep 600");
    let pid = until(|| recorded_pid(&record));
    until(|| program(pid).filter(|line| line.starts_with("sleep")));

    supervisor.kill().unwrap();
    supervisor.wait().unwrap();

    until(|| program(pid).is_none().then_some(()));
}

#[test]
fn a_child_whose_supervisor_is_gone_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let output =
        Command::new(XTASK).args(["child", "--parent", "1", "--", "touch"]).arg(&mark).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("the supervisor ended"));
    assert!(!mark.exists());
}

#[test]
fn the_state_of_another_version_is_told_and_can_be_removed() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("run");
    std::fs::create_dir_all(dir.join("run")).unwrap();
    std::fs::write(dir.join("state.json"), r#"{"phase":"ready","supervisor":7}"#).unwrap();
    let xtask = |command: &str| Command::new(XTASK).arg(command).arg("--dir").arg(&dir).output().unwrap();
    for command in ["status", "demo"] {
        let output = xtask(command);
        assert!(!output.status.success());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("state.json was written by another version of this tool"), "{text}");
        assert!(text.contains("`cargo xtask down`") && text.contains("`cargo xtask reset`"), "{text}");
    }
    assert!(xtask("down").status.success());
    assert!(xtask("reset").status.success());
    assert!(!dir.exists());
}

#[test]
fn a_stack_that_was_never_started_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("none");
    for command in ["status", "kill", "restart"] {
        let mut xtask = Command::new(XTASK);
        xtask.arg(command).args((command != "status").then_some("gateway")).arg("--dir").arg(&dir);
        let output = xtask.output().unwrap();
        assert!(!output.status.success());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("nothing was started") || text.contains("nothing runs here"), "{text}");
    }
    let down = Command::new(XTASK).args(["down", "--dir"]).arg(&dir).output().unwrap();
    assert!(down.status.success());
}
