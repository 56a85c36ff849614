//! Claims and receipts.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use platform::http::description::{Body, NotPermitted, Refused, Values};
use platform::http::extract::{Json, Path, Query};
use platform::http::problem::Problem;
use platform::identity::{Caller, Identity};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::receipt::{Receipt, Status, example};
use super::refusals::{NotIssued, Unavailable};
use crate::app::AppState;
use crate::claim::{self, Outcome};
use crate::error;
use crate::failpoint::{Point, reach, under_way};
use crate::ids::{CouponId, MAX_ID, UserId};
use crate::store;

const PAGE: u32 = 20;
const LARGEST_PAGE: u32 = 100;

/// A claim on a coupon. Fields that are not listed are ignored.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    coupon_id: u64,
    /// The event that the coupon belongs to; accepted for clients that send it, and not needed.
    #[serde(default)]
    #[expect(dead_code, reason = "checked for its type and otherwise ignored")]
    event_id: Option<u64>,
}

/// Claims a coupon for the caller.
///
/// A coupon is issued to a user at most once, so a claim may be repeated safely; whoever has it already is shown the
/// first receipt.
#[utoipa::path(
    post, path = "/coupon-issues", tag = "claims", security(("bearer" = [])),
    request_body(content = Claim, example = json!({"couponId": 249_347_072_000_456_u64})),
    responses(
        (
            status = 200, description = "Issued", body = Receipt,
            example = json!(example(Status::Issued))
        ),
        (
            status = 202, description = "In the log or on its way there, not decided yet: ask at Location", body = Receipt,
            headers(("Location" = String, description = "Where to ask what became of it")),
            example = json!(example(Status::Pending))
        ),
        Refused<(Body, NotPermitted, NotIssued, Unavailable)>
    )
)]
pub async fn claim(
    State(state): State<AppState>,
    Caller(identity): Caller,
    Json(claim): Json<Claim>,
) -> Result<Response, Problem> {
    let (coupon, user) = (coupon_id(claim.coupon_id)?, user_id(&identity)?);
    let _under_way = under_way();
    let outcome = state.claims.claim(coupon, user).await;
    reach(Point::BeforeAnswer);
    metrics::counter!("firstcome_claims_total", "outcome" => name(outcome)).increment(1);
    match outcome {
        Outcome::Issued(winner) => Ok(axum::Json(Receipt::issued(coupon, user, winner)).into_response()),
        Outcome::Pending => {
            let location = format!("/coupon-issues/{coupon}/me");
            let receipt = axum::Json(Receipt::without(coupon, user, Status::Pending));
            Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], receipt).into_response())
        }
        Outcome::Already(winner) => Err(error::already_issued(&Receipt::issued(coupon, user, winner))),
        Outcome::SoldOut => Err(error::sold_out()),
        Outcome::NotStarted => Err(error::not_started()),
        Outcome::Ended => Err(error::ended()),
        Outcome::NotFound => Err(error::not_found()),
        Outcome::Unavailable => Err(error::unavailable()),
        Outcome::Overloaded => Err(error::overloaded()),
    }
}

fn coupon_id(id: u64) -> Result<CouponId, Problem> {
    if (1..=MAX_ID).contains(&id) {
        Ok(CouponId(id))
    } else {
        Err(Problem::validation().field("couponId", format!("must be a number between 1 and {MAX_ID}")))
    }
}

/// Services call as user 0; they hold no coupons.
fn user_id(identity: &Identity) -> Result<UserId, Problem> {
    let user = Some(identity.user).filter(|id| (1..=MAX_ID).contains(id));
    user.map(UserId).ok_or_else(Problem::forbidden)
}

fn name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Issued(_) => "issued",
        Outcome::Already(_) => "already_issued",
        Outcome::Pending => "pending",
        Outcome::SoldOut => "sold_out",
        Outcome::NotStarted => "not_started",
        Outcome::Ended => "ended",
        Outcome::NotFound => "not_found",
        Outcome::Unavailable => "unavailable",
        Outcome::Overloaded => "overloaded",
    }
}

