//! The log's client side: its settings, and the producer that appends claims, definitions and probes.
//!
//! Every append waits for all in-sync replicas and is idempotent. A claim's acknowledgement is reported to its
//! partition, which answers whoever waits; nothing is ever promised here.

pub mod topic;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use tokio::sync::oneshot;

use crate::failpoint::{Point, reach};
use crate::ids::{CouponId, UserId, partition_of};
use crate::ledger::Record;
use crate::ledger::partition::{Answer, Partition};

/// How long librdkafka tries to deliver a record. Longer than any request waits; what fails after it is unknown.
const MESSAGE_TIMEOUT: &str = "10000";

/// Where the log is.
#[derive(Debug, Clone)]
pub struct Settings {
    pub bootstrap_servers: String,
    pub topic: String,
    pub dead_letter_topic: String,
    pub partitions: u32,
    pub replication_factor: i32,
    /// How long the producer gathers records before it sends them.
    pub linger: Duration,
}

impl Settings {
    /// What every client of the log is configured with.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap_servers)
            .set("client.id", "issue-service")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "250")
            .set("socket.nagle.disable", "true")
            .set("allow.auto.create.topics", "false")
            .set("broker.address.family", "v4")
            .set("topic.metadata.refresh.interval.ms", "30000")
            .set("log.connection.close", "false");
        config
    }

    /// A producer of single records whose acknowledgement is awaited.
    pub fn producer(&self) -> ClientConfig {
        let mut config = self.client();
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", MESSAGE_TIMEOUT)
            .set("queue.buffering.max.ms", self.linger.as_millis().to_string())
            .set("queue.buffering.max.messages", "100000")
            .set("compression.type", "none");
        config
    }
}

/// librdkafka counts partitions in an i32.
pub fn number(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

/// Appends records. Cheap to clone.
#[derive(Clone)]
pub struct Log {
    settings: Arc<Settings>,
    partitions: Attached,
    producer: Arc<ArcSwap<ThreadedProducer<Reports>>>,
}

/// Those who hear of their claims' acknowledgements. Claims are sent by them alone, so none is sent before.
type Attached = Arc<OnceLock<Arc<[Partition]>>>;

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("topic", &self.settings.topic).finish_non_exhaustive()
    }
}

/// What an acknowledgement belongs to.
#[derive(Debug)]
enum Sent {
    Claim { coupon: CouponId, user: UserId, attempt: u64 },
    Other(oneshot::Sender<Result<u64, KafkaError>>),
}

/// Why a record was not appended, or not certainly.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    #[error("the log can't be written: {0}")]
    Kafka(#[from] KafkaError),
    #[error("the producer was stopped before the log acknowledged")]
    Stopped,
}

impl Log {
    /// Begins to get the producer its id, which takes up to half a second.
    pub fn connect(settings: Arc<Settings>) -> Result<Self, KafkaError> {
        let partitions = Attached::default();
        let producer = new_producer(&settings, &partitions)?;
        Ok(Self { settings, partitions, producer: Arc::new(ArcSwap::from_pointee(producer)) })
    }

    /// Takes the acknowledgements of claims to their partitions from now on. Once.
    pub fn attach(&self, partitions: &Arc<[Partition]>) {
        let _ = self.partitions.set(partitions.clone());
    }

    /// Gets the producer its id before anything is sent. The first question connects; the second wakes librdkafka's
    /// main thread, which would otherwise ask for the id only when its timer of 500 ms fires.
    pub async fn warm_up(&self) {
        let (producer, topic) = (self.producer.load_full(), self.settings.topic.clone());
        let asked = tokio::task::spawn_blocking(move || {
            let ask = || producer.client().fetch_metadata(Some(&topic), Duration::from_secs(2));
            ask().and_then(|_| ask()).map(drop)
        });
        if let Ok(Err(error)) = asked.await {
            tracing::warn!(%error, "the log does not answer yet");
        }
    }

    pub fn topic(&self) -> &str {
        &self.settings.topic
    }

    pub fn partition_of(&self, coupon: CouponId) -> u32 {
        partition_of(coupon, self.settings.partitions)
    }

