//! Waiting until everything that runs is ready again, each server by its own word.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::http::Client;
use crate::ports::listens;
use crate::secrets;
use crate::servers::redis;
use crate::servers::resp::Connection;
use crate::stack::Stack;

/// A broker's and a database's start with back-off, a failover, and Consul's checks of those who registered again fit
/// into this on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// What is still missing when the patience ends; an error only if interrupted.
pub(crate) fn wait(stack: &Stack, patience: Duration) -> Result<Result<(), String>> {
    let begun = Instant::now();
    loop {
        let missing = missing(stack);
        if missing.is_empty() {
            return Ok(Ok(()));
        }
        if begun.elapsed() > patience {
            return Ok(Err(missing.join("; ")));
        }
        let again = Instant::now() + Duration::from_millis(100);
        stack.interrupt.wait_until(|| (Instant::now() >= again).then_some(()))?;
    }
}

fn missing(stack: &Stack) -> Vec<String> {
    let mut missing = Vec::new();
    for child in stack.supervisor.children() {
        let status = child.status();
        let why = match status.pid {
            Some(pid) if status.ready => (child.spec.ready)(pid).err().map(|error| format!("{error:#}")),
            Some(_) => Some("starting".to_owned()),
            None => Some("down".to_owned()),
        };
        missing.extend(why.map(|why| format!("{}: {why}", child.spec.name)));
    }
    missing.extend(redis_cluster(stack).err().map(|error| format!("redis: {error:#}")));
    missing.extend(gateway(stack).err().map(|error| format!("gateway: {error:#}")));
    missing
}

/// All Sentinels see one master, and it sees both replicas.
fn redis_cluster(stack: &Stack) -> Result<()> {
    let mut named = Vec::new();
    for sentinel in redis::SENTINELS {
        let told = Connection::open(listens(&stack.ports, sentinel), None)?.ask(&[
            "SENTINEL",
            "MASTER",
            redis::MASTER,
        ])?;
        let field = |name| told.field(name).unwrap_or_default().to_owned();
        if field("flags") != "master" {
            bail!("{sentinel} says of the master: {}", field("flags"));
        }
        named.push(field("port"));
    }
    named.dedup();
    let [port] = named.as_slice() else { bail!("the Sentinels name several masters") };
    let master = redis::NODES.into_iter().find(|node| stack.ports[*node].to_string() == *port);
    let Some(master) = master else { bail!("no node has the master's port {port}") };
    let password = secrets::read(&stack.folder, secrets::REDIS)?;
    let info =
        Connection::open(listens(&stack.ports, master), Some(&password))?.ask(&["INFO", "replication"])?;
    let replicas = info.text().matches("state=online").count();
    if !info.text().contains("role:master") || replicas != redis::NODES.len() - 1 {
        bail!("{master} has {replicas} replicas in step");
    }
    Ok(())
}

/// It reaches the coupon service.
fn gateway(stack: &Stack) -> Result<()> {
    let state = stack.state();
    let url = state.gateway.unwrap_or_default();
    Client::new(Duration::from_secs(2))
        .get(&format!("{url}/coupons?limit=1"))?
        .expect(200, "list coupons")?;
    Ok(())
}
