//! The topic that is the ledger: made if it is missing, and otherwise held against what it has to be.

mod identity;

use std::sync::Arc;
use std::time::Duration;

use platform::lifecycle::{BoxError, Lifecycle};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::{Client, DefaultClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
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
    #[error(
        "topic {topic} has a partition with {found} replicas, and kafka.replication-factor says {expected}: move it to \
         more brokers with kafka-reassign-partitions, or change the setting if fewer are meant"
    )]
    Replicas { topic: String, found: usize, expected: i32 },
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
    let in_sync = settings.replication_factor.clamp(1, 2).to_string();
    let kept = |name, partitions| {
        NewTopic::new(name, partitions, TopicReplication::Fixed(settings.replication_factor))
            .set("cleanup.policy", "delete")
            .set("retention.ms", "-1")
            .set("retention.bytes", "-1")
            .set("min.insync.replicas", &in_sync)
            .set("unclean.leader.election.enable", "false")
    };
    let ledger =
        kept(&settings.topic, number(settings.partitions)).set("message.timestamp.type", "LogAppendTime");
    let dead_letters = kept(&settings.dead_letter_topic, 1);
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
    let topics = [&settings.topic, &settings.dead_letter_topic];
    let resources = topics.map(|topic| ResourceSpecifier::Topic(topic));
    for (topic, resource) in topics.into_iter().zip(admin.describe_configs(&resources, options).await?) {
        let resource = resource.map_err(KafkaError::AdminOp)?;
        if resource.get("message.timestamp.type").is_none() {
            // Not every broker has heard of a topic that was made a moment ago.
            return Err(KafkaError::AdminOp(RDKafkaErrorCode::UnknownTopicOrPartition).into());
        }
        let value = |name: &str| resource.get(name).and_then(|entry| entry.value.clone()).unwrap_or_default();
        let is_ledger = topic == &settings.topic;
        if let Some((setting, why)) = wrong_setting(is_ledger, settings.replication_factor, value) {
            return Err(TopicError::Setting { topic: topic.clone(), setting, found: value(setting), why });
        }
        for setting in ["retention.ms", "retention.bytes"] {
            if value(setting) != "-1" {
                tracing::warn!(
                    topic,
                    setting,
                    value = value(setting),
                    "retention is limited: the ledger's must outlast the oldest database backup that would be restored \
                     and the longest outage of the consumers, the dead letters' the time until somebody looks at them"
                );
            }
        }
    }
    Ok(())
}

/// The first setting by which records could be lost or judged wrongly, and what to do about it.
fn wrong_setting(
    is_ledger: bool,
    replication_factor: i32,
    value: impl Fn(&str) -> String,
) -> Option<(&'static str, &'static str)> {
    if is_ledger && value("message.timestamp.type") != "LogAppendTime" {
        return Some((
            "message.timestamp.type",
            "the window is judged by the log's own time: set it to LogAppendTime",
        ));
    }
    if value("cleanup.policy") != "delete" {
        return Some(("cleanup.policy", "a compacted topic loses records: set it to delete"));
    }
    if replication_factor < 2 {
        return None; // with the only copy everything is lost, whatever else is set
    }
    if value("min.insync.replicas").parse().is_ok_and(|replicas: u32| replicas < 2) {
        return Some((
            "min.insync.replicas",
            "what one broker alone has acknowledged is lost with it: set it to 2 or more",
        ));
    }
    if value("unclean.leader.election.enable") == "true" {
        return Some((
            "unclean.leader.election.enable",
            "a broker that has fallen behind would forget what was acknowledged: set it to false",
        ));
    }
    None
}

async fn identify(
    admin: AdminClient<DefaultClientContext>,
    settings: &Settings,
) -> Result<Topic, TopicError> {
    let (ledger, letters) = (settings.topic.clone(), settings.dead_letter_topic.clone());
    let looked_up = tokio::task::spawn_blocking(move || {
        // A topic that was made a moment ago may not be known to every broker yet.
        let mut result = identity::describe(admin.inner(), &ledger, TIMEOUT);
        for _ in 0..20 {
            if !matches!(result, Err(KafkaError::AdminOp(RDKafkaErrorCode::UnknownTopicOrPartition))) {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
            result = identity::describe(admin.inner(), &ledger, TIMEOUT);
        }
        let replicas = [&ledger, &letters].map(|topic| fewest_replicas(admin.inner(), topic));
        Ok::<_, KafkaError>((result?, replicas))
    })
    .await;
    let ((id, found), replicas) =
        looked_up.map_err(|error| KafkaError::ClientCreation(error.to_string()))??;
    let expected = settings.partitions;
    if found != expected as usize {
        return Err(TopicError::Partitions { topic: settings.topic.clone(), found, expected });
    }
    for (topic, replicas) in [&settings.topic, &settings.dead_letter_topic].into_iter().zip(replicas) {
        let (topic, found, expected) = (topic.clone(), replicas?, settings.replication_factor);
        if i32::try_from(found).is_ok_and(|found| found < expected) {
            return Err(TopicError::Replicas { topic, found, expected });
        }
    }
    match id {
        Some(id) => Ok(Topic { id, partitions: expected }),
        None => Err(TopicError::NoIdentity(settings.topic.clone())),
    }
}

/// Of the partition that has the fewest, whether they are in sync or not.
fn fewest_replicas(client: &Client<DefaultClientContext>, topic: &str) -> KafkaResult<usize> {
    let metadata = client.fetch_metadata(Some(topic), TIMEOUT)?;
    let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
    let fewest = partitions.map(|partition| partition.replicas().len()).min();
    fewest.ok_or(KafkaError::AdminOp(RDKafkaErrorCode::UnknownTopicOrPartition))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_by_which_records_could_be_lost_are_refused() {
        let good = [
            ("message.timestamp.type", "LogAppendTime"),
            ("cleanup.policy", "delete"),
            ("min.insync.replicas", "2"),
            ("unclean.leader.election.enable", "false"),
        ];
        let wrong = |is_ledger, replicas, setting: &str, found: &str| {
            let value = |name: &str| {
                let set = good.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
                if name == setting { found } else { set.unwrap_or_default() }.to_owned()
            };
            wrong_setting(is_ledger, replicas, value).map(|(setting, _)| setting)
        };
        assert_eq!(wrong(true, 3, "", ""), None);
        let all = [
            ("message.timestamp.type", "CreateTime"),
            ("cleanup.policy", "compact"),
            ("min.insync.replicas", "1"),
            ("unclean.leader.election.enable", "true"),
        ];
        for (setting, found) in all {
            assert_eq!(wrong(true, 3, setting, found), Some(setting));
            let of_letters = (setting != "message.timestamp.type").then_some(setting);
            assert_eq!(wrong(false, 3, setting, found), of_letters);
        }
        // A single broker can't do better.
        assert_eq!(wrong(true, 1, "min.insync.replicas", "1"), None);
        assert_eq!(wrong(true, 1, "cleanup.policy", "compact,delete"), Some("cleanup.policy"));
    }
}
