//! What a test runs on: a log, a database, and instances of the service without the HTTP around them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use issue_service::app::{self, Serving};
use issue_service::claim::{Claims, Outcome};
use issue_service::config::Settings;
use issue_service::ids::{CouponId, UserId, partition_of};
use issue_service::ledger::snapshot::Watermark;
use issue_service::ledger::{Definition, Record};
use issue_service::log::{self, Log, topic};
use issue_service::outside::live::Live;
use issue_service::sink::{self, Membership};
use issue_service::store;
use platform::clock::{Clock, now_ms};
use platform::consul::Consul;
use platform::health::Health;
use platform::id::IdGenerator;
use platform::lifecycle::{BoxError, Lifecycle};
use platform::testing::{Servers, unique_name};
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::OwnedMessage;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::json;
use sqlx::mysql::MySqlPoolOptions;
use sqlx::{MySqlPool, Row};

pub(crate) struct System {
    pub(crate) settings: Settings,
    pub(crate) kafka: Arc<log::Settings>,
    pub(crate) pool: MySqlPool,
    pub(crate) lifecycle: Lifecycle,
    ids: IdGenerator,
}

impl System {
    pub(crate) async fn start() -> Self {
        let redis = &Servers::get().redis;
        Self::with_redis(
            json!({ "sentinels": redis.sentinels, "master": redis.master, "password": redis.password }),
        )
        .await
    }

    pub(crate) async fn with_redis(redis: serde_json::Value) -> Self {
        let servers = Servers::get();
        let name = unique_name("test_issues");
        let settings: Settings = serde_json::from_value(json!({
            "server": {}, "admin": {}, "telemetry": {},
            "consul": { "url": servers.consul.url },
            "mysql": {
                "host": servers.mysql.host, "port": servers.mysql.port, "username": servers.mysql.username,
                "password": servers.mysql.password, "database": name, "max-connections": 16,
            },
            "redis": redis,
            "kafka": {
                "bootstrap-servers": servers.kafka.bootstrap_servers, "topic": name,
                "dead-letter-topic": format!("{name}.dlt"), "partitions": 2,
            },
            "identity": { "secret": "an identity secret of at least 32 bytes" },
            "definition": { "mac-secret": "a definition secret of at least 32 bytes" },
        }))
        .unwrap();
        let lifecycle = Lifecycle::new();
        let pool = platform::mysql::connect(&settings.mysql, &store::MIGRATOR, &lifecycle).await.unwrap();
        let kafka = app::open_log(&settings, &pool).await.unwrap();
        Self { settings, kafka, pool, lifecycle, ids: IdGenerator::new(Clock::system()) }
    }

    /// Another instance that answers claims.
    pub(crate) async fn serving(&self) -> Serving {
        self.try_serving().await.unwrap()
    }

    pub(crate) async fn try_serving(&self) -> Result<Serving, BoxError> {
        self.serving_with(&Health::new()).await
    }

    /// The same with an eye on its health.
    pub(crate) async fn serving_with(&self, health: &Health) -> Result<Serving, BoxError> {
        let (kafka, consul) = (self.kafka.clone(), Consul::new(&self.settings.consul));
        let log = Log::connect(kafka.clone())?;
        Serving::start(&self.settings, kafka, log, &self.pool, &self.lifecycle, health, consul).await
    }

