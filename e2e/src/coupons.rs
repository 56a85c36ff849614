//! Coupons, created by the administrator over HTTP, and claims on them.

use std::time::Duration;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::client::{Answer, Client};
use crate::tokens::unix_ms;

/// When a coupon may be claimed, in seconds from now.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub starts: i64,
    pub ends: i64,
}

/// Open since a moment ago, for an hour.
pub const OPEN: Window = Window { starts: -5, ends: 3600 };

/// `seconds` from now in RFC 3339.
///
/// # Panics
/// When that can't be written.
pub fn in_seconds(seconds: i64) -> String {
    let ms = i128::from(unix_ms()) + i128::from(seconds) * 1000;
    OffsetDateTime::from_unix_timestamp_nanos(ms * 1_000_000)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| panic!("{seconds} s from now can't be written"))
}

/// Creates a coupon and checks the answer.
///
/// # Panics
/// When it is not created as asked.
pub async fn create(client: &Client, admin: &str, quantity: u64, window: Window) -> u64 {
    let request = json!({
        "name": "e2e", "quantity": quantity,
        "startsAt": in_seconds(window.starts), "endsAt": in_seconds(window.ends),
    });
    let answer = client.post("/coupons", Some(admin), &request).await;
    let coupon = answer.expect(201);
    let id = coupon["couponId"].as_u64().unwrap_or_else(|| panic!("no couponId in {coupon}"));
    assert_eq!(answer.header("location"), format!("/coupons/{id}"));
    id
}

pub async fn claim(client: &Client, token: Option<&str>, coupon: u64) -> Answer {
    client.post("/coupon-issues", token, &json!({"couponId": coupon})).await
}

/// Claims until the answer is final: a debug build on a busy machine may say PENDING or 503 first, as the API allows.
pub async fn claim_until_final(client: &Client, token: &str, coupon: u64) -> Answer {
    let mut answer = claim(client, Some(token), coupon).await;
    for _ in 0..20 {
        if !matches!(answer.status, 202 | 503) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
        answer = claim(client, Some(token), coupon).await;
    }
    answer
}

/// Checks a receipt's members and whose it is.
///
/// # Panics
/// When it is another's or incomplete.
#[track_caller]
pub fn check_receipt(receipt: &Value, status: &str, user: u64, coupon: u64) {
    assert_eq!(receipt["status"], status, "{receipt}");
    assert_eq!(receipt["userId"], user, "{receipt}");
    assert_eq!(receipt["couponId"], coupon, "{receipt}");
    assert!(receipt["issueId"].as_str().is_some_and(|id| uuid::Uuid::parse_str(id).is_ok()), "{receipt}");
    let time = receipt["issuedAt"].as_str().map(|text| OffsetDateTime::parse(text, &Rfc3339));
    assert!(matches!(time, None | Some(Ok(_))), "{receipt}");
    assert!(
        receipt["place"].is_null() || receipt["place"].as_u64().is_some_and(|place| place > 0),
        "{receipt}"
    );
}
