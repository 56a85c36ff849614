use std::path::Path;

use super::*;

#[test]
fn ends_are_described() {
    let pid = Pid::from_raw(7);
    assert_eq!(describe(WaitStatus::Exited(pid, 64)), "(pid 7) ended with exit code 64");
    assert_eq!(describe(WaitStatus::Signaled(pid, Signal::SIGKILL, false)), "(pid 7) was ended by SIGKILL");
}

#[test]
fn waiting_leaves_the_process_to_be_reaped() {
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    while !has_ended(pid, WaitPidFlag::empty()).unwrap() {}
    assert!(child.wait().unwrap().success());
}

/// A child that is a shell at work in `folder`.
pub(crate) fn shell(
    folder: &Path,
    name: &str,
    script: &str,
    ready: impl Fn() -> bool + Send + Sync + 'static,
) -> Spec {
    Spec {
        name: name.to_owned(),
        group: name.to_owned(),
        kind: Kind::Server,
        address: None,
        program: "sh".into(),
        arguments: vec!["-c".to_owned(), script.to_owned()],
        environment: Vec::new(),
        working_folder: folder.to_owned(),
        before_start: None,
        ready: Box::new(move |_| if ready() { Ok(None) } else { bail!("not yet") }),
        first_pause: Duration::from_millis(100),
        patience: Duration::from_secs(10),
    }
}

/// A supervisor in a folder of its own, and what it reports.
pub(crate) struct Supervised {
    folder: tempfile::TempDir,
    supervisor: Arc<Supervisor>,
    said: Arc<Mutex<Vec<String>>>,
}

impl Supervised {
    pub(crate) fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::new(temporary.path()).unwrap();
        folder.create().unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = said.clone();
        let supervisor = Supervisor::new(folder, move |text| heard.lock().unwrap().push(text.to_owned()));
        Self { folder: temporary, supervisor, said }
    }

    fn shell(&self, name: &str, script: &str, ready: impl Fn() -> bool + Send + Sync + 'static) -> Spec {
        shell(self.folder.path(), name, script, ready)
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    fn steady(&self) -> Arc<Child> {
        self.started("steady", "exec sleep 60")
    }

    /// A child that runs and is ready.
    pub(crate) fn started(&self, name: &str, script: &str) -> Arc<Child> {
        let child = self.supervisor.start(self.shell(name, script, || true));
        self.supervisor.wait_ready(std::slice::from_ref(&child), &Interrupt::default()).unwrap();
        child
    }

    fn said(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.supervisor.stop(&self.supervisor.close(), Instant::now());
    }
}

fn until(mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(10), "not within ten seconds");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_ends_is_started_again_with_growing_pauses_and_it_is_said() {
    let run = Supervised::new();
    let starts = Arc::new(Mutex::new(Vec::new()));
    let mut spec = run.shell("crash", "exit 3", || false);
    let started = starts.clone();
    spec.before_start = Some(Box::new(move || {
        started.lock().unwrap().push(Instant::now());
        Ok(())
    }));
    let child = run.supervisor.start(spec);
    // In its fourth pause, after which it would start for the fifth time.
    until(|| run.said().len() == 4);
    run.supervisor.stop(std::slice::from_ref(&child), Instant::now() + Duration::from_secs(5));

    assert_eq!(child.status().restarts, 3);
    let starts = starts.lock().unwrap();
    for (pair, pause) in starts.windows(2).zip([100, 200, 400]) {
        assert!(pair[1] - pair[0] >= Duration::from_millis(pause), "{starts:?}");
    }
    let said = run.said();
    for (line, pause) in said.iter().zip(["0.1", "0.2", "0.4", "0.8"]) {
        assert!(line.starts_with("crash (pid "), "{line}");
        assert!(
            line.ends_with(&format!(") ended with exit code 3; starting it again in {pause} s")),
            "{line}"
        );
    }
    assert_eq!(said.len(), 4, "{said:?}");
}

