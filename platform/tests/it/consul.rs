use std::collections::BTreeMap;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use platform::config::{ConsulSettings, ServerSettings};
use platform::consul::{Consul, Registration};
use platform::health::Health;
use platform::http::client::{CallError, ServiceClient};
use platform::http::server::Server;
use platform::identity::{IdentitySigner, IdentityVerifier, SERVICE};
use platform::lifecycle::Lifecycle;
use platform::testing::{Servers, unique_name};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(10);

fn identity() -> platform::config::IdentitySettings {
    platform::config::IdentitySettings { secret: "a secret of at least thirty-two bytes".into() }
}

/// A service whose readiness is its own health check.
fn serve() -> Server {
    let verifier = IdentityVerifier::new(&identity());
    let hang = get(async || std::future::pending::<()>().await);
    let router = Router::new().route("/ready", get(async || "ok")).route("/hang", hang).route(
        "/whoami",
        get(async move |headers: http::HeaderMap| {
            let identity = verifier.verify(&headers).map_err(|_| http::StatusCode::UNAUTHORIZED)?;
            let trace = platform::trace_id().map(|id| id.to_string());
            Ok::<_, http::StatusCode>(axum::Json(
                json!({"service": identity.has_role(SERVICE), "trace": trace}),
            ))
        }),
    );
    Server::start(&ServerSettings::default(), move |_| router.clone()).unwrap()
}

