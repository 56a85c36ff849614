//! Waits until the consumers have written everything that the log held when the audit began.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use sqlx::mysql::MySqlConnection;

use crate::index;
use crate::kafka::Kafka;

const POLL: Duration = Duration::from_millis(200);

/// How it ended: what was waited for, or what is missing.
pub(crate) type Level = Result<String, String>;

/// Asks Kafka for the log's end, and MySQL until its watermarks have reached it or `until` is over.
pub(crate) async fn by_log(kafka: &Kafka, connection: &mut MySqlConnection, until: Instant) -> Result<Level> {
    let ends = tokio::task::block_in_place(|| log_ends(kafka))?;
    let started = Instant::now();
    loop {
        let watermarks = index::watermarks(connection).await?;
        let at: HashMap<u64, u64> = watermarks.iter().map(|it| (it.partition, it.next)).collect();
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
    coupon: Option<u64>,
    rest: Duration,
    until: Instant,
) -> Result<Level> {
    let mut last = (index::count(connection, coupon).await?, Instant::now());
    loop {
        tokio::time::sleep(POLL).await;
        let count = index::count(connection, coupon).await?;
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

fn log_ends(kafka: &Kafka) -> Result<Vec<(u64, u64)>> {
    let topic = kafka.open(&kafka.topic)?;
    (0..topic.partitions).map(|partition| Ok((u64::from(partition), topic.bounds(partition)?.end))).collect()
}
