//! RFC 9457 problems. Invariant: what is sent is the code and its public text; a cause stays in the process and is
//! logged once, by the outermost layer, which also fills in `instance` and `traceId` and picks the language.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};

use crate::lifecycle::BoxError;

/// The media type of a rendered problem.
pub const PROBLEM_JSON: &str = "application/problem+json";
/// What every `type` begins with.
const TYPE_PREFIX: &str = "urn:firstcome:problem:";

/// An answer that says what went wrong. As a response it travels in the extensions until [`crate::http::server`]
/// renders it.
#[derive(Clone)]
pub struct Problem(Box<Parts>);

#[derive(Clone)]
struct Parts {
    status: StatusCode,
    code: &'static str,
    detail: Cow<'static, str>,
    korean: Option<Cow<'static, str>>,
    errors: Vec<FieldError>,
    members: Vec<(&'static str, serde_json::Value)>,
    headers: HeaderMap,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// The challenges of RFC 6750, section 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// Nothing that could be judged was brought.
    Bearer,
    InvalidToken,
    ExpiredToken,
}

impl Challenge {
    fn value(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Bearer => "Bearer",
            Self::InvalidToken => r#"Bearer error="invalid_token""#,
            Self::ExpiredToken => {
                r#"Bearer error="invalid_token", error_description="The token has expired""#
            }
        })
    }
}

/// What is wrong with one field of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    pub field: String,
    pub message: String,
}

impl Problem {
    /// `code` is the stable name that clients program against, in SCREAMING_SNAKE_CASE.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Parts {
            status,
            code,
            detail: detail.into(),
            korean: None,
            errors: Vec::new(),
            members: Vec::new(),
            headers: HeaderMap::new(),
            source: None,
        }))
    }

    /// The detail for `Accept-Language: ko`.
    #[must_use]
    pub fn korean(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.0.korean = Some(detail.into());
        self
    }

    /// Names a field of the request and what is wrong with it.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>, message: impl Into<String>) -> Self {
        self.0.errors.push(FieldError { field: field.into(), message: message.into() });
        self
    }

    /// Adds an extension member. A value that JSON can't say is left out.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Serialize) -> Self {
        if let Ok(value) = serde_json::to_value(value) {
            self.0.members.push((key, value));
        }
        self
    }

    /// Asks the client to come back in so many seconds.
    #[must_use]
    pub fn retry_after(self, secs: u32) -> Self {
        self.header(RETRY_AFTER, HeaderValue::from(secs))
    }

    /// Sends a header along.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    /// Says what a 401 asks for, as RFC 9110, 11.6.1 wants it of each.
    #[must_use]
    pub fn challenge(self, challenge: Challenge) -> Self {
        self.header(WWW_AUTHENTICATE, challenge.value())
    }

    /// The cause, for the log alone.
    #[must_use]
    pub fn source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    #[must_use]
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    #[must_use]
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    #[must_use]
    pub fn errors(&self) -> &[FieldError] {
        &self.0.errors
    }

    /// The cause that [`Problem::source`] was given.
    #[must_use]
    pub fn cause(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.0.source.as_deref()
    }

    /// What is sent along.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.0.headers
    }

    /// The body that a client sees.
    pub(crate) fn rendered<'a>(
        &'a self,
        instance: &'a str,
        trace_id: Option<&'a str>,
        korean: bool,
    ) -> impl Serialize + 'a {
        Rendered { parts: &self.0, instance, trace_id, korean }
    }

    /// The response that a client sees. Called once, by the outermost layer.
    #[must_use]
    pub fn render(self, instance: &str, trace_id: Option<&str>, korean: bool) -> Response {
        let bytes = serde_json::to_vec(&self.rendered(instance, trace_id, korean)).unwrap_or_default();
        let mut response = Response::new(Body::from(bytes));
        *response.status_mut() = self.0.status;
        *response.headers_mut() = self.0.headers;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        response
    }
}

