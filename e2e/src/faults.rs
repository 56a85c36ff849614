//! Things that break, by recorded pid, and waiting until the stack is whole again.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Method;
use serde_json::Value;

use crate::audit::redis_master;
use crate::client::Client;
use crate::stack::{Service, Stack};

/// A restart with back-off and a start on a busy machine fit into this; Consul's minute for dropping a dead instance
/// does not.
const PATIENCE: Duration = Duration::from_secs(45);

/// `kill -9`.
///
/// # Panics
/// When there is no such process.
pub fn kill_9(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap_or_else(|error| panic!("kill -9 {pid}: {error}"));
}

/// Waits until nothing is left of a process that was killed, its connections included.
///
/// # Panics
/// When that takes too long.
pub async fn wait_until_gone(pid: i32) {
    let begin = Instant::now();
    while kill(Pid::from_raw(pid), None).is_ok() {
        assert!(begin.elapsed() < PATIENCE, "{pid} still lives");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// An orderly end, as a deployment would ask for.
///
/// # Panics
/// When there is no such process.
pub fn terminate(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap_or_else(|error| panic!("kill {pid}: {error}"));
}

/// The pid of the Redis server that is the master now.
///
/// # Panics
/// When the state does not know it.
pub async fn redis_master_pid(stack: &Stack) -> i32 {
    let master = redis_master(stack).await;
    stack
        .servers
        .iter()
        .find(|server| server.address == master)
        .unwrap_or_else(|| panic!("no server of the state is at {master}"))
        .pid
}

/// Stops a process where it stands: what it was sent piles up.
///
/// # Panics
/// When there is no such process.
pub fn freeze(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap_or_else(|error| panic!("kill -STOP {pid}: {error}"));
}

/// Waits until a service that was told to end runs again, in another process.
///
/// # Panics
/// When that takes too long.
pub async fn wait_until_restarted(before: &Stack, service: &str) -> Stack {
    let begin = Instant::now();
    while Stack::load().one(service).pid == before.one(service).pid {
        assert!(begin.elapsed() < PATIENCE, "{service} was not restarted within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    wait_until_whole(before).await
}

/// Waits until as many instances as `before` are ready and passing in Consul at their present address, and every
/// server lives.
///
/// # Panics
/// When that takes too long.
pub async fn wait_until_whole(before: &Stack) -> Stack {
    let begin = Instant::now();
    let client = Client::at("");
    loop {
        let stack = Stack::load();
        let mut missing = Vec::new();
        for service in &stack.services {
            if !service.ready || !ready(&client, service).await || !passing(&client, &stack, service).await {
                missing.push(service.instance.clone());
            }
        }
        let alive = |pid: i32| kill(Pid::from_raw(pid), None).is_ok();
        let dead = stack.servers.iter().filter(|server| !server.ready || !alive(server.pid));
        missing.extend(dead.map(|server| server.name.clone()));
        if missing.is_empty() && stack.services.len() >= before.services.len() {
            return stack;
        }
        assert!(begin.elapsed() < PATIENCE, "after {PATIENCE:?} these are still not back: {missing:?}");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

async fn ready(client: &Client, service: &Service) -> bool {
    let Some(url) = &service.admin_url else { return false };
    let request = client.request(Method::GET, &format!("{url}/actuator/health/readiness"));
    client.try_send(request).await.is_ok_and(|answer| answer.status == 200)
}

/// Whether Consul would send others to this instance, where it is now.
async fn passing(client: &Client, stack: &Stack, service: &Service) -> bool {
    let Some(port) = service.url.as_deref().and_then(|url| url.rsplit(':').next()?.parse::<u64>().ok())
    else {
        return true;
    };
    let url = format!("{}/v1/health/service/{}?passing=true", stack.consul(), service.name);
    let Ok(answer) = client.try_send(client.request(Method::GET, &url)).await else { return false };
    let entries = serde_json::from_str::<Value>(&answer.text).unwrap_or_default();
    entries.as_array().is_some_and(|all| all.iter().any(|entry| entry["Service"]["Port"] == port))
}
