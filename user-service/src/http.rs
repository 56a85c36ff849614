//! The public routes, one file per resource. Invariant: a route exists only through [`routes`], which takes its
//! description along, so the OpenAPI document can't forget one.

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use platform::http::description::{ProblemBody, Securities};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::AppState;

pub mod account;
pub mod holder;
pub mod jwks;
pub mod logout;
pub mod proof;
pub mod refusals;
pub mod roles;
pub mod sessions;
pub mod users;

/// All routes with their descriptions.
#[must_use]
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(users::sign_up))
        .routes(routes!(users::me, account::delete))
        .routes(routes!(account::change_password))
        .routes(routes!(roles::change))
        .routes(routes!(sessions::login))
        .routes(routes!(sessions::refresh))
        .routes(routes!(logout::logout))
        .routes(routes!(logout::logout_all))
        .routes(routes!(jwks::keys))
        .routes(routes!(openapi))
}

/// The document's head; paths and schemas come from the routes.
#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "Firstcome users",
        description = "Accounts, logins and tokens. Errors are RFC 9457 problems with a stable `code`."
    ),
    components(schemas(ProblemBody)),
    modifiers(&Securities)
)]
struct Description;

static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
    // Serialising a document that was just built can't fail; an empty one would be seen by the tests.
    routes().into_openapi().to_json().unwrap_or_default()
});

/// This description.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "description",
    responses((status = 200, description = "The OpenAPI 3.1 document of this service", body = Object))
)]
async fn openapi() -> Response {
    ([(CONTENT_TYPE, "application/json")], DOCUMENT.as_str()).into_response()
}

#[cfg(test)]
mod tests;
