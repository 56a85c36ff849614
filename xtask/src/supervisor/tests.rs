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
