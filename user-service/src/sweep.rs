//! Deletes what has expired: refresh tokens, logins, revocations, failures. Harmless in any number of instances: it only removes
//! what could no longer be used.

use std::time::Duration;

use platform::clock::Clock;
use platform::lifecycle::BoxError;
use sqlx::MySqlPool;
use tokio_util::sync::CancellationToken;

use crate::store::{failures, refresh, sessions};

/// Expired rows cost only space, so there is no hurry.
const INTERVAL: Duration = Duration::from_secs(600);
/// Small enough that no statement holds its locks for long.
const BATCH: u32 = 500;

/// Sweeps now and then until `stop`. A database that is away is tried again at the next turn.
pub async fn run(pool: MySqlPool, clock: Clock, stop: CancellationToken) -> Result<(), BoxError> {
    loop {
        let swept = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            swept = sweep(&pool, clock.now_ms()) => swept,
        };
        match swept {
            Ok(0) => {}
            Ok(rows) => {
                tracing::info!(rows, "expired rows deleted");
                continue;
            }
            Err(error) => tracing::warn!(error = %error, "expired rows could not be deleted"),
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// A batch of each kind; how many rows went.
async fn sweep(pool: &MySqlPool, now_ms: u64) -> Result<u64, sqlx::Error> {
    Ok(refresh::sweep(pool, now_ms, BATCH).await?
        + sessions::sweep(pool, now_ms, BATCH).await?
        + failures::sweep(pool, now_ms, BATCH).await?)
}
