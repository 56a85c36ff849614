//! Which partitions this consumer writes: what the consumer group gives it, and no more.
//!
//! The group only hands out partitions. Where to begin in them says the database; the group's own offsets are
//! not used, so the partitions are paused as soon as they are assigned and read by a follower of our own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use platform::health::{ComponentHandle, Health};
use platform::lifecycle::{BoxError, Lifecycle};
use platform::telemetry::ProcessSpan;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::topic_partition_list::TopicPartitionList;
use sqlx::MySqlPool;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_util::sync::CancellationToken;

use super::around::{Incoming, Servers, Stopped};
use super::dead_letter::DeadLetters;
use super::worker::Worker;
use crate::ledger::Entry;
use crate::ledger::follower::{Follower, Reader, Taken};
use crate::log::{self, topic};

const POLL: Duration = Duration::from_millis(100);

#[derive(Debug, Clone)]
pub struct Settings {
    pub group: String,
    /// Without a sign of life for this long, the group gives a consumer's partitions to others.
    pub session_timeout: Duration,
}

/// Where the follower puts records, by partition.
#[derive(Clone)]
pub(super) struct Inbox {
    senders: Arc<Mutex<HashMap<u32, mpsc::Sender<Incoming>>>>,
    group: Arc<str>,
}

impl Inbox {
    /// From now on records of the partition go here, and nowhere else.
    pub(super) fn open(&self, partition: u32, sender: mpsc::Sender<Incoming>) {
        self.senders.lock().insert(partition, sender);
    }

    fn sender(&self, partition: u32) -> Option<mpsc::Sender<Incoming>> {
        self.senders.lock().get(&partition).cloned()
    }
}

impl Reader for Inbox {
    fn read(&mut self, partition: u32, entry: Entry<'_>, message: &BorrowedMessage<'_>) -> Taken {
        let Some(sender) = self.sender(partition).filter(|sender| !sender.is_closed()) else {
            return Taken::Never;
        };
        // The last place is for the word that the partition is broken.
        if sender.capacity() < 2 {
            return Taken::Later;
        }
        let trace = message
            .headers()
            .and_then(|headers| headers.iter().find(|header| header.key == "traceparent"))
            .and_then(|header| std::str::from_utf8(header.value?).ok())
            .and_then(|traceparent| ProcessSpan::start(message.topic(), partition, entry.offset, traceparent))
            .inspect(|span| span.set("messaging.consumer.group.name", self.group.to_string()));
        let Entry { offset, appended_at, value } = entry;
        match sender.try_send(Incoming::Record { offset, appended_at, value: value.to_vec(), trace }) {
            Ok(()) => Taken::Yes,
            Err(TrySendError::Full(_)) => Taken::Later,
            Err(TrySendError::Closed(_)) => Taken::Never,
        }
    }

    /// Half of it, so that the worker has enough to do until records come again.
    fn has_room(&self, partition: u32) -> bool {
        self.sender(partition).is_none_or(|sender| sender.capacity() >= sender.max_capacity() / 2)
    }

    fn broken(&mut self, partition: u32, why: String) {
        if let Some(sender) = self.sender(partition) {
            // Fails only if nobody writes the partition any more.
            let _ = sender.try_send(Incoming::Broken(why));
        }
    }
}

/// A worker that panics stops the process.
async fn watched(worker: Worker<Servers>, lifecycle: Lifecycle) {
    let _watch = lifecycle.fail_on_panic("a partition's worker");
    worker.run().await;
}

/// A member of the consumer group.
pub struct Membership {
    consumer: Arc<BaseConsumer<Group>>,
    changes: mpsc::UnboundedReceiver<Change>,
    kafka: Arc<log::Settings>,
    pool: MySqlPool,
    dead_letters: DeadLetters,
    lifecycle: Lifecycle,
    /// Down when a partition is not written any further.
    health: ComponentHandle,
    group: Arc<str>,
}

impl std::fmt::Debug for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Membership").field("topic", &self.kafka.topic).finish_non_exhaustive()
    }
}

enum Change {
    Given(Vec<u32>),
    Taken(Vec<u32>),
}

struct Group {
    changes: mpsc::UnboundedSender<Change>,
}

impl ClientContext for Group {}

impl ConsumerContext for Group {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(list) = rebalance {
            let _ = self.changes.send(Change::Taken(numbers(list)));
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(list) = rebalance {
            if let Err(error) = consumer.pause(list) {
                tracing::warn!(%error, "partitions of the group could not be paused; what they fetch is thrown away");
            }
            let _ = self.changes.send(Change::Given(numbers(list)));
        }
    }
}

