//! The gateway with a real Consul: instances come, go and die.

#![expect(clippy::unwrap_used, reason = "a test fails by it, in its helpers too")]

mod redis;
mod standalone;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use gateway::app::{Parts, build, router};
use gateway::config::GatewaySettings;
use gateway::discovery::{Discovery, Source};
use http::{Request, StatusCode};
use platform::clock::Clock;
use platform::consul::{Consul, Registration};
use platform::health::Health;
use platform::lifecycle::Lifecycle;
use platform::testing::{Servers, unique_name};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};
use tower::ServiceExt as _;

/// Check interval, blocking query and a little for a machine that is busy with other tests.
const SEEN_WITHIN: Duration = Duration::from_secs(10);
/// What the gateway promises.
const UNUSED_WITHIN: Duration = Duration::from_secs(3);

fn consul() -> Consul {
    Consul::new(&Servers::get().consul())
}

/// A gateway with one public route, `/coupons`, to the service of this name.
fn gateway(service: &str, lifecycle: &Lifecycle) -> Router {
    let settings = json!({
        "server": {}, "admin": {}, "consul": {}, "telemetry": {},
        "identity": {"secret": "0123456789abcdef0123456789abcdef"},
        "jwt": {"issuer": "i", "audience": "a", "algorithms": ["HS256"],
                "hs256-secret": "0123456789abcdef0123456789abcdef"},
        "routes": [{"id": "r", "uri": format!("lb://{service}"), "predicates": ["Path=/coupons"],
                    "authentication": "none"}],
    });
    let settings: GatewaySettings = serde_json::from_value(settings).unwrap();
    let discovery = Discovery::new(Source::Consul(consul()), lifecycle.clone(), settings.balancing());
    let parts = Parts {
        discovery,
        clock: Clock::system(),
        lifecycle: lifecycle.clone(),
        health: Health::new(),
        redis: None,
    };
    router(build(settings, parts).unwrap())
}

/// An instance that says its name. Killed, it is gone with its connections, as after `kill -9`.
struct Instance {
    id: String,
    address: SocketAddr,
    kill: tokio::sync::oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Instance {
    fn start(id: String) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let name = id.clone();
        let (kill, killed) = tokio::sync::oneshot::channel();
        // A runtime of its own, whose end takes the tasks of its connections along.
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let answer = async move || {
                    sleep(Duration::from_millis(2)).await;
                    name.clone()
                };
                let app = Router::new().route("/health", get(async || "up")).route("/coupons", get(answer));
                let listener = TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    _ = killed => {}
                    served = axum::serve(listener, app) => served.unwrap(),
                }
            });
        });
        Self { id, address, kill, thread }
    }

    async fn register(&self, service: &str) {
        let registration = Registration {
            id: self.id.clone(),
            name: service.to_owned(),
            address: self.address,
            meta: BTreeMap::new(),
            check_url: format!("http://{}/health", self.address),
        };
        consul().register(&registration).await.unwrap();
    }

    fn kill(self) {
        let _ = self.kill.send(());
        self.thread.join().unwrap();
    }
}

async fn ask(app: &Router) -> (StatusCode, String) {
    let request = Request::get("/coupons").body(Body::empty()).unwrap();
    let response = app.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 1024).await.unwrap_or_default();
    (status, String::from_utf8_lossy(&body).into_owned())
}

/// Who answers a handful of requests at once.
async fn who_answers(app: &Router) -> BTreeSet<String> {
    let answers = futures_util::future::join_all((0..16).map(|_| ask(app))).await;
    answers
        .into_iter()
        .map(|(status, body)| if status == StatusCode::OK { body } else { status.to_string() })
        .collect()
}

