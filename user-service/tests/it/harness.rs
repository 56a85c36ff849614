//! The real service without a port: the router within the platform's layers, on a database of its own.

use std::io::Write;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock};

use axum::body::Body;
use http::{HeaderMap, Method, Request};
use http_body_util::BodyExt;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use platform::clock::Clock;
use platform::config::{MysqlSettings, RedisSettings};
use platform::http::server::{Front, layered};
use platform::identity::{CLIENT_HEADER, HEADER, Identity, IdentitySigner};
use platform::lifecycle::Lifecycle;
use platform::redis::Redis;
use platform::testing::{Servers, unique_name};
use serde_json::{Value, json};
use sqlx::MySqlPool;
use tower::ServiceExt;
use user_service::app::{self, AppState, MIGRATIONS};
use user_service::config::UserSettings;
use user_service::keys::KeySet;
use user_service::token::Claims;

/// The private key of RFC 8037, appendix A: known to everybody, so good for tests alone.
const STORE: &str = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "21fe31dfa154a261", "status": "signing",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
    "since": "2026-11-21T10:00:00Z"}]}"#;

#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) state: AppState,
    pub(crate) lifecycle: Lifecycle,
    /// The name of the set and the channel of revocations, this test's own.
    pub(crate) revoked: String,
    front: Front,
    signer: IdentitySigner,
    settings: UserSettings,
    /// Where its requests come from, if the gateway says so.
    client: Option<IpAddr>,
}

