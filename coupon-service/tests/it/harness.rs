//! The service as its process would run it, without the process.

use std::time::Duration;

use axum::body::Body;
use coupon_service::app::{self, AppState, MIGRATOR};
use coupon_service::cache::{SCRIPTS, count_key, info_key};
use coupon_service::config::{CouponSettings, WriteBackSettings};
use coupon_service::coupon::{Coupon, CouponId};
use coupon_service::ledger::LedgerClient;
use coupon_service::store;
use coupon_service::write_back::WriteBack;
use http::{HeaderMap, Method, Request};
use http_body_util::BodyExt as _;
use platform::clock::Clock;
use platform::config::Secret;
use platform::http::server::{Front, layered};
use platform::identity::{ADMIN, HEADER, Identity, IdentitySigner, SERVICE};
use platform::lifecycle::Lifecycle;
use platform::redis::Redis;
use platform::testing::{Servers, unique_name};
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

pub(crate) const IDENTITY_SECRET: &str = "an identity secret of at least 32 bytes";
const MAC_SECRET: &str = "a mac secret of at least 32 bytes";
pub(crate) const QUICK: WriteBackSettings = WriteBackSettings {
    interval: Duration::from_millis(50),
    authoritative_interval: Duration::from_secs(3600),
};

#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) state: AppState,
    pub(crate) settings: CouponSettings,
    pub(crate) clock: Clock,
    /// Redis, past the service.
    pub(crate) redis: MultiplexedConnection,
    router: Front,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Service {
    /// With an issue service that can't be found.
    pub(crate) async fn new(name: &str) -> Self {
        Self::with(name, LedgerClient::new(None, "issue-service"), |_| {}).await
    }

    pub(crate) async fn with(
        name: &str,
        ledger: LedgerClient,
        edit: impl FnOnce(&mut CouponSettings),
    ) -> Self {
        let servers = Servers::get();
        let mut settings = CouponSettings {
            mysql: servers.mysql(&unique_name(name)),
            redis: servers.redis(),
            ..CouponSettings::default()
        };
        settings.identity.secret = Secret::new(IDENTITY_SECRET);
        settings.definition.mac_secret = Secret::new(MAC_SECRET);
        let redis = raw_redis(&settings).await;
        edit(&mut settings);
        Self::start(settings, ledger, redis, Clock::manual(platform::clock::now_ms())).await
    }

    async fn start(
        settings: CouponSettings,
        ledger: LedgerClient,
        redis: MultiplexedConnection,
        clock: Clock,
    ) -> Self {
        let lifecycle = Lifecycle::new();
        let pool = platform::mysql::connect(&settings.mysql, &MIGRATOR, &lifecycle).await.unwrap();
        let supervised = Redis::connect(settings.redis.clone(), &lifecycle, SCRIPTS);
        let state = AppState::new(&settings, pool, supervised, ledger, clock.clone(), lifecycle);
        let router = layered(app::build(state.clone()), &settings.server);
        let service = Self { state, settings, clock, redis, router };
        if service.settings.redis.address != AWAY {
            service.redis_found().await;
        }
        service
    }

    /// A second instance on the same database.
    pub(crate) async fn another(&self) -> Self {
        let (redis, clock) = (self.redis.clone(), self.clock.clone());
        Self::start(self.settings.clone(), self.state.ledger.clone(), redis, clock).await
    }

    async fn redis_found(&self) {
        let cache = &self.state.cache;
        until("Redis is found", async || cache.published(&[CouponId(1)]).await.is_some()).await;
    }

    pub(crate) async fn call(&self, method: Method, path: &str, role: &str, body: Option<&Value>) -> Answer {
        let identity = Identity { user: 7, roles: vec![role.to_owned()], session: None };
        let identity = IdentitySigner::new(&self.settings.identity).sign(&identity);
        let request = Request::builder().method(method).uri(path).header(HEADER, identity);
        let request = request.header("content-type", "application/json");
        let request =
            request.body(body.map_or_else(Body::empty, |body| Body::from(body.to_string()))).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&body).unwrap();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub(crate) async fn get(&self, id: CouponId) -> Value {
        let answer = self.call(Method::GET, &format!("/coupons/{id}"), "USER", None).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    }

    pub(crate) async fn internal(&self, path: &str) -> Answer {
        self.call(Method::GET, &format!("/internal/coupons{path}"), SERVICE, None).await
    }

    pub(crate) async fn patch(&self, id: CouponId, body: Value) -> Answer {
        self.call(Method::PATCH, &format!("/coupons/{id}"), ADMIN, Some(&body)).await
    }

    /// A coupon that is open for an hour.
    pub(crate) async fn create(&self, quantity: u32) -> CouponId {
        let now = self.clock.now_ms();
        let body = json!({
            "name": "쿠폰",
            "quantity": quantity,
            "startsAt": platform::clock::rfc3339(now),
            "endsAt": platform::clock::rfc3339(now + 3_600_000),
        });
        let answer = self.call(Method::POST, "/coupons", ADMIN, Some(&body)).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        CouponId(answer.body["couponId"].as_u64().unwrap())
    }

    pub(crate) async fn row(&self, id: CouponId) -> Coupon {
        store::find(&self.state.pool, id).await.unwrap().unwrap()
    }

    pub(crate) async fn version(&self, id: CouponId) -> u64 {
        self.row(id).await.definition.version
    }

    /// What lies in the cache.
    pub(crate) async fn cached(&self, id: CouponId) -> Option<Value> {
        let mut redis = self.redis.clone();
        let text: Option<String> = redis::cmd("GET").arg(info_key(id)).query_async(&mut redis).await.unwrap();
        text.map(|text| serde_json::from_str(&text).unwrap())
    }

    pub(crate) async fn publish_count(&self, id: CouponId, value: &str) {
        let mut redis = self.redis.clone();
        let () = redis::cmd("SET").arg(count_key(id)).arg(value).query_async(&mut redis).await.unwrap();
    }

    /// Starts the write-back of this instance.
    pub(crate) fn write_back(&self, settings: WriteBackSettings) -> Running {
        let stop = CancellationToken::new();
        let job = WriteBack::new(&self.state, settings).run(stop.clone());
        let ended = CancellationToken::new();
        let guard = ended.clone().drop_guard();
        self.state.lifecycle.spawn_detached(async move {
            job.await.unwrap();
            drop(guard);
        });
        Running { stop, ended }
    }

    pub(crate) async fn shows_issued(&self, id: CouponId, count: u32) {
        until("the count is written", async || self.row(id).await.issued.count == count).await;
    }
}

/// Where nobody listens.
pub(crate) const AWAY: &str = "127.0.0.1:1";

pub(crate) struct Running {
    stop: CancellationToken,
    ended: CancellationToken,
}

impl Running {
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        self.ended.cancelled().await;
    }
}

async fn raw_redis(settings: &CouponSettings) -> MultiplexedConnection {
    let lifecycle = Lifecycle::new();
    let redis = Redis::connect(settings.redis.clone(), &lifecycle, &[]);
    until("Redis is found", async || redis.connection().is_some()).await;
    redis.connection().unwrap().conn
}

/// Waits for what has to become true soon.
pub(crate) async fn until(what: &str, check: impl AsyncFn() -> bool) {
    for _ in 0..500 {
        if check().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("waited 10 s in vain until {what}");
}

/// Several rounds of a quick write-back.
pub(crate) async fn some_rounds() {
    tokio::time::sleep(QUICK.interval * 8).await;
}
