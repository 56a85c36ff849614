//! TLS at the door. Invariant: a certificate or key that can't be used never replaces one that can.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::{DoorTlsSettings, TlsVersion};

/// How often the files are looked at; who renews a certificate does so weeks before it ends.
const LOOK: Duration = Duration::from_secs(1);
const HTTP2: &[u8] = b"h2";

/// Accepts TLS with the certificate as the files have it now.
#[derive(Clone)]
pub(super) struct Tls {
    acceptor: TlsAcceptor,
    certificate: Arc<Certificate>,
}

#[derive(Debug)]
struct Certificate {
    files: Files,
    current: ArcSwap<CertifiedKey>,
}

#[derive(Debug, Clone)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// What the files held when they were read last.
type Content = (Vec<u8>, Vec<u8>);

impl Tls {
    pub(super) fn new(settings: &DoorTlsSettings) -> io::Result<Self> {
        let files = Files { certificate: settings.certificate.clone(), key: settings.private_key.clone() };
        let key = files.read().and_then(|content| certified(&content)).map_err(io::Error::other)?;
        let certificate = Arc::new(Certificate { files, current: ArcSwap::from_pointee(key) });
        let provider = Arc::new(aws_lc_rs::default_provider());
        let versions: Vec<_> = settings.versions.iter().copied().map(supported).collect();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_cert_resolver(certificate.clone());
        config.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), certificate })
    }

    /// The stream, and whether HTTP/2 was agreed on.
    pub(super) async fn accept<S>(&self, stream: S) -> io::Result<(TlsStream<S>, bool)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = self.acceptor.accept(stream).await?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
        Ok((stream, is_http2))
    }

    /// Takes over what the files become, for as long as it is polled.
    pub(super) async fn follow(self) {
        let files = self.certificate.files.clone();
        let mut seen = files.read().ok();
        loop {
            tokio::time::sleep(LOOK).await;
            let content = files.read();
            if content.as_ref().ok() == seen.as_ref() {
                continue;
            }
            match content.clone().and_then(|content| certified(&content)) {
                Ok(key) => {
                    self.certificate.current.store(Arc::new(key));
                    tracing::info!(certificate = %files.certificate.display(), "certificate replaced");
                    metrics::counter!("tls_reloads_total", "outcome" => "replaced").increment(1);
                }
                Err(reason) => {
                    tracing::error!(%reason, "the new certificate is refused, the last good one stays");
                    metrics::counter!("tls_reloads_total", "outcome" => "refused").increment(1);
                }
            }
            seen = content.ok();
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl Files {
    fn read(&self) -> Result<Content, String> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|error| format!("can't read {}: {error}", path.display()))
        };
        Ok((read(&self.certificate)?, read(&self.key)?))
    }
}

fn supported(version: TlsVersion) -> &'static SupportedProtocolVersion {
    match version {
        TlsVersion::V12 => &rustls::version::TLS12,
        TlsVersion::V13 => &rustls::version::TLS13,
    }
}

/// The chain with its key, if they belong together.
fn certified((certificate, key): &Content) -> Result<CertifiedKey, String> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .map_err(|_| "server.tls.certificate is no PEM".to_owned())?;
    if chain.is_empty() {
        return Err("server.tls.certificate holds no certificate in PEM".to_owned());
    }
    // No cause is passed on: it could quote the key.
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| "server.tls.private-key holds no private key in PEM".to_owned())?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
        .map_err(|_| "server.tls.certificate and server.tls.private-key do not belong together".to_owned())
}

/// What is wrong, for the settings' check.
pub(crate) fn check(settings: &DoorTlsSettings) -> Result<(), String> {
    if settings.versions.is_empty() {
        return Err("server.tls.versions must name TLSv1.2, TLSv1.3 or both".to_owned());
    }
    let files = Files { certificate: settings.certificate.clone(), key: settings.private_key.clone() };
    files.read().and_then(|content| certified(&content)).map(|_| ())
}
