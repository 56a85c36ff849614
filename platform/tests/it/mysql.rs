use std::time::Duration;

use platform::config::MysqlSettings;
use platform::health::{Health, Status};
use platform::lifecycle::Lifecycle;
use platform::mysql;
use platform::testing::{Servers, free_address, unique_name};
use sqlx::migrate::Migrator;
use sqlx::{Executor as _, MySqlPool};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

static MIGRATIONS: Migrator = sqlx::migrate!("tests/it/migrations");
static BROKEN: Migrator = sqlx::migrate!("tests/it/broken");

async fn drop_database(pool: &MySqlPool, settings: &MysqlSettings) {
    pool.execute(sqlx::AssertSqlSafe(format!("DROP DATABASE `{}`", settings.database))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_that_start_at_once_find_one_migrated_database() {
    let (settings, lifecycle) = (Servers::get().mysql(&unique_name("platform")), Lifecycle::new());
    let starts = (0..4).map(|_| mysql::connect(&settings, &MIGRATIONS, &lifecycle));
    let pools: Vec<MySqlPool> =
        futures_util::future::join_all(starts).await.into_iter().collect::<Result<_, _>>().unwrap();
    for pool in &pools {
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM things").fetch_one(pool).await.unwrap();
        assert_eq!(count, 0);
        let zone: String = sqlx::query_scalar("SELECT @@session.time_zone").fetch_one(pool).await.unwrap();
        assert_eq!(zone, "+00:00");
    }
    let health = Health::new();
    mysql::watch_health(&pools[0], &health, &lifecycle);
    health.started();
    while health.readiness() != Status::Up {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop_database(&pools[0], &settings).await;
    lifecycle.stop_background(Duration::from_secs(5)).await;
    assert!(!lifecycle.failed());
}

#[expect(clippy::disallowed_methods, reason = "the test's own runtime, where no lifecycle is needed")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

/// A way to the server on which everything that is open now stops being heard, without an error; what is opened later is
/// not.
async fn link(settings: &MysqlSettings) -> (u16, watch::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = (settings.host.clone(), settings.port);
    let (hangs, hanging) = watch::channel(());
    spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (mut server, mut hanging) = (TcpStream::connect(&server).await.unwrap(), hanging.clone());
            hanging.mark_unchanged();
            spawn(async move {
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                    _ = hanging.changed() => std::future::pending().await,
                }
            });
        }
    });
    (port, hangs)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_swallows_everything_costs_no_connection_for_good() {
    let (direct, lifecycle) = (Servers::get().mysql(&unique_name("platform")), Lifecycle::new());
    let (port, hangs) = link(&direct).await;
    let settings = MysqlSettings { port, max_connections: 3, ..direct };
    let pool = mysql::connect(&settings, &MIGRATIONS, &lifecycle).await.unwrap();
    let ask = async || {
        let asked = sqlx::query_scalar::<_, i64>("SELECT 1").fetch_one(&pool);
        tokio::time::timeout(Duration::from_millis(500), asked).await
    };
    // Requests in flight when the link goes silent, which their own limit ends.
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(pool.acquire().await.unwrap());
    }
    hangs.send_replace(());
    for mut connection in held {
        let asked = sqlx::query_scalar::<_, i64>("SELECT 1").fetch_one(&mut *connection);
        assert!(tokio::time::timeout(Duration::from_millis(200), asked).await.is_err());
    }
    let begun = std::time::Instant::now();
    while ask().await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10), "the connections are lost");
    }
    drop_database(&pool, &settings).await;
}

#[tokio::test]
async fn a_wrong_password_or_migration_is_an_error_at_once() {
    let lifecycle = Lifecycle::new();
    let settings = Servers::get().mysql(&unique_name("platform"));
    let wrong = MysqlSettings { password: "wrong".into(), ..settings.clone() };
    let error = mysql::connect(&wrong, &MIGRATIONS, &lifecycle).await.unwrap_err().to_string();
    assert!(error.contains("denied"), "{error}");
    assert!(mysql::connect(&settings, &BROKEN, &lifecycle).await.is_err());
    let cleanup = MySqlPool::connect_lazy_with(
        sqlx::mysql::MySqlConnectOptions::new()
            .host(&settings.host)
            .port(settings.port)
            .username(&settings.username)
            .password(settings.password.expose()),
    );
    drop_database(&cleanup, &settings).await;
}

#[tokio::test]
async fn a_server_that_is_away_is_waited_for_until_the_process_stops() {
    let lifecycle = Lifecycle::new();
    let settings = MysqlSettings { port: free_address().port(), ..Servers::get().mysql("none") };
    let connect = mysql::connect(&settings, &MIGRATIONS, &lifecycle);
    let mut connect = std::pin::pin!(connect);
    assert!(tokio::time::timeout(Duration::from_millis(500), connect.as_mut()).await.is_err());
    lifecycle.shutdown();
    assert!(connect.await.is_err());
}
