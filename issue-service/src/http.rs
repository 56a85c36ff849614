//! The HTTP interface of this service.

pub mod counts;
pub mod issues;
pub mod receipt;
pub mod refusals;

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use platform::http::description::{ProblemBody, Securities};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::AppState;

#[derive(Debug, OpenApi)]
#[openapi(
    info(title = "Firstcome claims", description = "Claims on coupons, and what became of them."),
    components(schemas(ProblemBody)),
    modifiers(&Securities)
)]
struct Api;

pub fn router(state: AppState) -> Router {
    let (router, api) = OpenApiRouter::with_openapi(Api::openapi())
        .routes(routes!(issues::claim))
        .routes(routes!(issues::mine))
        .routes(routes!(issues::status))
        .split_for_parts();
    let api = Arc::new(api);
    router
        .route("/internal/counts", get(counts::counts))
        .route("/openapi.json", get(async move || axum::Json(Arc::clone(&api))))
        .with_state(state)
}
