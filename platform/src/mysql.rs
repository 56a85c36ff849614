//! MySQL or MariaDB. Invariant: who gets a pool from [`connect`] has a database with every migration applied, however
//! many instances start at once.

use std::borrow::Cow;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::mysql::{MySqlConnectOptions, MySqlDatabaseError, MySqlPoolOptions};
use sqlx::{Connection as _, Executor as _, MySqlConnection, MySqlPool};

use crate::config::MysqlSettings;
use crate::health::Health;
use crate::lifecycle::{BoxError, Causes, Lifecycle};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// A request that waits longer for a connection had better be refused.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// For one attempt to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one instance waits for another's migrations, in seconds.
const LOCK_SECONDS: u32 = 60;
const PING_INTERVAL: Duration = Duration::from_secs(2);
const PING_TIMEOUT: Duration = Duration::from_secs(1);

const ACCESS_DENIED: u16 = 1045;
const DATABASE_ACCESS_DENIED: u16 = 1044;
const UNKNOWN_DATABASE: u16 = 1049;

/// Connects, makes the database if it is missing, and migrates. Waits while the server is away; the process is not
/// ready meanwhile. Sessions have time zone UTC.
///
/// # Errors
/// When the server refuses the user, a migration fails, or the process is stopped meanwhile.
pub async fn connect(
    settings: &MysqlSettings,
    migrator: &'static Migrator,
    lifecycle: &Lifecycle,
) -> Result<MySqlPool, BoxError> {
    let stopping = lifecycle.stopping();
    let prepared = async {
        let mut pause = FIRST_PAUSE;
        loop {
            match prepare(settings, migrator).await {
                Ok(()) => return Ok::<_, BoxError>(()),
                Err(error) if is_away(&error) => {
                    tracing::warn!(host = %settings.host, port = settings.port, error = %Causes(&error),
                        "MySQL is away; waiting for it");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(MAX_PAUSE);
                }
                Err(error) => return Err(Box::new(error)),
            }
        }
    };
    tokio::select! {
        prepared = prepared => prepared?,
        () = stopping.cancelled() => return Err("stopped while waiting for MySQL".into()),
    }
    let pool = MySqlPoolOptions::new()
        .max_connections(settings.max_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // The pool asks whoever comes back whether it is alive, and waits for ever; in a link that swallows everything
        // each request would cost a connection. Who does not answer us is closed before.
        .after_release(|connection, _| {
            Box::pin(async move {
                let alive = tokio::time::timeout(PING_TIMEOUT, connection.ping()).await;
                alive.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map(|()| true)
            })
        })
        .connect_lazy_with(options(settings).database(&settings.database));
    Ok(pool)
}

/// Reports the pool's health each 2 s as the component `mysql`, without which the process is not ready.
pub fn watch_health(pool: &MySqlPool, health: &Health, lifecycle: &Lifecycle) {
    report(pool, health.component("mysql"), lifecycle);
}

/// The same for a process that can work without it: it shows in the details alone.
pub fn watch_optional_health(pool: &MySqlPool, health: &Health, lifecycle: &Lifecycle) {
    report(pool, health.optional_component("mysql"), lifecycle);
}

fn report(pool: &MySqlPool, component: crate::health::ComponentHandle, lifecycle: &Lifecycle) {
    let (pool, stop) = (pool.clone(), lifecycle.background_stop());
    lifecycle.spawn("mysql health", async move {
        loop {
            match tokio::time::timeout(PING_TIMEOUT, pool.execute("SELECT 1")).await {
                Ok(Ok(_)) => component.up(),
                Ok(Err(error)) => component.down(Causes(&error).to_string()),
                Err(_) => component.down("no answer within 1 s"),
            }
            tokio::select! {
                () = tokio::time::sleep(PING_INTERVAL) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    });
}

#[derive(Debug, thiserror::Error)]
enum PrepareError {
    #[error("MySQL: {0}")]
    Server(#[from] sqlx::Error),
    #[error("a migration of {0} failed: {1}")]
    Migration(String, #[source] sqlx::migrate::MigrateError),
    #[error("the connection was not made in time")]
    Timeout,
    #[error("another instance has been migrating {0} for {LOCK_SECONDS} s")]
    Locked(String),
}

/// Whether waiting may help.
fn is_away(error: &PrepareError) -> bool {
    match error {
        PrepareError::Timeout | PrepareError::Locked(_) => true,
        PrepareError::Server(error) => match error {
            sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::PoolTimedOut => true,
            error => {
                number(error).is_some_and(|number| ![ACCESS_DENIED, DATABASE_ACCESS_DENIED].contains(&number))
            }
        },
        PrepareError::Migration(_, error) => {
            matches!(error, sqlx::migrate::MigrateError::Execute(sqlx::Error::Io(_)))
        }
    }
}

fn number(error: &sqlx::Error) -> Option<u16> {
    let error = error.as_database_error()?.try_downcast_ref::<MySqlDatabaseError>()?;
    Some(error.number())
}

fn options(settings: &MysqlSettings) -> MySqlConnectOptions {
    MySqlConnectOptions::new()
        .host(&settings.host)
        .port(settings.port)
        .username(&settings.username)
        .password(settings.password.expose())
        .timezone(Some("+00:00".to_owned()))
}

async fn open(options: &MySqlConnectOptions) -> Result<MySqlConnection, PrepareError> {
    let connection = tokio::time::timeout(CONNECT_TIMEOUT, MySqlConnection::connect_with(options)).await;
    Ok(connection.map_err(|_| PrepareError::Timeout)??)
}

async fn prepare(settings: &MysqlSettings, migrator: &Migrator) -> Result<(), PrepareError> {
    let database = &settings.database;
    let with_database = options(settings).database(database);
    let mut connection = match open(&with_database).await {
        // Only then is it made: a user who may not create databases can still use one that is there.
        Err(PrepareError::Server(error)) if number(&error) == Some(UNKNOWN_DATABASE) => {
            let mut connection = open(&options(settings)).await?;
            // The settings' check lets only letters, digits and underscores through.
            let create = format!(
                "CREATE DATABASE IF NOT EXISTS `{database}` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
            );
            connection.execute(sqlx::AssertSqlSafe(create)).await?;
            connection.close().await?;
            open(&with_database).await?
        }
        connection => connection?,
    };
    let lock = format!("firstcome migrations {database}");
    let locked: Option<i64> = sqlx::query_scalar("SELECT CAST(GET_LOCK(?, ?) AS SIGNED)")
        .bind(&lock)
        .bind(LOCK_SECONDS)
        .fetch_one(&mut connection)
        .await?;
    if locked != Some(1) {
        return Err(PrepareError::Locked(database.clone()));
    }
    // sqlx's own lock waits with a negative timeout, which MariaDB takes for none.
    let migrator = Migrator {
        migrations: migrator.migrations.clone(),
        ignore_missing: migrator.ignore_missing,
        locking: false,
        no_tx: migrator.no_tx,
        table_name: migrator.table_name.clone(),
        create_schemas: Cow::Borrowed(&[]),
    };
    let migrated = migrator.run_direct(None, &mut connection, false).await;
    // The lock goes with the connection.
    connection.close().await?;
    migrated.map_err(|error| PrepareError::Migration(database.clone(), error))
}