/// What became of the caller's claim on a coupon.
#[utoipa::path(
    get, path = "/coupon-issues/{couponId}/me", tag = "claims", security(("bearer" = [])),
    params((
        "couponId" = u64, Path, description = "The coupon's id", minimum = 1, maximum = 9_007_199_254_740_991_i64,
        example = 249_347_072_000_456_u64
    )),
    responses(
        (
            status = 200, description = "ISSUED, PENDING or NONE", body = Receipt,
            example = json!(example(Status::Issued))
        ),
        Refused<(Values, NotPermitted, Unavailable)>
    )
)]
pub async fn status(
    State(state): State<AppState>,
    Caller(identity): Caller,
    Path(coupon): Path<u64>,
) -> Result<Response, Problem> {
    let (coupon, user) = (coupon_id(coupon)?, user_id(&identity)?);
    let receipt = match state.claims.status(coupon, user).await {
        claim::Status::Issued(winner) => Receipt::issued(coupon, user, winner),
        claim::Status::Pending => Receipt::without(coupon, user, Status::Pending),
        claim::Status::None => Receipt::without(coupon, user, Status::None),
        claim::Status::Unavailable => return Err(error::unavailable()),
    };
    Ok(axum::Json(receipt).into_response())
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    /// Receipts on a page.
    #[param(default = 20, minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// The `nextCursor` of the page before; absent for the first page.
    cursor: Option<String>,
}

/// Some of the caller's receipts.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Page {
    items: Vec<Receipt>,
    /// Absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// The caller's coupons, newest first.
///
/// Read from the database, in which a coupon appears some time after its claim, usually within a second.
#[utoipa::path(
    get, path = "/coupon-issues/me", tag = "claims", security(("bearer" = [])), params(Paging),
    responses(
        (
            status = 200, description = "A page of receipts", body = Page,
            example = json!({"items": [example(Status::Issued)], "nextCursor": "MTc5NTI1NTIwMzQxMi4yNDkzNDcwNzIwMDA0NTY"})
        ),
        Refused<(Values, NotPermitted, Unavailable)>
    )
)]
pub async fn mine(
    State(state): State<AppState>,
    Caller(identity): Caller,
    Query(paging): Query<Paging>,
) -> Result<Response, Problem> {
    let user = user_id(&identity)?;
    let limit = paging.limit.unwrap_or(PAGE);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        return Err(Problem::validation().field("limit", format!("must be between 1 and {LARGEST_PAGE}")));
    }
    let before = match &paging.cursor {
        None => None,
        Some(cursor) => Some(read_cursor(cursor).ok_or_else(|| {
            Problem::validation().field("cursor", "must be the nextCursor of a page, unchanged")
        })?),
    };
    let mut found = store::issues_of(&state.pool, user, before, limit + 1)
        .await
        .map_err(|cause| error::unavailable().source(cause))?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let last = found.last().filter(|_| more);
    let next_cursor = last.map(|(coupon, winner)| write_cursor(winner.issued_at, *coupon));
    let items = found.into_iter().map(|(coupon, winner)| Receipt::issued(coupon, user, winner)).collect();
    Ok(axum::Json(Page { items, next_cursor }).into_response())
}

fn write_cursor(issued_at: u64, coupon: CouponId) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(format!("{issued_at}.{coupon}"))
}

fn read_cursor(cursor: &str) -> Option<(u64, CouponId)> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let (issued_at, coupon) = std::str::from_utf8(&bytes).ok()?.split_once('.')?;
    Some((issued_at.parse().ok()?, CouponId(coupon.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_users_hold_coupons() {
        let caller = |user| user_id(&Identity { user, ..Identity::default() });
        for id in [1, MAX_ID] {
            assert_eq!(caller(id).unwrap(), UserId(id));
        }
        for id in [0, MAX_ID + 1] {
            assert_eq!(caller(id).unwrap_err().status(), StatusCode::FORBIDDEN, "{id}");
        }
    }

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        let cursor = write_cursor(1_800_000_000_000, CouponId(7));
        assert_eq!(read_cursor(&cursor), Some((1_800_000_000_000, CouponId(7))));
        for nonsense in ["", "!", "AAAA", "MS4", "LjE"] {
            assert_eq!(read_cursor(nonsense), None, "{nonsense}");
        }
    }
}
