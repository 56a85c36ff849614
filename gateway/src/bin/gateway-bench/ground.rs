//! What is measured: the bare service, nginx before it, and the gateway before it.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use platform::lifecycle::BoxError;
use serde_json::{Value, json};

use crate::Arguments;
use crate::client::{Requests, ask};
use crate::report::Section;
use crate::server::{Server, free_address};
use crate::tokens::{ISSUER, Issuer, Kind};

/// The same path with a token and without: two routes at the end of the list, as slow to find as any.
pub(crate) const WITH_TOKEN: &str = "/bench/token";
pub(crate) const WITHOUT_TOKEN: &str = "/bench/open";
const ANSWER: &str = r#"{"status":"ISSUED","couponId":7}"#;
const BODY: &str = r#"{"couponId":7}"#;
/// Logins that have ended, so that every token's is looked up.
const ENDED_LOGINS: usize = 1_000;
/// More than any connections here.
const NGINX_CONNECTIONS: usize = 16_384;
const KEPT_UPSTREAM: usize = 256;
pub(crate) const WORKERS: usize = 2;

pub(crate) struct Ground {
    pub(crate) upstream: Server,
    pub(crate) nginx: Server,
    pub(crate) gateway: Server,
    /// The same for tokens by HS256.
    by_secret: Server,
    pub(crate) issuer: Issuer,
    redis: Server,
    program: PathBuf,
    config: PathBuf,
    folder: PathBuf,
    nginx_version: String,
}

impl Ground {
    pub(crate) fn prepare(arguments: &Arguments) -> Result<Self, BoxError> {
        let issuer = Issuer::new()?;
        let folder = fs::canonicalize(&arguments.folder)?;
        let (service, proxy, store) = (free_address()?, free_address()?, free_address()?);
        let start_nginx = |name: &str, address, servers: &str| {
            let file = folder.join(format!("{name}.conf"));
            fs::write(&file, nginx_file(&folder, name, servers))?;
            let mut command = Command::new(&arguments.nginx);
            command.args(["-e", "stderr", "-c"]).arg(&file).arg("-p").arg(&folder);
            Server::start(name, address, &mut command, &folder)
        };
        let mut upstream = start_nginx("upstream", service, &upstream_servers(service, &issuer.jwks))?;
        let mut nginx = start_nginx("nginx", proxy, &proxy_servers(proxy, service))?;
        for server in [&mut upstream, &mut nginx] {
            server.ready(|address| ask(address, &post(WITHOUT_TOKEN, None)))?;
        }
        let mut command = Command::new(&arguments.redis);
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.args(["--port", &store.port().to_string()]).current_dir(&folder);
        let mut redis = Server::start("redis", store, &mut command, &folder)?;
        redis.ready(end_logins)?;
        let config = arguments.config.clone();
        let version = Command::new(&arguments.nginx).arg("-v").output()?.stderr;
        let version = String::from_utf8_lossy(&version).trim().rsplit('/').next().unwrap_or("?").to_owned();
        let program = arguments.gateway.clone();
        let start = |name: &str, kind| {
            start_gateway(&program, &config, &folder, name, (&upstream, &redis), (&issuer, kind), &json!({}))
        };
        let (gateway, by_secret) = (start("gateway", Kind::Ed25519)?, start("gateway-hs256", Kind::Hs256)?);
        let mut ground = Self {
            upstream,
            nginx,
            gateway,
            by_secret,
            issuer,
            redis,
            program,
            config,
            folder,
            nginx_version: version,
        };
        let request = post(WITH_TOKEN, Some(&ground.issuer.token(Kind::Hs256, 1)?));
        ground.by_secret.ready(|address| ask(address, &request))?;
        ground.await_gateway()?;
        Ok(ground)
    }

    pub(crate) fn gateway(&self, kind: Kind) -> &Server {
        match kind {
            Kind::Ed25519 => &self.gateway,
            Kind::Hs256 => &self.by_secret,
        }
    }

    fn await_gateway(&mut self) -> Result<(), BoxError> {
        let request = self.post(1)?;
        self.gateway.ready(|address| ask(address, &request))?;
        // For Redis to be found, and the ended logins to be read.
        std::thread::sleep(Duration::from_secs(1));
        Ok(())
    }