    /// Sends a claim that its partition has let in. The partition learns what became of it.
    pub fn send_claim(&self, coupon: CouponId, user: UserId, attempt: u64, traceparent: Option<&str>) {
        let partition = self.partition_of(coupon);
        let sent = Box::new(Sent::Claim { coupon, user, attempt });
        let record = Record::Claim { coupon, user };
        if let Err((error, _)) = self.send(partition, &record, sent, traceparent) {
            tracing::warn!(%error, log.partition = partition, "a claim could not be sent");
            if let Some(partition) = find(&self.partitions, coupon) {
                partition.failed(coupon, user, attempt, Answer::NotSent);
            }
        }
    }

    /// Appends a record and waits for its offset.
    pub async fn append(&self, partition: u32, record: Record) -> Result<u64, AppendError> {
        let (sender, acknowledgement) = oneshot::channel();
        self.send(partition, &record, Box::new(Sent::Other(sender)), None).map_err(|(error, _)| error)?;
        Ok(acknowledgement.await.map_err(|_| AppendError::Stopped)??)
    }

    fn send(
        &self,
        partition: u32,
        record: &Record,
        sent: Box<Sent>,
        traceparent: Option<&str>,
    ) -> Result<(), (KafkaError, Box<Sent>)> {
        let value = record.encode();
        let mut message = BaseRecord::<[u8], [u8], Box<Sent>>::with_opaque_to(&self.settings.topic, sent)
            .partition(number(partition))
            .payload(value.as_slice());
        if let Some(traceparent) = traceparent {
            let header = Header { key: "traceparent", value: Some(traceparent) };
            message = message.headers(OwnedHeaders::new_with_capacity(1).insert(header));
        }
        let producer = self.producer.load();
        producer.send(message).map_err(|(error, message)| {
            if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal)
                || producer.client().fatal_error().is_some()
            {
                self.replace_producer();
            }
            (error, message.delivery_opaque)
        })
    }

    /// An idempotent producer that has met a fatal error never works again. What it had in flight is unknown.
    fn replace_producer(&self) {
        let old = self.producer.load_full();
        if old.client().fatal_error().is_none() {
            return; // somebody else has replaced it
        }
        match new_producer(&self.settings, &self.partitions) {
            Ok(new) => {
                let previous = self.producer.compare_and_swap(&old, Arc::new(new));
                if Arc::ptr_eq(&previous, &old) {
                    tracing::error!("the producer met a fatal error and was replaced");
                    drop(previous);
                    // Its end waits for its threads.
                    std::thread::spawn(move || drop(old));
                }
            }
            Err(error) => tracing::error!(%error, "the producer can't be replaced"),
        }
    }

    /// Records that were sent and are neither acknowledged nor given up.
    pub fn queued(&self) -> u64 {
        self.producer.load().in_flight_count().try_into().unwrap_or(0)
    }

    /// Waits until everything that was sent is acknowledged or has failed.
    pub fn flush(&self, timeout: Duration) -> KafkaResult<()> {
        self.producer.load().flush(timeout)
    }
}

fn new_producer(settings: &Settings, partitions: &Attached) -> Result<ThreadedProducer<Reports>, KafkaError> {
    settings.producer().create_with_context(Reports { partitions: partitions.clone() })
}

fn find(partitions: &Attached, coupon: CouponId) -> Option<&Partition> {
    let partitions = partitions.get()?;
    #[expect(clippy::cast_possible_truncation, reason = "the length is the number of partitions, a u32")]
    let number = partition_of(coupon, partitions.len() as u32);
    partitions.get(number as usize)
}

/// Takes the producer's delivery reports to those whom they concern.
struct Reports {
    partitions: Attached,
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Sent>;

    fn delivery(&self, report: &DeliveryResult<'_>, sent: Box<Sent>) {
        let outcome = match report {
            Ok(message) => u64::try_from(message.offset()).map_err(|_| {
                // An idempotent producer may learn that a record is there without learning where.
                KafkaError::MessageProduction(RDKafkaErrorCode::InvalidMessage)
            }),
            Err((error, _)) => Err(error.clone()),
        };
        match *sent {
            Sent::Claim { coupon, user, attempt } => {
                let Some(partition) = find(&self.partitions, coupon) else { return };
                match outcome {
                    Ok(offset) => {
                        reach(Point::AfterAck);
                        partition.acked(coupon, user, attempt, offset);
                    }
                    Err(error) => {
                        tracing::warn!(%error, coupon.id = coupon.0, "a claim was not acknowledged");
                        partition.failed(coupon, user, attempt, Answer::Unknown);
                    }
                }
            }
            Sent::Other(waiter) => {
                let _ = waiter.send(outcome);
            }
        }
    }
}
