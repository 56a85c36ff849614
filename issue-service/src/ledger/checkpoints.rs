//! Holds this process's digests against those that the consumer has stored: whoever has read or decided the log
//! differently is found here, 4096 records later.
//!
//! A digest covers everything before it, so whatever place is left out is judged by the next one that is compared.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use platform::lifecycle::{BoxError, Lifecycle};
use sqlx::MySqlPool;

use super::Digest;
use super::follower::Brake;
use crate::store;

/// Places of a partition that wait for the consumer to get there: 16 million records, in 160 KiB. While it is further
/// behind, new ones are left out.
const MOST: usize = 4096;
/// Between two questions to the database. The partitions never wait for it.
const PAUSE: Duration = Duration::from_secs(1);

/// Two digests of the same place.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the digest of everything below offset {next} is {ours:?} here and {stored:?} in the database: the log was cut or \
     replaced, or was decided differently there"
)]
pub struct Differs {
    next: u64,
    ours: Digest,
    stored: Digest,
}

/// What this process has passed and nobody has compared yet, by partition, in order.
#[derive(Debug)]
pub struct Checkpoints {
    waiting: Vec<Mutex<VecDeque<(u64, Digest)>>>,
}

impl Checkpoints {
    pub fn new(partitions: u32) -> Self {
        Self { waiting: (0..partitions).map(|_| Mutex::default()).collect() }
    }

    pub fn add(&self, partition: u32, next: u64, digest: Digest) {
        let mut waiting = self.waiting[partition as usize].lock();
        if waiting.len() < MOST {
            waiting.push_back((next, digest));
        }
    }

    fn range(&self, partition: u32) -> Option<(u64, u64)> {
        let waiting = self.waiting[partition as usize].lock();
        Some((waiting.front()?.0, waiting.back()?.0))
    }

    /// `stored` in order. Where the consumer has been, nothing waits any longer.
    fn settle(&self, partition: u32, stored: &[(u64, Digest)]) -> Result<(), Differs> {
        let mut waiting = self.waiting[partition as usize].lock();
        for (next, stored) in stored.iter().copied() {
            while let Some((place, ours)) = waiting.pop_front_if(|(place, _)| *place <= next) {
                if place == next && ours != stored {
                    waiting.clear();
                    return Err(Differs { next, ours, stored });
                }
            }
        }
        Ok(())
    }

    /// Compares, for as long as the process lives. A difference stops the partition.
    pub async fn compare(
        self: Arc<Self>,
        pool: MySqlPool,
        brake: Brake,
        lifecycle: Lifecycle,
    ) -> Result<(), BoxError> {
        let stop = lifecycle.background_stop();
        while tokio::time::timeout(PAUSE, stop.cancelled()).await.is_err() {
            for partition in (0..).take(self.waiting.len()) {
                let Some((first, last)) = self.range(partition) else { continue };
                let stored = store::digests(&pool, partition, first, last);
                match stop.run_until_cancelled(stored).await {
                    None => break,
                    Some(Ok(stored)) => {
                        if let Err(differs) = self.settle(partition, &stored) {
                            brake.halt(partition, differs.to_string());
                        }
                    }
                    Some(Err(error)) => {
                        tracing::debug!(%error, log.partition = partition, "stored digests can't be read");
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(of: u8) -> Digest {
        Digest([of; 32])
    }

    fn checkpoints(places: impl Iterator<Item = u8>) -> Checkpoints {
        let checkpoints = Checkpoints::new(2);
        for place in places {
            checkpoints.add(1, u64::from(place), digest(place));
        }
        checkpoints
    }

    #[test]
    fn a_place_waits_until_the_consumer_has_been_there() {
        let checkpoints = checkpoints(1..=4);
        assert_eq!((checkpoints.range(0), checkpoints.range(1)), (None, Some((1, 4))));
        assert_eq!(checkpoints.settle(1, &[]), Ok(()));
        assert_eq!(checkpoints.range(1), Some((1, 4)));
        assert_eq!(checkpoints.settle(1, &[(1, digest(1)), (3, digest(3))]), Ok(()), "one may be missing");
        assert_eq!(checkpoints.range(1), Some((4, 4)));
        assert_eq!(checkpoints.settle(1, &[(4, digest(4))]), Ok(()));
        assert_eq!(checkpoints.range(1), None);
    }

    #[test]
    fn a_difference_is_found_once() {
        let checkpoints = checkpoints(1..=4);
        let differs = Differs { next: 2, ours: digest(2), stored: digest(9) };
        let stored = [(1, digest(1)), (2, digest(9)), (3, digest(3))];
        assert_eq!(checkpoints.settle(1, &stored), Err(differs));
        assert_eq!(checkpoints.range(1), None);
    }

    #[test]
    fn only_so_many_places_wait() {
        let checkpoints = Checkpoints::new(1);
        for place in 1..=MOST as u64 + 1 {
            checkpoints.add(0, place, digest(1));
        }
        assert_eq!(checkpoints.range(0), Some((1, MOST as u64)));
    }
}
