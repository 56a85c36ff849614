//! Coupons, created by the administrator over HTTP, and claims on them.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::client::{Answer, Client, members};
use crate::tokens::unix_ms;

/// How often what is not settled yet is asked for again, and the pause before.
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_millis(250);

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

/// Claims until the answer is final: a debug build on a busy machine may say 503 or PENDING first, as the API allows.
pub async fn claim_until_final(client: &Client, token: &str, coupon: u64) -> Answer {
    let mut answer = claim_and_follow(client, token, coupon).await;
    for _ in 0..TRIES {
        // Of a claim that was not issued the status does not say why not.
        if answer.status != 503 && !(answer.status == 200 && answer.json()["status"] == "NONE") {
            break;
        }
        tokio::time::sleep(PAUSE).await;
        answer = claim_and_follow(client, token, coupon).await;
    }
    answer
}

async fn claim_and_follow(client: &Client, token: &str, coupon: u64) -> Answer {
    settled(client, token, claim(client, Some(token), coupon).await).await
}

/// What became of a claim: a 202 is followed to its `Location` until that says more than PENDING.
///
/// # Panics
/// When that is no such answer, or never says more.
pub async fn settled(client: &Client, token: &str, answer: Answer) -> Answer {
    if answer.status != 202 {
        return answer;
    }
    assert_eq!(answer.expect(202)["status"], "PENDING", "{}", answer.text);
    for _ in 0..TRIES {
        let now = client.get(answer.header("location"), Some(token)).await;
        if now.status != 503 && now.expect(200)["status"] != "PENDING" {
            return now;
        }
        tokio::time::sleep(PAUSE).await;
    }
    panic!("pending for ever: {}", answer.text);
}

/// Changes a coupon and gives what it is then.
///
/// # Panics
/// When the change is refused.
pub async fn change(client: &Client, admin: &str, coupon: u64, change: &Value) -> Value {
    let request = client.request(Method::PATCH, &format!("/coupons/{coupon}")).bearer_auth(admin);
    client.send(request.json(change)).await.expect(200)
}

/// Checks that a receipt has all of its members, and whose it is.
///
/// # Panics
/// When it is another's or incomplete.
#[track_caller]
pub fn check_receipt(receipt: &Value, user: u64, coupon: u64) {
    let all = ["couponId", "issueId", "issuedAt", "place", "status", "userId"];
    assert_eq!(members(receipt), all, "{receipt}");
    assert_eq!(receipt["status"], "ISSUED", "{receipt}");
    assert_eq!(receipt["userId"], user, "{receipt}");
    assert_eq!(receipt["couponId"], coupon, "{receipt}");
    assert!(receipt["issueId"].as_str().is_some_and(|id| uuid::Uuid::parse_str(id).is_ok()), "{receipt}");
    let time = receipt["issuedAt"].as_str().map(|text| OffsetDateTime::parse(text, &Rfc3339));
    assert!(matches!(time, Some(Ok(_))), "{receipt}");
    assert!(receipt["place"].as_u64().is_some_and(|place| place > 0), "{receipt}");
}
