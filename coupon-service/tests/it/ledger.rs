//! An issue service that answers the one question this service has, at a real address, found through the real Consul.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use coupon_service::coupon::CouponId;
use coupon_service::ledger::LedgerClient;
use http::{HeaderMap, StatusCode};
use platform::config::{IdentitySettings, Secret, ServerSettings};
use platform::consul::{Consul, Registration};
use platform::http::client::ServiceClient;
use platform::http::server::Server;
use platform::identity::{IdentitySigner, IdentityVerifier, SERVICE};
use platform::testing::{Servers, unique_name};
use serde_json::{Value, json};

use crate::harness::{IDENTITY_SECRET, until};

#[derive(Clone)]
pub(crate) struct Ledger {
    shared: Arc<Shared>,
    pub(crate) client: LedgerClient,
    _server: Arc<Server>,
}

struct Shared {
    verifier: IdentityVerifier,
    items: Mutex<HashMap<u64, Value>>,
    /// Queries in the order of their arrival.
    questions: Mutex<Vec<String>>,
    caught_up: std::sync::atomic::AtomicBool,
    /// Of which nothing can be said: their partition is stopped.
    stopped: Mutex<HashSet<u64>>,
}

impl Ledger {
    pub(crate) async fn start() -> Self {
        let identity = IdentitySettings { secret: Secret::new(IDENTITY_SECRET) };
        let shared = Arc::new(Shared {
            verifier: IdentityVerifier::new(&identity),
            items: Mutex::default(),
            questions: Mutex::default(),
            caught_up: true.into(),
            stopped: Mutex::default(),
        });
        let router = Router::new()
            .route("/internal/counts", get(counts))
            .route("/readiness", get(async || "ready"))
            .with_state(shared.clone());
        let server = Server::start(&ServerSettings::default(), move |_| router.clone()).unwrap();
        let consul = Consul::new(&Servers::get().consul());
        let name: &'static str = unique_name("issue-service").leak();
        let registration = Registration {
            id: name.to_owned(),
            name: name.to_owned(),
            address: server.address(),
            meta: BTreeMap::new(),
            check_url: format!("http://{}/readiness", server.address()),
        };
        consul.register(&registration).await.unwrap();
        let found = consul.watch(name);
        until("the issue service is found", async || !found.borrow().is_empty()).await;
        let client =
            LedgerClient::new(Some(ServiceClient::new(consul, IdentitySigner::new(&identity))), name);
        Self { shared, client, _server: Arc::new(server) }
    }

    /// What the ledger says about a coupon from now on; the window is open for an hour around `now`.
    pub(crate) fn says(&self, id: CouponId, now: u64, edit: &Value) {
        let mut item = json!({
            "couponId": id, "version": 1, "stock": 100, "startsAt": now - 1_800_000, "endsAt": now + 1_800_000,
            "closed": false, "retired": false, "count": 0, "offset": 0
        });
        item.as_object_mut().unwrap().extend(edit.as_object().unwrap().clone());
        self.shared.items.lock().unwrap().insert(id.0, item);
    }

    pub(crate) fn is_caught_up(&self, caught_up: bool) {
        self.shared.caught_up.store(caught_up, std::sync::atomic::Ordering::SeqCst);
    }

    pub(crate) fn stops(&self, id: CouponId) {
        self.shared.stopped.lock().unwrap().insert(id.0);
    }

    pub(crate) fn goes_on(&self, id: CouponId) {
        self.shared.stopped.lock().unwrap().remove(&id.0);
    }

    pub(crate) fn questions(&self) -> Vec<String> {
        self.shared.questions.lock().unwrap().clone()
    }
}

async fn counts(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    match shared.verifier.verify(&headers) {
        Ok(identity) if identity.has_role(SERVICE) => {}
        _ => return StatusCode::UNAUTHORIZED.into_response(),
    }
    let query = query.unwrap_or_default();
    shared.questions.lock().unwrap().push(query.clone());
    if !shared.caught_up.load(std::sync::atomic::Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let items = shared.items.lock().unwrap();
    let asked = query.split('&').filter_map(|pair| pair.strip_prefix("coupon=")?.parse::<u64>().ok());
    let stopped = shared.stopped.lock().unwrap();
    let (unanswered, answered): (Vec<u64>, Vec<u64>) = asked.partition(|id| stopped.contains(id));
    let found: Vec<&Value> = answered.iter().filter_map(|id| items.get(id)).collect();
    axum::Json(json!({ "items": found, "unanswered": unanswered })).into_response()
}
