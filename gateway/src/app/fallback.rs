//! Another path of the gateway, which answers when a route's service fails.

use axum::body::Body;
use bytes::Bytes;
use http::{Request, header};
use platform::http::problem::Problem;
use platform::http::server::Peer;

/// What a fallback gets: the client's request, at another path.
pub(super) struct Fallback {
    pub(super) path: String,
    pub(super) parts: http::request::Parts,
    pub(super) bytes: Bytes,
    pub(super) peer: Option<Peer>,
}

impl Fallback {
    pub(super) fn request(self) -> Result<Request<Body>, Problem> {
        let Self { path, mut parts, bytes, peer } = self;
        let target = match parts.uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path,
        };
        parts.uri = target.parse().map_err(Problem::internal)?;
        parts.headers.remove(header::ORIGIN); // it was judged at the first path
        parts.extensions = http::Extensions::new();
        if let Some(peer) = peer {
            parts.extensions.insert(peer);
        }
        Ok(Request::from_parts(parts, Body::from(bytes)))
    }
}
