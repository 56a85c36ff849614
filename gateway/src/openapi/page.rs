//! The page to read and try the API: Swagger UI, out of the binary. Invariant: a browser that shows it asks nobody but
//! this gateway.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, HeaderValue};
use platform::http::problem::Problem;
use utoipa_swagger_ui::Config;

pub const INDEX: &str = "/swagger-ui/index.html";

/// Scripts and styles of this gateway alone, and no others; requests to it alone.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// A new version of the gateway may have new files.
const CACHE: &str = "public, max-age=3600";

static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    let config = Config::from(super::DOCUMENT)
        .try_it_out_enabled(true)
        .display_request_duration(true)
        // By default the document's address is sent to a checker on the internet.
        .validator_url("none");
    Arc::new(config)
});

/// A file of the page, by its name.
///
/// # Errors
/// 404 for a name that no file has.
pub fn file(name: &str) -> Result<Response, Problem> {
    let file = utoipa_swagger_ui::serve(name, Arc::clone(&CONFIG))
        .map_err(|error| Problem::internal(error.to_string()))?
        .filter(|_| !name.is_empty())
        .ok_or_else(Problem::not_found)?;
    let bytes = match file.bytes {
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => Bytes::from(bytes),
    };
    let mut response = bytes.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::try_from(file.content_type).map_err(Problem::internal)?);
    let fixed: [(HeaderName, &str); 3] =
        [(CONTENT_SECURITY_POLICY, POLICY), (X_CONTENT_TYPE_OPTIONS, "nosniff"), (CACHE_CONTROL, CACHE)];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if file.gzpipped {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}
