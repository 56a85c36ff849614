//! Puts the service together: settings in, router and background tasks out.

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use platform::clock::Clock;
use platform::id::IdGenerator;
use platform::identity::IdentityVerifier;
use platform::lifecycle::{App, BoxError, Context};
use sqlx::MySqlPool;
use sqlx::migrate::Migrator;

use crate::config::UserSettings;
use crate::keys::{self, KeySet, Keys};
use crate::password::Passwords;
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
    let clock = Clock::system();
    let pool = platform::mysql::connect(&settings.mysql, &MIGRATIONS, &context.lifecycle).await?;
    platform::mysql::watch_health(&pool, &context.health, &context.lifecycle);
    let key_store = settings.token.key_store.clone();
    let state = AppState::new(&settings, pool.clone(), KeySet::open(&key_store)?, clock.clone())?;
    first_admin::ensure(&state, &settings.first_admin).await?;
    let stop = context.lifecycle.background_stop();
    context
        .lifecycle
        .spawn("memory of password hashes", state.passwords.clone().rest_when_idle(stop.clone()));
    let health = context.health.optional_component("keys");
    context.lifecycle.spawn("key store", keys::follow(state.keys.clone(), key_store, health, stop.clone()));
    context.lifecycle.spawn("sweep of refresh tokens", sweep::run(pool, clock, stop));
    Ok(App::new(build(state)))
}
