//! Things that break, by recorded pid, and waiting until the stack is whole again.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::audit::redis_master;
use crate::client::Client;
use crate::stack::Stack;

/// A restart with back-off, a consumer group's rebalance and a start on a busy machine fit into this.
const PATIENCE: Duration = Duration::from_secs(90);

/// `kill -9`.
///
/// # Panics
/// When there is no such process.
pub fn kill_9(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap_or_else(|error| panic!("kill -9 {pid}: {error}"));
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

/// Waits until every service of `before` is ready again, with as many instances.
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
            if !ready(&client, service.admin_url.as_deref()).await {
                missing.push(service.instance.clone());
            }
        }
        let alive = |pid: i32| kill(Pid::from_raw(pid), None).is_ok();
        missing.extend(stack.servers.iter().filter(|server| !alive(server.pid)).map(|s| s.name.clone()));
        if missing.is_empty() && stack.services.len() >= before.services.len() {
            return stack;
        }
        assert!(begin.elapsed() < PATIENCE, "after {PATIENCE:?} these are still not ready: {missing:?}");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

async fn ready(client: &Client, admin_url: Option<&str>) -> bool {
    let Some(url) = admin_url else { return true };
    let request = client.request(reqwest::Method::GET, &format!("{url}/actuator/health/readiness"));
    client.try_send(request).await.is_ok_and(|answer| answer.status == 200)
}
