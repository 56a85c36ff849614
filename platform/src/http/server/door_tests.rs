//! TLS and HTTP/2 at the door, by real connections.

use std::path::Path as FilePath;

use http::{Request, Version};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, DEFAULT_VERSIONS, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::config::{DoorTlsSettings, TlsVersion};

/// Reload is looked for each second.
const SEEN_WITHIN: Duration = Duration::from_secs(10);
const EDGE: Edge = Edge { trust_client_sampling: false };

fn start(settings: &ServerSettings) -> Server {
    let router = Router::new().fallback(async |request: Request<axum::body::Body>| {
        let peer = request.extensions().get::<Peer>().copied();
        format!("{:?} {}", request.version(), peer.is_some_and(|peer| peer.tls))
    });
    Server::start_as(settings, Some(EDGE), move |_| router.clone()).unwrap()
}

async fn ask<S>(stream: S, is_http2: bool) -> String
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let request = Request::get("http://door.example/").body(Empty::<bytes::Bytes>::new()).unwrap();
    let io = TokioIo::new(stream);
    let response = if is_http2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        let connection =
            tokio_util::task::AbortOnDropHandle::new(tokio::runtime::Handle::current().spawn(connection));
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.version(), Version::HTTP_2);
        drop(connection);
        response
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        drop(tokio::runtime::Handle::current().spawn(connection));
        sender.send_request(request).await.unwrap()
    };
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// Writes a new certificate for `door.example`, and gives it back.
fn renew(settings: &DoorTlsSettings) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["door.example".to_owned()]).unwrap();
    // The key first: the pair is taken over when it fits.
    std::fs::write(&settings.private_key, made.signing_key.serialize_pem()).unwrap();
    std::fs::write(&settings.certificate, made.cert.pem()).unwrap();
    made.cert.der().clone()
}

async fn shake_hands(
    address: SocketAddr,
    trusted: &CertificateDer<'static>,
    protocols: &[&[u8]],
) -> io::Result<TlsStream<TcpStream>> {
    shake_hands_by(DEFAULT_VERSIONS, address, trusted, protocols).await
}

