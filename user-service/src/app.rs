//! Puts the service together: settings in, router and background tasks out.

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use platform::clock::Clock;
use platform::id::IdGenerator;
use platform::identity::IdentityVerifier;
use platform::lifecycle::{App, BoxError, Context};
use platform::redis::Redis;
use sqlx::MySqlPool;
use sqlx::migrate::Migrator;

use crate::config::UserSettings;
use crate::keys::{self, KeySet, Keys};
use crate::password::Passwords;
use crate::revocation::Revocations;
use crate::throttle::Throttle;
use crate::token::Tokens;
use crate::{first_admin, http, sweep};

/// The tables, oldest change first.
pub static MIGRATIONS: Migrator = sqlx::migrate!();

/// What the handlers share.
#[derive(Clone, Debug)]
pub struct AppState {
    pub pool: MySqlPool,
    pub clock: Clock,
    pub ids: Arc<IdGenerator>,
    pub passwords: Passwords,
    pub keys: Arc<Keys>,
    pub tokens: Tokens,
    pub identity: IdentityVerifier,
    pub revocations: Revocations,
    pub throttle: Throttle,
}

impl FromRef<AppState> for IdentityVerifier {
    fn from_ref(state: &AppState) -> Self {
        state.identity.clone()
    }
}

impl AppState {
    /// Fails without randomness.
    pub fn new(
        settings: &UserSettings,
        pool: MySqlPool,
        redis: Redis,
        keys: KeySet,
        clock: Clock,
    ) -> Result<Self, BoxError> {
        let keys = Arc::new(Keys::new(keys));
        Ok(Self {
            pool,
            ids: Arc::new(IdGenerator::new(clock.clone())),
            passwords: Passwords::new(settings.password.slots(), settings.password.max_waiting)?,
            tokens: Tokens::new(&settings.token, keys.clone(), clock.clone()),
            keys,
            identity: IdentityVerifier::new(&settings.identity),
            revocations: Revocations::new(redis),
            throttle: Throttle::new(&settings.login, &settings.identity),
            clock,
        })
    }
}

/// The public routes; the layers around them are the platform's.
pub fn build(state: AppState) -> Router {
    let (router, _document) = http::routes().split_for_parts();
    router.with_state(state)
}

/// Connects, migrates, makes the first administrator and hands over what is to be served.
pub async fn start(context: Context, settings: UserSettings) -> Result<App, BoxError> {
    let lifecycle = &context.lifecycle;
    let (clock, key_store) = (Clock::system(), settings.token.key_store.clone());
    let redis = Redis::connect(settings.redis.clone(), lifecycle, &[]);
    let pool = platform::mysql::connect(&settings.mysql, &MIGRATIONS, lifecycle).await?;
    platform::mysql::watch_health(&pool, &context.health, lifecycle);
    let keys = KeySet::open(&key_store)?;
    let state = AppState::new(&settings, pool.clone(), redis, keys, clock.clone())?;
    first_admin::ensure(&state, &settings.first_admin).await?;
    let stop = lifecycle.background_stop();
    lifecycle.spawn("memory of password hashes", state.passwords.clone().rest_when_idle(stop.clone()));
    let health = context.health.optional_component("keys");
    lifecycle.spawn("key store", keys::follow(state.keys.clone(), key_store, health, stop.clone()));
    // Redis only carries what MySQL knows: without it gateways hear of logouts later, and nothing else is lost.
    let health = context.health.optional_component("redis");
    let revocations = state.revocations.clone();
    lifecycle.spawn("revocations", revocations.run(pool.clone(), clock.clone(), health, stop.clone()));
    lifecycle.spawn("sweep of what has expired", sweep::run(pool, clock, stop));
    Ok(App::new(build(state)))
}