#[test]
fn what_is_killed_comes_back_and_it_is_said() {
    let run = Supervised::new();
    let child = run.steady();
    let killed = run.supervisor.kill(&child).unwrap();
    until(|| child.status().ready && child.status().pid != Some(killed));

    let pid = child.status().pid.unwrap();
    assert_eq!(child.status().restarts, 1);
    until(|| run.said().len() == 2);
    let said = run.said();
    assert_eq!(said[0], format!("steady (pid {killed}) was ended by SIGKILL; starting it again in 0.1 s"));
    assert!(said[1].starts_with(&format!("steady is back as pid {pid} (ready after")), "{said:?}");
}

/// Whoever heals everything must say what nobody had broken.
#[test]
fn who_ends_without_having_been_told_to_is_counted() {
    let run = Supervised::new();
    let child = run.steady();
    let back = |pid| until(|| child.status().pid.is_some_and(|now| now != pid) && child.status().ready);
    let pid = run.supervisor.kill(&child).unwrap();
    back(pid);
    let pid = child.pid().unwrap();
    drop(run.supervisor.kill_and_hold(&child).unwrap());
    back(pid);
    run.supervisor.restart(&child, Duration::from_secs(5), &Interrupt::default()).unwrap();
    assert_eq!(child.status().ended_alone, 0);

    let pid = child.pid().unwrap();
    process::signal_process(pid, Signal::SIGTERM);
    back(pid);
    assert_eq!(child.status().ended_alone, 1);
    assert_eq!(child.status().last_alone, format!("(pid {pid}) was ended by SIGTERM"));

    // A point at which it kills itself, because it was armed.
    let pid = child.pid().unwrap();
    child.expect_end(true);
    process::signal_process(pid, Signal::SIGABRT);
    back(pid);
    assert_eq!(child.status().ended_alone, 1);

    // It was armed, and ended in order instead: its successor is not excused.
    child.expect_end(true);
    run.supervisor.restart(&child, Duration::from_secs(5), &Interrupt::default()).unwrap();
    let pid = child.pid().unwrap();
    process::signal_process(pid, Signal::SIGABRT);
    back(pid);
    assert_eq!(child.status().ended_alone, 2);
}

#[test]
fn what_is_held_comes_back_when_it_is_released() {
    let run = Supervised::new();
    let mut spec = run.shell("steady", "exec sleep 60", || true);
    // It can't be this that brings it back.
    spec.first_pause = Duration::from_secs(3600);
    let child = run.supervisor.start(spec);
    until(|| child.status().ready);
    let before = child.pid().unwrap();
    let held = run.supervisor.kill_and_hold(&child).unwrap();
    assert!(child.status().pid.is_none() && !child.status().ready);
    until(|| run.said().len() == 1);
    assert_eq!(
        run.said()[0],
        format!("steady (pid {before}) was ended by SIGKILL; starting it again when released")
    );
    std::thread::sleep(Duration::from_millis(100));
    assert!(child.status().pid.is_none());
    drop(held);
    until(|| child.status().ready);
    assert_eq!(child.status().restarts, 1);
}

#[test]
fn what_is_held_or_frozen_ends_with_the_rest() {
    let run = Supervised::new();
    let (held, frozen) = (run.steady(), run.steady());
    let guards = (run.supervisor.kill_and_hold(&held).unwrap(), run.supervisor.freeze(&frozen).unwrap());
    let begun = Instant::now();
    run.supervisor.stop(&run.supervisor.close(), begun + Duration::from_secs(8));
    assert!(run.said().iter().all(|line| !line.contains("did not end")), "{:?}", run.said());
    assert!(held.status().pid.is_none() && frozen.status().pid.is_none());
    drop(guards);
    assert!(held.status().pid.is_none());
}

#[test]
fn what_is_frozen_stands_still_until_it_goes_on() {
    let run = Supervised::new();
    let file = run.folder.path().join("beat");
    let script = "while :; do echo >> beat; sleep 0.01; done";
    let ready = file.clone();
    let child = run.supervisor.start(run.shell("heart", script, move || ready.exists()));
    run.supervisor.wait_ready(std::slice::from_ref(&child), &Interrupt::default()).unwrap();
    let size = || std::fs::metadata(&file).unwrap().len();
    let frozen = run.supervisor.freeze(&child).unwrap();
    let state = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.pid().unwrap())).unwrap();
        stat[stat.rfind(')').unwrap() + 2..].chars().next().unwrap()
    };
    until(|| state() == 'T');
    let before = size();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(size(), before);
    drop(frozen);
    until(|| size() > before);
}

