//! The scheduled job that copies issued counts to the coupons' rows. Invariant: one instance at a time does it, and
//! only through the connection that holds the lock, so whoever has lost the lock can't write any more.

use std::time::Duration;

use platform::lifecycle::BoxError;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::app::AppState;
use crate::config::WriteBackSettings;

mod leader;
mod pass;

use leader::Leader;
use pass::{Asking, Pass};

/// A round that takes longer is given up with its connection, and the lock goes with it.
const ROUND_LIMIT: Duration = Duration::from_secs(10);
/// A stopping process gives its background tasks two seconds: this much for a round that is under way,
const CUT_OFF: Duration = Duration::from_millis(200);
/// and this much for the last one.
const LAST_ROUND_LIMIT: Duration = Duration::from_millis(1_500);
/// How soon an issue service that did not answer is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// The job, not yet running.
#[derive(Debug)]
pub struct WriteBack {
    settings: WriteBackSettings,
    leader: Leader,
    pass: Pass,
    /// When every active coupon is to be asked about; at once after this instance has become the one that does it.
    ask_at: Option<Instant>,
}

impl WriteBack {
    #[must_use]
    pub fn new(state: &AppState, settings: WriteBackSettings) -> Self {
        let leader = Leader::new(state.pool.clone(), settings.interval);
        let pass = Pass::new(state.cache.clone(), state.ledger.clone(), state.clock.clone());
        Self { settings, leader, pass, ask_at: None }
    }

    /// Runs until `stop`, then once more: what was issued last is in the rows before the process ends.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), BoxError> {
        let mut ticker = interval(self.settings.interval);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = ticker.tick() => {}
            }
            let cut_off = async {
                stop.cancelled().await;
                sleep(CUT_OFF).await;
            };
            let finished = tokio::select! {
                biased;
                () = self.round(ROUND_LIMIT, false) => true,
                () = cut_off => false,
            };
            if !finished {
                self.leader.abandon();
            }
        }
        self.round(LAST_ROUND_LIMIT, true).await;
        self.leader.resign().await;
        Ok(())
    }

    /// One look, if it is this instance's turn. Whatever fails is tried again by the next.
    async fn round(&mut self, limit: Duration, last: bool) {
        match timeout(limit, self.try_round(last)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => tracing::warn!(error = %error, "write-back failed; trying again"),
            Err(_) => tracing::warn!(limit_s = limit.as_secs(), "write-back took too long; trying again"),
        }
        metrics::counter!("coupon_write_back_failures_total").increment(1);
        self.leader.abandon();
        self.ask_at = None;
    }

    async fn try_round(&mut self, last: bool) -> Result<(), sqlx::Error> {
        let Some(connection) = self.leader.lead().await? else {
            self.ask_at = None;
            return Ok(());
        };
        if self.ask_at.is_none() {
            self.pass.look_at_settled();
        }
        let due = self.ask_at.is_none_or(|at| Instant::now() >= at);
        let asking = if last || due { Asking::All } else { Asking::Doubtful };
        let answered = self.pass.run(connection, asking).await?;
        if asking == Asking::All {
            let wait = if answered { self.settings.authoritative_interval } else { ASK_AGAIN };
            self.ask_at = Some(Instant::now() + wait.min(self.settings.authoritative_interval));
        }
        Ok(())
    }
}
