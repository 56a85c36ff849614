//! The topic that is the ledger: made if it is missing, and otherwise held against what it has to be.

mod identity;

use std::sync::Arc;
use std::time::Duration;

use platform::lifecycle::{BoxError, Lifecycle};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use sqlx::MySqlPool;

use super::{Settings, number};
use crate::ledger::follower::Follower;
use crate::store;

const TIMEOUT: Duration = Duration::from_secs(10);
/// Between two questions whether the topic is still the same one.
const WATCH: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    #[error("Kafka: {0}")]
    Kafka(#[from] KafkaError),
    #[error("topic {topic}: {setting} is \"{found}\", but {why}")]
    Setting { topic: String, setting: &'static str, found: String, why: &'static str },
    #[error(
        "topic {topic} has {found} partitions, and kafka.partitions says {expected}: the number is part of the \
         data, changing it is a migration"
    )]
    Partitions { topic: String, found: usize, expected: u32 },
    #[error("topic {0} has no id: Kafka brokers of version 2.8 or newer give one")]
    NoIdentity(String),
}

/// The ledger's topic as the brokers know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Given by Kafka when a topic is made; another topic of the same name has another one.
    pub id: String,
    pub partitions: u32,
}

/// Makes the topics that are missing, checks the ledger's settings, and tells its id.
pub async fn prepare(settings: &Settings) -> Result<Topic, TopicError> {
    let admin: AdminClient<DefaultClientContext> = settings.client().create()?;
    let options = AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT));
    let replication = || TopicReplication::Fixed(settings.replication_factor);
    let ledger = NewTopic::new(&settings.topic, number(settings.partitions), replication())
        .set("message.timestamp.type", "LogAppendTime")
        .set("cleanup.policy", "delete")
        .set("retention.ms", "-1")
        .set("retention.bytes", "-1");
    let dead_letters = NewTopic::new(&settings.dead_letter_topic, 1, replication())
        .set("retention.ms", "-1")
        .set("cleanup.policy", "delete");
    for result in admin.create_topics([&ledger, &dead_letters], &options).await? {
        match result {
            Ok(name) => tracing::info!(topic = name, "made a topic"),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(KafkaError::AdminOp(code).into()),
        }
    }
    let mut tries = 0;
    loop {
        match check_settings(&admin, settings, &options).await {
            Err(TopicError::Kafka(KafkaError::AdminOp(RDKafkaErrorCode::UnknownTopicOrPartition)))
                if tries < 20 =>
            {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            checked => break checked?,
        }
    }
    identify(admin, settings).await
}

/// Stops every partition of a follower when the topic was deleted and made anew. Where the new one holds the offset that
/// is due, it would go on there as if nothing had happened.
pub fn watch(
    topic: &str,
    follower: &Follower,
    pool: MySqlPool,
    lifecycle: &Lifecycle,
) -> impl Future<Output = Result<(), BoxError>> + use<> {
    let (topic, client, brake) = (topic.to_owned(), follower.client(), follower.brake());
    let stop = lifecycle.background_stop();
    async move {
        let mut ours = None;
        while tokio::time::timeout(WATCH, stop.cancelled()).await.is_err() {
            let look = async {
                if ours.is_none() {
                    ours = Some(store::topic_id(&pool).await?);
                }
                current(client.clone(), topic.clone()).await
            };
            let id = stop.run_until_cancelled(look).await.and_then(Result::ok).flatten();
            if let (Some(id), Some(ours)) = (&id, &ours)
                && id != ours
            {
                brake.halt_all(format!(
                    "topic {topic} was deleted and made anew: its id is {id}, and the database belongs to {ours}. \
                     Nothing is reset"
                ));
                stop.cancelled().await;
            }
        }
        Ok(())
    }
}

async fn current(client: Arc<BaseConsumer>, topic: String) -> Result<Option<String>, BoxError> {
    let described = tokio::task::spawn_blocking(move || identity::describe(client.client(), &topic, TIMEOUT));
    Ok(described.await??.0)
}

async fn check_settings(
    admin: &AdminClient<DefaultClientContext>,
    settings: &Settings,
    options: &AdminOptions,
) -> Result<(), TopicError> {
    let resources = [ResourceSpecifier::Topic(&settings.topic)];
    for resource in admin.describe_configs(&resources, options).await? {
        let resource = resource.map_err(KafkaError::AdminOp)?;
        if resource.get("message.timestamp.type").is_none() {
            // Not every broker has heard of a topic that was made a moment ago.
            return Err(KafkaError::AdminOp(RDKafkaErrorCode::UnknownTopicOrPartition).into());
        }
        let value = |name: &str| resource.get(name).and_then(|entry| entry.value.clone()).unwrap_or_default();
        let wrong = |setting, why| TopicError::Setting {
            topic: settings.topic.clone(),
            setting,
            found: value(setting),
            why,
        };
        if value("message.timestamp.type") != "LogAppendTime" {
            return Err(wrong(
                "message.timestamp.type",
                "the window is judged by the log's own time: set it to LogAppendTime",
            ));
        }
        if value("cleanup.policy") != "delete" {
            return Err(wrong("cleanup.policy", "a compacted log loses decisions: set it to delete"));
        }
        for setting in ["retention.ms", "retention.bytes"] {
            if value(setting) != "-1" {
                tracing::warn!(
                    setting,
                    value = value(setting),
                    "the ledger's retention is limited: it must outlast the oldest database backup that would be \
                     restored and the longest outage of the consumers"
                );
            }
        }
    }
    Ok(())
}

async fn identify(
    admin: AdminClient<DefaultClientContext>,
    settings: &Settings,
) -> Result<Topic, TopicError> {
    let (name, expected) = (settings.topic.clone(), settings.partitions);
    let looked_up = tokio::task::spawn_blocking(move || {
        // A topic that was made a moment ago may not be known to every broker yet.
        let mut result = identity::describe(admin.inner(), &name, TIMEOUT);
        for _ in 0..20 {
            if !matches!(result, Err(KafkaError::AdminOp(RDKafkaErrorCode::UnknownTopicOrPartition))) {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
            result = identity::describe(admin.inner(), &name, TIMEOUT);
        }
        result
    })
    .await;
    let (id, found) = looked_up.map_err(|error| KafkaError::ClientCreation(error.to_string()))??;
    if found != expected as usize {
        return Err(TopicError::Partitions { topic: settings.topic.clone(), found, expected });
    }
    match id {
        Some(id) => Ok(Topic { id, partitions: expected }),
        None => Err(TopicError::NoIdentity(settings.topic.clone())),
    }
}
