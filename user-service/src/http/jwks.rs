//! The public keys.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CACHE_CONTROL;
use platform::http::description::Refused;
use platform::http::extract::Json;

use crate::app::AppState;
use crate::keys::JwkSet;

/// Verifiers may keep the keys this long; `couponctl keys rotate` has the next key published at least as long before its
/// first use.
const CACHE: &str = "public, max-age=300";

/// The public keys that verify access tokens.
///
/// The key in use first; then the next one ahead of its first use, and the previous one while its tokens live.
#[utoipa::path(
    get,
    path = "/.well-known/jwks.json",
    tag = "keys",
    responses(
        (
            status = 200, description = "A JSON Web Key Set (RFC 7517)", body = JwkSet,
            example = json!({"keys": [{
                "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "21fe31dfa154a261",
                "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
            }]})
        ),
        Refused
    )
)]
pub async fn keys(State(state): State<AppState>) -> Response {
    ([(CACHE_CONTROL, CACHE)], Json(state.keys.current().published().clone())).into_response()
}