async fn shake_hands_by(
    versions: &[&'static SupportedProtocolVersion],
    address: SocketAddr,
    trusted: &CertificateDer<'static>,
    protocols: &[&[u8]],
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("door.example").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

#[tokio::test]
async fn http2_without_tls_is_known_by_its_preface() {
    let server = start(&ServerSettings::default());
    for (is_http2, expected) in [(true, "HTTP/2.0 false"), (false, "HTTP/1.1 false")] {
        let stream = TcpStream::connect(server.address()).await.unwrap();
        assert_eq!(ask(stream, is_http2).await, expected);
    }
    // A preface that comes bit by bit, and a method that only begins like one.
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(b"PR").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    stream.write_all(b"OPFIND / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    server.stop(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn tls_agrees_on_a_version_and_a_new_certificate_counts_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| FilePath::new(folder.path()).join(name);
    let tls = DoorTlsSettings {
        certificate: file("door.pem"),
        private_key: file("door.key"),
        versions: TlsVersion::all(),
    };
    let first = renew(&tls);
    let server = start(&ServerSettings { tls: Some(tls.clone()), ..ServerSettings::default() });
    let address = server.address();
    for (protocols, expected) in [
        (&[&b"h2"[..], b"http/1.1"][..], "HTTP/2.0 true"),
        (&[b"http/1.1"], "HTTP/1.1 true"),
        (&[], "HTTP/1.1 true"),
    ] {
        let stream = shake_hands(address, &first, protocols).await.unwrap();
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        assert_eq!(ask(stream, is_http2).await, expected);
    }
    let held = shake_hands(address, &first, &[]).await.unwrap();

    let second = renew(&tls);
    let deadline = tokio::time::Instant::now() + SEEN_WITHIN;
    while shake_hands(address, &second, &[]).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "the new certificate does not count");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(shake_hands(address, &first, &[]).await.is_err(), "the old one is gone");
    assert_eq!(ask(held, false).await, "HTTP/1.1 true", "who was there stays");

    std::fs::write(&tls.certificate, "no certificate").unwrap();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(shake_hands(address, &second, &[]).await.is_ok(), "what can't be used changes nothing");
    server.stop(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn the_versions_of_tls_that_are_named_are_spoken_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    for (named, old, new) in [
        (TlsVersion::all(), true, true),
        (vec![TlsVersion::V12], true, false),
        (vec![TlsVersion::V13], false, true),
    ] {
        let tls = DoorTlsSettings {
            certificate: folder.path().join("door.pem"),
            private_key: folder.path().join("door.key"),
            versions: named.clone(),
        };
        let certificate = renew(&tls);
        let server = start(&ServerSettings { tls: Some(tls), ..ServerSettings::default() });
        for (version, is_spoken) in [(&TLS12, old), (&TLS13, new)] {
            let shaken = shake_hands_by(&[version], server.address(), &certificate, &[]).await;
            assert_eq!(shaken.is_ok(), is_spoken, "{named:?}: {version:?}");
        }
        server.stop(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn tls_that_cannot_be_used_is_told_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let tls = DoorTlsSettings {
        certificate: folder.path().join("a"),
        private_key: folder.path().join("b"),
        versions: TlsVersion::all(),
    };
    assert!(check_tls(&tls).unwrap_err().starts_with("can't read "), "nothing there");
    renew(&tls);
    assert_eq!(check_tls(&tls), Ok(()));
    let silent = DoorTlsSettings { versions: Vec::new(), ..tls.clone() };
    assert!(check_tls(&silent).unwrap_err().contains("server.tls.versions"));
    let key = std::fs::read(&tls.private_key).unwrap();
    renew(&tls);
    std::fs::write(&tls.private_key, key).unwrap();
    assert!(check_tls(&tls).unwrap_err().contains("do not belong together"));
}

/// One frame (RFC 9113, 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// RFC 9113, 6.8.
const GOAWAY: u8 = 7;

/// Of the whole frames in what a server has said.
fn kinds(mut answer: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let [a, b, c, kind, rest @ ..] = answer {
        kinds.push(*kind);
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        answer = rest.get(5 + length..).unwrap_or_default();
    }
    kinds
}

/// CVE-2023-44487: requests that are reset as soon as they are sent cost the client nothing.
#[tokio::test]
async fn who_resets_streams_in_a_row_is_thrown_out_and_costs_the_others_nothing() {
    let server = start(&ServerSettings::default());
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let (mut reading, mut writing) = stream.split();
    let flood = async {
        let mut begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        begin.extend(frame(4, 0, 0, &[]));
        writing.write_all(&begin).await?;
        for number in 0..50_000_u32 {
            let id = 2 * number + 1;
            // `GET http: /` by their places in the static table (RFC 7541, appendix A), END_STREAM and END_HEADERS.
            let mut both = frame(1, 5, id, &[0x82, 0x86, 0x84]);
            both.extend(frame(3, 0, id, &8_u32.to_be_bytes()));
            writing.write_all(&both).await?;
        }
        Ok::<(), io::Error>(())
    };
    let ended = async {
        let mut answer = Vec::new();
        let _ = reading.read_to_end(&mut answer).await;
        answer
    };
    let (flooded, answer) =
        tokio::time::timeout(SEEN_WITHIN, async { tokio::join!(flood, ended) }).await.unwrap();
    assert!(flooded.is_err() || kinds(&answer).contains(&GOAWAY), "it may go on");
    let stream = TcpStream::connect(server.address()).await.unwrap();
    assert_eq!(ask(stream, true).await, "HTTP/2.0 false");
    server.stop(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn an_http2_connection_that_asks_for_nothing_is_ended() {
    let settings = ServerSettings { header_timeout: Duration::from_millis(200), ..ServerSettings::default() };
    let server = start(&settings);
    for begin in [&b"PRI "[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"] {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream.write_all(begin).await.unwrap();
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(SEEN_WITHIN, stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "{begin:?} holds the door");
        assert!(begin.len() == 4 || kinds(&answer).contains(&GOAWAY), "is not told so");
    }
    server.stop(Duration::from_secs(1)).await;
}
