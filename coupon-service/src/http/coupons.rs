//! `/coupons`: for administrators to create and change, for everybody to see. Invariant: what is shown is what is in
//! force, so `issuedQuantity + remainingQuantity = quantity`, always.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::LOCATION;
use http::{HeaderValue, StatusCode};
use platform::clock::rfc3339;
use platform::http::description::{Body, NotPermitted, Refused, Values};
use platform::http::extract::{Json, Path, Query};
use platform::http::problem::Problem;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Administrator;
use super::refusals::{NoSuchCoupon, Retired};
use crate::app::AppState;
use crate::change;
use crate::coupon::request::{Change, Draft, DraftInput};
use crate::coupon::{Coupon, CouponId, State as CouponState, next_version};
use crate::error::{ApiError, MAX_LIMIT};
use crate::store;

const DEFAULT_LIMIT: u32 = 20;
/// Ids are drawn with 12 random bits a millisecond; a second collision in a row is no accident.
const ID_ATTEMPTS: usize = 5;
/// An administrator's change waits this long for the ledger's word, and goes on without it.
const LEDGER_PATIENCE: std::time::Duration = std::time::Duration::from_millis(500);

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(create, list)).routes(routes!(show, update))
}

/// A coupon as everybody sees it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CouponView {
    #[schema(value_type = u64)]
    coupon_id: CouponId,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<u64>,
    name: String,
    /// The stock in force. After it was lowered below what is issued, it is what is issued: nobody loses a coupon.
    quantity: u32,
    /// By the ledger's count, at most a write-back interval (1 s) old.
    issued_quantity: u32,
    /// `quantity - issuedQuantity`.
    remaining_quantity: u32,
    /// UTC; the first moment at which it can be claimed.
    #[schema(format = DateTime)]
    starts_at: String,
    /// UTC; the first moment at which it can't be claimed any more.
    #[schema(format = DateTime)]
    ends_at: String,
    state: CouponState,
    /// UTC; for clocks that count down to `startsAt`.
    #[schema(format = DateTime)]
    server_time: String,
}

impl CouponView {
    fn new(coupon: Coupon, now: u64) -> Self {
        Self {
            coupon_id: coupon.definition.coupon_id,
            event_id: coupon.event_id,
            quantity: coupon.quantity_in_force(),
            issued_quantity: coupon.issued.count,
            remaining_quantity: coupon.remaining(),
            starts_at: rfc3339(coupon.definition.starts_at),
            ends_at: rfc3339(coupon.definition.ends_at),
            state: coupon.state(now),
            server_time: rfc3339(now),
            name: coupon.name,
        }
    }
}

/// A coupon to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CreateCoupon {
    /// Not only blanks.
    #[schema(min_length = 1, max_length = 200, pattern = r"\S")]
    name: String,
    #[schema(minimum = 1, maximum = 10_000_000)]
    quantity: i64,
    /// RFC 3339; before `endsAt`.
    #[schema(format = DateTime)]
    starts_at: String,
    /// RFC 3339.
    #[schema(format = DateTime)]
    ends_at: String,
    /// An id of the caller's own, carried along.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    event_id: Option<i64>,
}

/// Creates a coupon. It can be claimed from `startsAt` on.
#[utoipa::path(
    post, path = "/coupons", tag = "coupons", security(("bearer" = [])),
    request_body(
        content = CreateCoupon,
        example = json!({
            "name": "Early bird", "quantity": 1000, "startsAt": "2026-11-21T10:00:00.000Z",
            "endsAt": "2026-11-22T10:00:00.000Z", "eventId": 7
        })
    ),
    responses(
        (
            status = 201, description = "Created; Location names it", body = CouponView,
            headers(("Location" = String, description = "Path of the coupon")),
            example = json!({
                "couponId": 249_347_072_000_456_u64, "eventId": 7, "name": "Early bird", "quantity": 1000,
                "issuedQuantity": 0, "remainingQuantity": 1000, "startsAt": "2026-11-21T10:00:00.000Z",
                "endsAt": "2026-11-22T10:00:00.000Z", "state": "SCHEDULED", "serverTime": "2026-11-21T09:00:00.000Z"
            })
        ),
        Refused<(Body, NotPermitted)>
    )
)]
async fn create(
    State(state): State<AppState>,
    Administrator(admin): Administrator,
    Json(body): Json<CreateCoupon>,
) -> Result<Response, Problem> {
    let draft = Draft::parse(&DraftInput {
        name: &body.name,
        quantity: body.quantity,
        starts_at: &body.starts_at,
        ends_at: &body.ends_at,
        event_id: body.event_id,
    })
    .map_err(ApiError::Invalid)?;
    let now = state.clock.now_ms();
    for _ in 0..ID_ATTEMPTS {
        let definition = draft.definition(CouponId(state.ids.next()), next_version(0, None, now));
        let inserted = store::insert(&state.pool, &draft, &definition, now).await.map_err(ApiError::from)?;
        if !inserted {
            continue;
        }
        let id = definition.coupon_id;
        tracing::info!(coupon.id = id.0, admin, quantity = definition.quantity, "coupon created");
        // There is nothing to evict. The issue service hears of it at once and has it in the log before it starts.
        state.cache.announce(id).await;
        let coupon = Coupon {
            definition,
            event_id: draft.event_id,
            name: draft.name,
            issued: crate::coupon::Issued::default(),
        };
        let location = HeaderValue::from_str(&format!("/coupons/{id}")).map_err(Problem::internal)?;
        let body = axum::Json(CouponView::new(coupon, now));
        return Ok((StatusCode::CREATED, [(LOCATION, location)], body).into_response());
    }
    Err(ApiError::Ids.into())
}