struct Rendered<'a> {
    parts: &'a Parts,
    instance: &'a str,
    trace_id: Option<&'a str>,
    korean: bool,
}

impl Serialize for Rendered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Parts { status, code, detail, korean, errors, members, .. } = self.parts;
        let detail = match korean {
            Some(korean) if self.korean => korean,
            _ => detail,
        };
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &Type(code))?;
        map.serialize_entry("title", status.canonical_reason().unwrap_or("Error"))?;
        map.serialize_entry("status", &status.as_u16())?;
        map.serialize_entry("code", code)?;
        map.serialize_entry("detail", detail)?;
        map.serialize_entry("instance", self.instance)?;
        if let Some(trace_id) = self.trace_id {
            map.serialize_entry("traceId", trace_id)?;
        }
        if !errors.is_empty() {
            map.serialize_entry("errors", errors)?;
        }
        for (key, value) in members {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// `COUPON_SOLD_OUT` as `urn:firstcome:problem:coupon-sold-out`.
struct Type<'a>(&'a str);

impl fmt::Display for Type<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(TYPE_PREFIX)?;
        self.0
            .chars()
            .try_for_each(|c| fmt::Write::write_char(f, if c == '_' { '-' } else { c.to_ascii_lowercase() }))
    }
}

impl Serialize for Type<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.0.status;
        response.extensions_mut().insert(self);
        response
    }
}

impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Problem")
            .field("status", &self.0.status)
            .field("code", &self.0.code)
            .field("detail", &self.0.detail)
            .field("errors", &self.0.errors)
            .field("source", &self.0.source)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.0.status.as_u16(), self.0.code, self.0.detail)
    }
}

impl Error for Problem {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

/// The codes that any service may answer with.
impl Problem {
    /// 500 for a failure of our own; the cause is for the log.
    pub fn internal(cause: impl Into<BoxError>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", "Something went wrong on our side.")
            .korean("서버 내부 오류가 발생했습니다.")
            .source(cause)
    }

    /// 401 where no token was brought.
    #[must_use]
    pub fn unauthenticated() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED", "A valid token is required.")
            .korean("유효한 토큰이 필요합니다.")
            .challenge(Challenge::Bearer)
    }

    /// 401 for a token that does not hold.
    #[must_use]
    pub fn invalid_token() -> Self {
        Self::unauthenticated().challenge(Challenge::InvalidToken)
    }

    #[must_use]
    pub fn token_expired() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "TOKEN_EXPIRED", "The token has expired.")
            .korean("토큰이 만료되었습니다.")
            .challenge(Challenge::ExpiredToken)
    }

    #[must_use]
    pub fn forbidden() -> Self {
        Self::new(StatusCode::FORBIDDEN, "FORBIDDEN", "You may not do this.").korean("권한이 없습니다.")
    }

    #[must_use]
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", "There is nothing at this address.")
            .korean("요청한 대상을 찾을 수 없습니다.")
    }

    #[must_use]
    pub fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "METHOD_NOT_ALLOWED",
            "This address does not know the method.",
        )
        .korean("허용되지 않는 메서드입니다.")
    }

    #[must_use]
    pub fn payload_too_large() -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE", "The request's body is too large.")
            .korean("요청 본문이 너무 큽니다.")
    }

    #[must_use]
    pub fn unsupported_media_type() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UNSUPPORTED_MEDIA_TYPE",
            "The request's body must be application/json.",
        )
        .korean("요청 본문은 application/json이어야 합니다.")
    }

    /// 400 for text that is no JSON.
    pub fn malformed_json(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "MALFORMED_JSON", detail)
            .korean("요청 본문이 올바른 JSON이 아닙니다.")
    }

    /// 400 for values that are not acceptable; name them with [`Problem::field`].
    #[must_use]
    pub fn validation() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "VALIDATION_FAILED",
            "The request has values that are not acceptable.",
        )
        .korean("요청 값이 올바르지 않습니다.")
    }

    #[must_use]
    pub fn rate_limited() -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED", "Too many requests.")
            .korean("요청이 너무 많습니다. 잠시 후 다시 시도해 주세요.")
    }

    #[must_use]
    pub fn overloaded() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "OVERLOADED",
            "Too much is going on; please try again soon.",
        )
        .korean("요청이 많아 처리할 수 없습니다. 잠시 후 다시 시도해 주세요.")
        .retry_after(1)
    }

    #[must_use]
    pub fn upstream_error() -> Self {
        Self::new(
            StatusCode::BAD_GATEWAY,
            "UPSTREAM_ERROR",
            "A service behind this one gave no usable answer.",
        )
        .korean("내부 서비스가 올바르게 응답하지 않았습니다.")
    }

    #[must_use]
    pub fn upstream_unavailable() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "UPSTREAM_UNAVAILABLE",
            "A service behind this one is not available; please try again soon.",
        )
        .korean("내부 서비스를 사용할 수 없습니다. 잠시 후 다시 시도해 주세요.")
        .retry_after(1)
    }

    #[must_use]
    pub fn upstream_timeout() -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "UPSTREAM_TIMEOUT", "A service behind this one took too long.")
            .korean("내부 서비스의 응답이 너무 늦습니다.")
    }
}

