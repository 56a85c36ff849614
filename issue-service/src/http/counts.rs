//! The ledger's counts and definitions, for the coupon service.

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use platform::http::problem::Problem;
use platform::identity::{Caller, SERVICE};
use serde::Serialize;

use crate::app::AppState;
use crate::ids::CouponId;

const MOST: usize = 500;

#[derive(Debug, Serialize)]
struct Counts {
    items: Vec<Count>,
}

/// Times in milliseconds since 1970, UTC.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Count {
    coupon_id: CouponId,
    version: u64,
    stock: u32,
    starts_at: u64,
    ends_at: u64,
    closed: bool,
    count: u32,
    /// The first offset of the coupon's partition that is not counted.
    offset: u64,
}

/// `GET /internal/counts?coupon=ID&coupon=ID`: answered only while this instance follows the log.
pub async fn counts(
    State(state): State<AppState>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    caller.require(SERVICE)?;
    let query = query.unwrap_or_default();
    let parts: Vec<&str> = query.split('&').filter(|part| !part.is_empty()).collect();
    if parts.len() > MOST {
        return Err(Problem::validation().field("coupon", format!("at most {MOST} in one request")));
    }
    let mut items = Vec::new();
    for part in parts {
        let id = part.strip_prefix("coupon=").and_then(|id| id.parse().ok());
        let id = CouponId(id.ok_or_else(|| Problem::validation().field("coupon", "must be a coupon's id"))?);
        let partition = state.partition_of(id);
        if partition.is_stopped() {
            return Err(Problem::upstream_unavailable());
        }
        if let Some((definition, count, offset)) = partition.definition(id) {
            items.push(Count {
                coupon_id: id,
                version: definition.version,
                stock: definition.stock,
                starts_at: definition.starts_at,
                ends_at: definition.ends_at,
                closed: definition.closed,
                count,
                offset,
            });
        }
    }
    Ok(axum::Json(Counts { items }).into_response())
}
