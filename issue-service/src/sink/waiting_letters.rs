//! How many dead letters wait for an operator.
//!
//! Every consumer reads the dead letters' topic by itself, from its start, and shows the same number. A letter goes
//! by its key, so a repeat is no second one. It waits until a record of the same key with the header
//! [`RESOLUTION`] is there, which `couponctl dlt` writes; what was resolved stays so, whatever comes after.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use platform::lifecycle::BoxError;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use crate::log;

/// The gauge that `show` sets, of which there is an alert in `compose/config/prometheus`.
const GAUGE: &str = "firstcome_dead_letters_waiting";
const RESOLUTION: &str = "firstcome-resolution";

const POLL: Duration = Duration::from_millis(100);
const ASK: Duration = Duration::from_secs(1);

pub fn show(waiting: u64) {
    metrics::gauge!(GAUGE).set(waiting as f64);
}

/// Shows how many wait each time that everything is read, until told to stop. Nothing is shown before that, so that
/// a restart is no moment without any.
pub async fn follow(
    kafka: Arc<log::Settings>,
    stop: CancellationToken,
    show: impl Fn(u64) + Send + 'static,
) -> Result<(), BoxError> {
    let consumer: BaseConsumer = kafka
        .client()
        // Assignment by hand needs a group's name but never joins it.
        .set("group.id", "issue-dead-letters")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("enable.partition.eof", "true")
        .set("queued.min.messages", "1000")
        .set("queued.max.messages.kbytes", "1024")
        // With a full queue it would look again after a second.
        .set("fetch.queue.backoff.ms", "5")
        .create()?;
    let told = stop.child_token();
    // A thread is not ended with the task that waits for it.
    let _ends_with_this = told.clone().drop_guard();
    let read = move || {
        let mut letters = Letters::default();
        let mut at_end = HashSet::new();
        let mut partitions = 0;
        while !told.is_cancelled() {
            if partitions == 0 {
                partitions = assign(&consumer, &kafka.dead_letter_topic).unwrap_or_else(|error| {
                    tracing::warn!(%error, "the dead letters can't be read yet");
                    0
                });
            }
            match consumer.poll(if partitions == 0 { ASK } else { POLL }) {
                Some(Ok(message)) => {
                    let id = message.key().map_or_else(
                        || format!("#{}/{}", message.partition(), message.offset()).into_bytes(),
                        <[u8]>::to_vec,
                    );
                    let resolved = message
                        .headers()
                        .is_some_and(|headers| headers.iter().any(|header| header.key == RESOLUTION));
                    letters.add(id, resolved);
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    at_end.insert(partition);
                    if at_end.len() == partitions {
                        show(letters.waiting);
                    }
                }
                Some(Err(error)) => tracing::warn!(%error, "the dead letters can't be read at the moment"),
                None => {}
            }
        }
    };
    Ok(tokio::task::spawn_blocking(read).await?)
}

/// All partitions from their start; how many these are.
fn assign(consumer: &BaseConsumer, topic: &str) -> KafkaResult<usize> {
    let metadata = consumer.fetch_metadata(Some(topic), ASK)?;
    let mut list = TopicPartitionList::new();
    for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
        list.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    Ok(list.count())
}

#[derive(Default)]
struct Letters {
    /// By key; true if resolved.
    known: HashMap<Vec<u8>, bool>,
    waiting: u64,
}

impl Letters {
    fn add(&mut self, id: Vec<u8>, resolves: bool) {
        match (self.known.get(&id).copied(), resolves) {
            (None, false) => self.waiting += 1,
            (Some(false), true) => self.waiting -= 1,
            (Some(_), false) | (Some(true), true) => return,
            (None, true) => {}
        }
        self.known.insert(id, resolves);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_waits_once_until_it_is_resolved_and_never_again() {
        let mut letters = Letters::default();
        let mut after = |id: &str, resolves| {
            letters.add(id.as_bytes().to_vec(), resolves);
            letters.waiting
        };
        assert_eq!([after("0/1", false), after("0/2", false), after("0/1", false)], [1, 2, 2]);
        assert_eq!([after("0/1", true), after("0/1", true), after("0/1", false)], [1, 1, 1]);
        assert_eq!([after("0/3", true), after("0/3", false), after("0/2", true)], [1, 1, 0]);
    }
}