fn numbers(list: &TopicPartitionList) -> Vec<u32> {
    list.elements().iter().filter_map(|element| u32::try_from(element.partition()).ok()).collect()
}

impl Membership {
    pub fn join(
        settings: &Settings,
        kafka: Arc<log::Settings>,
        pool: MySqlPool,
        lifecycle: Lifecycle,
        health: &Health,
    ) -> Result<Self, BoxError> {
        let (sender, changes) = mpsc::unbounded_channel();
        let session = settings.session_timeout.as_millis();
        let consumer: BaseConsumer<Group> = kafka
            .client()
            .set("group.id", &settings.group)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", session.to_string())
            .set("heartbeat.interval.ms", (session / 4).to_string())
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("queued.min.messages", "1")
            .set("queued.max.messages.kbytes", "64")
            .create_with_context(Group { changes: sender })?;
        consumer.subscribe(&[&kafka.topic])?;
        let dead_letters = DeadLetters::connect(&kafka, &settings.group)?;
        Ok(Self {
            consumer: Arc::new(consumer),
            changes,
            kafka,
            pool,
            dead_letters,
            lifecycle,
            health: health.optional_component("sink"),
            group: settings.group.as_str().into(),
        })
    }

    /// Writes the partitions that the group gives, until the process stops.
    pub async fn run(mut self) -> Result<(), BoxError> {
        let stop = self.lifecycle.background_stop();
        let inbox = Inbox { senders: Arc::default(), group: self.group.clone() };
        let follower = Arc::new(Follower::start(&self.kafka, inbox.clone(), &self.lifecycle)?);
        let watch = topic::watch(&self.kafka.topic, &follower, self.pool.clone(), &self.lifecycle);
        self.lifecycle.spawn("topic", watch);
        let stopped = Stopped::none(self.health.clone());
        let around = Servers {
            pool: self.pool.clone(),
            partitions: self.kafka.partitions,
            follower,
            inbox,
            dead_letters: self.dead_letters.clone(),
            stopped: stopped.clone(),
        };
        let polling = self.poll_in_a_thread(stop.clone())?;
        let mut workers: HashMap<u32, (CancellationToken, tokio::task::JoinHandle<()>)> = HashMap::new();
        loop {
            let change = tokio::select! {
                () = stop.cancelled() => break,
                change = self.changes.recv() => change,
            };
            match change {
                None => break,
                Some(Change::Given(partitions)) => {
                    for partition in partitions {
                        stopped.remove(partition);
                        if partition >= self.kafka.partitions {
                            let configured = self.kafka.partitions;
                            stopped.add(
                                partition,
                                &format!("kafka.partitions says that there are {configured}"),
                            );
                            continue;
                        }
                        let token = stop.child_token();
                        let worker = Worker { partition, around: around.clone(), stop: token.clone() };
                        #[expect(clippy::disallowed_methods, reason = "kept and awaited here")]
                        let task = tokio::spawn(watched(worker, self.lifecycle.clone()));
                        workers.insert(partition, (token, task));
                    }
                }
                Some(Change::Taken(partitions)) => {
                    let taken: Vec<_> =
                        partitions.iter().filter_map(|partition| workers.remove(partition)).collect();
                    taken.iter().for_each(|(token, _)| token.cancel());
                    for (_, worker) in taken {
                        worker.await?;
                    }
                    partitions.into_iter().for_each(|partition| stopped.remove(partition));
                }
            }
        }
        for (_, (token, worker)) in workers {
            token.cancel();
            worker.await?;
        }
        tokio::task::spawn_blocking(move || polling.join())
            .await?
            .map_err(|_| "the group's thread panicked")?;
        Ok(())
    }

    /// Polling serves the group's callbacks. What a paused partition still fetched is thrown away.
    fn poll_in_a_thread(&self, stop: CancellationToken) -> std::io::Result<std::thread::JoinHandle<()>> {
        let (consumer, lifecycle) = (self.consumer.clone(), self.lifecycle.clone());
        std::thread::Builder::new().name("group".into()).spawn(move || {
            let _watch = lifecycle.fail_on_panic("the consumer group's thread");
            while !stop.is_cancelled() {
                if let Some(Err(error)) = consumer.poll(POLL) {
                    tracing::warn!(%error, "the consumer group can't be reached at the moment");
                }
            }
            consumer.unsubscribe();
        })
    }
}
