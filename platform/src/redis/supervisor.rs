//! The loop that keeps one good connection: look, verify, load, hand out, watch, and again.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Client, RedisResult};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use tokio::sync::mpsc;

use super::lookup::{CONNECT_TIMEOUT, find_master, late, verify_role};
use super::{Connection, Shared, sentinel};
use crate::clock::jittered;

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// A connection that held for so long was a good one, and its end is a new story.
const GOOD: Duration = Duration::from_secs(5);
/// A black-holed link or a silent demotion shows up within this and the response timeout.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

pub(super) async fn run(shared: &Arc<Shared>) {
    let (switched, mut switches) = mpsc::channel(1);
    let sentinels: &[String] =
        if shared.settings.address.is_empty() { &shared.settings.sentinels } else { &[] };
    let listeners = join_all(
        sentinels.iter().map(|address| sentinel::listen(&shared.settings, address, switched.clone())),
    );
    tokio::select! {
        _ = listeners, if !sentinels.is_empty() => {}
        () = supervise(shared, &mut switches) => {}
    }
}

async fn supervise(shared: &Shared, switches: &mut mpsc::Receiver<()>) {
    let mut pause = FIRST_PAUSE;
    let mut told = false;
    loop {
        // What was switched until now is found by looking.
        while switches.try_recv().is_ok() {}
        match connect(shared).await {
            Ok((address, client, connection)) => {
                let epoch = *shared.epoch.borrow() + 1;
                tracing::info!(address, epoch, "connected to the Redis master");
                told = false;
                let held = tokio::time::Instant::now();
                shared.current.store(Some(Arc::new(Connection { conn: connection.clone(), epoch })));
                shared.epoch.send_replace(epoch);
                let reason = watch(shared, &client, connection, epoch, switches).await;
                shared.current.store(None);
                tracing::warn!(address, epoch, reason, "looking for the Redis master again");
                if held.elapsed() > GOOD {
                    pause = FIRST_PAUSE;
                }
            }
            Err(error) if !told => {
                tracing::warn!(%error, "no Redis master; looking on");
                told = true;
            }
            Err(error) => tracing::debug!(%error, "no Redis master yet"),
        }
        tokio::time::sleep(jittered(pause)).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

async fn connect(shared: &Shared) -> RedisResult<(String, Client, MultiplexedConnection)> {
    let (address, client, mut connection) = find_master(&shared.settings).await?;
    for script in &shared.scripts {
        ::redis::cmd("SCRIPT").arg("LOAD").arg(script).exec_async(&mut connection).await?;
    }
    Ok((address, client, connection))
}

/// Returns why the connection is no longer to be trusted.
async fn watch(
    shared: &Shared,
    client: &Client,
    mut connection: MultiplexedConnection,
    epoch: u64,
    switches: &mut mpsc::Receiver<()>,
) -> &'static str {
    let mut suspected = shared.suspected.subscribe();
    let checks = async {
        loop {
            tokio::time::sleep(CHECK_INTERVAL).await;
            if verify_role(&mut connection).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        _ = suspected.wait_for(|suspected| *suspected >= epoch) => "an error was reported",
        Some(()) = switches.recv() => "the Sentinels have switched",
        () = checks => "it did not say that it is the master",
        _ = relay(shared, client) => "its subscription has ended",
    }
}

/// Hands on what is published, on a connection of its own, while there is anybody to hear it.
async fn relay(shared: &Shared, client: &Client) -> RedisResult<()> {
    let mut subscription = None;
    let mut known = HashSet::new();
    loop {
        let wanted: Vec<String> = shared.channels.lock().keys().cloned().collect();
        let new: Vec<String> = wanted.into_iter().filter(|channel| !known.contains(channel)).collect();
        if new.is_empty() && subscription.is_none() {
            shared.subscribed.notified().await;
            continue;
        }
        if subscription.is_none() {
            let opened = tokio::time::timeout(CONNECT_TIMEOUT * 2, client.get_async_pubsub()).await;
            subscription = Some(opened.unwrap_or_else(|_| Err(late()))?.split());
        }
        let Some((sink, messages)) = &mut subscription else { continue };
        for channel in new {
            let subscribed = tokio::time::timeout(CONNECT_TIMEOUT * 2, sink.subscribe(&channel)).await;
            subscribed.unwrap_or_else(|_| Err(late()))?;
            known.insert(channel);
        }
        tokio::select! {
            message = messages.next() => match message {
                Some(message) => {
                    let sender = shared.channels.lock().get(message.get_channel_name()).cloned();
                    if let Some(sender) = sender {
                        // Nobody listening any more is no error.
                        let _ = sender.send(Bytes::copy_from_slice(message.get_payload_bytes()));
                    }
                }
                None => return Err(late()),
            },
            () = shared.subscribed.notified() => {}
        }
    }
}
