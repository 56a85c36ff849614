//! Finds the master among those who may be it. Invariant: a look ends within its bound, and whoever is dead, hangs or
//! is named by mistake only costs the others a short lead.

use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{ErrorKind, RedisError, RedisResult, Script, ServerErrorKind, Value};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;

use super::Shared;
use super::candidates::{Candidate, Word};
use super::link::{Link, Peer};
use super::problem::problem;
use super::relay::Relay;

/// A lower rank begins so much later than the one before it: who is of an older failover may believe to be the master.
const LEAD: Duration = Duration::from_millis(200);
/// More than one attempt can take; what came up meanwhile is tried in the next look.
const LOOK_TIMEOUT: Duration = Duration::from_secs(3);

/// A master with every script loaded and every channel subscribed.
pub(super) struct Found<'a> {
    pub(super) candidate: Candidate,
    pub(super) relay: Relay<'a>,
}

/// Tries the candidates at once, and those that come up meanwhile; the first that is a master is it. The error says
/// what is wrong with each.
pub(super) async fn look<'a>(
    shared: &'a Shared,
    words: &mut watch::Receiver<Vec<Word>>,
    candidates: impl Fn(&[Word]) -> Vec<Candidate>,
) -> Result<Found<'a>, String> {
    let mut problems = Vec::new();
    let find = async {
        let (mut named, mut tries) = (Vec::new(), FuturesUnordered::new());
        loop {
            let all_heard = {
                let words = words.borrow_and_update();
                for (rank, candidate) in (0..).zip(candidates(&words)) {
                    if !named.contains(&candidate.address) {
                        named.push(candidate.address.clone());
                        tries.push(attempt(shared, candidate, LEAD * rank));
                    }
                }
                words.iter().all(|word| *word != Word::NotYet)
            };
            tokio::select! {
                Some(result) = tries.next() => match result {
                    Ok(found) => return Some(found),
                    Err(problem) => problems.push(problem),
                },
                Ok(()) = words.changed(), if !tries.is_empty() || !all_heard => {}
                else => return None,
            }
        }
    };
    match tokio::time::timeout(LOOK_TIMEOUT, find).await {
        Ok(Some(found)) => Ok(found),
        _ if problems.is_empty() => Err("no Sentinel names one that answers".to_owned()),
        _ => {
            problems.sort();
            Err(problems.join("; "))
        }
    }
}

async fn attempt(shared: &Shared, candidate: Candidate, lead: Duration) -> Result<Found<'_>, String> {
    tokio::time::sleep(lead).await;
    let opened = async {
        let mut link = Link::open(shared, Peer::Redis, &candidate.address).await?;
        verify_role(&mut link.conn).await?;
        load(&mut link.conn, &shared.scripts).await?;
        // Before anybody has it: who hears of the new connection and asks anew must not miss what is published after.
        let mut relay = Relay::new(shared, link);
        relay.subscribe().await?;
        Ok(relay)
    };
    match opened.await {
        Ok(relay) => Ok(Found { candidate, relay }),
        Err(error) => Err(problem(Peer::Redis, &candidate.address, &error, &shared.settings.tls)),
    }
}

/// What is asked of the master again and again: its role, and whether it still knows the scripts, which it forgets at a
/// `SCRIPT FLUSH`.
pub(super) async fn verify(
    connection: &mut MultiplexedConnection,
    scripts: &[&'static str],
) -> RedisResult<()> {
    verify_role(connection).await?;
    if scripts.is_empty() {
        return Ok(());
    }
    let mut exists = ::redis::cmd("SCRIPT");
    exists.arg("EXISTS");
    for script in scripts {
        exists.arg(Script::new(script).get_hash());
    }
    let known: Vec<bool> = exists.query_async(connection).await?;
    if known.contains(&false) {
        load(connection, scripts).await?;
        tracing::info!("the Redis master had forgotten the scripts; they are loaded again");
    }
    Ok(())
}

/// A Sentinel's word may be old: only what says of itself that it is a master is one.
async fn verify_role(connection: &mut MultiplexedConnection) -> RedisResult<()> {
    let role: Vec<Value> = ::redis::cmd("ROLE").query_async(connection).await?;
    match role.first() {
        Some(Value::BulkString(name)) if name == b"master" => Ok(()),
        _ => Err(RedisError::from((ErrorKind::Server(ServerErrorKind::ReadOnly), "it is a replica"))),
    }
}

async fn load(connection: &mut MultiplexedConnection, scripts: &[&'static str]) -> RedisResult<()> {
    for script in scripts {
        ::redis::cmd("SCRIPT").arg("LOAD").arg(script).exec_async(connection).await?;
    }
    Ok(())
}
