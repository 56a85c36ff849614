//! The ledger's counts and definitions, for the coupon service. Invariants: they are never old news, because what is said
//! of a coupon that has ended is kept for good; of what can't be said at the moment nothing is said but that.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use platform::http::problem::Problem;
use platform::identity::{Caller, SERVICE};
use serde::Serialize;

use crate::app::AppState;
use crate::ids::CouponId;

const MOST: usize = 500;
/// Who asks waits a second.
const NEWS_WITHIN: Duration = Duration::from_millis(800);

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Counts {
    items: Vec<Count>,
    /// Those of partitions that are stopped, or of which no news could be had in time. Who is in neither list is
    /// unknown to the ledger.
    unanswered: Vec<CouponId>,
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
    /// For good: no definition takes force any more.
    retired: bool,
    count: u32,
    /// The first offset of the coupon's partition that is not counted.
    offset: u64,
}

/// `GET /internal/counts?coupon=ID&coupon=ID`: answered as of an end of the log that was asked for after the request
/// arrived, so by an instance that lags not at all.
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
    let id = |part: &&str| part.strip_prefix("coupon=").and_then(|id| id.parse().ok()).map(CouponId);
    let ids: Option<Vec<CouponId>> = parts.iter().map(id).collect();
    let ids = ids.ok_or_else(|| Problem::validation().field("coupon", "must be a coupon's id"))?;
    let partitions: BTreeSet<u32> = ids.iter().map(|id| state.partition_of(*id).id()).collect();
    let news = partitions.into_iter().map(async |partition| {
        let heard = tokio::time::timeout(NEWS_WITHIN, state.claims.refusals.news(partition)).await;
        (partition, matches!(heard, Ok(Ok(_))))
    });
    let heard: BTreeMap<u32, bool> = join_all(news).await.into_iter().collect();
    let (mut items, mut unanswered) = (Vec::new(), Vec::new());
    for id in ids {
        let partition = state.partition_of(id);
        if partition.is_stopped() || heard.get(&partition.id()) != Some(&true) {
            unanswered.push(id);
        } else if let Some((definition, count, offset)) = partition.definition(id) {
            items.push(Count {
                coupon_id: id,
                version: definition.version,
                stock: definition.stock,
                starts_at: definition.starts_at,
                ends_at: definition.ends_at,
                closed: definition.closed,
                retired: partition.with(|ledger| ledger.is_retired(id)),
                count,
                offset,
            });
        }
    }
    Ok(axum::Json(Counts { items, unanswered }).into_response())
}
