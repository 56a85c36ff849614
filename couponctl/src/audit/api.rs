//! The public API as any customer sees it: the coupon's counts, and a winner's receipt when asked again.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;

use crate::clock;
use crate::ids;
use crate::index::Row;
use crate::load::client::{Connection, Failure};
use crate::load::outcome::{self, Body, Outcome, Receipt};
use crate::load::target::Target;

const TIMEOUT: Duration = Duration::from_secs(10);
/// An instance that is just going away may refuse; a winner who asks again must hear it in the end.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(300);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Coupon {
    issued_quantity: u64,
}

/// How many the coupon shows as issued: `GET /coupons/{id}`
pub(crate) async fn issued(target: &Target, coupon: u64) -> Result<u64> {
    let path = format!("/coupons/{coupon}");
    let request = target.request("GET", &path, None);
    let (status, body) = exchange(&mut Connection::default(), target, request.anonymous()).await?;
    if status != 200 {
        bail!("GET {path} answers {status}");
    }
    let coupon: Coupon = serde_json::from_slice(&body)
        .with_context(|| format!("GET {path} answers something else than a coupon"))?;
    Ok(coupon.issued_quantity)
}

/// A winner asks again; the problem, if there is one. The status comes first: only who has a row and hears of it there
/// also claims, since anybody else's claim could win now and so hide what is to be found.
pub(crate) async fn ask_again(
    connection: &mut Connection,
    target: &Target,
    coupon: u64,
    user: u64,
    row: Option<&Row>,
    token: &[u8],
) -> Option<String> {
    let me = target.request("GET", &format!("/coupon-issues/{coupon}/me"), None);
    let claim = target.request("POST", "/coupon-issues", Some(&format!(r#"{{"couponId":{coupon}}}"#)));
    let mut request = Vec::new();
    for (what, question) in
        [("the status", me), ("a claim", claim)].into_iter().take(1 + usize::from(row.is_some()))
    {
        question.write(token, &mut request);
        let receipt = match ask(connection, target, &request).await {
            Ok(receipt) => receipt,
            Err(heard) => return Some(format!("{what} again gets {heard}")),
        };
        if let Some(problem) = differs(&receipt, coupon, user, row) {
            return Some(format!("{what} again gets {problem}"));
        }
    }
    None
}

/// The receipt, or what came instead.
async fn ask(connection: &mut Connection, target: &Target, request: &[u8]) -> Result<Receipt, String> {
    let mut heard = String::new();
    for _ in 0..TRIES {
        match exchange(connection, target, request).await {
            Ok((status, body)) => match receipt(status, &body) {
                Some(receipt) => return Ok(receipt),
                None => {
                    heard = short(status, &body);
                    // Nobody could say in time, which is no refusal.
                    let undecided = status >= 500 || status == 429 || heard.ends_with(" PENDING");
                    if !undecided {
                        return Err(heard);
                    }
                }
            },
            Err(error) => heard = format!("{error:#}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(format!("no answer in {TRIES} tries: {heard}"))
}

/// What is not as it was when the coupon was won.
fn differs(receipt: &Receipt, coupon: u64, user: u64, row: Option<&Row>) -> Option<String> {
    let id = receipt.issue_id.as_deref().unwrap_or_default();
    if !ids::is_issue_id(id, coupon, user) {
        return Some(format!("another issue id: {id:?}"));
    }
    let row = row?;
    let issued_at = receipt.issued_at.as_deref();
    if receipt.place != Some(row.place) {
        let place = receipt.place.map_or_else(|| "none".to_owned(), |place| place.to_string());
        return Some(format!("another place: {place}, in its row it is {}", row.place));
    }
    if issued_at.and_then(clock::parse) != Some(row.issued_at) {
        return Some(format!(
            "another time: {:?}, in its row it is {}",
            issued_at.unwrap_or("none"),
            row.issued_at
        ));
    }
    None
}

async fn exchange(connection: &mut Connection, target: &Target, request: &[u8]) -> Result<(u16, Vec<u8>)> {
    match connection.exchange(target, request, TIMEOUT).await {
        Ok(exchange) => Ok((exchange.response.status, exchange.response.body)),
        Err(Failure::NotSent(reason) | Failure::Cut(reason)) => {
            Err(anyhow!("the gateway at {} does not answer: {reason}", target.authority))
        }
    }
}

/// A receipt, in whichever of the answers it may come.
fn receipt(status: u16, body: &[u8]) -> Option<Receipt> {
    let judged = outcome::of_claim(status, body);
    matches!(judged.outcome, Outcome::Issued | Outcome::AlreadyIssued).then_some(judged.receipt)
}

fn short(status: u16, body: &[u8]) -> String {
    let body: Body = serde_json::from_slice(body).unwrap_or_default();
    let said = body.code.or_else(|| body.status.as_str().map(str::to_owned));
    said.map_or_else(|| status.to_string(), |said| format!("{status} {said}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_is_found_in_every_answer_that_has_one() {
        let id = |status, body: &[u8]| receipt(status, body).map(|receipt| receipt.issue_id.unwrap());
        assert_eq!(id(200, br#"{"issueId":"x","status":"ISSUED"}"#).as_deref(), Some("x"));
        let already = br#"{"status":409,"code":"COUPON_ALREADY_ISSUED","receipt":{"issueId":"x"}}"#;
        assert_eq!(id(409, already).as_deref(), Some("x"));
        assert_eq!(receipt(409, br#"{"status":409,"code":"COUPON_SOLD_OUT"}"#), None);
        assert_eq!(receipt(200, br#"{"status":"NONE"}"#), None);
        assert_eq!(short(409, br#"{"status":409,"code":"COUPON_SOLD_OUT"}"#), "409 COUPON_SOLD_OUT");
        assert_eq!(short(200, br#"{"status":"NONE"}"#), "200 NONE");
    }

    #[test]
    fn another_receipt_is_one_with_any_other_field() {
        let row = Row { user: 2, place: 3, offset: 9, issued_at: 1_002 };
        let receipt = |user, place, at: Option<&str>| Receipt {
            issue_id: Some(ids::issue_id(1, user).to_string()),
            place,
            issued_at: at.map(str::to_owned),
        };
        let at = Some("1970-01-01T00:00:01.002Z");
        let problem = |receipt: &Receipt, row| differs(receipt, 1, 2, row).unwrap_or_default();
        assert_eq!(problem(&receipt(2, Some(3), at), Some(&row)), "");
        assert_eq!(problem(&receipt(2, None, None), None), "", "nothing to hold it against");
        assert!(problem(&receipt(4, Some(3), at), None).starts_with("another issue id"));
        assert!(problem(&Receipt::default(), None).starts_with("another issue id"));
        let place = problem(&receipt(2, Some(4), at), Some(&row));
        assert_eq!(place, "another place: 4, in its row it is 3");
        assert!(problem(&receipt(2, None, at), Some(&row)).starts_with("another place: none"));
        let early = Some("1970-01-01T00:00:01.001Z");
        assert!(problem(&receipt(2, Some(3), early), Some(&row)).starts_with("another time"));
        assert!(problem(&receipt(2, Some(3), None), Some(&row)).starts_with("another time"));
    }
}
