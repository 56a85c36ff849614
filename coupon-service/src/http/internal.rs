//! `/internal/coupons`: definitions for the issue service. Invariant: only a caller with the role SERVICE, proven by the
//! signed identity, gets an answer; the gateway never routes here.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use platform::http::description::{NotPermitted, Refused, Values};
use platform::http::extract::{Path, Query};
use platform::http::problem::Problem;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::OtherService;
use super::refusals::NoSuchCoupon;
use crate::app::AppState;
use crate::coupon::{CouponId, Definition};
use crate::error::ApiError;
use crate::store;

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(show)).routes(routes!(changed))
}

/// A coupon's definition; caches it in Redis.
#[utoipa::path(
    get, path = "/internal/coupons/{id}", tag = "internal", security(("identity" = [])),
    params(("id" = u64, Path, description = "The coupon's id")),
    operation_id = "definition",
    responses((status = 200, description = "The definition", body = Definition), Refused<(Values, NotPermitted, NoSuchCoupon)>)
)]
async fn show(
    State(state): State<AppState>,
    _: OtherService,
    Path(id): Path<u64>,
) -> Result<Response, Problem> {
    let coupon =
        store::find(&state.pool, CouponId(id)).await.map_err(ApiError::from)?.ok_or(ApiError::NotFound)?;
    let definition = coupon.definition;
    // Claims wait for this answer; they don't wait for the cache.
    let cache = state.cache.clone();
    state.lifecycle.spawn_detached(async move { cache.fill(&coupon).await });
    Ok(axum::Json(definition).into_response())
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase")]
struct ChangedQuery {
    /// A version; 0 asks for all that have not ended.
    changed_since: u64,
}

#[derive(Debug, Serialize, ToSchema)]
struct Definitions {
    /// Those with a version above `changedSince`, in the order of their versions.
    items: Vec<Definition>,
    /// What to ask with the next time, less an overlap for changes that were being written meanwhile: the highest
    /// version seen, but no later than the clock. (A version can be ahead of the clock; asking past the clock would
    /// miss the next change of another coupon.)
    version: u64,
}

/// Definitions that have changed.
#[utoipa::path(
    get, path = "/internal/coupons", tag = "internal", security(("identity" = [])), params(ChangedQuery),
    responses((status = 200, description = "Some of them", body = Definitions), Refused<(Values, NotPermitted)>)
)]
async fn changed(
    State(state): State<AppState>,
    _: OtherService,
    Query(query): Query<ChangedQuery>,
) -> Result<Response, Problem> {
    let since = query.changed_since;
    let now = state.clock.now_ms();
    let items = if since == 0 {
        store::not_over(&state.pool, now).await
    } else {
        store::changed_since(&state.pool, since).await
    }
    .map_err(ApiError::from)?;
    let version = items.last().map_or(since, |newest| newest.version).min(now);
    Ok(axum::Json(Definitions { items, version }).into_response())
}
