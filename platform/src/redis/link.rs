//! One connection to a Redis or a Sentinel. Invariant: nothing on it is waited for longer than these bounds.

use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo as _, ProtocolVersion,
    PushInfo, RedisConnectionInfo, RedisError, RedisResult, io::tcp::TcpSettings,
};
use tokio::sync::mpsc;

use super::Shared;

/// To find the name, connect, shake hands in TLS and be let in.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(1);
/// For any one command; the doorman's own deadline is far below.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Whom a connection leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Redis,
    Sentinel,
}

pub(super) struct Link {
    pub(super) conn: MultiplexedConnection,
    /// Messages of subscribed channels, and the end of the connection. Commands and messages share one connection, so
    /// that who is answered also hears.
    pub(super) pushes: mpsc::UnboundedReceiver<PushInfo>,
}

impl Link {
    pub(super) async fn open(shared: &Shared, peer: Peer, address: &str) -> RedisResult<Self> {
        let (sender, pushes) = mpsc::unbounded_channel();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(OPEN_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_push_sender(sender);
        let client = client(shared, peer, address)?;
        let conn = client.get_multiplexed_async_connection_with_config(&config).await?;
        Ok(Self { conn, pushes })
    }
}

fn client(shared: &Shared, peer: Peer, address: &str) -> RedisResult<Client> {
    let settings = &shared.settings;
    let (host, port) = crate::config::host_and_port(address)
        .ok_or_else(|| RedisError::from((ErrorKind::InvalidClientConfig, "the address is not host:port")))?;
    let host = host.to_owned();
    let address = match shared.tls.clone()? {
        Some(ConnectionAddr::TcpTls { insecure, tls_params, .. }) => {
            ConnectionAddr::TcpTls { host, port, insecure, tls_params }
        }
        _ => ConnectionAddr::Tcp(host, port),
    };
    let (username, password) = match peer {
        Peer::Redis => (&settings.username, &settings.password),
        Peer::Sentinel => (&settings.sentinel_username, &settings.sentinel_password),
    };
    // Messages come between the answers only in this protocol.
    let mut redis = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3);
    if !username.is_empty() {
        redis = redis.set_username(username);
    }
    if !password.is_empty() {
        redis = redis.set_password(password.expose());
    }
    let info = address
        .into_connection_info()?
        .set_redis_settings(redis)
        // Without it Nagle's algorithm holds small commands back for 40 ms.
        .set_tcp_settings(TcpSettings::default().set_nodelay(true));
    Client::open(info)
}
