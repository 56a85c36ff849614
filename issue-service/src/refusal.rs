//! The rule of refusal: nobody is told "no" on old news.
//!
//! A refusal is said only after the ledger has passed an end of the log that was asked for *after* the request
//! arrived. One question serves everybody who waits for a partition when it is sent; nobody joins a question
//! already sent. No lease is involved, so a frozen process or a lagging follower can't refuse a winner.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::ledger::partition::Partition;
use crate::outside::Outside;

/// At least this long between two questions about one partition, so that a crowd of losers shares few of them.
const PACE: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub struct Refusals {
    questions: Vec<mpsc::UnboundedSender<oneshot::Sender<()>>>,
}

impl Refusals {
    /// With what answers them for as long as the process runs.
    pub fn new<O: Outside>(
        outside: Arc<O>,
        partitions: Arc<[Partition]>,
    ) -> (Self, impl Future<Output = ()> + Send + use<O>) {
        let (questions, waiting): (Vec<_>, Vec<_>) =
            partitions.iter().map(|_| mpsc::unbounded_channel()).unzip();
        let answering = async move {
            let asking = partitions.iter().zip(waiting);
            let asking = join_all(asking.map(|(partition, waiting)| ask(&*outside, partition, waiting)));
            outside.stop().run_until_cancelled(asking).await;
        };
        (Self { questions }, answering)
    }

    /// Resolves once the ledger has passed an end of this partition that was asked for after this call; fails
    /// if the log doesn't answer or the partition stops.
    pub fn news(&self, partition: u32) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        if let Some(questions) = self.questions.get(partition as usize) {
            // Fails only when the process ends.
            let _ = questions.send(sender);
        }
        receiver
    }
}

async fn ask<O: Outside>(
    outside: &O,
    partition: &Partition,
    mut waiting: mpsc::UnboundedReceiver<oneshot::Sender<()>>,
) {
    let mut last: Option<Instant> = None;
    while let Some(first) = waiting.recv().await {
        if let Some(last) = last {
            tokio::time::sleep_until(last + PACE).await;
        }
        // Everybody who is here now arrived before the question is sent.
        let mut asking = vec![first];
        while let Ok(next) = waiting.try_recv() {
            asking.push(next);
        }
        last = Some(Instant::now());
        if let Some(end) = outside.end_of(partition.id()).await {
            for waiter in asking {
                partition.wake_at(end, waiter);
            }
        }
    }
}
