//! Reads partitions of the log in order, from given offsets, without a consumer group.
//!
//! One client and one thread for all partitions that are followed. A record is handed on once, in order; what
//! is not a record of a log that can be trusted (not stamped by the broker, out of range) stops its partition. None waits
//! for another: a partition whose reader can't take more is left until it can.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use platform::lifecycle::Lifecycle;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, Timestamp, TopicPartitionList};

use super::Entry;
use crate::log;

const POLL: Duration = Duration::from_millis(50);
/// The same while a reader can't take more.
const REST: Duration = Duration::from_millis(5);
const ASK: Duration = Duration::from_secs(1);
/// A question for a partition's bounds waits behind a fetch, but nothing is read while it waits.
const BOUNDS: Duration = Duration::from_millis(300);

/// What a follower hands its records to. It is called on the follower's thread and must not block it.
pub trait Reader: Send + 'static {
    fn read(&mut self, partition: u32, entry: Entry<'_>, message: &BorrowedMessage<'_>) -> Taken;
    /// Whether it takes records again, after [`Taken::Later`].
    fn has_room(&self, partition: u32) -> bool;
    /// The partition can't be followed any further.
    fn broken(&mut self, partition: u32, why: String);
}

/// What a reader has done with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    Yes,
    /// Not now: the same record is handed to it again.
    Later,
    /// It reads this partition no further.
    Never,
}

enum Command {
    Follow { partition: u32, next: u64 },
    Leave { partition: u32 },
}

/// A running follower; ends when dropped.
pub struct Follower {
    consumer: Arc<BaseConsumer>,
    commands: Option<mpsc::Sender<Command>>,
    brake: Brake,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").finish_non_exhaustive()
    }
}

/// Stops partitions for what others have found out: to their reader they are broken. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Brake(mpsc::Sender<Halt>);

#[derive(Debug)]
struct Halt {
    /// None is every partition, also those that are to be followed later.
    partition: Option<u32>,
    why: String,
}

impl Brake {
    pub fn halt(&self, partition: u32, why: String) {
        // Fails only when the follower has ended.
        let _ = self.0.send(Halt { partition: Some(partition), why });
    }

    pub fn halt_all(&self, why: String) {
        let _ = self.0.send(Halt { partition: None, why });
    }
}

impl Follower {
    pub fn start(
        kafka: &log::Settings,
        reader: impl Reader,
        lifecycle: &Lifecycle,
    ) -> Result<Self, KafkaError> {
        let consumer: BaseConsumer = kafka
            .client()
            // Assignment by hand needs a group's name but never joins it.
            .set("group.id", "issue-ledger-follower")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("check.crcs", "true")
            .set("isolation.level", "read_uncommitted")
            // A partition that is assigned while nothing is written is heard after this long.
            .set("fetch.wait.max.ms", "100")
            .set("fetch.error.backoff.ms", "50")
            .set("queued.max.messages.kbytes", "4096")
            .set("queued.min.messages", "10000")
            // While more than that is fetched already. By default it looks again after a second, in which a backlog
            // is long read and nothing comes.
            .set("fetch.queue.backoff.ms", "5")
            .create()?;
        let consumer = Arc::new(consumer);
        let (commands, inbox) = mpsc::channel();
        let (brake, halts) = mpsc::channel();
        let (topic, lifecycle) = (kafka.topic.clone(), lifecycle.clone());
        let shared = consumer.clone();
        let thread = std::thread::Builder::new().name("follower".into()).spawn(move || {
            let _watch = lifecycle.fail_on_panic("the follower of the log");
            let (consumer, following) = (shared, HashMap::new());
            let (resting, in_doubt, asked, halted) = (HashMap::new(), VecDeque::new(), None, None);
            Thread { consumer, topic, reader, following, resting, in_doubt, asked, halts, halted }
                .run(&inbox);
        });
        match thread {
            Ok(thread) => {
                let (commands, brake, thread) = (Some(commands), Brake(brake), Some(thread));
                Ok(Self { consumer, commands, brake, thread })
            }
            Err(error) => Err(KafkaError::ClientCreation(error.to_string())),
        }
    }

