use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use jsonwebtoken::Algorithm;
use platform::health::Health;
use platform::lifecycle::Lifecycle;
use serde_json::json;

use super::*;
use crate::balance::BalanceSettings;
use crate::config::UpstreamSettings;
use crate::discovery::{self, Discovery};
use crate::proxy::Proxy;

/// However many threads send tokens of unknown keys, the issuer hears of it at the configured rate.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn unknown_keys_from_many_threads_cost_the_issuer_one_question_an_interval() {
    const INTERVAL: Duration = Duration::from_millis(200);
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let keys = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "known",
                                "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]});
    let app = axum::Router::new().fallback(async move || {
        counter.fetch_add(1, SeqCst);
        axum::Json(keys)
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });

    let lifecycle = Lifecycle::new();
    let balancing = BalanceSettings { avoid_for: INTERVAL, slow_start: Duration::ZERO, zone: String::new() };
    let source = Source {
        place: Place::KeySet(format!("http://{address}/jwks")),
        accepted: vec![Algorithm::EdDSA],
        discovery: Arc::new(Discovery::new(discovery::Source::Listed, lifecycle, balancing)),
        proxy: Arc::new(Proxy::new(UpstreamSettings::default().proxy())),
    };
    let jwks = Jwks::new(64);
    let schedule = Schedule { refresh: Duration::from_secs(60), min_interval: INTERVAL };
    let (health, stop) = (Health::new().component("jwks"), CancellationToken::new());
    let following = Arc::clone(&jwks);
    tasks.spawn(async move { following.follow(source, schedule, health, stop).await.unwrap() });

    let begun = Instant::now();
    let mut strangers = tokio::task::JoinSet::new();
    for sender in 0..16 {
        let jwks = Arc::clone(&jwks);
        strangers.spawn(async move {
            let mut sent = 0_u32;
            while begun.elapsed() < INTERVAL * 5 {
                sent += 1;
                let found = jwks.find(&format!("{sender}-{sent}")).await;
                assert_eq!(found.unwrap_err(), Missing::UnknownKey);
                assert!(jwks.find("known").await.is_ok());
                tokio::task::yield_now().await;
            }
            sent
        });
    }
    let sent: u32 = strangers.join_all().await.iter().sum();
    let asked = asked.load(SeqCst);
    let most = begun.elapsed().as_millis() / INTERVAL.as_millis() + 1;
    assert!(sent > 1_000, "{sent} tokens are no load");
    assert!(asked >= 2 && asked as u128 <= most, "{asked} questions in {:?} for {sent}", begun.elapsed());
}
