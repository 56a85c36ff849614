//! A log on real Kafka, with the tables that belong to it: bytes, decisions and digests by this test's own hand, so
//! that neither the services' code nor the tool's own judges itself.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Executor};

use crate::servers::Servers;

pub(crate) const PARTITIONS: u32 = 2;
/// Of definitions.
pub(crate) const WINDOW: [u64; 2] = [0, 4_000_000_000_000];

pub(crate) const ACCEPTED: u8 = 1;
pub(crate) const ALREADY: u8 = 2;
pub(crate) const SOLD_OUT: u8 = 3;
pub(crate) const TAKEN: u8 = 9;
pub(crate) const MALFORMED: u8 = 13;
pub(crate) const NOOP: u8 = 15;

pub(crate) fn envelope(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let covered = [b"FC", [kind, 1].as_slice(), &length, payload].concat();
    [&covered[..6], &crc32c::crc32c(&covered).to_be_bytes(), payload].concat()
}

pub(crate) fn defined(coupon: u64, version: u64, stock: u32) -> Vec<u8> {
    let [from, to] = WINDOW.map(u64::to_be_bytes);
    envelope(
        1,
        &[&coupon.to_be_bytes(), &version.to_be_bytes(), &stock.to_be_bytes()[..], &from, &to, &[0]].concat(),
    )
}

pub(crate) fn claimed(coupon: u64, user: u64) -> Vec<u8> {
    envelope(2, &[coupon.to_be_bytes(), user.to_be_bytes()].concat())
}

pub(crate) fn noop() -> Vec<u8> {
    envelope(4, &[])
}

pub(crate) fn partition_of(coupon: u64) -> u32 {
    let hash = coupon.to_be_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    u32::try_from(hash % u64::from(PARTITIONS)).unwrap()
}

/// A coupon that this partition holds.
pub(crate) fn coupon_in(partition: u32) -> u64 {
    std::iter::repeat_with(|| rand::random_range(1..1_u64 << 53))
        .find(|coupon| partition_of(*coupon) == partition)
        .unwrap()
}

type Digest = [u8; 32];

#[derive(Debug, Default)]
struct Written {
    next: u64,
    digest: Digest,
    last_record_hash: Digest,
    stored: Vec<(u64, Digest)>,
}

impl Written {
    fn add(&mut self, at: u64, value: &[u8], decision: u8, place: u32) {
        let hash = |before: &Digest, decision: u8, place: u32| -> Digest {
            let length = u32::try_from(value.len()).unwrap().to_be_bytes();
            let (offset, at, place) = (self.next.to_be_bytes(), at.to_be_bytes(), place.to_be_bytes());
            let bytes = [before.as_slice(), &offset, &at, &length, value, &[decision], &place].concat();
            digest(&SHA256, &bytes).as_ref().try_into().unwrap()
        };
        (self.digest, self.last_record_hash) = (hash(&self.digest, decision, place), hash(&[0; 32], NOOP, 0));
        self.next += 1;
        if self.next.is_multiple_of(4096) {
            self.stored.push((self.next, self.digest));
        }
    }
}

/// Where a record went, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Appended {
    pub(crate) offset: u64,
    pub(crate) at: u64,
}

pub(crate) struct Log {
    pub(crate) topic: String,
    servers: String,
    admin: AdminClient<DefaultClientContext>,
    producer: FutureProducer,
    written: BTreeMap<u32, Written>,
}

impl Log {
    /// An empty log and its dead letters, of a name of their own.
    pub(crate) async fn create() -> Self {
        Self::stamped_by("LogAppendTime").await
    }

