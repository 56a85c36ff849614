//! TLS towards services (`https://` targets), with the authorities that the system believes.

use std::io;
use std::sync::{Arc, LazyLock};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::balance::endpoint::Address;

/// Read once, when the first such connection is made: reading the system's certificates takes some 20 ms.
static CONFIG: LazyLock<Result<Arc<ClientConfig>, String>> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err("the system knows no certificate authority".to_owned());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
});

pub(super) async fn connect(address: &Address, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let config = CONFIG.as_ref().map_err(|problem| io::Error::other(problem.clone()))?;
    let name = match address {
        Address::Socket(address) => ServerName::from(address.ip()),
        Address::Name(host, _) => ServerName::try_from(host.clone()).map_err(io::Error::other)?,
    };
    TlsConnector::from(Arc::clone(config)).connect(name, stream).await
}
