//! The gateway's own process on a Spring Cloud Gateway YAML alone.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa;
use aws_lc_rs::signature::KeyPair as _;
use axum::Router;
use axum::extract::Request;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A change of the file is looked for twice a second.
const SEEN_WITHIN: Duration = Duration::from_secs(10);

/// A service that says its name and what it was asked for.
async fn service(name: &'static str) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = async move |request: Request| format!("{name} {}", request.uri());
    tokio::runtime::Handle::current()
        .spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    address
}

struct Gateway {
    process: Child,
    url: String,
}

impl Gateway {
    fn start(file: &Path) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_gateway"))
            .arg("--routes")
            .arg(file)
            .args(["--port", "0"])
            // Whatever the environment says, nothing else is asked.
            .env("FIRSTCOME_CONFIG_URL", "http://127.0.0.1:1")
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .filter_map(|line| serde_json::from_str::<Value>(&line).ok())
            .find_map(|line| {
                line.get("address").or_else(|| line["fields"].get("address"))?.as_str().map(str::to_owned)
            })
            .expect("it says where it serves");
        // Read on, or it would stop at a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, url: format!("http://{address}") }
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let response = reqwest::get(format!("{}{path}", self.url)).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    async fn until(&self, path: &str, expected: &str) {
        let deadline = Instant::now() + SEEN_WITHIN;
        loop {
            let (_, body) = self.get(path).await;
            if body == expected {
                return;
            }
            assert!(Instant::now() < deadline, "{path}: expected {expected}, got {body}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_springs_file_is_enough_and_its_changes_take_effect() {
    let (blue, green) = (service("blue").await, service("green").await);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("application.yml");
    let write = |route: &str| {
        let text = format!(
            r"
spring:
  cloud:
    discovery.client.simple.instances:
      colours:
        - uri: http://{blue}
    gateway.server.webflux:
      default-filters:
        - SetResponseHeader=X-Edge, yes
      routes:
{route}
"
        );
        std::fs::write(&file, text).unwrap();
    };
    let rewrite = r"        - id: lb
          uri: lb://colours
          predicates: [Path=/lb/**]
          filters:
            - RewritePath=/lb/?(?<rest>.*), /$\{rest}";
    write(rewrite);
    let gateway = Gateway::start(&file);
    assert_eq!(gateway.get("/lb/a%20b?x=1").await, (200, "blue /a%20b?x=1".to_owned()));
    assert_eq!(gateway.get("/other").await.0, 404);

    write(&format!("        - {{id: direct, uri: 'http://{green}', predicates: [Path=/lb/**]}}"));
    gateway.until("/lb/x", "green /lb/x").await;
    // What is wrong changes nothing.
    write("        - {id: direct, uri: 'http://nowhere.invalid', predicates: [Pth=/lb/**]}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(gateway.get("/lb/x").await.1, "green /lb/x");
    write(rewrite);
    gateway.until("/lb/x", "blue /x").await;
}

#[test]
fn what_is_wrong_with_a_file_is_said_in_lines_and_the_code_is_64() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("routes.yml");
    std::fs::write(&file, "spring.cloud.gateway.routes: [{id: a, uri: lb//x, predicates: [Pth=/a]}]")
        .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_gateway")).arg("--routes").arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8(output.stderr).unwrap();
    let file = file.display();
    assert_eq!(
        said.lines().collect::<Vec<_>>(),
        [
            format!(
                "gateway: {file}: spring.cloud.gateway.routes[0].uri: `lb//x` is none of lb://service, \
                     http://host:port, https://host:port and no://op"
            ),
            format!(
                "gateway: {file}: spring.cloud.gateway.routes[0].predicates[0]: Pth is no predicate; did you mean \
                     `Path`?"
            ),
        ]
    );
    let missing =
        Command::new(env!("CARGO_BIN_EXE_gateway")).args(["--routes", "/nowhere"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(64));
}

/// Agrees to a WebSocket and sends everything back; says what it was asked for first.
async fn echo_socket() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::runtime::Handle::current().spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::runtime::Handle::current().spawn(async move {
                let head = read_head(&mut stream).await.to_ascii_lowercase();
                let agreed = head.contains("upgrade: websocket") && head.contains("connection: upgrade");
                let answer = if agreed {
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Accept: x\r\n\r\nhello"
                } else {
                    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nplain"
                };
                stream.write_all(answer.as_bytes()).await.unwrap();
                if !agreed {
                    return;
                }
                let (mut reading, mut writing) = stream.split();
                let _ = tokio::io::copy(&mut reading, &mut writing).await;
            });
        }
    });
    address
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_passes_both_ways_and_no_other_upgrade_does() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("routes.yml");
    let address = echo_socket().await;
    std::fs::write(
        &file,
        format!(
            "spring.cloud.gateway.routes: [{{id: a, uri: 'ws://{address}', predicates: [Path=/socket]}}]"
        ),
    )
    .unwrap();
    let gateway = Gateway::start(&file);
    let ask = async |upgrade: &str| {
        let mut stream = TcpStream::connect(gateway.url.trim_start_matches("http://")).await.unwrap();
        let request = format!(
            "GET /socket HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: {upgrade}\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let head = read_head(&mut stream).await;
        (stream, head)
    };
    let (mut stream, head) = ask("websocket").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.to_ascii_lowercase().contains("sec-websocket-accept: x"), "{head}");
    let mut buffer = vec![0; 5];
    stream.read_exact(&mut buffer).await.unwrap();
    assert_eq!(buffer, b"hello");
    let sent: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let (mut reading, mut writing) = stream.split();
    let mut back = vec![0; sent.len()];
    let (written, read) = tokio::join!(writing.write_all(&sent), reading.read_exact(&mut back));
    written.unwrap();
    read.unwrap();
    assert_eq!(back, sent);
    for other in ["h2c", "websocket, h2c", "TLS/1.3"] {
        let (_, head) = ask(other).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{other}: {head}");
    }
}

/// An issuer of tokens: its metadata, its key set, and the key that signs.
struct Issuer {
    address: SocketAddr,
    key: jsonwebtoken::EncodingKey,
    away: Arc<AtomicBool>,
}

impl Issuer {
    async fn new() -> Self {
        let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
        let pkcs8: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let pem = STANDARD.encode(pkcs8.as_ref());
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{pem}\n-----END PRIVATE KEY-----\n");
        let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let keys = json!({"keys": [
            {"kty": "RSA", "use": "enc", "alg": "RSA-OAEP", "kid": "k1", "n": "AQAB", "e": "AQAB"},
            {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "k1",
             "n": number(pair.public_key().modulus().big_endian_without_leading_zero()),
             "e": number(pair.public_key().exponent().big_endian_without_leading_zero())},
        ]});
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let away = Arc::new(AtomicBool::new(false));
        let is_away = Arc::clone(&away);
        let answer = async move |request: Request| {
            let value = match request.uri().path() {
                _ if is_away.load(SeqCst) => return Err(http::StatusCode::SERVICE_UNAVAILABLE),
                "/realm/.well-known/openid-configuration" => {
                    json!({"issuer": format!("http://{address}/realm"),
                    "jwks_uri": format!("http://{address}/realm/keys?x=1")})
                }
                "/realm/keys" => keys,
                _ => return Err(http::StatusCode::NOT_FOUND),
            };
            Ok(axum::Json(value))
        };
        tokio::runtime::Handle::current()
            .spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        Self { address, key: jsonwebtoken::EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap(), away }
    }

    fn uri(&self) -> String {
        format!("http://{}/realm", self.address)
    }

    fn claims(&self) -> Value {
        let now = platform::clock::now_ms() / 1000;
        json!({"iss": self.uri(), "aud": ["shop", "x"], "sub": "4f6c-someone", "scope": "read", "iat": now,
               "exp": now + 600})
    }

    fn token(&self, claims: &Value) -> String {
        let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::RS256);
        header.kid = Some("k1".to_owned());
        jsonwebtoken::encode(&header, claims, &self.key).unwrap()
    }
}

/// A service that says whose token it got.
async fn token_echo() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = async |headers: http::HeaderMap| {
        headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or("nobody").to_owned()
    };
    tokio::runtime::Handle::current()
        .spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    address
}

fn resource_server(issuer: &Issuer, service: SocketAddr) -> String {
    format!(
        r"
spring:
  security.oauth2.resourceserver.jwt: {{issuer-uri: '{}', audiences: [shop]}}
  cloud.gateway:
    public-paths: [/public/**]
    routes:
      - {{id: a, uri: 'http://{service}', predicates: [Path=/a]}}
      - {{id: scoped, uri: 'http://{service}', predicates: [Path=/scoped], scopes: [write]}}
      - {{id: open, uri: 'http://{service}', predicates: [Path=/open], authentication: none}}
      - {{id: public, uri: 'http://{service}', predicates: [Path=/public/**]}}
      - id: limited
        uri: http://{service}
        predicates: [Path=/limited]
        filters:
          - name: RequestRateLimiter
            args: {{redis-rate-limiter: {{replenishRate: 1, burstCapacity: 60, requestedTokens: 60}}}}
",
        issuer.uri()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_servers_file_lets_nobody_through_without_a_token_of_its_issuer() {
    let issuer = Issuer::new().await;
    issuer.away.store(true, SeqCst);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("application.yml");
    let text = resource_server(&issuer, token_echo().await);
    std::fs::write(&file, &text).unwrap();
    let gateway = Gateway::start(&file);
    let client = reqwest::Client::new();
    let ask = async |path: &str, token: &str| {
        let request = client.get(format!("{}{path}", gateway.url)).bearer_auth(token);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let good = issuer.token(&issuer.claims());
    assert_eq!(ask("/a", &good).await.0, 503, "nothing can be said while there is no key");
    assert_eq!(gateway.get("/a").await.0, 401);
    issuer.away.store(false, SeqCst);
    let deadline = Instant::now() + SEEN_WITHIN;
    while ask("/a", &good).await != (200, format!("Bearer {good}")) {
        assert!(Instant::now() < deadline, "the key set is not found");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(gateway.get("/open").await, (200, "nobody".to_owned()));
    assert_eq!(gateway.get("/public/x").await.0, 200);
    assert_eq!(ask("/scoped", &good).await.0, 403);

    let with = |key: &str, value: Value| {
        let mut claims = issuer.claims();
        claims[key] = value;
        issuer.token(&claims)
    };
    assert_eq!(ask("/scoped", &with("scope", json!("read write"))).await.0, 200);
    let now = platform::clock::now_ms() / 1000;
    for (what, token) in [
        ("another audience", with("aud", json!("elsewhere"))),
        ("no audience", with("aud", Value::Null)),
        ("another issuer", with("iss", json!("http://elsewhere"))),
        ("expired", with("exp", json!(now - 61))),
        ("no subject", with("sub", json!(""))),
        ("another key", Issuer::new().await.token(&issuer.claims())),
    ] {
        assert_eq!(ask("/a", &token).await.0, 401, "{what}");
    }
    assert_eq!(ask("/a", &with("exp", json!(now - 50))).await.0, 200, "Spring forgives a minute");
    // Each subject has a bucket of its own.
    let other = with("sub", json!("4f6c-another"));
    let rated =
        [ask("/limited", &good).await.0, ask("/limited", &good).await.0, ask("/limited", &other).await.0];
    assert_eq!(rated, [200, 429, 200]);

    // The last good keys stay; and no change of the file opens what was shut.
    issuer.away.store(true, SeqCst);
    let open = text.lines().filter(|line| !line.contains("security")).collect::<Vec<_>>().join("\n");
    std::fs::write(&file, open.replace("Path=/a]", "Path=/b]")).unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(gateway.get("/a").await.0, 401);
    assert_eq!(gateway.get("/b").await.0, 404);
    assert_eq!(ask("/a", &with("jti", json!("new"))).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_from_our_own_form_to_springs_opens_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("routes.yml");
    let routes = |path: &str| format!("routes: [{{id: a, uri: 'no://op', predicates: [Path={path}]}}]");
    std::fs::write(&file, routes("/a")).unwrap();
    let gateway = Gateway::start(&file);
    assert_eq!(gateway.get("/a").await.0, 401);
    std::fs::write(&file, format!("spring.cloud.gateway.{}", routes("/a"))).unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(gateway.get("/a").await.0, 401);
    // In its own form it may change.
    std::fs::write(&file, routes("/b")).unwrap();
    let deadline = Instant::now() + SEEN_WITHIN;
    while gateway.get("/a").await.0 != 404 {
        assert!(Instant::now() < deadline, "the new routes do not count");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(gateway.get("/b").await.0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_form_bounds_bodies_and_springs_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("routes.yml");
    let route = "routes: [{id: a, uri: 'no://op', predicates: [Path=/a], authentication: none}]";
    for (prefix, status) in [("", 413), ("spring.cloud.gateway.", 200)] {
        std::fs::write(&file, format!("{prefix}{route}")).unwrap();
        let gateway = Gateway::start(&file);
        let request = reqwest::Client::new().post(format!("{}/a", gateway.url)).body(vec![b'x'; 17 * 1024]);
        assert_eq!(request.send().await.unwrap().status().as_u16(), status, "{prefix}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_of_a_file_never_counts() {
    let address = service("blue").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("application.yml");
    let route = |id: &str| format!("  - {{id: {id}, uri: 'http://{address}', predicates: [Path=/{id}]}}\n");
    let text = |ids: &[&str]| {
        format!("spring.cloud.gateway.routes:\n{}", ids.iter().map(|id| route(id)).collect::<String>())
    };
    std::fs::write(&file, text(&["a", "b"])).unwrap();
    let gateway = Gateway::start(&file);
    assert_eq!(gateway.get("/b").await.0, 200);
    // Written line by line, each state of it a right file; no state lasts as long as two looks are apart.
    let ids: Vec<&str> = "cdefghijklmnopqrstuvwxyzb".split("").filter(|id| !id.is_empty()).collect();
    for count in 1..=ids.len() {
        std::fs::write(&file, text(&ids[..count])).unwrap();
        let until = Instant::now() + Duration::from_millis(100);
        while Instant::now() < until {
            assert_eq!(gateway.get("/b").await.0, 200, "half of the file is in force, {count} routes");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    gateway.until("/j", "blue /j").await;
    assert_eq!((gateway.get("/b").await.0, gateway.get("/a").await.0), (200, 404));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_asks_for_tls_gets_it() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let file = folder.path().join("application.yml");
    let text = format!(
        "server.ssl: {{certificate: 'file:{}', certificate-private-key: '{}'}}\n\
         spring.cloud.gateway.routes: [{{id: a, uri: 'no://op', predicates: [Path=/a]}}]",
        certificate.display(),
        key.display()
    );
    std::fs::write(&file, &text).unwrap();
    let gateway = Gateway::start(&file);
    let address = gateway.url.trim_start_matches("http://");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.unwrap().with_root_certificates(roots).with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(address).await.unwrap();
    let mut stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
    stream.write_all(b"GET /a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 200");
    assert!(reqwest::get(format!("{}/a", gateway.url)).await.is_err(), "nothing in clear");

    std::fs::write(&file, text.replace("cert.pem", "nowhere.pem")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_gateway")).arg("--routes").arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(64), "{output:?}");
}