/// At least one of these.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct UpdateCoupon {
    /// Below what is issued, what is issued takes force, and the answer says so.
    #[schema(minimum = 1, maximum = 10_000_000)]
    quantity: Option<i64>,
    /// RFC 3339.
    #[schema(format = DateTime)]
    starts_at: Option<String>,
    /// RFC 3339.
    #[schema(format = DateTime)]
    ends_at: Option<String>,
    /// `true` refuses every claim from now on, `false` opens it again; who has the coupon keeps it.
    closed: Option<bool>,
}

/// Raises or lowers the quantity, moves the window, closes. What is absent stays as it is. In force within 2 s.
#[utoipa::path(
    patch, path = "/coupons/{id}", tag = "coupons", security(("bearer" = [])),
    request_body(content = UpdateCoupon, example = json!({"quantity": 2000})),
    params(("id" = u64, Path, description = "The coupon's id", example = 249_347_072_000_456_u64)),
    responses(
        (
            status = 200, description = "What is in force now", body = CouponView,
            example = json!({
                "couponId": 249_347_072_000_456_u64, "eventId": 7, "name": "Early bird", "quantity": 2000,
                "issuedQuantity": 12, "remainingQuantity": 1988, "startsAt": "2026-11-21T10:00:00.000Z",
                "endsAt": "2026-11-22T10:00:00.000Z", "state": "OPEN", "serverTime": "2026-11-21T10:00:03.000Z"
            })
        ),
        Refused<(Body, NotPermitted, NoSuchCoupon, Retired)>
    )
)]
async fn update(
    State(state): State<AppState>,
    Administrator(admin): Administrator,
    Path(id): Path<u64>,
    Json(body): Json<UpdateCoupon>,
) -> Result<Response, Problem> {
    let request =
        Change::parse(body.quantity, body.starts_at.as_deref(), body.ends_at.as_deref(), body.closed)
            .map_err(ApiError::Invalid)?;
    let id = CouponId(id);
    let word = state.ledger.word(id, LEDGER_PATIENCE).await;
    let now = state.clock.now_ms();
    let changed = change::change(&state.pool, id, &request, word, now).await?;
    if changed.new_version {
        let version = changed.coupon.definition.version;
        tracing::info!(coupon.id = id.0, coupon.version = version, admin, ?request, "coupon changed");
        state.cache.evict(id, version).await;
    }
    Ok(axum::Json(CouponView::new(changed.coupon, now)).into_response())
}

/// A coupon, as it is now.
#[utoipa::path(
    get, path = "/coupons/{id}", tag = "coupons",
    params(("id" = u64, Path, description = "The coupon's id", example = 249_347_072_000_456_u64)),
    responses(
        (
            status = 200, description = "The coupon", body = CouponView,
            example = json!({
                "couponId": 249_347_072_000_456_u64, "eventId": 7, "name": "Early bird", "quantity": 1000,
                "issuedQuantity": 12, "remainingQuantity": 988, "startsAt": "2026-11-21T10:00:00.000Z",
                "endsAt": "2026-11-22T10:00:00.000Z", "state": "OPEN", "serverTime": "2026-11-21T10:00:03.000Z"
            })
        ),
        Refused<(Values, NoSuchCoupon)>
    )
)]
async fn show(State(state): State<AppState>, Path(id): Path<u64>) -> Result<Response, ApiError> {
    let coupon = store::find(&state.pool, CouponId(id)).await?.ok_or(ApiError::NotFound)?;
    Ok(axum::Json(CouponView::new(coupon, state.clock.now_ms())).into_response())
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct PageQuery {
    /// Coupons on a page: 1 to 100.
    #[param(default = 20, minimum = 1, maximum = 100)]
    limit: Option<i64>,
    /// The `nextCursor` of the page before; absent for the first page.
    cursor: Option<String>,
}

/// Some of the coupons.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CouponPage {
    items: Vec<CouponView>,
    /// Absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// All coupons, newest first.
#[utoipa::path(
    get, path = "/coupons", tag = "coupons", params(PageQuery),
    responses(
        (
            status = 200, description = "A page of coupons", body = CouponPage,
            example = json!({"items": [{
                "couponId": 249_347_072_000_456_u64, "eventId": 7, "name": "Early bird", "quantity": 1000,
                "issuedQuantity": 12, "remainingQuantity": 988, "startsAt": "2026-11-21T10:00:00.000Z",
                "endsAt": "2026-11-22T10:00:00.000Z", "state": "OPEN", "serverTime": "2026-11-21T10:00:03.000Z"
            }], "nextCursor": "249347072000456"})
        ),
        Refused<Values>
    )
)]
async fn list(State(state): State<AppState>, Query(query): Query<PageQuery>) -> Result<Response, ApiError> {
    let given = query.limit.unwrap_or(i64::from(DEFAULT_LIMIT));
    let limit = u32::try_from(given)
        .ok()
        .filter(|limit| (1..=MAX_LIMIT).contains(limit))
        .ok_or(ApiError::Limit(given))?;
    let before =
        query.cursor.map(|cursor| cursor.parse().map(CouponId).map_err(|_| ApiError::Cursor)).transpose()?;
    // One more than is shown tells whether there is a next page.
    let mut coupons = store::list(&state.pool, before, limit + 1).await?;
    let more = coupons.len() > limit as usize;
    coupons.truncate(limit as usize);
    let next_cursor = coupons.last().filter(|_| more).map(|coupon| coupon.definition.coupon_id.to_string());
    let now = state.clock.now_ms();
    let items = coupons.into_iter().map(|coupon| CouponView::new(coupon, now)).collect();
    Ok(axum::Json(CouponPage { items, next_cursor }).into_response())
}