    /// Changes a setting of the log's topic.
    pub(crate) async fn set(&self, name: &str, value: &str) {
        let admin: AdminClient<DefaultClientContext> = self.kafka.client().create().unwrap();
        let change = AlterConfig::new(ResourceSpecifier::Topic(&self.kafka.topic)).set(name, value);
        admin.alter_configs(&[change], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    }

    /// Another instance that writes the database.
    pub(crate) fn consuming(&self) -> Consuming {
        self.consuming_in(&self.kafka.topic, &self.pool)
    }

    pub(crate) fn consuming_in(&self, group: &str, pool: &MySqlPool) -> Consuming {
        let (lifecycle, health) = (Lifecycle::new(), Health::new());
        let settings = sink::Settings { group: group.to_owned(), session_timeout: Duration::from_secs(6) };
        let (kafka, pool) = (self.kafka.clone(), pool.clone());
        let member = Membership::join(&settings, kafka, pool, lifecycle.clone(), &health).unwrap();
        lifecycle.spawn("consumer", member.run());
        Consuming { lifecycle, health }
    }

    pub(crate) fn new_coupon(&self) -> CouponId {
        CouponId(self.ids.next())
    }

    /// A coupon that can be claimed now at all of these instances.
    pub(crate) async fn coupon(&self, instances: &[&Serving], stock: u32) -> CouponId {
        let coupon = self.new_coupon();
        self.define(instances, definition(coupon, 1, stock)).await;
        coupon
    }

    /// The same in a certain partition.
    pub(crate) async fn coupon_in(&self, instances: &[&Serving], partition: u32, stock: u32) -> CouponId {
        let coupon = std::iter::repeat_with(|| self.new_coupon())
            .find(|coupon| partition_of(*coupon, self.kafka.partitions) == partition)
            .unwrap();
        self.define(instances, definition(coupon, 1, stock)).await;
        coupon
    }

    /// Has an instance follow a partition no further, and waits until it doesn't.
    pub(crate) async fn hold_back(&self, lagging: &Serving, partition: u32, fresh: &Serving) {
        lagging.follower.leave(partition);
        eventually("it lags", async || {
            let offset = fresh.claims.outside.log.append(partition, Record::Noop).await.unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
            lagging.claims.partitions[partition as usize].next() <= offset
        })
        .await;
    }

    /// Has everything below `end` deleted from the log.
    pub(crate) async fn cut(&self, partition: u32, end: u64) {
        let admin: AdminClient<DefaultClientContext> = self.kafka.client().create().unwrap();
        let mut ends = TopicPartitionList::new();
        let end = Offset::Offset(i64::try_from(end).unwrap());
        ends.add_partition_offset(&self.kafka.topic, log::number(partition), end).unwrap();
        let cut = admin.delete_records(&ends, &AdminOptions::new()).await.unwrap();
        cut.elements()[0].error().unwrap();
    }

    /// Has the log's topic deleted and made anew.
    pub(crate) async fn replace_topic(&self) {
        let old = topic::prepare(&self.kafka).await.unwrap();
        let admin: AdminClient<DefaultClientContext> = self.kafka.client().create().unwrap();
        admin.delete_topics(&[&self.kafka.topic], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
        eventually("there is a new topic", async || {
            topic::prepare(&self.kafka).await.is_ok_and(|new| new.id != old.id)
        })
        .await;
    }

    /// Appends probes until the log is so long, and waits until the instance has read them.
    pub(crate) async fn fill(&self, serving: &Serving, partition: u32, end: u64) {
        let missing = end.saturating_sub(serving.claims.partitions[partition as usize].next());
        let probes = (0..missing).map(|_| serving.claims.outside.log.append(partition, Record::Noop));
        futures_util::future::try_join_all(probes).await.unwrap();
        eventually("it is read", async || serving.claims.partitions[partition as usize].next() >= end).await;
    }

    /// Writes a digest into the database that no consumer would write.
    pub(crate) async fn store_false_digest(&self, partition: u32, next: u64) {
        sqlx::query("INSERT INTO ledger_digests (log_partition, `next`, digest) VALUES (?, ?, ?)")
            .bind(partition)
            .bind(next)
            .bind(&[7_u8; 32][..])
            .execute(&self.pool)
            .await
            .unwrap();
    }

    /// Resolves when every instance has read it: one that hasn't would look for the coupon service.
    pub(crate) async fn define(&self, instances: &[&Serving], definition: Definition) {
        let number = partition_of(definition.coupon, self.kafka.partitions);
        let offset =
            instances[0].claims.outside.log.append(number, Record::Definition(definition)).await.unwrap();
        for instance in instances {
            instance.claims.partitions[number as usize].passed(offset + 1).await.unwrap();
        }
    }

    /// Writes bytes into the log that no service would write.
    pub(crate) async fn append_raw(&self, partition: u32, value: &[u8]) -> u64 {
        let producer: FutureProducer =
            self.kafka.producer().set("message.max.bytes", "2000000").create().unwrap();
        let record =
            FutureRecord::<(), [u8]>::to(&self.kafka.topic).partition(log::number(partition)).payload(value);
        let delivery = producer.send(record, Duration::from_secs(5)).await.unwrap();
        u64::try_from(delivery.offset).unwrap()
    }

    /// The first one that was set aside.
    pub(crate) async fn dead_letter(&self) -> OwnedMessage {
        let mut client = self.kafka.client();
        client.set("group.id", "test").set("auto.offset.reset", "earliest");
        let reader: BaseConsumer = client.create().unwrap();
        reader.subscribe(&[&self.kafka.dead_letter_topic]).unwrap();
        std::iter::repeat_with(|| reader.poll(Duration::from_secs(1)))
            .take(30)
            .find_map(|polled| polled.and_then(Result::ok).map(|message| message.detach()))
            .expect("a dead letter")
    }

    pub(crate) async fn rows(&self, coupon: CouponId) -> Vec<(u64, u32)> {
        sqlx::query("SELECT user_id, place FROM coupon_issues WHERE coupon_id = ? ORDER BY place")
            .bind(coupon.0)
            .fetch_all(&self.pool)
            .await
            .unwrap()
            .iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect()
    }

    /// The database by another port.
    pub(crate) fn pool_through(&self, port: u16) -> MySqlPool {
        let options = (*self.pool.connect_options()).clone().host("127.0.0.1").port(port);
        MySqlPoolOptions::new().connect_lazy_with(options)
    }

    /// The partitions of each member of the consumers' group, in order.
    pub(crate) fn assignments(&self) -> Vec<Vec<i32>> {
        self.assignments_of(&self.kafka.topic)
    }

    pub(crate) fn assignments_of(&self, group: &str) -> Vec<Vec<i32>> {
        let client: BaseConsumer = self.kafka.client().create().unwrap();
        let groups = client.fetch_group_list(Some(group), Duration::from_secs(10)).unwrap();
        let members = groups.groups().iter().flat_map(|group| group.members());
        // The consumer protocol's assignment: version, one topic, its partitions.
        let partitions = |assignment: &[u8]| -> Vec<i32> {
            let number = |at: usize| i32::from_be_bytes(assignment[at..at + 4].try_into().unwrap());
            if assignment.len() < 6 || number(2) == 0 {
                return Vec::new();
            }
            let topic = usize::from(u16::from_be_bytes([assignment[6], assignment[7]]));
            let count = usize::try_from(number(8 + topic)).unwrap();
            let mut partitions: Vec<_> = (0..count).map(|index| number(12 + topic + 4 * index)).collect();
            partitions.sort_unstable();
            partitions
        };
        let mut assigned: Vec<_> =
            members.map(|member| partitions(member.assignment().unwrap_or_default())).collect();
        assigned.sort();
        assigned
    }

    pub(crate) async fn watermark(&self, partition: u32) -> Watermark {
        store::watermark(&mut self.pool.acquire().await.unwrap(), partition).await.unwrap()
    }

    /// Waits until the database has followed the log up to here.
    pub(crate) async fn level(&self, serving: &Serving) {
        for partition in serving.claims.partitions.iter() {
            let end = serving.claims.outside.log.append(partition.id(), Record::Noop).await.unwrap() + 1;
            eventually("the consumers are level", async || self.watermark(partition.id()).await.next >= end)
                .await;
        }
    }
}

/// An instance that writes the database.
pub(crate) struct Consuming {
    pub(crate) lifecycle: Lifecycle,
    health: Health,
}

impl Consuming {
    /// Whether it writes every partition that it was given.
    pub(crate) fn is_sound(&self) -> bool {
        self.health.details()["sink"]["status"] == "UP" && !self.lifecycle.failed()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.health.details()["sink"]["details"]["reason"] != "starting"
    }

    pub(crate) async fn stop(&self) {
        self.lifecycle.stop_background(Duration::from_secs(5)).await;
    }
}

pub(crate) fn definition(coupon: CouponId, version: u64, stock: u32) -> Definition {
    let now = now_ms();
    Definition { coupon, version, stock, starts_at: now - 60_000, ends_at: now + 600_000, closed: false }
}

pub(crate) fn users(count: u64) -> impl Iterator<Item = UserId> {
    (1..=count).map(|n| UserId(240_000_000_000_000 + n * 4_099))
}

/// All of these users claim at once, `times` each, spread over the instances.
pub(crate) async fn race(
    instances: &[&Serving],
    coupon: CouponId,
    users: impl Iterator<Item = UserId>,
    times: usize,
) -> Vec<(UserId, Outcome)> {
    let mut claims = tokio::task::JoinSet::new();
    for (index, user) in users.enumerate() {
        for time in 0..times {
            let claimer = instances[(index + time) % instances.len()].claims.clone();
            claims.spawn(async move { (user, insist(&claimer, coupon, user).await) });
        }
    }
    claims.join_all().await
}

/// Asks again, as people do, while nobody can say: on a busy machine a claim may take longer than it is given.
async fn insist(claims: &Claims<Live>, coupon: CouponId, user: UserId) -> Outcome {
    let mut pending = false;
    for _ in 0..5 {
        match claims.claim(coupon, user).await {
            Outcome::Pending => pending = true,
            Outcome::Unavailable => {}
            Outcome::Already(winner) if pending => return Outcome::Issued(winner),
            outcome => return outcome,
        }
    }
    Outcome::Unavailable
}

pub(crate) async fn eventually(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !check().await {
        assert!(start.elapsed() < Duration::from_secs(30), "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
