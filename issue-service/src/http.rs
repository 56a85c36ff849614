//! The HTTP interface of this service.

pub mod counts;
pub mod issues;
pub mod receipt;

use axum::Router;
use axum::routing::get;
use utoipa::OpenApi;

use crate::app::AppState;

#[derive(Debug, OpenApi)]
#[openapi(
    info(title = "issue-service", description = "Claims on coupons, and what became of them."),
    paths(issues::claim, issues::status, issues::mine),
    components(schemas(receipt::Receipt, receipt::Status, issues::Claim, issues::Page))
)]
struct Api;

pub fn router(state: AppState) -> Router {
    Router::new()
        .route("/coupon-issues", axum::routing::post(issues::claim))
        .route("/coupon-issues/me", get(issues::mine))
        .route("/coupon-issues/{coupon_id}/me", get(issues::status))
        .route("/internal/counts", get(counts::counts))
        .route("/openapi.json", get(|| async { axum::Json(Api::openapi()) }))
        .with_state(state)
}