fn registration(name: &str, id: &str, server: &Server) -> Registration {
    Registration {
        id: id.to_owned(),
        name: name.to_owned(),
        address: server.address(),
        meta: BTreeMap::from([("zone".to_owned(), "a".to_owned()), ("weight".to_owned(), "3".to_owned())]),
        check_url: format!("http://{}/ready", server.address()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_shows_up_when_it_passes_and_goes_when_it_deregisters() {
    let consul = Consul::new(&Servers::get().consul());
    let (name, server) = (unique_name("platform"), serve());
    let mut watch = consul.watch(&name);
    assert!(watch.borrow().is_empty());
    consul.register(&registration(&name, &format!("{name}-1"), &server)).await.unwrap();
    let found = tokio::time::timeout(SOON, watch.wait_for(|found| !found.is_empty())).await.unwrap().unwrap();
    assert_eq!((found.len(), found[0].address, found[0].weight), (1, server.address(), 3));
    assert_eq!((found[0].zone.as_str(), found[0].id.clone()), ("a", format!("{name}-1")));
    drop(found);
    consul.deregister(&format!("{name}-1")).await.unwrap();
    tokio::time::timeout(SOON, watch.wait_for(|found| found.is_empty())).await.unwrap().unwrap();
    consul.deregister(&format!("{name}-1")).await.unwrap();
    server.stop(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stops_answering_is_no_longer_passing() {
    let consul = Consul::new(&Servers::get().consul());
    let (name, server) = (unique_name("platform"), serve());
    let mut watch = consul.watch(&name);
    let id = format!("{name}-1");
    consul.register(&registration(&name, &id, &server)).await.unwrap();
    tokio::time::timeout(SOON, watch.wait_for(|found| !found.is_empty())).await.unwrap().unwrap();
    server.stop(Duration::from_secs(1)).await;
    tokio::time::timeout(SOON, watch.wait_for(|found| found.is_empty())).await.unwrap().unwrap();
    consul.deregister(&id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_consul_has_forgotten_is_registered_again() {
    let (consul, lifecycle) = (Consul::new(&Servers::get().consul()), Lifecycle::new());
    let (name, server) = (unique_name("platform"), serve());
    let id = format!("{name}-1");
    consul.keep_registered(registration(&name, &id, &server), Health::new(), &lifecycle);
    let mut watch = consul.watch(&name);
    tokio::time::timeout(SOON, watch.wait_for(|found| !found.is_empty())).await.unwrap().unwrap();
    consul.deregister(&id).await.unwrap();
    tokio::time::timeout(SOON, watch.wait_for(|found| found.is_empty())).await.unwrap().unwrap();
    // It is looked after every 10 s, and then its check has to pass.
    tokio::time::timeout(SOON * 2, watch.wait_for(|found| !found.is_empty())).await.unwrap().unwrap();
    lifecycle.stop_background(Duration::from_secs(1)).await;
    assert!(!lifecycle.failed());
    consul.deregister(&id).await.unwrap();
    server.stop(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_becomes_ready_is_found_before_the_next_check() {
    let (consul, lifecycle, health) =
        (Consul::new(&Servers::get().consul()), Lifecycle::new(), Health::new());
    let (name, server) = (unique_name("platform"), serve());
    let (keys, id) = (health.component("keys"), format!("{name}-1"));
    health.started();
    // Its check never says that it is ready, and takes its time to say that it isn't.
    let registration = Registration {
        check_url: format!("http://{}/hang", server.address()),
        ..registration(&name, &id, &server)
    };
    consul.keep_registered(registration, health, &lifecycle);
    let mut watch = consul.watch(&name);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(watch.borrow_and_update().is_empty());
    keys.up();
    tokio::time::timeout(SOON, watch.wait_for(|found| !found.is_empty())).await.unwrap().unwrap();
    lifecycle.stop_background(Duration::from_secs(1)).await;
    consul.deregister(&id).await.unwrap();
    server.stop(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_calls_another_by_its_name() {
    let consul = Consul::new(&Servers::get().consul());
    let (name, server) = (unique_name("platform"), serve());
    let client = ServiceClient::new(consul.clone(), IdentitySigner::new(&identity()));
    let limit = Duration::from_secs(2);
    let nobody = client.get_json::<Value>(&name, "/whoami", limit).await;
    assert!(matches!(nobody, Err(CallError::Unavailable(_))), "{nobody:?}");
    // One that is gone and one that is there: the first is passed over.
    let gone = serve();
    for (id, server) in [("gone", &gone), ("there", &server)] {
        consul.register(&registration(&name, &format!("{name}-{id}"), server)).await.unwrap();
    }
    let mut watch = consul.watch(&name);
    tokio::time::timeout(SOON, watch.wait_for(|found| found.len() == 2)).await.unwrap().unwrap();
    gone.stop(Duration::ZERO).await;
    for _ in 0..4 {
        let answer: Value = client.get_json(&name, "/whoami", limit).await.unwrap();
        assert_eq!(answer["service"], true);
    }
    let missing = client.get_json::<Value>(&name, "/nowhere", limit).await;
    assert!(matches!(missing, Err(CallError::Status(http::StatusCode::NOT_FOUND))), "{missing:?}");
    for id in ["gone", "there"] {
        consul.deregister(&format!("{name}-{id}")).await.unwrap();
    }
    server.stop(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_known_instances_stay_when_consul_is_away() {
    // A link to Consul that can be cut.
    let target = Servers::get().consul.url.trim_start_matches("http://").to_owned();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let link = tokio::runtime::Handle::current().spawn(async move {
        let mut links = tokio::task::JoinSet::new();
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let target = target.clone();
            links.spawn(async move {
                let mut far = tokio::net::TcpStream::connect(target).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    let consul = Consul::new(&ConsulSettings { url, ..Servers::get().consul() });
    let (name, server) = (unique_name("platform"), serve());
    let mut watch = consul.watch(&name);
    let id = format!("{name}-1");
    consul.register(&registration(&name, &id, &server)).await.unwrap();
    tokio::time::timeout(SOON, watch.wait_for(|found| !found.is_empty())).await.unwrap().unwrap();
    link.abort();
    assert!(link.await.is_err());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(consul.deregister(&id).await.is_err());
    assert_eq!(watch.borrow().len(), 1);
    Consul::new(&Servers::get().consul()).deregister(&id).await.unwrap();
    server.stop(Duration::from_secs(1)).await;
}
