//! Asks the brokers where partitions end. It has a client of its own, because a broker serves one request at a time on
//! a connection and a follower's long poll would hold the question up; and a thread for each partition, because
//! librdkafka's question blocks.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use platform::lifecycle::Lifecycle;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use tokio::sync::oneshot;

use crate::log;

/// Longer than any request waits.
const TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct Ends {
    questions: Vec<mpsc::Sender<oneshot::Sender<u64>>>,
}

impl Ends {
    pub fn start(kafka: &log::Settings, lifecycle: &Lifecycle) -> Result<Self, KafkaError> {
        let client: BaseConsumer = kafka
            .client()
            .set("isolation.level", "read_uncommitted")
            .set("queued.min.messages", "1")
            .create()?;
        let client = Arc::new(client);
        let mut questions = Vec::with_capacity(kafka.partitions as usize);
        for partition in 0..kafka.partitions {
            let (sender, asked) = mpsc::channel();
            let (client, topic, lifecycle) = (client.clone(), kafka.topic.clone(), lifecycle.clone());
            std::thread::Builder::new()
                .name(format!("end-of-{partition}"))
                .stack_size(128 * 1024)
                .spawn(move || {
                    let _watch = lifecycle.fail_on_panic("a thread that asks for the log's end");
                    ask(&client, &topic, partition, &asked);
                })
                .map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
            questions.push(sender);
        }
        Ok(Self { questions })
    }

    /// The end as of after this call; `None` if the log does not say.
    pub async fn of(&self, partition: u32) -> Option<u64> {
        let (sender, receiver) = oneshot::channel();
        // The thread ends only with the sender.
        let _ = self.questions.get(partition as usize)?.send(sender);
        receiver.await.ok()
    }
}

/// Serves one partition until its `Ends` is dropped.
fn ask(client: &BaseConsumer, topic: &str, partition: u32, asked: &mpsc::Receiver<oneshot::Sender<u64>>) {
    while let Ok(answer) = asked.recv() {
        match client.fetch_watermarks(topic, log::number(partition), TIMEOUT) {
            // Below zero it says nothing, and nobody may be refused on that.
            Ok((_, end)) => {
                if let Ok(end) = u64::try_from(end) {
                    let _ = answer.send(end);
                }
            }
            Err(error) => {
                tracing::warn!(%error, log.partition = partition, "the log's end can't be asked for");
            }
        }
    }
}
