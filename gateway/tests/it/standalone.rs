//! The gateway's own process on a Spring Cloud Gateway YAML alone.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use serde_json::Value;
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
