//! Listens to one Sentinel for `+switch-master`, for as long as it is polled. Its silence is no news.

use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::mpsc;

use super::lookup::{CONNECT_TIMEOUT, client, late};
use crate::clock::jittered;
use crate::config::RedisSettings;

/// A Sentinel that is away is one of several.
const PAUSE: Duration = Duration::from_secs(1);
const CHANNEL: &str = "+switch-master";

/// Sends on every switch of our master.
pub(super) async fn listen(settings: &RedisSettings, sentinel: &str, switched: mpsc::Sender<()>) {
    loop {
        if let Err(error) = follow(settings, sentinel, &switched).await {
            tracing::debug!(sentinel, %error, "can't listen to a Sentinel");
        }
        tokio::time::sleep(jittered(PAUSE)).await;
    }
}

async fn follow(
    settings: &RedisSettings,
    sentinel: &str,
    switched: &mpsc::Sender<()>,
) -> Result<(), ::redis::RedisError> {
    let client = client(sentinel, "", &settings.sentinel_password)?;
    let subscribed = async {
        let mut subscription = client.get_async_pubsub().await?;
        subscription.subscribe(CHANNEL).await?;
        Ok(subscription)
    };
    let mut subscription =
        tokio::time::timeout(CONNECT_TIMEOUT * 2, subscribed).await.unwrap_or_else(|_| Err(late()))?;
    let mut messages = subscription.on_message();
    while let Some(message) = messages.next().await {
        // "<master name> <old ip> <old port> <new ip> <new port>"
        let payload: String = message.get_payload()?;
        if payload.split(' ').next() == Some(settings.master.as_str()) {
            tracing::info!(sentinel, switch = payload, "the Sentinels have switched the master");
            // One is enough: a full channel already has the news in it.
            let _ = switched.try_send(());
        }
    }
    Ok(())
}
