//! Hands on what is published. Invariant: every channel that somebody has asked for is subscribed on the connection.

use std::collections::HashSet;
use std::convert::Infallible;
use std::io;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Msg, PushInfo, PushKind, RedisResult};
use bytes::Bytes;

use super::Shared;
use super::link::Link;

pub(super) struct Relay<'a> {
    shared: &'a Shared,
    link: Link,
    known: HashSet<String>,
}

impl<'a> Relay<'a> {
    pub(super) fn new(shared: &'a Shared, link: Link) -> Self {
        Self { shared, link, known: HashSet::new() }
    }

    pub(super) fn connection(&self) -> MultiplexedConnection {
        self.link.conn.clone()
    }

    /// Subscribes what was asked for since the last time.
    pub(super) async fn subscribe(&mut self) -> RedisResult<()> {
        let wanted: Vec<String> = self.shared.channels.lock().keys().cloned().collect();
        for channel in wanted {
            if !self.known.contains(&channel) {
                self.link.conn.subscribe(&channel).await?;
                self.known.insert(channel);
            }
        }
        Ok(())
    }

    /// Runs until the connection ends.
    pub(super) async fn run(&mut self) -> RedisResult<Infallible> {
        loop {
            tokio::select! {
                push = self.link.pushes.recv() => match push {
                    Some(push) if push.kind != PushKind::Disconnection => self.hand_on(push),
                    _ => return Err(io::Error::from(io::ErrorKind::ConnectionReset).into()),
                },
                () = self.shared.subscribed.notified() => self.subscribe().await?,
            }
        }
    }

    fn hand_on(&self, push: PushInfo) {
        let Some(message) = Msg::from_push_info(push) else { return };
        let sender = self.shared.channels.lock().get(message.get_channel_name()).cloned();
        if let Some(sender) = sender {
            // Nobody listening any more is no error.
            let _ = sender.send(Bytes::copy_from_slice(message.get_payload_bytes()));
        }
    }
}
