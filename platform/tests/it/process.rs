//! A whole process by `lifecycle::run`, as its operator sees it: exit codes, what it prints, its ports, its stop. The
//! test starts itself again as that process.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use platform::config::{
    AdminSettings, Bootstrap, Common, ConsulSettings, IdentitySettings, Problems, ServerSettings, Settings,
    TelemetrySettings,
};
use platform::lifecycle::{App, BoxError, Context};
use platform::testing::{Servers, signal};
use serde::{Deserialize, Serialize};
use serde_json::Value;

const ROLE: &str = "PLATFORM_TEST_ROLE";
const SECRET: &str = "a secret of at least thirty-two bytes";
/// Lines, of more bytes together than ever wait.
const FLOOD: usize = 20_000;
const TOKEN: &str = "the admin token of this test";

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct ExampleSettings {
    server: ServerSettings,
    admin: AdminSettings,
    consul: ConsulSettings,
    telemetry: TelemetrySettings,
    identity: IdentitySettings,
}

impl Settings for ExampleSettings {
    fn common(&self) -> Common<'_> {
        Common { server: &self.server, admin: &self.admin, consul: &self.consul, telemetry: &self.telemetry }
    }

    fn validate(&self, _: &mut Problems) {}
}

/// Not a test of its own: the process that the others start.
#[test]
fn process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let code =
        platform::lifecycle::run("example", Bootstrap::from_env(None), async move |context, settings| {
            start(&role, &context, &settings)
        });
    // The exit code of the test would be another one.
    std::process::exit(if code == std::process::ExitCode::SUCCESS {
        0
    } else if code == std::process::ExitCode::from(64) {
        64
    } else {
        1
    });
}

