//! `up` on real servers: what it says of itself, and that nothing of it is left, however it ends.

#![expect(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const XTASK: &str = env!("CARGO_BIN_EXE_xtask");
/// Where `cargo xtask test` says what it started: then all servers are on this machine, and nothing is downloaded.
const SERVERS: &str = "FIRSTCOME_TEST_SERVERS";

/// A process with its start time, so that its pid in other hands is not taken for it.
type Process = (i64, String);

/// State and start time of a process.
fn stat(pid: i64) -> Option<(String, String)> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = line[line.rfind(')')? + 1..].split_whitespace().collect();
    Some((fields[0].to_owned(), fields[19].to_owned()))
}

fn alive((pid, start): &Process) -> bool {
    stat(*pid).is_some_and(|(state, now)| state != "Z" && now == *start)
}

struct Folder(PathBuf);

impl Folder {
    fn xtask(&self, arguments: &[&str]) -> Output {
        Command::new(XTASK).args(arguments).arg("--dir").arg(&self.0).output().unwrap()
    }

    fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.xtask(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn status(&self) -> Value {
        serde_json::from_slice(&self.xtask(&["status", "--json"]).stdout).unwrap_or_default()
    }

    fn server(&self, name: &str) -> Value {
        let servers = self.status()["servers"].take();
        servers
            .as_array()
            .into_iter()
            .flatten()
            .find(|server| server["name"] == name)
            .cloned()
            .unwrap_or_default()
    }

    /// Every process that runs for this folder, as it is recorded.
    fn recorded(&self) -> Vec<Process> {
        let files = fs::read_dir(self.0.join("run")).unwrap().map(|entry| entry.unwrap().path());
        let records = files.filter(|path| path.extension().is_some_and(|it| it == "pid"));
        let records = records.map(|path| serde_json::from_slice::<Value>(&fs::read(path).unwrap()).unwrap());
        records.map(|record| (record["pid"].as_i64().unwrap(), record["start"].to_string())).collect()
    }
}

/// An `up` of servers only. It ends with this test, by SIGTERM if not earlier.
struct Up {
    process: Child,
    said: PathBuf,
}

impl Up {
    fn start(folder: &Folder, name: &str, arguments: &[String]) -> Self {
        let said = folder.0.with_file_name(name);
        let mut command = Command::new(XTASK);
        command.args(["child", "--parent", &std::process::id().to_string(), "--", XTASK]);
        command.args(["up", "--servers-only", "--dir"]).arg(&folder.0).args(arguments).process_group(0);
        command
            .stdout(File::create(said.with_extension("out")).unwrap())
            .stderr(File::create(&said).unwrap());
        let mut up = Self { process: command.spawn().unwrap(), said };
        let supervisor = i64::from(up.process.id());
        up.until("ready", Duration::from_secs(120), |_| {
            let state = fs::read(folder.0.join("state.json")).unwrap_or_default();
            let state: Value = serde_json::from_slice(&state).unwrap_or_default();
            state["phase"] == "ready" && state["supervisor"]["pid"] == supervisor
        });
        up
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap()
    }

    /// What it does or says, while it runs.
    fn until(&mut self, what: &str, patience: Duration, done: impl Fn(&str) -> bool) {
        let begun = Instant::now();
        while !done(&self.said()) {
            let ended = self.process.try_wait().unwrap();
            assert!(ended.is_none(), "it ended before {what}: {}", self.said());
            assert!(begun.elapsed() < patience, "not {what} after {patience:?}: {}", self.said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.process.id()).unwrap()), signal).unwrap();
    }

    fn end(&mut self, signal: Signal) -> (ExitStatus, Duration) {
        let begun = Instant::now();
        self.signal(signal);
        (self.process.wait().unwrap(), begun.elapsed())
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if let Ok(None) = self.process.try_wait() {
            self.end(Signal::SIGTERM);
        }
    }
}

/// Ports of its own, and the database that is on this machine.
fn arguments() -> Vec<String> {
    let servers = std::env::var_os(SERVERS)
        .unwrap_or_else(|| panic!("{SERVERS} is not set: run this by `cargo xtask test`"));
    let state = fs::read(Path::new(&servers).with_file_name("state.json")).unwrap();
    let state: Value = serde_json::from_slice(&state).unwrap();
    // Held together, so that they differ.
    let ports = ["gateway", "consul"].map(|name| (name, TcpListener::bind("127.0.0.1:0").unwrap()));
    let ports = ports.map(|(name, port)| format!("--port={name}={}", port.local_addr().unwrap().port()));
    let mysql = (state["mysql"]["engine"] == "mysql").then(|| "--mysql".to_owned());
    ports.into_iter().chain(mysql).collect()
}

#[test]
fn up_keeps_its_servers_alive_and_leaves_none_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = Folder(temporary.path().join("run"));
    let arguments = arguments();

    // A supervisor that dies leaves what the next one ends.
    let mut first = Up::start(&folder, "first", &arguments);
    let left = folder.recorded();
    assert!(left.len() >= 9 && left.iter().all(alive), "{left:?}");
    first.end(Signal::SIGKILL);
    let status = folder.xtask(&["status", "--json"]);
    assert!(!status.status.success());
    assert_eq!(serde_json::from_slice::<Value>(&status.stdout).unwrap()["phase"], "stopped");
    let mut second = Up::start(&folder, "second", &arguments);
    assert!(!left.iter().any(alive), "{left:?}");

    let status = folder.status();
    assert_eq!((&status["gateway"], &status["services"]), (&Value::Null, &serde_json::json!([])));
    for server in status["servers"].as_array().unwrap() {
        let pid = server["pid"].as_i64().unwrap();
        assert!(server["ready"] == true && stat(pid).is_some(), "{server}");
        assert!(server["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{server}");
        assert!(Path::new(server["log"].as_str().unwrap()).is_file(), "{server}");
    }

    // What dies comes back, and it is said.
    let killed = folder.server("consul")["pid"].clone();
    assert_eq!(folder.succeeds(&["kill", "consul"]), format!("consul (pid {killed}) killed by request\n"));
    second.until("the end of consul", Duration::from_secs(10), |said| {
        said.contains(&format!("consul (pid {killed}) was ended by SIGKILL; starting it again in 0.5 s"))
    });
    second.until("consul's return", Duration::from_secs(20), |said| said.contains("consul is back as pid "));
    let back = folder.server("consul");
    assert_eq!((&back["ready"], &back["restarts"]), (&Value::Bool(true), &1.into()));
    assert_ne!(back["pid"], killed);

    let said = folder.succeeds(&["restart", "consul"]);
    let restarted = folder.server("consul");
    assert_eq!(said, format!("consul restarted as pid {}\n", restarted["pid"]));
    assert_eq!((&restarted["ready"], &restarted["restarts"]), (&Value::Bool(true), &1.into()));
    assert_ne!(restarted["pid"], back["pid"]);

    // Ctrl-C.
    let running = folder.recorded();
    assert!(running.len() >= 9 && running.iter().all(alive), "{running:?}");
    let (status, took) = second.end(Signal::SIGINT);
    assert!(status.success(), "{status}: {}", second.said());
    assert!(took < Duration::from_secs(10), "{took:?}: {}", second.said());
    assert!(!second.said().contains("did not end in time"), "{}", second.said());
    assert!(!running.iter().any(alive), "{running:?}");
    assert_eq!(folder.recorded(), []);

    folder.succeeds(&["reset"]);
    assert!(!folder.0.exists());
}