/// Whether the client would rather read Korean than English (RFC 9110, section 12.5.4).
#[must_use]
pub fn prefers_korean(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(http::header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let (mut korean, mut english) = (0.0_f32, 0.0_f32);
    for range in value.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let tag = parts.next().unwrap_or_default();
        let quality = parts
            .find_map(|parameter| parameter.strip_prefix("q="))
            .map_or(1.0, |quality| quality.parse().unwrap_or(0.0));
        let primary = tag.split('-').next().unwrap_or_default();
        if primary.eq_ignore_ascii_case("ko") {
            korean = korean.max(quality);
        } else if primary.eq_ignore_ascii_case("en") {
            english = english.max(quality);
        }
    }
    korean > 0.0 && korean >= english
}

/// Headers of a bare 404 or 405 that a router makes; with any other header it is somebody's own answer.
pub(crate) fn is_bare(headers: &HeaderMap) -> bool {
    headers.keys().all(|name| name == http::header::CONTENT_LENGTH || name == ALLOW)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::ACCEPT_LANGUAGE, HeaderValue::from_str(value).unwrap());
        headers
    }

    #[test]
    fn korean_is_chosen_only_when_it_is_preferred() {
        assert!(prefers_korean(&accept("ko")));
        assert!(prefers_korean(&accept("ko-KR,ko;q=0.9,en;q=0.8")));
        assert!(!prefers_korean(&accept("en,ko;q=0.5")));
        assert!(!prefers_korean(&accept("ko;q=0")));
        assert!(!prefers_korean(&accept("kok")));
        assert!(!prefers_korean(&HeaderMap::new()));
    }

    #[tokio::test]
    async fn a_problem_renders_its_public_part_alone() {
        let problem = Problem::new(StatusCode::CONFLICT, "COUPON_SOLD_OUT", "gone")
            .korean("품절")
            .with("receipt", serde_json::json!({"place": 1}))
            .field("a", "b")
            .retry_after(3)
            .source("the secret cause");
        let response = problem.clone().render("/x", Some("abc"), false);
        assert_eq!(response.status(), 409);
        assert_eq!(response.headers()["retry-after"], "3");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        assert_eq!(
            std::str::from_utf8(&body).unwrap(),
            r#"{"type":"urn:firstcome:problem:coupon-sold-out","title":"Conflict","status":409,"code":"COUPON_SOLD_OUT","detail":"gone","instance":"/x","traceId":"abc","errors":[{"field":"a","message":"b"}],"receipt":{"place":1}}"#
        );
        let body = axum::body::to_bytes(problem.render("/x", None, true).into_body(), 10_000).await.unwrap();
        assert!(std::str::from_utf8(&body).unwrap().contains("품절"));
    }
}
