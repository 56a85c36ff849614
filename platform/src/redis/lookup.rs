//! Finds the master and connects to it, each step within a bound.

use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo as _, RedisConnectionInfo,
    RedisError, RedisResult, Value, io::tcp::TcpSettings,
};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use crate::config::{RedisSettings, Secret};

/// On a network where anything is fast, who takes longer is gone.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// For any one command; the doorman's own deadline is far below.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A client for one address. No connection is made yet.
pub(super) fn client(address: &str, username: &str, password: &Secret) -> RedisResult<Client> {
    let (host, port) = crate::config::host_and_port(address)
        .ok_or_else(|| RedisError::from((ErrorKind::InvalidClientConfig, "an address is not host:port")))?;
    let mut redis = RedisConnectionInfo::default();
    if !username.is_empty() {
        redis = redis.set_username(username);
    }
    if !password.is_empty() {
        redis = redis.set_password(password.expose());
    }
    let info = ConnectionAddr::Tcp(host.to_owned(), port)
        .into_connection_info()?
        .set_redis_settings(redis)
        // Without it Nagle's algorithm holds small commands back for 40 ms.
        .set_tcp_settings(TcpSettings::default().set_nodelay(true));
    Client::open(info)
}

pub(super) async fn open(client: &Client) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT));
    let opened = client.get_multiplexed_async_connection_with_config(&config);
    // The timeout above is for the socket; this one includes the greeting.
    tokio::time::timeout(CONNECT_TIMEOUT + RESPONSE_TIMEOUT, opened).await.unwrap_or_else(|_| Err(late()))
}

pub(super) fn late() -> RedisError {
    RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut))
}

/// Connects to the master: the standalone address, or what the first Sentinel says that leads to a real one. All
/// Sentinels are asked at once, because those on a dead machine answer never.
pub(super) async fn find_master(
    settings: &RedisSettings,
) -> RedisResult<(String, Client, MultiplexedConnection)> {
    if !settings.address.is_empty() {
        return try_master(settings, settings.address.clone()).await;
    }
    let mut asked: FuturesUnordered<_> =
        settings.sentinels.iter().map(|sentinel| master_according_to(settings, sentinel)).collect();
    let mut tried = Vec::new();
    let mut failure =
        RedisError::from((ErrorKind::MasterNameNotFoundBySentinel, "no Sentinel knows the master"));
    while let Some(answer) = asked.next().await {
        match answer {
            Ok(Some(address)) if !tried.contains(&address) => {
                match try_master(settings, address.clone()).await {
                    Ok(found) => return Ok(found),
                    Err(error) => failure = error,
                }
                tried.push(address);
            }
            Ok(_) => {}
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

async fn master_according_to(settings: &RedisSettings, sentinel: &str) -> RedisResult<Option<String>> {
    let ask =
        async {
            let mut connection = open(&client(sentinel, "", &settings.sentinel_password)?).await?;
            let mut command = ::redis::cmd("SENTINEL");
            command.arg("get-master-addr-by-name").arg(&settings.master);
            let answer: Option<(String, u16)> = command.query_async(&mut connection).await?;
            Ok(answer.map(|(host, port)| {
                if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
            }))
        };
    tokio::time::timeout(CONNECT_TIMEOUT * 2, ask).await.unwrap_or_else(|_| Err(late()))
}

async fn try_master(
    settings: &RedisSettings,
    address: String,
) -> RedisResult<(String, Client, MultiplexedConnection)> {
    let client = client(&address, &settings.username, &settings.password)?;
    let mut connection = open(&client).await?;
    verify_role(&mut connection).await?;
    Ok((address, client, connection))
}

/// A Sentinel's word may be old: only what says of itself that it is a master is one.
pub(super) async fn verify_role(connection: &mut MultiplexedConnection) -> RedisResult<()> {
    let role: Value = ::redis::cmd("ROLE").query_async(connection).await?;
    let is_master = match &role {
        Value::Array(parts) => match parts.first() {
            Some(Value::BulkString(name)) => name == b"master",
            Some(Value::SimpleString(name)) => name == "master",
            _ => false,
        },
        _ => false,
    };
    if is_master {
        Ok(())
    } else {
        Err(RedisError::from((ErrorKind::Client, "what answers there is no master")))
    }
}
