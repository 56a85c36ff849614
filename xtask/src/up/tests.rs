use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::process::Child;

use serde_json::json;

use super::*;
use crate::state::write_atomically;

/// A folder in use whose supervisor does not answer, and which is noted as `supervisor`.
fn in_use(supervisor: &Record) -> (tempfile::TempDir, Folder, Lock) {
    let temporary = tempfile::tempdir().unwrap();
    let folder = Folder::new(temporary.path()).unwrap();
    folder.create().unwrap();
    let lock = Lock::take(&folder).unwrap().unwrap();
    let state = json!({"phase": "ready", "supervisor": supervisor, "services": [], "servers": [],
        "mysql": {"engine": "", "host": "", "port": 1, "username": "", "passwordFile": ""},
        "redis": {"sentinels": [], "master": "", "passwordFile": ""},
        "kafka": {"bootstrapServers": "", "topic": ""}, "keyStore": "", "jwt": {"issuer": "", "audience": ""}});
    write_atomically(&folder.state_file(), state.to_string().as_bytes()).unwrap();
    folder.read_state().unwrap();
    (temporary, folder, lock)
}

fn process() -> (Child, Record) {
    let child = Command::new("sleep").arg("600").process_group(0).spawn().unwrap();
    let record = Record::of(i32::try_from(child.id()).unwrap()).unwrap();
    (child, record)
}

#[test]
fn a_supervisor_that_does_not_answer_is_ended() {
    let (mut child, record) = process();
    let (_temporary, folder, lock) = in_use(&record);
    // It listens, as a frozen one does, and says nothing.
    let _frozen = UnixListener::bind(folder.run().join("control.sock")).unwrap();
    let ended = std::thread::spawn(move || {
        let status = child.wait().unwrap();
        drop(lock);
        status
    });
    end_supervisor(&folder, Duration::from_secs(10), &Progress::new()).unwrap();
    assert!(!ended.join().unwrap().success());
}

#[test]
fn a_stranger_with_the_pid_of_a_supervisor_is_left_alone() {
    let (mut child, record) = process();
    let before = Record { start: record.start - 1, ..record };
    let (_temporary, folder, _lock) = in_use(&before);
    let error =
        end_supervisor(&folder, Duration::from_millis(100), &Progress::new()).unwrap_err().to_string();
    assert!(error.contains("its supervisor is not known"), "{error}");
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
}
