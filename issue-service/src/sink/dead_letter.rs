//! Records that can't be read, set aside where an operator finds them, with where they came from.
//!
//! A record is acknowledged there before the watermark passes it. The same one may be set aside twice; readers
//! drop repeats by origin. Of a very long one only the beginning is, so that every letter fits into a record.

use std::time::Duration;

use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};

use super::batch::DeadLetter;
use crate::ledger::Decision;
use crate::log;

/// Bytes of a record that a letter holds. No record that anybody could read is a hundredth of it.
pub(super) const LONGEST: usize = 65_536;

#[derive(Clone)]
pub(super) struct DeadLetters {
    producer: FutureProducer,
    topic: String,
    origin: String,
    group: String,
}

impl DeadLetters {
    pub(super) fn connect(kafka: &log::Settings, group: &str) -> Result<Self, KafkaError> {
        Ok(Self {
            // Repeats do no harm here, and a producer that only repeats never gives up for good.
            producer: kafka.producer().set("enable.idempotence", "false").create()?,
            topic: kafka.dead_letter_topic.clone(),
            origin: kafka.topic.clone(),
            group: group.to_owned(),
        })
    }

    /// Resolves when every one of them is acknowledged.
    pub(super) async fn set_aside(&self, partition: u32, letters: &[DeadLetter]) -> Result<(), KafkaError> {
        for letter in letters {
            let reason = match letter.decision {
                Decision::Malformed => "malformed: the envelope's magic, length or checksum is wrong",
                _ => "invalid: a length, an id or the partition can't be",
            };
            let fields = [
                ("kafka_dlt-original-topic", self.origin.clone()),
                ("kafka_dlt-original-partition", partition.to_string()),
                ("kafka_dlt-original-offset", letter.offset.to_string()),
                ("kafka_dlt-original-timestamp", letter.appended_at.to_string()),
                ("kafka_dlt-original-consumer-group", self.group.clone()),
                ("kafka_dlt-exception-message", reason.to_owned()),
            ];
            let mut headers = fields.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header { key, value: Some(value) })
            });
            if letter.length > letter.value.len() {
                let length = letter.length.to_string();
                headers = headers.insert(Header { key: "firstcome-original-length", value: Some(&length) });
            }
            let key = format!("{partition}/{}", letter.offset);
            let record = FutureRecord::to(&self.topic).key(&key).payload(&letter.value).headers(headers);
            self.producer.send(record, Duration::from_secs(10)).await.map_err(|(error, _)| error)?;
            metrics::counter!("firstcome_dead_letters_total").increment(1);
            tracing::error!(
                log.partition = partition,
                log.offset = letter.offset,
                reason,
                "a record was set aside as a dead letter"
            );
        }
        Ok(())
    }
}
