//! What the service is made of, put together. Invariant: nothing here decides; the modules do.

use std::sync::Arc;

use axum::extract::FromRef;
use axum::routing::get;
use axum::{Json, Router};
use platform::clock::Clock;
use platform::http::client::ServiceClient;
use platform::http::description::{ProblemBody, Securities};
use platform::id::IdGenerator;
use platform::identity::{IdentitySigner, IdentityVerifier};
use platform::lifecycle::{App, BoxError, Context, Lifecycle};
use platform::redis::Redis;
use sqlx::MySqlPool;
use sqlx::migrate::Migrator;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::cache::{Cache, SCRIPTS};
use crate::config::CouponSettings;
use crate::http;
use crate::ledger::{ISSUE_SERVICE, LedgerClient};
use crate::write_back::WriteBack;

/// The tables.
pub static MIGRATOR: Migrator = sqlx::migrate!();

#[derive(Clone, Debug)]
pub struct AppState {
    pub pool: MySqlPool,
    pub cache: Cache,
    pub ledger: LedgerClient,
    pub ids: Arc<IdGenerator>,
    pub clock: Clock,
    pub identity: IdentityVerifier,
    pub lifecycle: Lifecycle,
}

impl AppState {
    #[must_use]
    pub fn new(
        settings: &CouponSettings,
        pool: MySqlPool,
        redis: Redis,
        ledger: LedgerClient,
        clock: Clock,
        lifecycle: Lifecycle,
    ) -> Self {
        Self {
            pool,
            cache: Cache::new(redis, settings.definition.mac_secret.clone(), settings.definition.cache_ttl),
            ledger,
            ids: Arc::new(IdGenerator::new(clock.clone())),
            clock,
            identity: IdentityVerifier::new(&settings.identity),
            lifecycle,
        }
    }
}

impl FromRef<AppState> for IdentityVerifier {
    fn from_ref(state: &AppState) -> Self {
        state.identity.clone()
    }
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Firstcome coupons", description = "Limited coupons: definitions, and how many are left."),
    components(schemas(ProblemBody)),
    modifiers(&Securities)
)]
struct Api;

/// Every route. The platform adds tracing, problem rendering, limits and time-outs around it.
pub fn build(state: AppState) -> Router {
    let (router, api) = OpenApiRouter::with_openapi(Api::openapi())
        .merge(http::coupons::router())
        .merge(http::internal::router())
        .split_for_parts();
    let api = Arc::new(api);
    router.route("/openapi.json", get(async move || Json(Arc::clone(&api)))).with_state(state)
}

/// Connects everything and starts the write-back.
pub async fn start(context: Context, settings: CouponSettings) -> Result<App, BoxError> {
    let lifecycle = context.lifecycle;
    let redis = Redis::connect(settings.redis.clone(), &lifecycle, SCRIPTS);
    let pool = platform::mysql::connect(&settings.mysql, &MIGRATOR, &lifecycle).await?;
    let signer = IdentitySigner::new(&settings.identity);
    let client = context.consul.map(|consul| ServiceClient::new(consul, signer));
    let ledger = LedgerClient::new(client, ISSUE_SERVICE);
    platform::mysql::watch_health(&pool, &context.health, &lifecycle);
    let state = AppState::new(&settings, pool, redis, ledger, Clock::system(), lifecycle);
    let write_back = WriteBack::new(&state, settings.write_back);
    state.lifecycle.spawn("write-back", write_back.run(state.lifecycle.background_stop()));
    Ok(App::new(build(state)))
}