    /// Another gateway in place of the one that has run.
    pub(crate) fn restart_gateway(&mut self, server: &Value) -> Result<(), BoxError> {
        let behind = (&self.upstream, &self.redis);
        self.gateway = start_gateway(
            &self.program,
            &self.config,
            &self.folder,
            "gateway-idle",
            behind,
            (&self.issuer, Kind::Ed25519),
            server,
        )?;
        self.await_gateway()
    }

    /// A claim with the token of a user.
    pub(crate) fn post(&self, user: usize) -> Result<Vec<u8>, BoxError> {
        Ok(post(WITH_TOKEN, Some(&self.issuer.token(Kind::Ed25519, user)?)))
    }

    /// What so many users send, each on a connection of his own.
    pub(crate) fn requests(&self, method: &str, path: &str, users: usize) -> Result<Requests, BoxError> {
        let request = |user| {
            let token = self.issuer.token(Kind::Ed25519, user)?;
            Ok(if method == "GET" { get(path, &token) } else { post(path, Some(&token)) })
        };
        Ok(Requests::Repeated((1..=users).map(request).collect::<Result<_, BoxError>>()?))
    }

    pub(crate) fn about(&self) -> String {
        let length = |kind| self.issuer.token(kind, 1).map_or(0, |token| token.len());
        format!(
            "Client, proxies and service share the machine, so that whatever one of them takes is missing to the others. \
             The *service* behind all is nginx {}, which answers a few bytes by itself; alone it is the ceiling. *nginx* \
             is the same program as a proxy before it. *With a token* and *without* are routes of one gateway, the \
             release binary with the settings of the configuration repository. Each connection has one request under \
             way, with the token of a user of its own ({} bytes by Ed25519, {} by HS256), which the first request \
             verifies and the others find. nginx looks at no token, keeps no access log and passes the token on.",
            self.nginx_version,
            length(Kind::Ed25519),
            length(Kind::Hs256),
        )
    }

    pub(crate) fn configurations(&self) -> Section {
        let row = |who: &str, what: String| vec![who.to_owned(), what];
        Section {
            heading: "What ran",
            about: "All by HTTP/1.1 on 127.0.0.1, and no connection is closed for the number of its requests.".into(),
            columns: vec!["who", "how"],
            rows: vec![
                row(
                    "service",
                    format!("nginx {}, {WORKERS} workers, `reuseport`, `return 200`, no access log", self.nginx_version),
                ),
                row(
                    "nginx",
                    format!(
                        "nginx {}, {WORKERS} workers, `reuseport`, `proxy_http_version 1.1`, `keepalive {KEPT_UPSTREAM}` \
                         to the service in each worker, no access log, otherwise its defaults",
                        self.nginx_version
                    ),
                ),
                row(
                    "gateway",
                    "`config-repo/` as it is (2 workers, an access line of JSON for each request, to a file; traces with \
                     ids and W3C headers, no exporter; places, a share for each user, body limit, time-outs) and its \
                     routes, with two more at their end: `CircuitBreaker` and `Retry` (of GET) on both, a token on one. \
                     For tokens by HS256 another one runs, as a gateway believes keys of one sort. No rate limit."
                        .into(),
                ),
                row(
                    "Redis",
                    format!("holds {ENDED_LOGINS} ended logins, which the gateway has read: each token's login is looked up"),
                ),
                row(
                    "client",
                    "2 threads with epoll and raw sockets, one request at a time on each connection, a gap of none \
                     between them"
                        .into(),
                ),
            ],
        }
    }
}

