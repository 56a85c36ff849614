//! Which instance does the write-back: the one that holds a named lock of MySQL. A lock, not a lease in a row: it needs
//! no clock, costs no write, and the server frees it when the holder's connection ends. It can't be copied to a
//! replica, but counts are copied again anyway, so two holders around a failover do no harm.

use std::time::Duration;

use sqlx::mysql::MySqlConnection;
use sqlx::{Connection as _, MySqlPool};

/// The name holds for the whole server, so it contains the database; it must not be longer than 64 characters.
const LEAD: &str = "SELECT CAST(IF(IS_USED_LOCK(RIGHT(CONCAT(DATABASE(), '.write-back'), 64)) <=> CONNECTION_ID(), 1, \
                    GET_LOCK(RIGHT(CONCAT(DATABASE(), '.write-back'), 64), 0)) AS SIGNED)";
const RESIGN: &str = "SELECT RELEASE_LOCK(RIGHT(CONCAT(DATABASE(), '.write-back'), 64))";

/// The server drops a session that is silent for this many rounds: a holder whose machine vanished does not keep the
/// lock until TCP notices.
const SILENT_ROUNDS: u32 = 5;
const SHORTEST_SILENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Leader {
    pool: MySqlPool,
    silence: Duration,
    connection: Option<MySqlConnection>,
    leads: bool,
}

impl Leader {
    pub(super) fn new(pool: MySqlPool, interval: Duration) -> Self {
        let silence = (interval * SILENT_ROUNDS).max(SHORTEST_SILENCE);
        Self { pool, silence, connection: None, leads: false }
    }

    /// The connection that holds the lock, if it is this instance's. To be asked before each round.
    pub(super) async fn lead(&mut self) -> Result<Option<&mut MySqlConnection>, sqlx::Error> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.open().await?,
        };
        // Taken out while the statement runs: if this is cut off, the connection ends and the lock with it.
        let answer: Option<i64> = sqlx::query_scalar(LEAD).fetch_one(&mut connection).await?;
        self.note(answer == Some(1));
        let connection = self.connection.insert(connection);
        Ok(self.leads.then_some(connection))
    }

    /// Gives the lock to another instance.
    pub(super) async fn resign(&mut self) {
        self.note(false);
        if let Some(mut connection) = self.connection.take() {
            // Closing frees the lock too; asking makes sure that it is free by now.
            let released = sqlx::query(RESIGN).execute(&mut connection).await;
            let closed = connection.close().await;
            if let Err(error) = released.map(|_| ()).and(closed) {
                tracing::debug!(error = %error, "the lock's connection was gone");
            }
        }
    }

    /// Lets go of a connection whose state is unknown.
    pub(super) fn abandon(&mut self) {
        self.connection = None;
        self.note(false);
    }

    /// A connection of its own: one from the pool would hold up a request, or carry the lock back into the pool.
    async fn open(&self) -> Result<MySqlConnection, sqlx::Error> {
        let mut connection = self.pool.acquire().await?.detach();
        sqlx::query("SET SESSION wait_timeout = ?")
            .bind(self.silence.as_secs())
            .execute(&mut connection)
            .await?;
        Ok(connection)
    }

    fn note(&mut self, leads: bool) {
        if leads != self.leads {
            self.leads = leads;
            let turn =
                if leads { "it is this instance's turn" } else { "it is no longer this instance's turn" };
            tracing::info!(leads, "write-back: {turn}");
            metrics::gauge!("coupon_write_back_leader").set(if leads { 1.0 } else { 0.0 });
        }
    }
}
