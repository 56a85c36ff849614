//! Puts the service together: what is connected, in which order, and when it is ready.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRef;
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use platform::clock::Clock;
use platform::consul::Consul;
use platform::health::Health;
use platform::http::client::ServiceClient;
use platform::identity::{IdentitySigner, IdentityVerifier};
use platform::lifecycle::{App, BoxError, Context, Lifecycle};
use platform::redis::Redis;
use sqlx::MySqlPool;

use crate::claim::{Claims, Waiting};
use crate::config::Settings;
use crate::counts::{self, Counts};
use crate::definition::Definitions;
use crate::doorman::{self, Doorman};
use crate::http;
use crate::ids::CouponId;
use crate::ledger::Record;
use crate::ledger::checkpoints::Checkpoints;
use crate::ledger::follower::Follower;
use crate::ledger::partition::{Partition, holding};
use crate::ledger::snapshot::Resume;
use crate::ledger::tail::Tail;
use crate::log::topic::{self, Topic, TopicError};
use crate::log::{self, Log};
use crate::outside::Outside;
use crate::outside::ends::Ends;
use crate::outside::live::Live;
use crate::reconciler::Reconciler;
use crate::refusal::Refusals;
use crate::retirement::Retirement;
use crate::sink::{self, Membership, waiting_letters};
use crate::store::{self, StoreError};

const RETRY: Duration = Duration::from_secs(1);
/// Acknowledged claims that a stopping producer still waits for.
const FLUSH: Duration = Duration::from_millis(800);

#[derive(Clone, Debug)]
pub struct AppState {
    pub claims: Claims<Live>,
    pub pool: MySqlPool,
    pub verifier: IdentityVerifier,
}

impl AppState {
    pub fn partition_of(&self, coupon: CouponId) -> &Partition {
        holding(&self.claims.partitions, coupon)
    }
}

impl FromRef<AppState> for IdentityVerifier {
    fn from_ref(state: &AppState) -> Self {
        state.verifier.clone()
    }
}

/// Answers claims over HTTP.
pub async fn serve(context: Context, settings: Settings) -> Result<App, BoxError> {
    let log = Log::connect(Arc::new(settings.log()))?;
    let (kafka, pool) = connect(&context, &settings).await?;
    serve_from(&context, &settings, kafka, pool, log).await
}

/// Writes the ledger into the database.
pub async fn consume(context: Context, settings: Settings) -> Result<App, BoxError> {
    let (kafka, pool) = connect(&context, &settings).await?;
    start_sink(&context, &settings, kafka, pool)?;
    Ok(App::admin_only())
}

/// Both.
pub async fn all(context: Context, settings: Settings) -> Result<App, BoxError> {
    let log = Log::connect(Arc::new(settings.log()))?;
    let (kafka, pool) = connect(&context, &settings).await?;
    start_sink(&context, &settings, kafka.clone(), pool.clone())?;
    serve_from(&context, &settings, kafka, pool, log).await
}

async fn connect(
    context: &Context,
    settings: &Settings,
) -> Result<(Arc<log::Settings>, MySqlPool), BoxError> {
    let kafka = Arc::new(settings.log());
    let pool = platform::mysql::connect(&settings.mysql, &store::MIGRATOR, &context.lifecycle);
    let (pool, topic) = tokio::try_join!(pool, prepare(&kafka))?;
    platform::mysql::watch_optional_health(&pool, &context.health, &context.lifecycle);
    check_owner(&kafka, &topic, &pool).await?;
    Ok((kafka, pool))
}

/// Finds or makes the log, and checks that the database belongs to it.
pub async fn open_log(settings: &Settings, pool: &MySqlPool) -> Result<Arc<log::Settings>, BoxError> {
    let kafka = Arc::new(settings.log());
    check_owner(&kafka, &prepare(&kafka).await?, pool).await?;
    Ok(kafka)
}

