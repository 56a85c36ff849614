//! The real servers that these tests need; without them they fail loudly, never silently.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor};

#[derive(Debug, Deserialize)]
pub(crate) struct Servers {
    mysql: Mysql,
    pub(crate) kafka: Kafka,
    redis: Redis,
}

#[derive(Debug, Deserialize)]
struct Mysql {
    host: String,
    port: u16,
    username: String,
    password: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Kafka {
    pub(crate) bootstrap_servers: String,
}

#[derive(Debug, Deserialize)]
struct Redis {
    sentinels: Vec<String>,
    master: String,
    password: String,
    address: String,
}

impl Servers {
    pub(crate) fn get() -> Self {
        let file = std::env::var_os("FIRSTCOME_TEST_SERVERS")
            .expect("FIRSTCOME_TEST_SERVERS is not set: run the tests by `cargo xtask test`, which starts the servers");
        let text = fs::read_to_string(&file)
            .unwrap_or_else(|error| panic!("{}: {error}", Path::new(&file).display()));
        serde_json::from_str(&text).unwrap()
    }

    /// A database of the test's own with the tables of a migration.
    pub(crate) async fn database(&self, name: &str, tables: &'static str) -> MySqlConnection {
        let Mysql { host, port, username, password } = &self.mysql;
        let options = MySqlConnectOptions::new().host(host).port(*port).username(username).password(password);
        let mut connection = options.disable_statement_logging().connect().await.unwrap();
        let create = format!("CREATE DATABASE {name}; USE {name};");
        connection.execute(sqlx::raw_sql(AssertSqlSafe(create))).await.unwrap();
        connection.execute(sqlx::raw_sql(tables)).await.unwrap();
        connection
    }

    pub(crate) async fn redis(&self) -> redis::aio::MultiplexedConnection {
        let client =
            redis::Client::open(format!("redis://:{}@{}/", self.redis.password, self.redis.address)).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }

    /// The options for MySQL; its password goes by file.
    pub(crate) fn mysql_options(&self, folder: &Path) -> Vec<String> {
        let Mysql { host, port, username, password } = &self.mysql;
        let file = secret(folder, "mysql", password);
        let url = format!("mysql://{username}@{host}:{port}");
        ["--mysql", &url, "--mysql-password-file", file.to_str().unwrap()].map(str::to_owned).into()
    }

    /// The options for Redis.
    pub(crate) fn redis_options(&self, folder: &Path) -> Vec<String> {
        let Redis { sentinels, master, password, .. } = &self.redis;
        let (sentinels, file) = (sentinels.join(","), secret(folder, "redis", password));
        let file = file.to_str().unwrap();
        ["--sentinel", &sentinels, "--redis-master", master, "--redis-password-file", file]
            .map(str::to_owned)
            .into()
    }
}

fn secret(folder: &Path, name: &str, value: &str) -> PathBuf {
    let file = folder.join(name);
    fs::write(&file, format!("{value}\n")).unwrap();
    file
}
