//! The public API as any customer sees it: the coupon's counts, and a winner's receipt when asked again.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;

use crate::ids;
use crate::load::client::{Connection, Failure};
use crate::load::outcome::{self, Body, Outcome};
use crate::load::target::Target;

const TIMEOUT: Duration = Duration::from_secs(10);
/// An instance that is just going away may refuse; a winner who asks again must hear it in the end.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(300);

#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Coupon {
    pub(crate) quantity: u64,
    pub(crate) issued_quantity: u64,
}

/// `GET /coupons/{id}`
pub(crate) async fn coupon(target: &Target, coupon: u64) -> Result<Coupon> {
    let path = format!("/coupons/{coupon}");
    let request = target.request("GET", &path, None);
    let (status, body) = exchange(&mut Connection::default(), target, request.anonymous()).await?;
    if status != 200 {
        bail!("GET {path} answers {status}");
    }
    serde_json::from_slice(&body).with_context(|| format!("GET {path} answers something else than a coupon"))
}

/// A winner asks again, both ways; the problem, if there is one.
pub(crate) async fn ask_again(
    connection: &mut Connection,
    target: &Target,
    coupon: u64,
    user: u64,
    token: &[u8],
) -> Option<String> {
    let claim = target.request("POST", "/coupon-issues", Some(&format!(r#"{{"couponId":{coupon}}}"#)));
    let me = target.request("GET", &format!("/coupon-issues/{coupon}/me"), None);
    let mut request = Vec::new();
    for (what, question) in [("a claim", claim), ("the status", me)] {
        question.write(token, &mut request);
        let mut heard = String::new();
        for _ in 0..TRIES {
            match exchange(connection, target, &request).await {
                Ok((status, body)) => match receipt(status, &body) {
                    Some(id) if ids::is_issue_id(&id, coupon, user) => {
                        heard.clear();
                        break;
                    }
                    Some(id) => return Some(format!("{what} again gets another issue id: {id}")),
                    None if status < 500 && status != 429 => {
                        return Some(format!("{what} again gets {}", short(status, &body)));
                    }
                    None => heard = short(status, &body),
                },
                Err(error) => heard = format!("{error:#}"),
            }
            tokio::time::sleep(PAUSE).await;
        }
        if !heard.is_empty() {
            return Some(format!("{what} again gets no answer in {TRIES} tries: {heard}"));
        }
    }
    None
}

async fn exchange(connection: &mut Connection, target: &Target, request: &[u8]) -> Result<(u16, Vec<u8>)> {
    match connection.exchange(target.address, request, TIMEOUT).await {
        Ok(exchange) => Ok((exchange.response.status, exchange.response.body)),
        Err(Failure::NotSent(reason) | Failure::Cut(reason)) => {
            Err(anyhow!("the gateway at {} does not answer: {reason}", target.authority))
        }
    }
}

/// The issue id of a receipt, in whichever of the answers it may come.
fn receipt(status: u16, body: &[u8]) -> Option<String> {
    let judged = outcome::of_claim(status, body);
    matches!(judged.outcome, Outcome::Issued | Outcome::AlreadyIssued).then_some(judged.issue_id).flatten()
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
        assert_eq!(receipt(200, br#"{"issueId":"x","status":"ISSUED"}"#).as_deref(), Some("x"));
        let already = br#"{"status":409,"code":"COUPON_ALREADY_ISSUED","receipt":{"issueId":"x"}}"#;
        assert_eq!(receipt(409, already).as_deref(), Some("x"));
        assert_eq!(receipt(409, br#"{"status":409,"code":"COUPON_SOLD_OUT"}"#), None);
        assert_eq!(receipt(200, br#"{"status":"NONE"}"#), None);
        assert_eq!(short(409, br#"{"status":409,"code":"COUPON_SOLD_OUT"}"#), "409 COUPON_SOLD_OUT");
        assert_eq!(short(200, br#"{"status":"NONE"}"#), "200 NONE");
    }
}
