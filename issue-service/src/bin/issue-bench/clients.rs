//! Clients, without the HTTP around the claims: so many at a time, or so many arriving a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use platform::lifecycle::BoxError;
use tokio::task::JoinSet;

use crate::figures::micros;

/// What came of a load.
pub(crate) struct Load {
    /// From the first claim to the last answer.
    pub(crate) taken: Duration,
    /// Microseconds that each claim took that was answered as it should be.
    pub(crate) latencies: Vec<u32>,
    /// Claims that were answered otherwise.
    pub(crate) failed: u64,
}

impl Load {
    fn gather(begun: Instant, answers: impl IntoIterator<Item = (u32, bool)>) -> Self {
        let taken = begun.elapsed();
        let (mut latencies, mut failed) = (Vec::new(), 0);
        for (latency, as_it_should_be) in answers {
            if as_it_should_be {
                latencies.push(latency);
            } else {
                failed += 1;
            }
        }
        Self { taken, latencies, failed }
    }
}

/// A closed loop: `in_flight` clients, each of whom claims again when it was answered. Claims are numbered from 1.
pub(crate) async fn closed<C, F>(in_flight: usize, duration: Duration, claim: C) -> Result<Load, BoxError>
where
    C: Fn(u64) -> F + Clone + Send + 'static,
    F: Future<Output = bool> + Send + 'static,
{
    let numbers = Arc::new(AtomicU64::new(1));
    let begun = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..in_flight {
        let (numbers, claim) = (numbers.clone(), claim.clone());
        clients.spawn(async move {
            let mut answers = Vec::new();
            while begun.elapsed() < duration {
                let sent = Instant::now();
                let answer = claim(numbers.fetch_add(1, Ordering::Relaxed)).await;
                answers.push((micros(sent.elapsed()), answer));
            }
            answers
        });
    }
    Ok(Load::gather(begun, clients.join_all().await.into_iter().flatten()))
}

/// `rate` claims a second, whether those before are answered or not. A claim's time runs from when it was due, so that a
/// client who was kept from sending counts as one who waits.
pub(crate) async fn arriving<C, F>(rate: u32, duration: Duration, claim: C) -> Result<Load, BoxError>
where
    C: Fn(u64) -> F + Send + 'static,
    F: Future<Output = bool> + Send + 'static,
{
    let runtime = tokio::runtime::Handle::current();
    let begun = Instant::now();
    // A thread: the runtime's timer would be late by up to a millisecond each time.
    let sending = tokio::task::spawn_blocking(move || {
        let mut claims = JoinSet::new();
        let gap = Duration::from_secs(1) / rate;
        let mut due = Duration::ZERO;
        for number in 1.. {
            due += gap;
            if due > duration {
                break;
            }
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
            let (answer, due) = (claim(number), begun + due);
            claims.spawn_on(async move { (answer.await, due.elapsed()) }, &runtime);
        }
        claims
    });
    let answers = sending.await?.join_all().await;
    Ok(Load::gather(begun, answers.into_iter().map(|(answer, taken)| (micros(taken), answer))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn arrivals_are_numbered_and_none_waits_for_another() {
        let load = arriving(1_000, Duration::from_millis(50), |number| async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            number % 5 != 0
        });
        let load = load.await.unwrap();
        assert_eq!((load.latencies.len(), load.failed), (40, 10));
        assert!(load.latencies.iter().all(|micros| *micros >= 20_000));
    }
}
