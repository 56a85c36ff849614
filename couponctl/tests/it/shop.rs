//! A small real server that answers claims by the rules: stock, once each, first come first served.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

#[derive(Debug, Default)]
pub(crate) struct Shelf {
    pub(crate) coupon: u64,
    pub(crate) stock: u64,
    /// The first so many claims are answered PENDING, though they won.
    pub(crate) pending: u64,
    /// What users are told.
    pub(crate) issued: BTreeMap<u64, Issued>,
    /// Claims that arrived.
    pub(crate) claims: u64,
    /// The next so many questions for the status are answered PENDING.
    pub(crate) undecided: u64,
    /// What the coupon shows as issued, instead of the truth.
    pub(crate) shown: Option<u64>,
}

#[derive(Debug, Clone)]
pub(crate) struct Issued {
    pub(crate) id: String,
    pub(crate) place: u64,
    /// Unix milliseconds.
    pub(crate) at: u64,
}

impl Shelf {
    pub(crate) fn issue(&mut self, user: u64, at: u64) {
        let (id, place) = (issue_id(self.coupon, user), self.issued.len() as u64 + 1);
        self.issued.insert(user, Issued { id, place, at });
    }

    pub(crate) fn issued(&mut self, user: u64) -> &mut Issued {
        self.issued.get_mut(&user).unwrap()
    }

    /// Users in the order of their places.
    pub(crate) fn winners(&self) -> Vec<u64> {
        let mut winners: Vec<u64> = self.issued.keys().copied().collect();
        winners.sort_by_key(|user| self.issued[user].place);
        winners
    }

    fn receipt(&self, user: u64) -> Option<Value> {
        let Issued { id, place, at } = self.issued.get(&user)?;
        Some(
            json!({"issueId": id, "couponId": self.coupon, "userId": user, "place": place, "status": "ISSUED",
                    "issuedAt": rfc3339(*at)}),
        )
    }
}

pub(crate) fn rfc3339(at: u64) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(at)).to_string()
}

/// A shop on a port of its own; it lives as long as the test's process.
#[derive(Debug, Clone)]
pub(crate) struct Shop {
    pub(crate) address: SocketAddr,
    shelf: Arc<Mutex<Shelf>>,
}

impl Shop {
    pub(crate) fn open(shelf: Shelf) -> Self {
        let shelf = Arc::new(Mutex::new(shelf));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new()
            .route("/coupon-issues", post(claim))
            .route("/coupon-issues/{coupon}/me", get(me))
            .route("/coupons/{coupon}", get(coupon))
            .route("/noop", post(|| async { StatusCode::NO_CONTENT }))
            .with_state(Arc::clone(&shelf));
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                axum::serve(listener, app).await.unwrap();
            });
        });
        Self { address, shelf }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn shelf(&self) -> std::sync::MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The token is `t.USER.t`: what signatures are worth is tested elsewhere.
fn user(headers: &HeaderMap) -> u64 {
    let value = headers["authorization"].to_str().unwrap();
    value.strip_prefix("Bearer t.").unwrap().strip_suffix(".t").unwrap().parse().unwrap()
}

pub(crate) fn issue_id(coupon: u64, user: u64) -> String {
    // The frozen layout, written a second time.
    let (coupon, user) = (u128::from(coupon), u128::from(user));
    let bits = (coupon >> 5) << 80
        | 8 << 76
        | ((coupon & 31) << 7 | user >> 46) << 64
        | 2 << 62
        | (user & ((1 << 46) - 1)) << 16;
    uuid::Uuid::from_u128(bits).to_string()
}

async fn claim(
    State(shelf): State<Arc<Mutex<Shelf>>>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    let user = user(&headers);
    let mut shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(body["couponId"], shelf.coupon);
    shelf.claims += 1;
    if let Some(receipt) = shelf.receipt(user) {
        let problem = json!({"status": 409, "code": "COUPON_ALREADY_ISSUED", "receipt": receipt});
        return (StatusCode::CONFLICT, Json(problem)).into_response();
    }
    if shelf.issued.len() as u64 >= shelf.stock {
        return (StatusCode::CONFLICT, Json(json!({"status": 409, "code": "COUPON_SOLD_OUT"})))
            .into_response();
    }
    shelf.issue(user, 5);
    if shelf.claims <= shelf.pending {
        return (StatusCode::ACCEPTED, Json(json!({"status": "PENDING"}))).into_response();
    }
    Json(shelf.receipt(user)).into_response()
}

async fn me(State(shelf): State<Arc<Mutex<Shelf>>>, headers: HeaderMap) -> Json<Value> {
    let user = user(&headers);
    let mut shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
    if shelf.undecided > 0 {
        shelf.undecided -= 1;
        return Json(json!({"status": "PENDING"}));
    }
    Json(shelf.receipt(user).unwrap_or_else(|| json!({"status": "NONE"})))
}

async fn coupon(State(shelf): State<Arc<Mutex<Shelf>>>, Path(id): Path<u64>) -> Response {
    let shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
    if id != shelf.coupon {
        return StatusCode::NOT_FOUND.into_response();
    }
    let issued = shelf.shown.unwrap_or(shelf.issued.len() as u64);
    Json(json!({"couponId": id, "name": "n", "quantity": shelf.stock, "issuedQuantity": issued,
                "remainingQuantity": shelf.stock.saturating_sub(issued), "state": "OPEN"}))
    .into_response()
}
