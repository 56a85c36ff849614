//! A small real server that answers claims by the rules: stock, once each, first come first served.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use axum::extract::State;
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
    /// User to issue id, as told.
    pub(crate) issued: BTreeMap<u64, String>,
    /// Claims that arrived.
    pub(crate) claims: u64,
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

fn receipt(coupon: u64, user: u64, place: usize) -> Value {
    json!({"issueId": issue_id(coupon, user), "couponId": coupon, "userId": user, "place": place, "status": "ISSUED",
           "issuedAt": "2026-11-21T10:00:00Z"})
}

async fn claim(
    State(shelf): State<Arc<Mutex<Shelf>>>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    let user = user(&headers);
    let mut shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
    let coupon = shelf.coupon;
    assert_eq!(body["couponId"], coupon);
    shelf.claims += 1;
    if let Some(id) = shelf.issued.get(&user) {
        let mut receipt = receipt(coupon, user, 1);
        receipt["issueId"] = json!(id);
        let problem = json!({"status": 409, "code": "COUPON_ALREADY_ISSUED", "receipt": receipt});
        return (StatusCode::CONFLICT, Json(problem)).into_response();
    }
    if shelf.issued.len() as u64 >= shelf.stock {
        return (StatusCode::CONFLICT, Json(json!({"status": 409, "code": "COUPON_SOLD_OUT"})))
            .into_response();
    }
    shelf.issued.insert(user, issue_id(coupon, user));
    if shelf.claims <= shelf.pending {
        return (StatusCode::ACCEPTED, Json(json!({"status": "PENDING"}))).into_response();
    }
    Json(receipt(coupon, user, shelf.issued.len())).into_response()
}

async fn me(State(shelf): State<Arc<Mutex<Shelf>>>, headers: HeaderMap) -> Json<Value> {
    let user = user(&headers);
    let shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
    Json(if shelf.issued.contains_key(&user) {
        receipt(shelf.coupon, user, 1)
    } else {
        json!({"status": "NONE"})
    })
}

async fn coupon(State(shelf): State<Arc<Mutex<Shelf>>>) -> Json<Value> {
    let shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
    let issued = shelf.issued.len() as u64;
    Json(json!({"couponId": shelf.coupon, "name": "n", "quantity": shelf.stock, "issuedQuantity": issued,
                "remainingQuantity": shelf.stock.saturating_sub(issued), "state": "OPEN"}))
}
