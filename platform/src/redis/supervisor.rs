//! The loop that keeps one good connection: look, hand out, watch, and again.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use ::redis::RedisResult;
use ::redis::aio::MultiplexedConnection;
use futures_util::future::join_all;
use tokio::sync::watch;

use super::candidates::{Candidate, Word, candidates};
use super::link::Peer;
use super::lookup::{Found, look, verify};
use super::problem::problem;
use super::{Connection, Shared, sentinel};
use crate::clock::jittered;

/// The Sentinels' time to speak before the first look, so that the quickest of them does not decide alone.
const FIRST_WORDS: Duration = Duration::from_millis(250);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// A connection that held for so long was a good one, and its end is a new story.
const GOOD: Duration = Duration::from_secs(5);
/// A black-holed link or a silent demotion shows up within this and the response timeout.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

pub(super) async fn run(shared: &Shared) {
    let sentinels = shared.sentinels().len();
    let listeners = join_all((0..sentinels).map(|index| sentinel::listen(shared, index)));
    tokio::join!(listeners, supervise(shared));
}

async fn supervise(shared: &Shared) {
    let mut words = shared.words.subscribe();
    let all_heard = words.wait_for(|words| words.iter().all(|word| *word != Word::NotYet));
    let _ = tokio::time::timeout(FIRST_WORDS, all_heard).await;
    let (mut pause, mut told, mut next) = (FIRST_PAUSE, String::new(), None);
    loop {
        let found = match next.take() {
            Some(found) => Ok(found),
            None => look(shared, &mut words, candidates).await,
        };
        match found {
            Ok(found) => {
                told.clear();
                let held = tokio::time::Instant::now();
                next = hold(shared, &mut words, found).await;
                if held.elapsed() > GOOD {
                    pause = FIRST_PAUSE;
                }
            }
            Err(problem) if problem == told => tracing::debug!(%problem, "no Redis master still"),
            Err(problem) => {
                tracing::warn!(%problem, "no Redis master; looking on");
                told = problem;
            }
        }
        if next.is_none() {
            // News from a Sentinel are worth a look at once.
            let _ = tokio::time::timeout(jittered(pause), words.changed()).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }
}

/// Hands the connection out for as long as it is good. Returns a better one if that is why it ended.
async fn hold<'a>(
    shared: &'a Shared,
    words: &mut watch::Receiver<Vec<Word>>,
    found: Found<'a>,
) -> Option<Found<'a>> {
    let Found { candidate, mut relay } = found;
    let conn = relay.connection();
    let explain = |error| problem(Peer::Redis, &candidate.address, &error, &shared.settings.tls);
    let epoch = *shared.epoch.borrow() + 1;
    tracing::info!(address = candidate.address, epoch, "connected to the Redis master");
    shared.current.store(Some(Arc::new(Connection { conn: conn.clone(), epoch })));
    shared.epoch.send_replace(epoch);
    let mut suspected = shared.suspected.subscribe();
    let (reason, next) = tokio::select! {
        _ = suspected.wait_for(|suspected| *suspected >= epoch) => ("an error was reported".to_owned(), None),
        Err(error) = relay.run() => (explain(error), None),
        Err(error) = check(conn, &shared.scripts) => (explain(error), None),
        better = find_better(shared, words, &candidate) => ("there is a newer one".to_owned(), Some(better)),
    };
    shared.current.store(None);
    tracing::warn!(address = candidate.address, epoch, reason, "looking for the Redis master again");
    next
}

/// Asks the master again and again whether it is one.
async fn check(mut connection: MultiplexedConnection, scripts: &[&'static str]) -> RedisResult<Infallible> {
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
        verify(&mut connection, scripts).await?;
    }
}

/// Returns a master that ranks before ours, once the Sentinels name one and it says that it is.
async fn find_better<'a>(
    shared: &'a Shared,
    words: &mut watch::Receiver<Vec<Word>>,
    ours: &Candidate,
) -> Found<'a> {
    loop {
        if let Ok(better) = look(shared, words, |words| ours.betters(words)).await {
            return better;
        }
        let _ = tokio::time::timeout(jittered(CHECK_INTERVAL), words.changed()).await;
    }
}
