//! What is measured on: logs and databases of the benchmark's own, and instances of the service on them.
//!
//! Invariant: whatever was made is removed again, also when the benchmark fails or is stopped.

use std::sync::Arc;
use std::time::Duration;

use issue_service::app::{self, Serving};
use issue_service::config::Settings;
use issue_service::ids::{CouponId, partition_of};
use issue_service::ledger::{Definition, Record};
use issue_service::log::{self, Log};
use issue_service::sink::{self, Membership};
use issue_service::store;
use parking_lot::Mutex;
use platform::clock::{Clock, now_ms};
use platform::config::MysqlSettings;
use platform::consul::Consul;
use platform::health::Health;
use platform::id::IdGenerator;
use platform::lifecycle::{BoxError, Lifecycle};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use sqlx::mysql::MySqlConnectOptions;
use sqlx::{Connection as _, MySqlConnection, MySqlPool};

/// Nobody is refused.
pub(crate) const PLENTY: u32 = 10_000_000;
const WINDOW_MS: u64 = 24 * 3_600_000;
/// For what still runs when it is told to end.
const END: Duration = Duration::from_secs(5);

pub(crate) struct Ground {
    settings: Settings,
    begun_ms: u64,
    ids: IdGenerator,
    /// Names of databases and topics.
    made: Mutex<Vec<String>>,
}

impl Ground {
    pub(crate) fn new(settings: Settings) -> Self {
        let ids = IdGenerator::new(Clock::system());
        Self { settings, begun_ms: now_ms(), ids, made: Mutex::default() }
    }

    pub(crate) fn new_coupon(&self) -> CouponId {
        CouponId(self.ids.next())
    }

    /// An empty log with an empty database, as the service makes them.
    pub(crate) async fn system(&self) -> Result<System, BoxError> {
        let name = {
            let mut made = self.made.lock();
            // The local servers give their user databases of such names only.
            let name = format!("firstcome_bench_{}_{}", self.begun_ms, made.len());
            made.push(name.clone());
            name
        };
        let mut settings = self.settings.clone();
        settings.kafka.dead_letter_topic = dead_letters(&name);
        settings.kafka.topic.clone_from(&name);
        settings.consumer.group.clone_from(&name);
        settings.mysql.database = name;
        let lifecycle = Lifecycle::new();
        let pool = platform::mysql::connect(&settings.mysql, &store::MIGRATOR, &lifecycle).await?;
        let kafka = app::open_log(&settings, &pool).await?;
        Ok(System { settings, kafka, pool, lifecycle })
    }

    /// Removes a system, so that it costs the next one nothing.
    pub(crate) async fn remove(&self, system: System) -> Result<(), BoxError> {
        system.lifecycle.stop_background(END).await;
        system.pool.close().await;
        self.forget(&system.settings.kafka.topic).await
    }

    /// Removes everything that is left.
    pub(crate) async fn clear(&self) -> Result<(), BoxError> {
        let made = self.made.lock().clone();
        for name in made {
            self.forget(&name).await?;
        }
        Ok(())
    }

    async fn forget(&self, name: &str) -> Result<(), BoxError> {
        let mut connection = connect(&self.settings.mysql).await?;
        // A name of our own: letters, digits and underscores.
        let drop = format!("DROP DATABASE IF EXISTS {name}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(drop)).execute(&mut connection).await?;
        connection.close().await?;
        let admin: AdminClient<DefaultClientContext> = self.settings.log().client().create()?;
        // Either may be missing.
        let _ = admin.delete_topics(&[name, &dead_letters(name)], &AdminOptions::new()).await?;
        Ok(())
    }
}

fn dead_letters(topic: &str) -> String {
    format!("{topic}.dlt")
}

/// Without a database.
async fn connect(settings: &MysqlSettings) -> Result<MySqlConnection, BoxError> {
    let options = MySqlConnectOptions::new()
        .host(&settings.host)
        .port(settings.port)
        .username(&settings.username)
        .password(settings.password.expose());
    Ok(MySqlConnection::connect_with(&options).await?)
}

/// A log with its database.
pub(crate) struct System {
    pub(crate) settings: Settings,
    pub(crate) kafka: Arc<log::Settings>,
    pub(crate) pool: MySqlPool,
    lifecycle: Lifecycle,
}

impl System {
    /// An instance that answers claims. It ends with the system.
    pub(crate) async fn serving(&self) -> Result<Serving, BoxError> {
        let (kafka, log) = (self.kafka.clone(), Log::connect(self.kafka.clone())?);
        let (health, consul) = (Health::new(), Consul::new(&self.settings.consul));
        Serving::start(&self.settings, kafka, log, &self.pool, &self.lifecycle, &health, consul).await
    }