    /// One whose records have the time of the broker, or that of whoever sends them.
    pub(crate) async fn stamped_by(times: &str) -> Self {
        let servers = Servers::get().kafka.bootstrap_servers;
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &servers).set("enable.idempotence", "true");
        config.set("queue.buffering.max.ms", "0");
        let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
        let topic = format!("test-ctl-{}", rand::random::<u64>());
        let partitions = i32::try_from(PARTITIONS).unwrap();
        let ledger = NewTopic::new(&topic, partitions, TopicReplication::Fixed(1))
            .set("message.timestamp.type", times);
        let letters = format!("{topic}.dlt");
        let letters = NewTopic::new(&letters, 1, TopicReplication::Fixed(1));
        for made in admin.create_topics([&ledger, &letters], &AdminOptions::new()).await.unwrap() {
            made.unwrap();
        }
        let producer = config.create().unwrap();
        let written = (0..PARTITIONS).map(|partition| (partition, Written::default())).collect();
        Self { topic, servers, admin, producer, written }
    }

    /// Appends records in a row; each comes with its decision and place.
    pub(crate) async fn append(&mut self, partition: u32, records: &[(Vec<u8>, u8, u32)]) -> Vec<Appended> {
        let number = i32::try_from(partition).unwrap();
        let sent: Vec<_> = records
            .iter()
            .map(|(value, ..)| {
                let record = FutureRecord::<(), [u8]>::to(&self.topic).partition(number).payload(value);
                self.producer.send_result(record).unwrap()
            })
            .collect();
        let mut appended = Vec::new();
        for (sent, (value, decision, place)) in sent.into_iter().zip(records) {
            let sent = sent.await.unwrap().unwrap();
            let at = u64::try_from(sent.timestamp.to_millis().unwrap()).unwrap();
            self.written.get_mut(&partition).unwrap().add(at, value, *decision, *place);
            appended.push(Appended { offset: u64::try_from(sent.offset).unwrap(), at });
        }
        appended
    }

    /// What a consumer writes that sets a record aside.
    pub(crate) async fn set_aside(&self, partition: u32, offset: u64, value: &[u8]) {
        let fields = [
            ("kafka_dlt-original-topic", self.topic.clone()),
            ("kafka_dlt-original-partition", partition.to_string()),
            ("kafka_dlt-original-offset", offset.to_string()),
            ("kafka_dlt-original-timestamp", "1800000000000".to_owned()),
            ("kafka_dlt-original-consumer-group", "issue-consumer".to_owned()),
            ("kafka_dlt-exception-message", "malformed: a test".to_owned()),
        ];
        let headers = fields.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value) })
        });
        let (topic, key) = (format!("{}.dlt", self.topic), format!("{partition}/{offset}"));
        let record = FutureRecord::to(&topic).key(&key).payload(value).headers(headers);
        self.producer.send_result(record).unwrap().await.unwrap().unwrap();
    }

    /// Watermarks and digests, as a consumer leaves them that has read everything.
    pub(crate) async fn write_tables(&self, mysql: &mut MySqlConnection) {
        let mut sql = format!("REPLACE INTO ledger_meta VALUES (1, {PARTITIONS}, 'a topic');");
        for (partition, Written { next, digest, last_record_hash, stored }) in &self.written {
            let (digest, last) = (hex::encode(digest), hex::encode(last_record_hash));
            sql += &format!(
                "REPLACE INTO ledger_watermarks VALUES ({partition}, {next}, X'{digest}', X'{last}');"
            );
            for (next, digest) in stored {
                let digest = hex::encode(digest);
                sql += &format!("REPLACE INTO ledger_digests VALUES ({partition}, {next}, X'{digest}');");
            }
        }
        mysql.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
    }

    /// Removes the records below an offset.
    pub(crate) async fn cut(&self, partition: u32, end: i64) {
        let mut ends = TopicPartitionList::new();
        let number = i32::try_from(partition).unwrap();
        ends.add_partition_offset(&self.topic, number, Offset::Offset(end)).unwrap();
        let cut = self.admin.delete_records(&ends, &AdminOptions::new()).await.unwrap();
        cut.elements()[0].error().unwrap();
    }

    pub(crate) fn options(&self) -> Vec<String> {
        ["--kafka", &self.servers, "--topic", &self.topic].map(str::to_owned).into()
    }

    pub(crate) async fn remove(&self) {
        let letters = format!("{}.dlt", self.topic);
        self.admin.delete_topics(&[&self.topic, &letters], &AdminOptions::new()).await.unwrap();
    }
}
