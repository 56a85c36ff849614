//! Kafka as this tool reads it: by hand, without a group, from an offset to an offset.

use std::ops::{ControlFlow, Range};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::state::State;

const DEFAULT_TOPIC: &str = "coupon.issued";
const TIMEOUT: Duration = Duration::from_secs(10);
/// No record that is there takes this long to come.
const STALL: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub(crate) struct KafkaArgs {
    /// Kafka instead of the stack's own: HOST:PORT,...
    #[arg(long, value_name = "SERVERS")]
    kafka: Option<String>,
    /// The ledger's topic [default: the stack's, else coupon.issued]
    #[arg(long, value_name = "NAME")]
    topic: Option<String>,
}

/// Where the log is.
#[derive(Debug, Clone)]
pub(crate) struct Kafka {
    servers: String,
    pub(crate) topic: String,
}

impl KafkaArgs {
    /// `None` where no Kafka was named.
    pub(crate) fn resolve(&self, state: &State) -> Option<Kafka> {
        let stack = state.kafka.as_ref();
        let servers = self.kafka.clone().or_else(|| stack.map(|kafka| kafka.bootstrap_servers.clone()))?;
        let topic = self.topic.clone().or_else(|| stack.and_then(|kafka| kafka.topic.clone()));
        Some(Kafka { servers, topic: topic.unwrap_or_else(|| DEFAULT_TOPIC.to_owned()) })
    }

    pub(crate) fn demand(&self, state: &State) -> Result<Kafka> {
        self.resolve(state).context("no Kafka: give --kafka, or --state with a running stack's folder")
    }
}

impl Kafka {
    /// What every client of this tool is configured with.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.servers)
            .set("client.id", "couponctl")
            .set("allow.auto.create.topics", "false")
            .set("log_level", "0");
        config
    }

    /// The ledger's own topic for what could not be read.
    pub(crate) fn dead_letter_topic(&self, named: Option<&str>) -> String {
        named.map_or_else(|| format!("{}.dlt", self.topic), str::to_owned)
    }

    /// A topic that has to be there, to read it.
    pub(crate) fn open(&self, topic: &str) -> Result<Topic> {
        self.find(topic)?.with_context(|| format!("Kafka at {} has no topic {topic}", self.servers))
    }

    pub(crate) fn find(&self, topic: &str) -> Result<Option<Topic>> {
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", "couponctl") // demanded by the client, and never joined
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("check.crcs", "true")
            .set("isolation.level", "read_uncommitted")
            // What was read up to its end must not hold up the next partition.
            .set("fetch.wait.max.ms", "20")
            .set("queued.max.messages.kbytes", "16384")
            // With a full queue it would look again after a second.
            .set("fetch.queue.backoff.ms", "5")
            .create()?;
        let metadata = consumer
            .fetch_metadata(Some(topic), TIMEOUT)
            .with_context(|| format!("Kafka at {} does not answer", self.servers))?;
        let partitions: usize = metadata.topics().iter().map(|topic| topic.partitions().len()).sum();
        let partitions = u32::try_from(partitions)?;
        Ok((partitions > 0).then(|| Topic { consumer, name: topic.to_owned(), partitions }))
    }
}

/// A topic to be read.
pub(crate) struct Topic {
    consumer: BaseConsumer,
    name: String,
    pub(crate) partitions: u32,
}

impl Topic {
    /// The first offset that the log holds, and the first that it does not hold yet.
    pub(crate) fn bounds(&self, partition: u32) -> Result<Range<u64>> {
        let (low, high) =
            self.consumer.fetch_watermarks(&self.name, i32::try_from(partition)?, TIMEOUT).with_context(
                || format!("Kafka does not tell the end of partition {partition} of {}", self.name),
            )?;
        Ok(u64::try_from(low)?..u64::try_from(high)?)
    }

    /// Hands over the records of a range that the log holds, in their order, until told to stop.
    pub(crate) fn read(
        &self,
        partition: u32,
        range: Range<u64>,
        mut each: impl FnMut(&BorrowedMessage<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let number = i32::try_from(partition)?;
        self.assign([(number, range.start)])?;
        let mut next = range.start;
        let mut heard = Instant::now();
        let mut problem = String::from("nothing came");
        while next < range.end {
            match self.consumer.poll(POLL) {
                Some(Ok(message)) => {
                    let offset = u64::try_from(message.offset())?;
                    // What was fetched for another range before is thrown away.
                    if message.partition() != number || !(next..range.end).contains(&offset) {
                        continue;
                    }
                    (next, heard) = (offset + 1, Instant::now());
                    if each(&message)?.is_break() {
                        break;
                    }
                }
                Some(Err(error)) => problem = examine(error)?,
                None => {}
            }
            if heard.elapsed() > STALL {
                let name = &self.name;
                bail!("offset {next} of partition {partition} of {name} can't be read: {problem}");
            }
        }
        self.consumer.unassign()?;
        Ok(())
    }

    /// Hands over what is appended from these offsets on, without end.
    pub(crate) fn follow(
        &self,
        from: impl IntoIterator<Item = (u32, u64)>,
        mut each: impl FnMut(&BorrowedMessage<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let from: Vec<_> = from
            .into_iter()
            .map(|(partition, next)| Ok((i32::try_from(partition)?, next)))
            .collect::<Result<_>>()?;
        self.assign(from)?;
        loop {
            match self.consumer.poll(POLL) {
                Some(Ok(message)) if each(&message)?.is_break() => return Ok(()),
                // Kafka may be away for a while: the client goes on by itself.
                Some(Err(error)) => drop(examine(error)?),
                _ => {}
            }
        }
    }

    fn assign(&self, from: impl IntoIterator<Item = (i32, u64)>) -> Result<()> {
        let mut list = TopicPartitionList::new();
        for (partition, next) in from {
            list.add_partition_offset(&self.name, partition, Offset::Offset(i64::try_from(next)?))?;
        }
        Ok(self.consumer.assign(&list)?)
    }
}

/// An error that may pass, in words; those that say that the log was cut do not.
fn examine(error: KafkaError) -> Result<String> {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
            Err(error).context("the log was cut while it was read")
        }
        _ => Ok(error.to_string()),
    }
}
