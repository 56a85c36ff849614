//! What the coupon service says of coupons, on its way into the log. A stand-in answers for it, and for the Consul that
//! leads to it: the run's Consul must lead nobody else's test here.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Json, Router};
use issue_service::claim::Outcome;
use issue_service::ids::{CouponId, UserId};
use issue_service::ledger::Definition;
use parking_lot::Mutex;
use platform::clock::now_ms;
use redis::AsyncCommands as _;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::claims::redis;
use crate::system::{System, definition, eventually};

#[derive(Clone)]
struct StandIn {
    address: SocketAddr,
    definitions: Arc<Mutex<HashMap<CouponId, Definition>>>,
    questions: Arc<AtomicU64>,
}

impl StandIn {
    async fn start(system: &System) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stand_in = Self { address, definitions: Arc::default(), questions: Arc::default() };
        let router = Router::new()
            .route("/v1/health/service/coupon-service", get(instances))
            .route("/internal/coupons", get(changed))
            .with_state(stand_in.clone());
        system.lifecycle.spawn_detached(async move { axum::serve(listener, router).await.unwrap() });
        stand_in
    }

    fn put(&self, definition: Definition) {
        self.definitions.lock().insert(definition.coupon, definition);
    }
}

async fn instances(
    State(StandIn { address, .. }): State<StandIn>,
    Query(query): Query<HashMap<String, String>>,
) -> ([(&'static str, &'static str); 1], Json<Value>) {
    if query.get("index").is_some_and(|index| index != "0") {
        std::future::pending::<()>().await; // nothing changes any more
    }
    let service = json!({ "ID": "one", "Address": address.ip(), "Port": address.port() });
    ([("x-consul-index", "1")], Json(json!([{ "Node": { "Address": "127.0.0.1" }, "Service": service }])))
}

async fn changed(
    State(stand_in): State<StandIn>,
    Query(query): Query<HashMap<String, String>>,
) -> Json<Value> {
    stand_in.questions.fetch_add(1, Ordering::Relaxed);
    let since: u64 = query["changedSince"].parse().unwrap();
    let definitions = stand_in.definitions.lock();
    let told = definitions.values().filter(|definition| definition.version > since);
    let items = told.map(|definition| {
        json!({
            "couponId": definition.coupon, "version": definition.version, "quantity": definition.stock,
            "startsAt": definition.starts_at, "endsAt": definition.ends_at, "closed": definition.closed,
        })
    });
    let version = definitions.values().map(|definition| definition.version).max();
    Json(json!({ "items": items.collect::<Vec<_>>(), "version": version.unwrap_or(since) }))
}

/// When the rush begins, nobody has to wait for a definition.
#[tokio::test(flavor = "multi_thread")]
async fn definitions_and_their_changes_are_in_the_log_before_anybody_claims() {
    let mut system = System::start().await;
    let coupons = StandIn::start(&system).await;
    system.settings.consul.url = format!("http://{}", coupons.address);
    let (old, new) = (system.new_coupon(), system.new_coupon());
    let version = now_ms();
    let early = |coupon| Definition { starts_at: now_ms() + 60_000, ..definition(coupon, version, 5) };
    coupons.put(early(old));
    let serving = system.serving().await;
    let in_force = |coupon| {
        let partition = &serving.claims.partitions[serving.claims.outside.log.partition_of(coupon) as usize];
        partition.definition(coupon).map(|(definition, ..)| definition)
    };
    eventually("what was there at the start is in force", async || in_force(old).is_some()).await;
    coupons.put(early(new));
    eventually("what came later is in force", async || in_force(new).is_some()).await;
    assert_eq!(serving.claims.claim(new, UserId(1)).await, Outcome::NotStarted);
    coupons.put(definition(new, version + 1, 7));
    eventually("a change is in force", async || in_force(new).is_some_and(|found| found.stock == 7)).await;
    assert!(matches!(serving.claims.claim(new, UserId(1)).await, Outcome::Issued(_)));
}

/// Redis may say anything, and as often as it likes.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_announcements_asks_the_coupon_service_few_questions() {
    let mut system = System::start().await;
    let coupons = StandIn::start(&system).await;
    system.settings.consul.url = format!("http://{}", coupons.address);
    let _serving = system.serving().await;
    let mut conn = redis().await;
    eventually("it listens", async || conn.publish::<_, _, u64>("coupon.changed", "1").await.unwrap() > 0)
        .await;
    let (begun, before) = (Instant::now(), coupons.questions.load(Ordering::Relaxed));
    for _ in 0..200 {
        let mut pipe = redis::pipe();
        (1..=50).for_each(|coupon| {
            pipe.publish("coupon.changed", coupon).ignore();
        });
        pipe.exec_async(&mut conn).await.unwrap();
    }
    let asked = u128::from(coupons.questions.load(Ordering::Relaxed) - before);
    let most = begun.elapsed().as_millis() / 50 + 2;
    assert!(asked <= most, "{asked} questions, {most} are the most");
}