async fn prepare(kafka: &log::Settings) -> Result<Topic, BoxError> {
    loop {
        match topic::prepare(kafka).await {
            Ok(topic) => return Ok(topic),
            Err(TopicError::Kafka(error)) => tracing::warn!(%error, "the log can't be reached yet"),
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn check_owner(kafka: &log::Settings, topic: &Topic, pool: &MySqlPool) -> Result<(), BoxError> {
    let (partitions, id) =
        until_there(async || Ok(store::claim_topic(pool, topic.partitions, &topic.id).await?)).await?;
    if (partitions, &id) != (topic.partitions, &topic.id) {
        return Err(format!(
            "the database belongs to topic id {id} with {partitions} partitions, but {} is {} with {}: the topic was \
             replaced, or this is another system's database. Nothing is reset; restore the one that belongs to it",
            kafka.topic, topic.id, topic.partitions
        )
        .into());
    }
    Ok(())
}

/// Asks the database until it answers.
async fn until_there<T>(ask: impl AsyncFn() -> Result<T, StoreError>) -> Result<T, StoreError> {
    loop {
        match ask().await {
            Err(error) if error.may_pass() => {
                tracing::warn!(%error, "the database refuses; waiting for it");
                tokio::time::sleep(RETRY).await;
            }
            answer => return answer,
        }
    }
}

fn start_sink(
    context: &Context,
    settings: &Settings,
    kafka: Arc<log::Settings>,
    pool: MySqlPool,
) -> Result<(), BoxError> {
    let consumer = sink::Settings {
        group: settings.consumer.group.clone(),
        session_timeout: settings.consumer.session_timeout,
    };
    let stop = context.lifecycle.background_stop();
    let letters = waiting_letters::follow(kafka.clone(), stop, waiting_letters::show);
    context.lifecycle.spawn("dead letters", letters);
    let membership = Membership::join(&consumer, kafka, pool, context.lifecycle.clone(), &context.health)?;
    context.lifecycle.spawn("consumer", membership.run());
    Ok(())
}

async fn serve_from(
    context: &Context,
    settings: &Settings,
    kafka: Arc<log::Settings>,
    pool: MySqlPool,
    log: Log,
) -> Result<App, BoxError> {
    let consul = context
        .consul
        .clone()
        .ok_or("the coupon service is found by Consul, so consul.enabled has to be true")?;
    let serving =
        Serving::start(settings, kafka, log, &pool, &context.lifecycle, &context.health, consul).await?;
    let verifier = IdentityVerifier::new(&settings.identity);
    let state = AppState { claims: serving.claims.clone(), pool, verifier };
    Ok(App::new(http::router(state)).on_stop(serving.stop()))
}

/// Everything that answers claims, without the HTTP around it.
#[derive(Debug)]
pub struct Serving {
    pub claims: Claims<Live>,
    pub follower: Follower,
}

impl Serving {
    /// Resolves when this instance follows the log.
    pub async fn start(
        settings: &Settings,
        kafka: Arc<log::Settings>,
        log: Log,
        pool: &MySqlPool,
        lifecycle: &Lifecycle,
        health: &Health,
        consul: Consul,
    ) -> Result<Self, BoxError> {
        let wanted: Vec<u32> = (0..kafka.partitions).collect();
        let snapshots = until_there(async || store::snapshots(pool, kafka.partitions, &wanted).await).await?;
        let resumes: Vec<Resume> = snapshots.iter().map(|snapshot| Resume::new(snapshot.watermark)).collect();
        let partitions: Arc<[Partition]> =
            snapshots.into_iter().map(|snapshot| Partition::new(snapshot.ledger)).collect();

        let redis = Redis::connect(settings.redis.clone(), lifecycle, &[doorman::ADMIT, counts::PUBLISH]);
        log.attach(&partitions);
        let ends = Ends::start(&kafka, lifecycle)?;
        let coupons = ServiceClient::new(consul, IdentitySigner::new(&settings.identity));
        let outside = Arc::new(Live::new(log, ends, redis.clone(), coupons, pool.clone(), lifecycle.clone()));
        let (refusals, answering) = Refusals::new(outside.clone(), partitions.clone());
        lifecycle.spawn("refusals", answering.map(Ok));
        let refusals = Arc::new(refusals);
        let checkpoints = Arc::new(Checkpoints::new(kafka.partitions));
        let component = health.optional_component("ledger");
        let tail = Tail::new(partitions.clone(), resumes.clone(), checkpoints.clone(), component);
        let follower = Follower::start(&kafka, tail, lifecycle)?;
        lifecycle.spawn("topic", topic::watch(&kafka.topic, &follower, pool.clone(), lifecycle));
        lifecycle
            .spawn("checkpoints", checkpoints.compare(pool.clone(), follower.brake(), lifecycle.clone()));
        for (partition, resume) in (0..).zip(&resumes) {
            follower.follow(partition, resume.start());
        }
        outside.log.warm_up().await;
        hear_the_log(&*outside, &partitions, &refusals).await;

        let secret = settings.definition.mac_secret.clone();
        let definitions = Definitions::new(outside.clone(), secret, partitions.clone());
        let changes = definitions.clone().follow_changes();
        lifecycle.spawn("definitions", changes.map(Ok));
        lifecycle
            .spawn("counts", Counts::new(redis.clone(), partitions.clone(), lifecycle.clone()).publish());
        let reconciler =
            Reconciler::new(redis, partitions.clone(), &kafka.topic, Clock::system(), lifecycle.clone());
        lifecycle.spawn("reconciler", reconciler.run());
        let retirement = Retirement::new(
            settings.retirement.after,
            outside.log.clone(),
            pool.clone(),
            partitions.clone(),
            Clock::system(),
            lifecycle.clone(),
        );
        lifecycle.spawn("retirement", retirement.run());
        let doorman = Doorman::new(outside.clone());
        let catching_up = doorman.clone().catch_up(partitions.clone());
        lifecycle.spawn("doorman", catching_up.map(Ok));
        let waiting = Arc::new(Waiting::new(settings.claims.max_waiting));
        let claims = Claims { partitions, outside, doorman, definitions, refusals, waiting };
        Ok(Self { claims, follower })
    }

    /// Waits for the acknowledgement of what is in flight, and ends.
    pub async fn stop(self) {
        let stopped = tokio::task::spawn_blocking(move || {
            let flushed = self.claims.outside.log.flush(FLUSH);
            drop(self.follower);
            flushed
        });
        if !matches!(stopped.await, Ok(Ok(()))) {
            tracing::warn!("claims were in flight when the producer stopped; their users will ask again");
        }
    }
}

/// Appends a probe to every partition and waits until it was read back, and until an end of the log that was asked
/// for now is passed: a follower is deaf for a while after its partitions were assigned, and claims would have to wait.
pub(crate) async fn hear_the_log(outside: &impl Outside, partitions: &[Partition], refusals: &Refusals) {
    join_all(partitions.iter().map(|partition| async move {
        let offset = loop {
            match outside.append(partition.id(), Record::Noop).await {
                Ok(offset) => break offset,
                _ if partition.is_stopped() => return,
                Err(error) => {
                    tracing::warn!(%error, log.partition = partition.id(), "the log doesn't take a probe yet");
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        // Fails only if the partition stops, which is loud already; the others go on.
        while partition.passed(offset + 1).await.is_ok() && refusals.news(partition.id()).await.is_err() {
            tokio::time::sleep(RETRY).await;
        }
    }))
    .await;
}
