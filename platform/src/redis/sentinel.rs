//! Listens to one Sentinel, for as long as it is polled. Invariant: what is remembered of it is what it said within the
//! last two seconds, or nothing.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{ErrorKind, Msg, PushInfo, PushKind, RedisError, RedisResult};
use tokio::sync::mpsc;

use super::Shared;
use super::candidates::{Candidate, Word};
use super::link::{Link, Peer};
use super::problem::problem;
use crate::clock::jittered;

/// How often it is asked without an occasion: it may be told of a new master by an operator, which is no switch, and a
/// connection may have died in silence.
const INTERVAL: Duration = Duration::from_secs(1);
/// A Sentinel that is away is one of several.
const PAUSE: Duration = Duration::from_secs(1);
const CHANNEL: &str = "+switch-master";

/// Keeps the word of the Sentinel of this place in the settings.
pub(super) async fn listen(shared: &Shared, index: usize) {
    let sentinel = &shared.settings.sentinels[index];
    let mut told = String::new();
    loop {
        let Err(error) = follow(shared, index, sentinel).await;
        shared.hear(index, Word::Nothing);
        let problem = problem(Peer::Sentinel, sentinel, &error, &shared.settings.tls);
        if told == problem {
            tracing::debug!(%problem, "a Sentinel is of no use still");
        } else {
            tracing::warn!(%problem, "a Sentinel is of no use; the others are listened to");
            told = problem;
        }
        tokio::time::sleep(jittered(PAUSE)).await;
    }
}

async fn follow(shared: &Shared, index: usize, sentinel: &str) -> RedisResult<Infallible> {
    let master = &shared.settings.master;
    let mut link = Link::open(shared, Peer::Sentinel, sentinel).await?;
    link.conn.subscribe(CHANNEL).await?;
    loop {
        shared.hear(index, Word::Names(ask(&mut link.conn, master).await?));
        if let Ok(switch) =
            tokio::time::timeout(jittered(INTERVAL), switch_of(&mut link.pushes, master)).await
        {
            tracing::info!(sentinel, switch = switch?, "the Sentinels have switched the master");
        }
    }
}

async fn ask(connection: &mut MultiplexedConnection, master: &str) -> RedisResult<Candidate> {
    let described: RedisResult<HashMap<String, String>> =
        ::redis::cmd("SENTINEL").arg("MASTER").arg(master).query_async(connection).await;
    let described = described.map_err(|error| match error.detail() {
        Some(detail) if detail.contains("No such master") => unknown(),
        _ => error,
    })?;
    let failover = described.get("config-epoch").and_then(|epoch| epoch.parse().ok());
    let failover = failover
        .ok_or_else(|| RedisError::from((ErrorKind::UnexpectedReturnType, "it names no config-epoch")))?;
    // In the middle of a failover this names the new master already, and the description not yet.
    let address: Option<(String, u16)> =
        ::redis::cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(master).query_async(connection).await?;
    let (host, port) = address.ok_or_else(unknown)?;
    let address = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    Ok(Candidate::new(address, failover))
}

fn unknown() -> RedisError {
    RedisError::from((ErrorKind::MasterNameNotFoundBySentinel, "no such master"))
}

/// Waits for the news that our master was switched.
async fn switch_of(pushes: &mut mpsc::UnboundedReceiver<PushInfo>, master: &str) -> RedisResult<String> {
    while let Some(push) = pushes.recv().await {
        if push.kind == PushKind::Disconnection {
            break;
        }
        // "<master name> <old ip> <old port> <new ip> <new port>"
        let Some(message) = Msg::from_push_info(push) else { continue };
        let switch: String = message.get_payload()?;
        if switch.split(' ').next() == Some(master) {
            return Ok(switch);
        }
    }
    Err(RedisError::from(std::io::Error::from(std::io::ErrorKind::ConnectionReset)))
}