async fn until(app: &Router, expected: &[&str], within: Duration) {
    let deadline = Instant::now() + within;
    let expected: BTreeSet<String> = expected.iter().map(|name| (*name).to_owned()).collect();
    loop {
        let answering = who_answers(app).await;
        if answering == expected {
            return;
        }
        assert!(Instant::now() < deadline, "expected {expected:?}, last seen {answering:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn instances_come_and_go_without_an_error_to_anybody() {
    let service = unique_name("gateway-it");
    let (one, two) = (Instance::start(format!("{service}-1")), Instance::start(format!("{service}-2")));
    let lifecycle = Lifecycle::new();
    let app = gateway(&service, &lifecycle);
    assert_eq!(ask(&app).await.0, StatusCode::SERVICE_UNAVAILABLE, "nobody is registered");

    one.register(&service).await;
    until(&app, &[&one.id], SEEN_WITHIN).await;
    two.register(&service).await;
    until(&app, &[&one.id, &two.id], SEEN_WITHIN).await;

    // Deregistered before it stops, as the services do: not one request may fail.
    consul().deregister(&one.id).await.unwrap();
    let deadline = Instant::now() + UNUSED_WITHIN;
    loop {
        let answering = who_answers(&app).await;
        assert!(answering.is_subset(&[one.id.clone(), two.id.clone()].into()), "{answering:?}");
        if answering == [two.id.clone()].into() {
            break;
        }
        assert!(Instant::now() < deadline, "still asked: {answering:?}");
    }
    one.kill();
    until(&app, &[&two.id], UNUSED_WITHIN).await;
    consul().deregister(&two.id).await.unwrap();
    until(&app, &["503 Service Unavailable"], SEEN_WITHIN).await;
    two.kill();
    lifecycle.stop_background(Duration::from_secs(2)).await;
}

#[tokio::test]
async fn a_killed_instance_costs_no_more_than_what_it_had_in_flight() {
    let service = unique_name("gateway-it");
    let (one, two) = (Instance::start(format!("{service}-1")), Instance::start(format!("{service}-2")));
    let lifecycle = Lifecycle::new();
    let app = gateway(&service, &lifecycle);
    one.register(&service).await;
    two.register(&service).await;
    until(&app, &[&one.id, &two.id], SEEN_WITHIN).await;

    // A steady load of 8 in flight, before, while and after one of the two dies.
    let (killed_id, survivor) = (one.id.clone(), two.id.clone());
    let started = Instant::now();
    let clients = (0..8).map(|_| {
        let app = app.clone();
        async move {
            let mut answers = Vec::new();
            while started.elapsed() < Duration::from_secs(5) {
                let (status, body) = ask(&app).await;
                answers.push((started.elapsed(), status, body));
            }
            answers
        }
    });
    let kill = async {
        sleep(Duration::from_secs(1)).await;
        tokio::task::spawn_blocking(move || one.kill()).await.unwrap();
        started.elapsed()
    };
    let (answers, killed_at) = tokio::join!(futures_util::future::join_all(clients), kill);
    let answers: Vec<_> = answers.into_iter().flatten().collect();
    let failed: Vec<_> = answers.iter().filter(|(_, status, _)| *status != StatusCode::OK).collect();
    let late = answers.iter().filter(|(at, _, body)| *at > killed_at && *body == killed_id).count();
    println!("{} answers, {} failed: {failed:?}, {late} by the dead one", answers.len(), failed.len());
    assert!(answers.iter().any(|(_, _, body)| *body == killed_id), "it was in use before");
    assert!(failed.len() <= 8, "more than were in flight");
    assert!(failed.iter().all(|(_, status, _)| *status == StatusCode::BAD_GATEWAY));
    assert!(failed.iter().all(|(at, _, _)| *at < killed_at + UNUSED_WITHIN));
    assert!(late <= 8);
    assert!(
        answers.iter().any(|(at, _, body)| *at > killed_at + Duration::from_secs(1) && *body == survivor)
    );

    for id in [&killed_id, &survivor] {
        consul().deregister(id).await.unwrap();
    }
    two.kill();
    lifecycle.stop_background(Duration::from_secs(2)).await;
}