#[expect(clippy::unnecessary_wraps, reason = "as every service's start")]
fn start(role: &str, context: &Context, _: &ExampleSettings) -> Result<App, BoxError> {
    let stop = context.lifecycle.background_stop();
    match role {
        "task-ends" => context.lifecycle.spawn("short", async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            Err("the task has lost its way".into())
        }),
        _ => context.lifecycle.spawn("job", async move {
            stop.cancelled().await;
            tracing::info!("last run");
            Ok(())
        }),
    }
    let router = Router::new()
        .route("/slow", get(async || tokio::time::sleep(Duration::from_millis(700)).await))
        .route(
            "/hello",
            get(async || {
                tracing::info!(coupon.id = 7, "hello");
                "hello"
            }),
        );
    let flood = get(async || {
        let writers: Vec<_> = (0..4)
            .map(|_| {
                std::thread::spawn(|| {
                    (0..FLOOD / 4)
                        .for_each(|n| tracing::info!(n, "a line of the flood, which is long enough"));
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
    });
    let router = router.route("/flood", flood);
    let flush = async { tracing::info!("flushed") };
    Ok(App::new(router).on_stop(flush))
}

struct Process {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
    read: Vec<Value>,
}

impl Process {
    fn start(role: &str, variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["process::process", "--exact", "--nocapture", "--test-threads=1"])
            .env_clear()
            .env(ROLE, role)
            .env("FIRSTCOME_CONFIG_URL", "optional:file:/nowhere")
            .env("FIRSTCOME_CONSUL__ENABLED", "false")
            .env("FIRSTCOME_IDENTITY__SECRET", SECRET)
            .env("FIRSTCOME_ADMIN__TOKEN", TOKEN)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for (name, value) in variables {
            command.env(name, value);
        }
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines, read: Vec::new() }
    }

    /// The log line with this message.
    fn wait_for(&mut self, message: &str) -> Value {
        if let Some(line) = self.read.iter().find(|line| line["message"] == message) {
            return line.clone();
        }
        let mut line = String::new();
        while self.lines.read_line(&mut line).unwrap() > 0 {
            if let Ok(event) = serde_json::from_str::<Value>(&line) {
                self.read.push(event.clone());
                if event["message"] == message {
                    return event;
                }
            }
            line.clear();
        }
        panic!("no line says {message:?}: {:#?}", self.read);
    }

    fn signal(&self, name: &str) {
        signal(name, self.child.id());
    }

    /// Exit code and everything that was printed.
    fn end(mut self) -> (Option<i32>, String) {
        let mut text: String = self.read.iter().map(|line| format!("{line}\n")).collect();
        self.lines.read_to_string(&mut text).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        (self.child.wait().unwrap().code(), text)
    }
}

async fn get_text(url: String, token: Option<&str>) -> (u16, String) {
    let mut request = reqwest::Client::new().get(url);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_stops_in_order_and_what_was_begun_is_answered() {
    for workers in ["0", "2"] {
        let mut process = Process::start("job", &[("FIRSTCOME_SERVER__WORKERS", workers)]);
        let serving = process.wait_for("serving");
        let (address, admin) = (serving["address"].as_str().unwrap(), serving["admin"].as_str().unwrap());
        assert_eq!(get_text(format!("http://{address}/hello"), None).await, (200, "hello".to_owned()));
        let hello = process.wait_for("hello");
        assert_eq!((hello["coupon.id"].as_u64(), hello["trace_id"].as_str().unwrap().len()), (Some(7), 32));
        assert_eq!(get_text(format!("http://{admin}/actuator/health/readiness"), None).await.0, 200);
        let (_, metrics) = get_text(format!("http://{admin}/actuator/prometheus"), None).await;
        for name in ["http_server_requests_seconds_bucket", "process_start_time_seconds"] {
            assert!(metrics.contains(name), "{metrics}");
        }
        let (_, environment) = get_text(format!("http://{admin}/actuator/env"), Some(TOKEN)).await;
        assert!(environment.contains("******") && !environment.contains(SECRET), "{environment}");
        let slow = tokio::runtime::Handle::current().spawn(get_text(format!("http://{address}/slow"), None));
        tokio::time::sleep(Duration::from_millis(100)).await;
        let begun = Instant::now();
        process.signal("TERM");
        process.wait_for("stopping");
        assert_eq!(get_text(format!("http://{admin}/actuator/health/readiness"), None).await.0, 503);
        assert_eq!(slow.await.unwrap().0, 200);
        let (code, text) = process.end();
        assert_eq!(code, Some(0), "{text}");
        assert!(begun.elapsed() < Duration::from_secs(5));
        let order = ["\"last run\"", "\"flushed\"", "\"stopped\""].map(|message| text.find(message));
        assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{text}");
        for secret in [SECRET, TOKEN] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_line_is_lost_however_many_they_are() {
    let mut process = Process::start("job", &[]);
    let serving = process.wait_for("serving");
    let url = format!("http://{}/flood", serving["address"].as_str().unwrap());
    let pid = process.child.id();
    // Whoever logs may wait for us to read.
    let reading = tokio::task::spawn_blocking(move || process.end());
    assert_eq!(get_text(url, None).await.0, 200);
    signal("TERM", pid);
    let (code, text) = reading.await.unwrap();
    assert_eq!(text.matches("a line of the flood").count(), FLOOD);
    assert_eq!(code, Some(0));
    assert!(text.contains("\"stopped\""), "{text}");
}

#[test]
fn a_second_signal_stops_at_once() {
    let mut process = Process::start(
        "job",
        &[("FIRSTCOME_SERVER__DRAIN_DELAY", "5s"), ("FIRSTCOME_SERVER__DRAIN_TIMEOUT", "1s")],
    );
    process.wait_for("serving");
    process.signal("INT");
    process.wait_for("stopping");
    let begun = Instant::now();
    process.signal("INT");
    let (code, text) = process.end();
    assert_eq!(code, Some(1), "{text}");
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[test]
fn the_end_of_a_background_task_ends_the_process() {
    let (code, text) = Process::start("task-ends", &[]).end();
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("the task has lost its way"), "{text}");
}

#[test]
fn bad_settings_are_all_listed_and_nothing_starts() {
    let bad = [
        ("FIRSTCOME_SERVER__PORT", "many"),
        ("FIRSTCOME_IDENTITY__SECRET", "hunter2"),
        ("FIRSTCOME_ADMIN__PROT", "1"),
    ];
    let (code, text) = Process::start("job", &bad).end();
    assert_eq!(code, Some(64), "{text}");
    for line in ["example: server.port: ", "example: identity.secret: ", "example: admin.prot: "] {
        assert!(text.contains(line), "{text}");
    }
    assert!(!text.contains("hunter2") && !text.contains("serving"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_registers_when_it_is_ready_and_deregisters_before_it_drains() {
    let url = &Servers::get().consul.url;
    let mut process = Process::start(
        "job",
        &[
            ("FIRSTCOME_CONSUL__ENABLED", "true"),
            ("FIRSTCOME_CONSUL__URL", url),
            ("FIRSTCOME_SERVER__DRAIN_DELAY", "3s"),
            ("FIRSTCOME_SERVER__DRAIN_TIMEOUT", "1s"),
        ],
    );
    let serving = process.wait_for("serving");
    let instance = serving["instance"].as_str().unwrap().to_owned();
    let ask = async || {
        let (_, text) = get_text(format!("{url}/v1/health/service/example?passing=true"), None).await;
        let entries: Vec<Value> = serde_json::from_str(&text).unwrap();
        entries.into_iter().find(|entry| entry["Service"]["ID"] == *instance)
    };
    let begun = Instant::now();
    let entry = loop {
        if let Some(entry) = ask().await {
            break entry;
        }
        assert!(begun.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let service = &entry["Service"];
    let port = serving["address"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
    assert_eq!(service["Port"].to_string(), port);
    assert_eq!(service["Meta"]["pid"], process.child.id().to_string());
    assert_eq!(service["Tags"], serde_json::json!([]));
    process.signal("TERM");
    process.wait_for("stopping");
    // Within the drain's delay, while it still answers.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(ask().await.is_none());
    assert_eq!(process.end().0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sampled_request_is_exported_under_the_trace_id_of_its_logs() {
    for exporter in ["zipkin", "otlp"] {
        let (sender, mut received) = tokio::sync::mpsc::unbounded_channel();
        let router = Router::new().fallback(async move |uri: http::Uri, body: axum::body::Bytes| {
            let _ = sender.send((uri.path().to_owned(), body));
        });
        let collector =
            platform::http::server::Server::start(&ServerSettings::default(), move |_| router.clone())
                .unwrap();
        let endpoint = format!("http://{}", collector.address());
        let mut process = Process::start(
            "job",
            &[
                ("FIRSTCOME_TELEMETRY__EXPORTER", exporter),
                ("FIRSTCOME_TELEMETRY__ENDPOINT", &endpoint),
                ("FIRSTCOME_TELEMETRY__SAMPLE_RATIO", "1.0"),
            ],
        );
        let serving = process.wait_for("serving");
        let url = format!("http://{}/hello", serving["address"].as_str().unwrap());
        // One trace that begins here, one of a caller's, and one that a caller left out.
        get_text(url.clone(), None).await;
        let own = process.wait_for("hello")["trace_id"].as_str().unwrap().to_owned();
        let (called, left_out) = ("0af7651916cd43dd8448eb211c80319c", "1af7651916cd43dd8448eb211c80319c");
        for (trace, flags) in [(called, "01"), (left_out, "00")] {
            let parent = format!("00-{trace}-b7ad6b7169203331-{flags}");
            reqwest::Client::new().get(&url).header("traceparent", parent).send().await.unwrap();
        }
        process.signal("TERM");
        assert_eq!(process.end().0, Some(0));
        collector.stop(Duration::from_secs(1)).await;
        let (mut paths, mut bodies) = (Vec::new(), Vec::new());
        while let Some((path, body)) = received.recv().await {
            paths.push(path);
            bodies.extend_from_slice(&body);
        }
        // Zipkin's JSON has ids as text, OTLP's protobuf as bytes.
        let found = |trace: &str| {
            let bytes: Vec<u8> =
                (0..16).map(|i| u8::from_str_radix(&trace[2 * i..2 * i + 2], 16).unwrap()).collect();
            let needle = if exporter == "zipkin" { trace.as_bytes() } else { &bytes };
            bodies.windows(needle.len()).any(|window| window == needle)
        };
        assert!(found(&own) && found(called), "{exporter}: {paths:?}");
        assert!(!found(left_out), "{exporter}");
        let expected = if exporter == "zipkin" { "/api/v2/spans" } else { "/v1/traces" };
        assert!(paths.iter().all(|path| path == expected), "{paths:?}");
    }
}
