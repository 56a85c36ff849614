//! The rule of refusal: nobody is told "no" on old news.
//!
//! A refusal is said only after the ledger has passed an end of the log that was asked for *after* the request
//! arrived. One question serves everybody who waits for a partition when it is sent; nobody joins a question
//! already sent. No lease is involved, so a frozen process or a lagging follower can't refuse a winner.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use platform::lifecycle::Lifecycle;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use tokio::sync::oneshot;

use crate::ledger::partition::Partition;
use crate::log;

/// At least this long between two questions about one partition, so that a crowd of losers shares few of them.
const PACE: Duration = Duration::from_millis(5);
/// Longer than any request waits.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Asks for the ends of partitions. It has a client of its own, because a broker serves one request at a time
/// on a connection and a follower's long poll would hold the question up.
#[derive(Debug)]
pub struct Refusals {
    questions: Vec<mpsc::Sender<oneshot::Sender<()>>>,
}

impl Refusals {
    pub fn start(
        kafka: &log::Settings,
        partitions: &Arc<[Partition]>,
        lifecycle: &Lifecycle,
    ) -> Result<Self, KafkaError> {
        let client: BaseConsumer = kafka
            .client()
            .set("isolation.level", "read_uncommitted")
            .set("queued.min.messages", "1")
            .create()?;
        let client = Arc::new(client);
        let mut questions = Vec::with_capacity(partitions.len());
        for number in 0..partitions.len() {
            let (sender, waiting) = mpsc::channel();
            let (client, topic, partitions) = (client.clone(), kafka.topic.clone(), partitions.clone());
            let lifecycle = lifecycle.clone();
            std::thread::Builder::new()
                .name(format!("end-of-{number}"))
                .stack_size(128 * 1024)
                .spawn(move || {
                    let _watch = lifecycle.fail_on_panic("a thread that asks for the log's end");
                    ask(&client, &topic, &partitions[number], &waiting);
                })
                .map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
            questions.push(sender);
        }
        Ok(Self { questions })
    }

    /// Resolves once the ledger has passed an end of this partition that was asked for after this call; fails
    /// if the log doesn't answer or the partition stops.
    pub fn news(&self, partition: u32) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        if let Some(questions) = self.questions.get(partition as usize) {
            // The thread ends only with the sender.
            let _ = questions.send(sender);
        }
        receiver
    }
}

/// Serves one partition until its `Refusals` is dropped.
fn ask(
    client: &BaseConsumer,
    topic: &str,
    partition: &Partition,
    waiting: &mpsc::Receiver<oneshot::Sender<()>>,
) {
    let mut last: Option<Instant> = None;
    while let Ok(first) = waiting.recv() {
        if let Some(pause) = last.and_then(|last| PACE.checked_sub(last.elapsed())) {
            std::thread::sleep(pause);
        }
        // Everybody who is here now arrived before the question is sent.
        let asking: Vec<_> = std::iter::once(first).chain(waiting.try_iter()).collect();
        last = Some(Instant::now());
        match client.fetch_watermarks(topic, log::number(partition.id()), TIMEOUT) {
            Ok((_, end)) => {
                // Below zero it says nothing, and nobody may be refused on that.
                let Ok(end) = u64::try_from(end) else { continue };
                for waiter in asking {
                    partition.wake_at(end, waiter);
                }
            }
            Err(error) => {
                tracing::warn!(%error, log.partition = partition.id(), "the log's end can't be asked for");
            }
        }
    }
}
