//! Waits until the consumers have written everything that the log held when the audit began.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use sqlx::mysql::MySqlConnection;

use super::rows;
use crate::state::Kafka;

const POLL: Duration = Duration::from_millis(200);
const KAFKA_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_TOPIC: &str = "coupon.issued";

/// How it ended: what was waited for, or what is missing.
pub(crate) type Level = Result<String, String>;

/// Asks Kafka for the log's end, and MySQL until its watermarks have reached it or `until` is over.
pub(crate) async fn by_log(kafka: &Kafka, connection: &mut MySqlConnection, until: Instant) -> Result<Level> {
    let servers = kafka.bootstrap_servers.clone();
    let topic = kafka.topic.clone().unwrap_or_else(|| DEFAULT_TOPIC.to_owned());
    let ends = tokio::task::spawn_blocking(move || log_ends(&servers, &topic)).await??;
    let started = Instant::now();
    loop {
        let at: HashMap<u64, u64> = rows::watermarks(connection).await?.into_iter().collect();
        let behind: Vec<String> = ends
            .iter()
            .filter(|(partition, end)| at.get(partition).copied().unwrap_or(0) < *end)
            .map(|(partition, end)| {
                format!("partition {partition} at {} of {end}", at.get(partition).copied().unwrap_or(0))
            })
            .collect();
        if behind.is_empty() {
            let records: u64 = ends.iter().map(|(_, end)| end).sum();
            let waited = started.elapsed().as_millis();
            return Ok(Ok(format!("{records} records of {} partitions, after {waited} ms", ends.len())));
        }
        if Instant::now() >= until {
            return Ok(Err(behind.join(", ")));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Without Kafka: until the rows have rested.
pub(crate) async fn by_rest(
    connection: &mut MySqlConnection,
    coupon: u64,
    rest: Duration,
    until: Instant,
) -> Result<Level> {
    let mut last = (rows::count(connection, coupon).await?, Instant::now());
    loop {
        tokio::time::sleep(POLL).await;
        let count = rows::count(connection, coupon).await?;
        if count != last.0 {
            last = (count, Instant::now());
        }
        if last.1.elapsed() >= rest {
            return Ok(Ok(format!(
                "the rows rested {} (the log was not asked)",
                humantime::format_duration(rest)
            )));
        }
        if Instant::now() >= until {
            return Ok(Err("the rows are still growing".to_owned()));
        }
    }
}

fn log_ends(servers: &str, topic: &str) -> Result<Vec<(u64, u64)>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("allow.auto.create.topics", "false")
        .set("group.id", "couponctl-audit") // demanded by the client; nothing is subscribed
        .set("log_level", "0")
        .create()?;
    let metadata = consumer
        .fetch_metadata(Some(topic), KAFKA_TIMEOUT)
        .with_context(|| format!("Kafka at {servers} does not answer"))?;
    let partitions: Vec<i32> = metadata
        .topics()
        .iter()
        .flat_map(|topic| topic.partitions())
        .map(|partition| partition.id())
        .collect();
    if partitions.is_empty() {
        bail!("Kafka at {servers} has no topic {topic}");
    }
    partitions
        .into_iter()
        .map(|partition| {
            let (_, end) = consumer
                .fetch_watermarks(topic, partition, KAFKA_TIMEOUT)
                .with_context(|| format!("Kafka does not tell the end of partition {partition}"))?;
            Ok((u64::try_from(partition)?, u64::try_from(end)?))
        })
        .collect()
}