    /// Follows a partition from the record at `next` on; again from there if it is followed already.
    pub fn follow(&self, partition: u32, next: u64) {
        self.send(Command::Follow { partition, next });
    }

    pub fn leave(&self, partition: u32) {
        self.send(Command::Leave { partition });
    }

    /// What it reads with, for questions to the brokers that may wait behind a fetch.
    pub fn client(&self) -> Arc<BaseConsumer> {
        self.consumer.clone()
    }

    pub fn brake(&self) -> Brake {
        self.brake.clone()
    }

    fn send(&self, command: Command) {
        if let Some(commands) = &self.commands {
            // Fails only when the thread has panicked, which stops the process.
            let _ = commands.send(command);
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A partition that is not read at the moment.
enum Left {
    ForGood(u32),
    /// Until its reader can take the record at this offset.
    Until(u32, u64),
}

struct Thread<R> {
    consumer: Arc<BaseConsumer>,
    topic: String,
    reader: R,
    /// The offset due next, by partition.
    following: HashMap<u32, u64>,
    /// Those whose reader can't take more, with the offset due next.
    resting: HashMap<u32, u64>,
    /// librdkafka has met an offset that isn't there and reads that partition no further, without saying which: any of
    /// these.
    in_doubt: VecDeque<u32>,
    /// When the bounds were last asked for.
    asked: Option<Instant>,
    halts: mpsc::Receiver<Halt>,
    /// Why nothing is followed any more.
    halted: Option<String>,
}

impl<R: Reader> Thread<R> {
    fn run(mut self, inbox: &mpsc::Receiver<Command>) {
        // A partition whose leader is not known when it is assigned waits for a timer of 1 s.
        if let Err(error) = self.consumer.fetch_metadata(Some(&self.topic), ASK) {
            tracing::warn!(%error, "the log does not answer yet");
        }
        loop {
            let mut wanted = HashMap::new();
            loop {
                match inbox.try_recv() {
                    Ok(Command::Follow { partition, next }) => {
                        wanted.insert(partition, next);
                    }
                    Ok(Command::Leave { partition }) => {
                        wanted.remove(&partition);
                        self.resting.remove(&partition);
                        self.leave(partition);
                    }
                    Err(mpsc::TryRecvError::Empty) => break,
                    Err(mpsc::TryRecvError::Disconnected) => return,
                }
            }
            wanted.extend(self.rested(&wanted));
            self.follow(&wanted);
            while let Ok(halt) = self.halts.try_recv() {
                self.halt(halt);
            }
            if !self.in_doubt.is_empty() {
                self.settle_doubt();
            }
            // The borrow of the message ends before the next command is looked at.
            let left = match self.consumer.poll(if self.resting.is_empty() { POLL } else { REST }) {
                None => None,
                Some(Ok(message)) => Self::hand_on(&mut self.reader, &mut self.following, &message),
                Some(Err(error)) => {
                    self.examine(&error);
                    None
                }
            };
            match left {
                Some(Left::ForGood(partition)) => self.leave(partition),
                Some(Left::Until(partition, due)) => {
                    self.leave(partition);
                    self.resting.insert(partition, due);
                }
                None => {}
            }
        }
    }

    /// Those whose reader takes records again, unless it was said anew from where.
    fn rested(&mut self, wanted: &HashMap<u32, u64>) -> HashMap<u32, u64> {
        self.resting.retain(|partition, _| !wanted.contains_key(partition));
        let reader = &self.reader;
        self.resting.extract_if(|partition, _| reader.has_room(*partition)).collect()
    }

    /// Returns the partition if it is left.
    fn hand_on(
        reader: &mut R,
        following: &mut HashMap<u32, u64>,
        message: &BorrowedMessage<'_>,
    ) -> Option<Left> {
        let partition = u32::try_from(message.partition()).ok()?;
        let offset = u64::try_from(message.offset()).ok()?;
        let next = following.get_mut(&partition)?;
        if offset < *next {
            return None; // fetched before a seek
        }
        let Timestamp::LogAppendTime(at) = message.timestamp() else {
            reader.broken(
                partition,
                format!("the record at offset {offset} is not stamped by the broker: the topic needs message.timestamp.type=LogAppendTime"),
            );
            return Some(Left::ForGood(partition));
        };
        let value = message.payload().unwrap_or_default();
        let entry = Entry { offset, appended_at: u64::try_from(at).unwrap_or(0), value };
        match reader.read(partition, entry, message) {
            Taken::Yes => *next = offset + 1,
            Taken::Later => return Some(Left::Until(partition, offset)),
            Taken::Never => return Some(Left::ForGood(partition)),
        }
        None
    }

    /// All in one assignment: a partition that is assigned while a fetch is under way waits until that one has
    /// come back.
    fn follow(&mut self, wanted: &HashMap<u32, u64>) {
        if wanted.is_empty() {
            return;
        }
        if let Some(why) = &self.halted {
            wanted.keys().for_each(|partition| self.reader.broken(*partition, why.clone()));
            return;
        }
        let mut assignment = TopicPartitionList::new();
        for (partition, next) in wanted {
            self.leave(*partition);
            self.add(&mut assignment, *partition, *next);
        }
        match self.consumer.incremental_assign(&assignment) {
            Ok(()) => self.following.extend(wanted),
            Err(error) => {
                for partition in wanted.keys() {
                    self.reader.broken(*partition, format!("it can't be assigned: {error}"));
                }
            }
        }
    }

    fn halt(&mut self, Halt { partition, why }: Halt) {
        let halted = match partition {
            Some(partition) => vec![partition],
            None => self.following.keys().chain(self.resting.keys()).copied().collect(),
        };
        for number in halted {
            self.resting.remove(&number);
            self.leave(number);
            self.reader.broken(number, why.clone());
        }
        if partition.is_none() {
            self.halted = Some(why);
        }
    }

    fn leave(&mut self, partition: u32) {
        if let Some(next) = self.following.remove(&partition) {
            let mut assignment = TopicPartitionList::new();
            self.add(&mut assignment, partition, next);
            if let Err(error) = self.consumer.incremental_unassign(&assignment) {
                tracing::warn!(%error, log.partition = partition, "could not leave a partition");
            }
        }
    }

    fn add(&self, list: &mut TopicPartitionList, partition: u32, next: u64) {
        let offset = Offset::Offset(i64::try_from(next).unwrap_or(i64::MAX));
        if let Err(error) = list.add_partition_offset(&self.topic, log::number(partition), offset) {
            tracing::error!(%error, log.partition = partition, next, "not an offset");
        }
    }

    /// Errors carry no partition. All but those that say that a log was cut are transient, and librdkafka goes on
    /// by itself.
    fn examine(&mut self, error: &KafkaError) {
        let code = error.rdkafka_error_code();
        if matches!(code, Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)) {
            self.in_doubt = self.following.keys().copied().collect();
        } else {
            tracing::warn!(%error, "the log can't be read at the moment");
        }
    }

    /// Asks for the bounds of every partition in doubt until they are known: one that is due outside of them was cut; the
    /// others are assigned again, from the record before, by which their reader knows whether they were cut and have
    /// grown since. One whose leader is away is asked about again later, and meanwhile the others are read.
    fn settle_doubt(&mut self) {
        if self.asked.is_some_and(|asked| asked.elapsed() < ASK) {
            return;
        }
        let mut again = HashMap::new();
        while let Some(partition) = self.in_doubt.pop_front() {
            let Some(next) = self.following.get(&partition).copied() else { continue };
            let Ok((low, high)) = self.consumer.fetch_watermarks(&self.topic, log::number(partition), BOUNDS)
            else {
                self.in_doubt.push_back(partition);
                break;
            };
            let due = i64::try_from(next).unwrap_or(i64::MAX);
            if (low..=high).contains(&due) {
                again.insert(partition, next.saturating_sub(1));
            } else {
                self.reader.broken(
                    partition,
                    format!("offset {next} is due, but the log holds {low} to {high}: it was cut, lost or replaced"),
                );
                self.leave(partition);
            }
        }
        self.follow(&again);
        self.asked = Some(Instant::now());
    }
}
