//! Redis, supervised: through several Sentinels, or standalone.
//!
//! Invariant: who asks gets a connection to what says of itself that it is the master, with every script loaded, or
//! none; it is never waited for. On READONLY, LOADING, a timeout or an I/O error the master is looked for again; when
//! the Sentinels name a newer one, that one is taken as soon as it says that it is the master.
//!
//! What may be silent is asked each second and has one second to answer: the master ([`supervisor`]) and each Sentinel
//! ([`sentinel`]), so that a dead link is noticed within about two. A look at all who may be the master takes at most
//! three ([`lookup`]), whatever some of them do.

mod candidates;
mod link;
mod lookup;
mod problem;
mod relay;
mod sentinel;
mod supervisor;
mod tls;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{ConnectionAddr, ErrorKind, RedisError, RedisResult, ServerErrorKind};
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast, watch};

use self::candidates::{Candidate, Word};
use crate::config::RedisSettings;
use crate::lifecycle::Lifecycle;

/// Messages that a slow subscriber may lag behind before it misses some (and is told so).
const CHANNEL_CAPACITY: usize = 1024;

/// Cheap to clone; clones share the one connection.
#[derive(Clone)]
pub struct Redis(Arc<Shared>);

/// The current master's connection.
#[derive(Clone)]
pub struct Connection {
    pub conn: MultiplexedConnection,
    /// Counts connections: name it in [`Redis::report`], so that old news harms no new connection.
    pub epoch: u64,
}

struct Shared {
    settings: RedisSettings,
    scripts: Vec<&'static str>,
    /// None without TLS.
    tls: RedisResult<Option<ConnectionAddr>>,
    /// One for each Sentinel; of a standalone server, our own.
    words: watch::Sender<Vec<Word>>,
    current: ArcSwapOption<Connection>,
    epoch: watch::Sender<u64>,
    /// The epoch that was complained of.
    suspected: watch::Sender<u64>,
    channels: Mutex<HashMap<String, broadcast::Sender<Bytes>>>,
    /// A channel was added.
    subscribed: Notify,
}

impl Redis {
    /// Never fails and never waits: looks for the master in the background, for as long as the process lives. Each
    /// script is `SCRIPT LOAD`ed on every new connection before anybody gets it.
    #[must_use]
    pub fn connect(settings: RedisSettings, lifecycle: &Lifecycle, scripts: &[&'static str]) -> Self {
        let words = if settings.address.is_empty() {
            vec![Word::NotYet; settings.sentinels.len()]
        } else {
            vec![Word::Names(Candidate::new(settings.address.clone(), 0))]
        };
        let tls = settings.tls.enabled.then(|| tls::prepare(&settings.tls)).transpose();
        let shared = Arc::new(Shared {
            settings,
            tls,
            words: watch::channel(words).0,
            scripts: scripts.to_vec(),
            current: ArcSwapOption::empty(),
            epoch: watch::channel(0).0,
            suspected: watch::channel(0).0,
            channels: Mutex::default(),
            subscribed: Notify::new(),
        });
        let stop = lifecycle.background_stop();
        let supervised = shared.clone();
        lifecycle.spawn("redis", async move {
            tokio::select! {
                () = supervisor::run(&supervised) => {}
                () = stop.cancelled() => {}
            }
            supervised.current.store(None);
            Ok(())
        });
        Self(shared)
    }

    /// The current master; None while it is being looked for.
    #[must_use]
    pub fn connection(&self) -> Option<Connection> {
        self.0.current.load().as_deref().cloned()
    }

    /// Tells of an error on a connection. What speaks against the connection or its master makes the supervisor look
    /// again; anything else is the command's own trouble.
    pub fn report(&self, epoch: u64, error: &RedisError) {
        if speaks_against_master(error) {
            self.0.suspected.send_if_modified(|suspected| {
                let news = epoch > *suspected;
                *suspected = epoch.max(*suspected);
                news
            });
        }
    }

    /// One call to the current master, and a wait for it of `patience` at most; `None` without a master, and after the
    /// supervisor was told what went wrong.
    pub async fn attempt<T>(
        &self,
        what: &'static str,
        patience: Duration,
        call: impl AsyncFnOnce(&mut MultiplexedConnection) -> RedisResult<T>,
    ) -> Option<T> {
        let Some(mut connection) = self.connection() else {
            tracing::debug!(what, "no Redis master at the moment");
            return None;
        };
        let result = match tokio::time::timeout(patience, call(&mut connection.conn)).await {
            Ok(result) => result,
            Err(_) => Err(RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut))),
        };
        result
            .inspect_err(|error| {
                tracing::warn!(what, error = %error, "Redis call failed");
                self.report(connection.epoch, error);
            })
            .ok()
    }

    /// Changes on each new connection to a master; 0 before the first.
    #[must_use]
    pub fn watch_epoch(&self) -> watch::Receiver<u64> {
        self.0.epoch.subscribe()
    }

    /// Messages of a channel, subscribed again on every new master. What was published while none was connected is lost:
    /// watch the epoch and ask anew.
    #[must_use]
    pub fn subscribe(&self, channel: &str) -> broadcast::Receiver<Bytes> {
        let mut channels = self.0.channels.lock();
        if let Some(sender) = channels.get(channel) {
            return sender.subscribe();
        }
        let (sender, receiver) = broadcast::channel(CHANNEL_CAPACITY);
        channels.insert(channel.to_owned(), sender);
        drop(channels);
        self.0.subscribed.notify_one();
        receiver
    }
}

impl Shared {
    /// Those to listen to; none if there is a standalone server.
    fn sentinels(&self) -> &[String] {
        if self.settings.address.is_empty() { &self.settings.sentinels } else { &[] }
    }

    /// Remembers what the Sentinel of this place in the settings says now.
    fn hear(&self, index: usize, word: Word) {
        self.words.send_if_modified(|words| {
            let news = words[index] != word;
            words[index] = word;
            news
        });
    }
}

fn speaks_against_master(error: &RedisError) -> bool {
    if error.is_timeout()
        || error.is_io_error()
        || error.is_connection_dropped()
        || error.is_unrecoverable_error()
    {
        return true;
    }
    match error.kind() {
        ErrorKind::Server(kind) => matches!(
            kind,
            ServerErrorKind::ReadOnly | ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown
        ),
        ErrorKind::AuthenticationFailed => true,
        // A script's own READONLY comes as a plain response error.
        _ => error
            .code()
            .is_some_and(|code| ["READONLY", "LOADING", "MASTERDOWN", "UNBLOCKED"].contains(&code)),
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis")
            .field("settings", &self.0.settings)
            .field("epoch", &*self.0.epoch.borrow())
            .field("connected", &self.0.current.load().is_some())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_speaks_against_the_master_makes_it_suspected() {
        let io = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert!(speaks_against_master(&RedisError::from(io)));
        let late = std::io::Error::from(std::io::ErrorKind::TimedOut);
        assert!(speaks_against_master(&RedisError::from(late)));
        let of = |kind| RedisError::from((ErrorKind::Server(kind), "x"));
        assert!(speaks_against_master(&of(ServerErrorKind::ReadOnly)));
        assert!(speaks_against_master(&of(ServerErrorKind::BusyLoading)));
        assert!(!speaks_against_master(&of(ServerErrorKind::NoScript)));
        assert!(!speaks_against_master(&of(ServerErrorKind::ResponseError)));
        assert!(!speaks_against_master(&RedisError::from((ErrorKind::UnexpectedReturnType, "x"))));
    }
}
