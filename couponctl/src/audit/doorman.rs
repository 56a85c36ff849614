//! The Redis set of a coupon's users: the current master's, found through Sentinel, or a single server's.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use redis::IntoConnectionInfo as _;
use redis::aio::MultiplexedConnection;

use crate::state::{self, State};

const TIMEOUT: Duration = Duration::from_secs(5);
/// Members a step.
const SCAN_COUNT: usize = 5_000;

#[derive(Debug, clap::Args)]
pub(crate) struct RedisArgs {
    /// A single Redis instead of the stack's own: HOST:PORT
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "sentinel")]
    redis: Option<String>,
    /// Sentinels instead of the stack's own: HOST:PORT,...
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', requires = "redis_master")]
    sentinel: Vec<String>,
    /// Name of the master that the Sentinels watch
    #[arg(long, value_name = "NAME")]
    redis_master: Option<String>,
    #[arg(long, value_name = "FILE")]
    redis_password_file: Option<PathBuf>,
}

#[derive(Clone)]
pub(crate) struct Redis {
    /// One server, or those who know the master of this name.
    servers: Vec<String>,
    master: Option<String>,
    password: Option<String>,
}

impl RedisArgs {
    /// `None` where no Redis was named.
    pub(crate) fn resolve(&self, state: &State) -> Result<Option<Redis>> {
        let (servers, master, file) = if let Some(single) = &self.redis {
            (vec![single.clone()], None, None)
        } else if !self.sentinel.is_empty() {
            (self.sentinel.clone(), self.redis_master.clone(), None)
        } else if let Some(redis) = &state.redis {
            (redis.sentinels.clone(), Some(redis.master.clone()), redis.password_file.clone())
        } else {
            return Ok(None);
        };
        let file = self.redis_password_file.clone().or(file);
        let password = file.map(|file| state::read_secret(&file)).transpose()?;
        Ok(Some(Redis { servers, master, password }))
    }
}

impl Redis {
    /// The users in the coupon's set, sorted; `None` if there is no such key.
    pub(crate) async fn users(&self, coupon: u64) -> Result<Option<Vec<u64>>> {
        tokio::time::timeout(TIMEOUT * 4, self.read(coupon)).await.context("Redis does not answer")?
    }

    async fn read(&self, coupon: u64) -> Result<Option<Vec<u64>>> {
        let mut connection = self.master().await?;
        let key = format!("coupon:{{{coupon}}}:users");
        let there: bool = redis::cmd("EXISTS").arg(&key).query_async(&mut connection).await?;
        if !there {
            return Ok(None);
        }
        let mut users = Vec::new();
        let mut cursor = 0_u64;
        loop {
            let (next, members): (u64, Vec<String>) = redis::cmd("SSCAN")
                .arg(&key)
                .arg(cursor)
                .arg("COUNT")
                .arg(SCAN_COUNT)
                .query_async(&mut connection)
                .await?;
            for member in members {
                users.push(
                    member.parse().with_context(|| format!("member {member:?} of {key} is no user id"))?,
                );
            }
            if next == 0 {
                users.sort_unstable();
                users.dedup(); // a scan may show a member twice
                return Ok(Some(users));
            }
            cursor = next;
        }
    }

    async fn master(&self) -> Result<MultiplexedConnection> {
        let Some(name) = &self.master else {
            let single = self.servers.first().context("no Redis server")?;
            return connect(single, self.password.as_deref()).await;
        };
        let mut problem = anyhow!("no Sentinel was named");
        for sentinel in &self.servers {
            match self.master_by(sentinel, name).await {
                Ok(connection) => return Ok(connection),
                Err(error) => problem = error,
            }
        }
        Err(problem).with_context(|| format!("no Sentinel knows a working master {name}"))
    }

    async fn master_by(&self, sentinel: &str, name: &str) -> Result<MultiplexedConnection> {
        let mut asked = connect(sentinel, None).await?;
        let address: Option<(String, u16)> =
            redis::cmd("SENTINEL").arg("get-master-addr-by-name").arg(name).query_async(&mut asked).await?;
        let (host, port) = address.with_context(|| format!("Sentinel {sentinel} knows no {name}"))?;
        let mut connection = connect(&format!("{host}:{port}"), self.password.as_deref()).await?;
        let role: redis::Value = redis::cmd("ROLE").query_async(&mut connection).await?;
        match role {
            redis::Value::Array(parts)
                if parts.first() == Some(&redis::Value::BulkString(b"master".to_vec())) =>
            {
                Ok(connection)
            }
            _ => bail!("{host}:{port} is no master (yet)"),
        }
    }
}

async fn connect(place: &str, password: Option<&str>) -> Result<MultiplexedConnection> {
    let mut info = format!("redis://{place}/").into_connection_info()?;
    if let Some(password) = password {
        let settings = info.redis_settings().clone().set_password(password);
        info = info.set_redis_settings(settings);
    }
    let client = redis::Client::open(info)?;
    let config = redis::AsyncConnectionConfig::new()
        .set_connection_timeout(Some(TIMEOUT))
        .set_response_timeout(Some(TIMEOUT));
    client
        .get_multiplexed_async_connection_with_config(&config)
        .await
        .with_context(|| format!("cannot reach Redis at {place}"))
}