#[test]
fn a_restart_is_no_failure() {
    let run = Supervised::new();
    let child = run.steady();
    let before = child.status().pid;
    run.supervisor.restart(&child, Duration::from_secs(5), &Interrupt::default()).unwrap();
    let after = child.status();
    assert!(after.ready && after.pid.is_some() && after.pid != before);
    assert_eq!((after.restarts, run.said()), (0, Vec::new()));
}

#[test]
fn variables_of_a_start_hold_until_the_next_one() {
    let it = Supervised::new();
    let seen = it.folder.path().join("seen");
    let written = seen.clone();
    let script = r#"echo "$OWN,$MORE" > seen; exec sleep 60"#;
    let ready = move || std::fs::read_to_string(&written).is_ok_and(|text| !text.is_empty());
    let variable = |name: &str| (name.to_owned(), name.to_lowercase());
    let spec = Spec { environment: vec![variable("OWN")], ..it.shell("steady", script, ready) };
    let children = [it.supervisor.start(spec)];
    let start_with = |environment: &[(String, String)]| {
        it.supervisor.stop(&children, Instant::now() + Duration::from_secs(5));
        let _ = std::fs::remove_file(&seen);
        it.supervisor.start_with(&children, environment, &Interrupt::default()).unwrap();
        std::fs::read_to_string(&seen).unwrap()
    };
    assert_eq!(start_with(&[variable("MORE")]), "own,more\n");
    std::fs::remove_file(&seen).unwrap();
    it.supervisor.kill(&children[0]).unwrap();
    until(|| children[0].status().restarts == 1 && children[0].status().ready);
    assert_eq!(std::fs::read_to_string(&seen).unwrap(), "own,more\n");
    assert_eq!(start_with(&[]), "own,\n");
}

#[test]
fn a_stop_ends_in_time_whatever_the_children_do() {
    let run = Supervised::new();
    // Nobody sees the end of a child whose question for readiness hangs.
    let hang = Arc::new(Mutex::new(()));
    let held = hang.lock().unwrap();
    let children = ["a", "b", "c"].map(|name| {
        let hang = hang.clone();
        run.supervisor.start(run.shell(name, "trap '' TERM; sleep 60", move || hang.lock().is_ok()))
    });
    until(|| children.iter().all(|child| child.status().pid.is_some()));
    let begun = Instant::now();
    run.supervisor.stop(&children, begun + Duration::from_millis(300));
    let took = begun.elapsed();
    drop(held);
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(run.said().len(), 3);
    until(|| children.iter().all(|child| child.status().pid.is_none()));
}

#[test]
fn a_child_is_told_once_to_end() {
    let run = Supervised::new();
    let file = |name: &str| run.folder.path().join(name);
    let script = "trap 'echo told >> told' TERM; touch ready; while :; do sleep 0.01; done";
    let ready = file("ready");
    let children = [run.supervisor.start(run.shell("stubborn", script, move || ready.exists()))];
    run.supervisor.wait_ready(&children, &Interrupt::default()).unwrap();
    run.supervisor.tell(&children);
    until(|| file("told").exists());
    run.supervisor.stop(&children, Instant::now() + Duration::from_millis(200));
    assert_eq!(std::fs::read_to_string(file("told")).unwrap(), "told\n");
}

#[test]
fn after_the_last_stop_nothing_starts() {
    let run = Supervised::new();
    let child = run.steady();
    run.supervisor.stop(&run.supervisor.close(), Instant::now() + Duration::from_secs(5));
    // As when a restart is under way meanwhile.
    run.supervisor.start_again(&child);
    let late = run.supervisor.start(run.shell("late", "sleep 60", || true));
    for child in [child, late] {
        assert!(!child.lock().running && child.status().pid.is_none(), "{}", child.spec.name);
    }
}
