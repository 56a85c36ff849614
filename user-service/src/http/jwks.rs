//! The public keys.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CACHE_CONTROL;
use platform::http::extract::Json;

use crate::app::AppState;
use crate::keys::JwkSet;

/// Verifiers may keep the keys this long; a next key must be published at least as long before its first use.
const CACHE: &str = "public, max-age=300";

/// The public keys that verify access tokens.
///
/// Besides the key in use, a next one may be listed ahead of its first use.
#[utoipa::path(
    get,
    path = "/.well-known/jwks.json",
    tag = "keys",
    responses((status = 200, description = "A JSON Web Key Set (RFC 7517)", body = JwkSet))
)]
pub async fn keys(State(state): State<AppState>) -> Response {
    ([(CACHE_CONTROL, CACHE)], Json(state.keys.published())).into_response()
}
