//! Deletes refresh tokens and families that have expired. Harmless in any number of instances: it only removes what
//! could no longer be used.

use std::time::Duration;

use platform::clock::Clock;
use platform::lifecycle::BoxError;
use sqlx::MySqlPool;
use tokio_util::sync::CancellationToken;

use crate::store::refresh;

/// Expired rows cost only space, so there is no hurry.
const INTERVAL: Duration = Duration::from_secs(600);
/// Small enough that no statement holds its locks for long.
const BATCH: u32 = 500;

/// Sweeps now and then until `stop`. A database that is away is tried again at the next turn.
pub async fn run(pool: MySqlPool, clock: Clock, stop: CancellationToken) -> Result<(), BoxError> {
    loop {
        let swept = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            swept = refresh::sweep(&pool, clock.now_ms(), BATCH) => swept,
        };
        match swept {
            Ok(0) => {}
            Ok(rows) => {
                tracing::info!(rows, "expired refresh tokens deleted");
                continue;
            }
            Err(error) => tracing::warn!(error = %error, "expired refresh tokens could not be deleted"),
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}
