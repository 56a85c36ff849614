//! What moves while it is read: the count that the coupon shows, and the doorman's set.
//!
//! At rest both are what the rows are. While a sale goes on they are ahead of the snapshot of the rows, so they are
//! held between it and the rows that there are afterwards, when the consumers have written what the log held then.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sqlx::mysql::MySqlConnection;

use super::doorman::Redis;
use super::{api, level};
use crate::index;
use crate::kafka::Kafka;
use crate::load::target::Target;

const POLL: Duration = Duration::from_millis(250);
/// Within this the reconciler has removed members who have not won, also when the waiting was over before.
pub(crate) const SETTLE: Duration = Duration::from_secs(15);

/// What the coupon shows, and the rows afterwards.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown {
    pub(crate) issued: u64,
    pub(crate) rows: u64,
    /// The rows hold everything that the log held when the coupon was looked at.
    pub(crate) level: bool,
}

/// How the doorman's set differed from the rows, each time that it was read.
#[derive(Debug, Default)]
pub(crate) struct Difference {
    pub(crate) members: u64,
    pub(crate) users: u64,
    /// In the set without a row, in the end, too.
    pub(crate) extra: Vec<u64>,
    /// With a row of the snapshot, and not in the set.
    pub(crate) missing: Vec<u64>,
    /// The rows hold everything that the log held when the set was read.
    pub(crate) level: bool,
}

impl Difference {
    /// Both sorted.
    pub(crate) fn new(users: &[u64], set: &[u64]) -> Self {
        let without = |one: &[u64], other: &[u64]| -> Vec<u64> {
            one.iter().copied().filter(|user| other.binary_search(user).is_err()).collect()
        };
        Self {
            members: set.len() as u64,
            users: users.len() as u64,
            extra: without(set, users),
            missing: without(users, set),
            level: true,
        }
    }

    /// Who was admitted and has not won yet is no fault, nor is who came since: only who stays.
    pub(crate) fn look_again(&mut self, set: &[u64]) {
        self.extra.retain(|user| set.binary_search(user).is_ok());
        self.missing.retain(|user| set.binary_search(user).is_err());
    }

    pub(crate) fn is_none(&self) -> bool {
        self.extra.is_empty() && self.missing.is_empty()
    }
}

/// Everything as it is now, beside the snapshot.
pub(crate) struct Live<'a> {
    pub(crate) kafka: Option<&'a Kafka>,
    pub(crate) connection: MySqlConnection,
    pub(crate) until: Instant,
    /// For each coupon that has moved since the snapshot, also when `until` is over.
    pub(crate) patience: Duration,
}

impl Live<'_> {
    /// What the coupon service shows; the write-back may be a little behind.
    pub(crate) async fn shown(
        &mut self,
        target: &Target,
        coupon: u64,
        rows: u64,
    ) -> Result<Result<Shown, String>> {
        let until = self.until.max(Instant::now() + self.patience);
        loop {
            let asked = api::issued(target, coupon).await.map_err(|error| format!("{error:#}"));
            let shown = match asked {
                Ok(issued) if issued == rows => Ok(Shown { issued, rows, level: true }),
                Ok(issued) => {
                    let (rows, level) = self.rows(coupon, rows, until).await?;
                    Ok(Shown { issued, rows, level })
                }
                Err(problem) => Err(problem),
            };
            let level = shown.as_ref().is_ok_and(|shown| (rows..=shown.rows).contains(&shown.issued));
            let moved = shown.as_ref().is_ok_and(|shown| shown.rows > rows);
            if level || Instant::now() >= if moved { until } else { self.until } {
                return Ok(shown);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The doorman's set; whoever brings it level may need a moment. `None` if there is no such key.
    pub(crate) async fn set(
        &mut self,
        redis: &Redis,
        coupon: u64,
        users: &[u64],
        rows: u64,
    ) -> Result<Result<Option<Difference>, String>> {
        let until = self.until.max(Instant::now() + self.patience);
        let mut found: Option<Difference> = None;
        loop {
            // Who was admitted just now may have to wait for a second look, in any case.
            let first = found.is_none();
            let read = redis.users(coupon).await.context("Redis").map_err(|error| format!("{error:#}"));
            let mut moved = false;
            match &read {
                Ok(None) => return Ok(Ok(None)),
                Ok(Some(set)) => {
                    match &mut found {
                        Some(found) => found.look_again(set),
                        None => found = Some(Difference::new(users, set)),
                    }
                    if let Some(found) = found.as_mut().filter(|found| !found.is_none()) {
                        let now;
                        (now, found.level) = self.rows(coupon, rows, until).await?;
                        moved = now > rows;
                        let won = index::with_rows(&mut self.connection, coupon, &found.extra).await?;
                        let won: HashSet<u64> = won.into_iter().collect();
                        found.extra.retain(|user| !won.contains(user));
                    }
                }
                Err(_) => {}
            }
            let level = read.is_ok() && found.as_ref().is_some_and(Difference::is_none);
            let late = !first && Instant::now() >= if moved { until } else { self.until };
            if level || late {
                return Ok(read.map(|_| found));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The rows now, and whether they hold everything that the log holds now. Without Kafka nobody knows what is on
    /// its way, except where nothing has come since.
    async fn rows(&mut self, coupon: u64, before: u64, until: Instant) -> Result<(u64, bool)> {
        let level = match self.kafka {
            Some(kafka) => Some(level::by_log(kafka, &mut self.connection, until).await?.is_ok()),
            None => None,
        };
        let rows = index::count(&mut self.connection, Some(coupon)).await?;
        Ok((rows, level.unwrap_or(rows == before)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_differs_each_time_differs() {
        let mut found = Difference::new(&[1, 2, 3], &[1, 4, 5]);
        assert_eq!((&found.extra[..], &found.missing[..]), (&[4, 5][..], &[2, 3][..]));
        assert_eq!((found.members, found.users), (3, 3));
        // 5 is gone and 3 is there by now; 9 has just come, and 1 just left.
        found.look_again(&[3, 4, 9]);
        assert_eq!((&found.extra[..], &found.missing[..]), (&[4][..], &[2][..]));
        found.look_again(&[2, 5]);
        assert!(found.is_none());
    }
}