/// Somebody who is logged in.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    pub(crate) user: u64,
    pub(crate) sid: String,
    pub(crate) roles: Vec<String>,
    pub(crate) access: String,
    pub(crate) refresh: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Service {
    pub(crate) async fn new(name: &str) -> Self {
        Self::with(name, |_| {}).await
    }

    pub(crate) async fn with(name: &str, change: impl FnOnce(&mut UserSettings)) -> Self {
        listen_to_logs();
        let mut settings = UserSettings {
            mysql: Servers::get().mysql(&unique_name(&format!("users_{name}"))),
            redis: Servers::get().redis(),
            ..UserSettings::default()
        };
        settings.identity.secret = "a secret of at least thirty-two bytes".into();
        change(&mut settings);
        let pool = platform::mysql::connect(&settings.mysql, &MIGRATIONS, &Lifecycle::new()).await.unwrap();
        // A clock that only the test moves; it begins now, so that access tokens are good.
        let clock = Clock::manual(platform::clock::now_ms());
        Self::with_pool(&settings, pool, &unique_name("revoked"), clock)
    }

    pub(crate) fn mysql(&self) -> &MysqlSettings {
        &self.settings.mysql
    }

    pub(crate) fn redis(&self) -> RedisSettings {
        self.settings.redis.clone()
    }

    /// The same service by way of another pool.
    pub(crate) fn by_way_of(&self, pool: MySqlPool) -> Self {
        Self::with_pool(&self.settings, pool, &self.revoked, self.state.clock.clone())
    }

    /// Another instance beside this one, with the same clock.
    pub(crate) fn beside(&self, redis: RedisSettings) -> Self {
        let settings = UserSettings { redis, ..self.settings.clone() };
        Self::with_pool(&settings, self.state.pool.clone(), &self.revoked, self.state.clock.clone())
    }

    /// The same service, asked from this address.
    pub(crate) fn from(&self, address: &str) -> Self {
        Self { client: Some(address.parse().unwrap()), ..self.clone() }
    }

    fn with_pool(settings: &UserSettings, pool: MySqlPool, revoked: &str, clock: Clock) -> Self {
        let lifecycle = Lifecycle::new();
        let redis = Redis::connect(settings.redis.clone(), &lifecycle, &[]);
        let keys = KeySet::parse(STORE.as_bytes()).unwrap();
        let mut state = AppState::new(settings, pool, redis, keys, clock).unwrap();
        state.revocations = state.revocations.under(revoked);
        Self {
            front: layered(app::build(state.clone()), &settings.server),
            state,
            lifecycle,
            revoked: revoked.to_owned(),
            signer: IdentitySigner::new(&settings.identity),
            settings: settings.clone(),
            client: None,
        }
    }

    pub(crate) async fn send(&self, mut request: Request<Body>) -> Answer {
        if let Some(address) = self.client {
            request.headers_mut().insert(CLIENT_HEADER, self.signer.sign_client(address));
        }
        let Ok(response) = self.front.clone().oneshot(request).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::POST, path, None, Some(body)).await
    }

    /// As the gateway would ask for whoever is logged in.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        login: Option<&Login>,
        body: Option<&Value>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(Login { user, sid, roles, .. }) = login {
            let identity = Identity { user: *user, roles: roles.clone(), session: Some(sid.clone()) };
            request = request.header(HEADER, self.signer.sign(&identity));
        }
        let request = match body {
            Some(body) => {
                request.header("content-type", "application/json").body(Body::from(body.to_string()))
            }
            None => request.body(Body::empty()),
        };
        self.send(request.unwrap()).await
    }

    /// Who I am, as the gateway would ask for `user`.
    pub(crate) async fn me(&self, user: u64) -> Answer {
        let identity = Identity { user, roles: vec!["USER".to_owned()], session: None };
        let request = Request::get("/users/me").header(HEADER, self.signer.sign(&identity));
        self.send(request.body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn refresh(&self, token: &str) -> Answer {
        self.post("/users/token/refresh", &json!({"refreshToken": token})).await
    }

    pub(crate) async fn log_in(&self, email: &str, password: &str) -> Login {
        self.logged_in(&self.post("/users/login", &json!({"email": email, "password": password})).await)
    }

    /// The login that an answer with tokens belongs to.
    pub(crate) fn logged_in(&self, answer: &Answer) -> Login {
        assert_eq!(answer.status, 200, "{}", answer.body);
        let text = |name: &str| answer.body["token"][name].as_str().unwrap().to_owned();
        let (access, refresh) = (text("accessToken"), text("refreshToken"));
        let claims = self.claims(&access);
        let roles = claims.roles.iter().map(|role| role.as_str().to_owned()).collect();
        Login { user: claims.sub.parse().unwrap(), sid: claims.sid, roles, access, refresh }
    }

    pub(crate) async fn sign_up(&self, email: &str, password: &str) {
        let answer = self.post("/users/sign-up", &json!({"email": email, "password": password})).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
    }

    /// What an access token says, verified with the published key.
    pub(crate) fn claims(&self, access_token: &str) -> Claims {
        let kid = jsonwebtoken::decode_header(access_token).unwrap().kid.unwrap();
        let keys = self.state.keys.current();
        let key = keys.published().keys.iter().find(|key| key.kid == kid).unwrap();
        let key = DecodingKey::from_ed_components(&key.x).unwrap();
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_audience(&["firstcome"]);
        validation.set_issuer(&["firstcome"]);
        // The test's clock runs ahead.
        validation.validate_exp = false;
        jsonwebtoken::decode::<Claims>(access_token, &key, &validation).unwrap().claims
    }
}

impl Answer {
    /// Status and body, with the trace and the named members masked.
    pub(crate) fn masked(&self, names: &[&str]) -> String {
        let mut body = self.body.clone();
        mask(&mut body, names);
        format!("{} {}", self.status, serde_json::to_string_pretty(&body).unwrap())
    }
}

fn mask(value: &mut Value, names: &[&str]) {
    let Some(members) = value.as_object_mut() else { return };
    for (name, member) in members {
        if name == "traceId" || names.contains(&name.as_str()) {
            *member = json!(format!("[{name}]"));
        } else {
            mask(member, names);
        }
    }
}

/// Everything that was logged by any test of this binary, at the finest level.
static LOG: OnceLock<Log> = OnceLock::new();

#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn listen_to_logs() {
    LOG.get_or_init(|| {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::level_filters::LevelFilter::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::set_global_default(subscriber).unwrap();
        log
    });
}

pub(crate) fn logged() -> String {
    LOG.get().map(|log| String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned()).unwrap_or_default()
}