fn start_gateway(
    program: &Path,
    config: &Path,
    folder: &Path,
    name: &str,
    (service, redis): (&Server, &Server),
    (issuer, kind): (&Issuer, Kind),
    server: &Value,
) -> Result<Server, BoxError> {
    let address = free_address()?;
    let settings = folder.join(format!("{name}-config"));
    fs::create_dir_all(&settings)?;
    fs::copy(config.join("application.yml"), settings.join("application.yml"))?;
    let text = fs::read_to_string(config.join("gateway.yml"))?;
    let mut tree: Value = serde_yaml_ng::from_str(&text)?;
    let service = format!("http://{}", service.address);
    let routes = tree["routes"].as_array_mut().ok_or("no routes")?;
    for route in routes.iter_mut() {
        route["uri"] = json!(service);
    }
    for (path, authentication) in [(WITHOUT_TOKEN, "none"), (WITH_TOKEN, "required")] {
        routes.push(json!({"id": path, "uri": service, "authentication": authentication,
            "predicates": [format!("Path={path}")],
            "filters": [{"name": "CircuitBreaker", "args": {"name": path, "timeoutDuration": "10s"}},
                {"name": "Retry", "args": {"retries": 2, "methods": "GET"}}]}));
    }
    tree["jwt"]["jwks-uri"] = json!(format!("{service}/.well-known/jwks.json"));
    tree["jwt"]["algorithms"] = json!([kind.algorithm()]);
    tree["jwt"]["hs256-secret"] = json!(issuer.secret);
    tree["jwt"]["issuer"] = json!(ISSUER);
    tree["jwt"]["audience"] = json!(ISSUER);
    tree["server"]["port"] = json!(address.port());
    tree["consul"]["enabled"] = json!(false);
    tree["redis"]["address"] = json!(redis.address.to_string());
    tree["identity"]["secret"] = json!("not a secret, and as long as one has to be");
    for (name, value) in server.as_object().into_iter().flatten() {
        tree["server"][name] = value.clone();
    }
    // JSON is YAML.
    fs::write(settings.join("gateway.yml"), tree.to_string())?;
    let mut command = Command::new(program);
    command.env("FIRSTCOME_CONFIG_URL", format!("file:{}", settings.display()));
    Ok(Server::start(name, address, &mut command, folder)?)
}

fn nginx_file(folder: &Path, name: &str, servers: &str) -> String {
    let mut text = format!(
        "daemon off;\nworker_processes {WORKERS};\npid {name}.pid;\nerror_log stderr warn;\n\
         events {{ worker_connections {NGINX_CONNECTIONS}; }}\nhttp {{\n\
         access_log off;\nkeepalive_requests 1000000000;\n"
    );
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        let _ = writeln!(text, "{kind}_temp_path {}/{name}-{kind};", folder.display());
    }
    text + servers + "}\n"
}

fn upstream_servers(address: SocketAddr, jwks: &Value) -> String {
    format!(
        "default_type application/json;\nserver {{\nlisten {address} reuseport backlog=4096;\n\
         location = /.well-known/jwks.json {{ return 200 '{jwks}'; }}\nlocation / {{ return 200 '{ANSWER}'; }}\n}}\n"
    )
}

fn proxy_servers(address: SocketAddr, service: SocketAddr) -> String {
    format!(
        "upstream service {{\nserver {service};\nkeepalive {KEPT_UPSTREAM};\nkeepalive_requests 1000000000;\n}}\n\
         server {{\nlisten {address} reuseport backlog=4096;\nlocation / {{\nproxy_pass http://service;\n\
         proxy_http_version 1.1;\nproxy_set_header Connection \"\";\n}}\n}}\n"
    )
}

/// In Redis's own words, as the user service would.
fn end_logins(redis: SocketAddr) -> io::Result<()> {
    let until = platform::clock::now_ms() + 3_600_000;
    let mut stream = TcpStream::connect(redis)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut words = format!("ZADD {}", gateway::auth::revocations::REVOKED_SESSIONS);
    for number in 0..ENDED_LOGINS {
        let _ = write!(words, " {until} ended-{number}");
    }
    stream.write_all(format!("{words}\r\n").as_bytes())?;
    let mut answer = [0; 64];
    let length = stream.read(&mut answer)?;
    match answer[..length].starts_with(b":") {
        true => Ok(()),
        false => Err(io::Error::other(String::from_utf8_lossy(&answer[..length]))),
    }
}

pub(crate) fn post(path: &str, token: Option<&str>) -> Vec<u8> {
    let token = token.map_or(String::new(), |token| format!("Authorization: Bearer {token}\r\n"));
    format!(
        "POST {path} HTTP/1.1\r\nHost: coupons.example\r\n{token}Content-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{BODY}",
        BODY.len()
    )
    .into_bytes()
}

fn get(path: &str, token: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: coupons.example\r\nAuthorization: Bearer {token}\r\n\r\n")
        .into_bytes()
}
