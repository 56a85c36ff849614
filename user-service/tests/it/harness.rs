//! The real service without a port: the router within the platform's layers, on a database of its own.

use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock};

use axum::body::Body;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use platform::clock::Clock;
use platform::config::MysqlSettings;
use platform::http::server::{Front, layered};
use platform::identity::{HEADER, Identity, IdentitySigner};
use platform::lifecycle::Lifecycle;
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
    front: Front,
    signer: IdentitySigner,
    settings: UserSettings,
}

#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Service {
    pub(crate) async fn new(name: &str) -> Self {
        listen_to_logs();
        let mut settings = UserSettings {
            mysql: Servers::get().mysql(&unique_name(&format!("users_{name}"))),
            ..UserSettings::default()
        };
        settings.identity.secret = "a secret of at least thirty-two bytes".into();
        let pool = platform::mysql::connect(&settings.mysql, &MIGRATIONS, &Lifecycle::new()).await.unwrap();
        Self::with_pool(&settings, pool)
    }

    pub(crate) fn mysql(&self) -> &MysqlSettings {
        &self.settings.mysql
    }

    /// The same service by way of another pool.
    pub(crate) fn by_way_of(&self, pool: MySqlPool) -> Self {
        Self::with_pool(&self.settings, pool)
    }

    fn with_pool(settings: &UserSettings, pool: MySqlPool) -> Self {
        // A clock that only the test moves; it begins now, so that access tokens are good.
        let clock = Clock::manual(platform::clock::now_ms());
        let state = AppState::new(settings, pool, KeySet::parse(STORE.as_bytes()).unwrap(), clock).unwrap();
        let front = layered(app::build(state.clone()), &settings.server);
        Self { state, front, signer: IdentitySigner::new(&settings.identity), settings: settings.clone() }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let Ok(response) = self.front.clone().oneshot(request).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&body).unwrap();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        let request = Request::post(path).header("content-type", "application/json");
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    /// Who I am, as the gateway would ask for `user`.
    pub(crate) async fn me(&self, user: u64) -> Answer {
        let identity = self.signer.sign(&Identity { user, roles: vec!["USER".to_owned()], session: None });
        self.send(Request::get("/users/me").header(HEADER, identity).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn sign_up(&self, email: &str, password: &str) {
        let answer = self.post("/users/sign-up", &json!({"email": email, "password": password})).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
    }

    /// What an access token says, verified with the published key.
    pub(crate) fn claims(&self, access_token: &str) -> Claims {
        let key = DecodingKey::from_ed_components(&self.state.keys.current().published().keys[0].x).unwrap();
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