    /// An instance that writes the database.
    pub(crate) fn consumer(&self) -> Result<Consumer, BoxError> {
        let (lifecycle, health) = (Lifecycle::new(), Health::new());
        let settings = sink::Settings {
            group: self.settings.consumer.group.clone(),
            session_timeout: self.settings.consumer.session_timeout,
        };
        let (kafka, pool) = (self.kafka.clone(), self.pool.clone());
        let member = Membership::join(&settings, kafka, pool, lifecycle.clone(), &health)?;
        lifecycle.spawn("consumer", member.run());
        Ok(Consumer(lifecycle))
    }

    pub(crate) fn partition_of(&self, coupon: CouponId) -> u32 {
        partition_of(coupon, self.kafka.partitions)
    }

    /// Has a definition in force at an instance, so that it need not look for one.
    pub(crate) async fn define(&self, serving: &Serving, coupon: CouponId) -> Result<(), BoxError> {
        let number = self.partition_of(coupon);
        let record = Record::Definition(definition(coupon));
        let offset = serving.claims.outside.log.append(number, record).await?;
        serving.claims.partitions[number as usize].passed(offset + 1).await?;
        Ok(())
    }

    /// How many rows there are.
    pub(crate) async fn rows(&self) -> Result<u64, BoxError> {
        let rows: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM coupon_issues").fetch_one(&self.pool).await?;
        Ok(u64::try_from(rows)?)
    }

    /// A connection that asks how far the database follows.
    pub(crate) async fn watch(&self) -> Result<Watch, BoxError> {
        let connection = self.pool.acquire().await?.detach();
        Ok(Watch { connection })
    }
}

pub(crate) struct Watch {
    connection: MySqlConnection,
}

impl Watch {
    /// Records that the database follows, over all partitions.
    pub(crate) async fn written(&mut self) -> Result<u64, BoxError> {
        let sum = "SELECT CAST(COALESCE(SUM(`next`), 0) AS UNSIGNED) FROM ledger_watermarks";
        Ok(sqlx::query_scalar(sum).fetch_one(&mut self.connection).await?)
    }
}

/// A running consumer.
pub(crate) struct Consumer(Lifecycle);

impl Consumer {
    pub(crate) async fn stop(self) {
        self.0.stop_background(END).await;
    }
}

pub(crate) fn definition(coupon: CouponId) -> Definition {
    let now = now_ms();
    let (starts_at, ends_at) = (now - WINDOW_MS, now + WINDOW_MS);
    Definition { coupon, version: 1, stock: PLENTY, starts_at, ends_at, closed: false }
}

/// Of a field of `/proc/PID/status`, which says it in KiB.
pub(crate) fn bytes(status: &str, field: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? * 1_024.0)
}

/// Bytes of memory that this process holds.
pub(crate) fn resident() -> Result<u64, BoxError> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a size")]
    let resident = bytes(&status, "VmRSS:").ok_or("no VmRSS in /proc/self/status")? as u64;
    Ok(resident)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        let status = "Name:\tx\nVmHWM:\t   200 kB\nVmRSS:\t   100 kB\n";
        assert_eq!(bytes(status, "VmRSS:"), Some(102_400.0));
        assert_eq!(bytes(status, "VmSwap:"), None);
    }
}
