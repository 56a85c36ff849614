//! The public routes, one file per resource. Invariant: a route exists only through [`routes`], which takes its
//! description along, so the OpenAPI document can't forget one.

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use serde::Serialize;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::AppState;

pub mod account;
pub mod holder;
pub mod jwks;
pub mod logout;
pub mod proof;
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
    modifiers(&AccessToken)
)]
struct Description;

/// The scheme by which operations ask for an access token.
#[derive(Debug)]
struct AccessToken;

impl Modify for AccessToken {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        document
            .components
            .get_or_insert_default()
            .add_security_scheme("accessToken", SecurityScheme::Http(scheme));
    }
}

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

/// An RFC 9457 problem, `application/problem+json`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProblemBody {
    #[serde(rename = "type")]
    #[schema(example = "urn:firstcome:problem:validation-failed")]
    pub kind: String,
    #[schema(example = "Bad Request")]
    pub title: String,
    #[schema(example = 400)]
    pub status: u16,
    /// Stable; programs decide by this.
    #[schema(example = "VALIDATION_FAILED")]
    pub code: String,
    /// For people; Korean with `Accept-Language: ko`.
    pub detail: String,
    #[schema(example = "/users/sign-up")]
    pub instance: String,
    #[schema(example = "4bf92f3577b34da6a3ce929d0e0e4736")]
    pub trace_id: String,
    /// Present with VALIDATION_FAILED.
    #[schema(required = false)]
    pub errors: Vec<FieldProblem>,
}

/// A field that broke its rule.
#[derive(Debug, Serialize, ToSchema)]
pub struct FieldProblem {
    #[schema(example = "password")]
    pub field: String,
    pub message: String,
}

#[cfg(test)]
mod tests;
