//! Extractors that refuse with problems. Invariant: whatever a client sends, the answer has one of the documented
//! codes and names the field; nothing of our types' names gets out.

use std::fmt;

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, OptionalFromRequest};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::BodyExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::problem::Problem;
use super::server::{Aborted, TooLarge};

/// A JSON body in, or out. In: 415 for another content type, 413 over the limit, 400 `MALFORMED_JSON` for text that is
/// no JSON, 400 `VALIDATION_FAILED` with the field's name for a wrong type or a missing field; unknown fields are
/// tolerated.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request<Body>, _: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::unsupported_media_type());
        }
        parse(&body(request.into_body()).await?).map(Self)
    }
}

impl<T: DeserializeOwned, S: Sync> OptionalFromRequest<S> for Json<T> {
    type Rejection = Problem;

    /// None for a request without content type and body.
    async fn from_request(request: Request<Body>, _: &S) -> Result<Option<Self>, Problem> {
        let declared = request.headers().contains_key(CONTENT_TYPE);
        let json = is_json(request.headers());
        let bytes = body(request.into_body()).await?;
        match (declared, json) {
            (false, _) if bytes.is_empty() => Ok(None),
            (_, false) => Err(Problem::unsupported_media_type()),
            (_, true) => parse(&bytes).map(|value| Some(Self(value))),
        }
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(bytes) => {
                let mut response = Response::new(Body::from(bytes));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                response
            }
            Err(error) => Problem::internal(error).into_response(),
        }
    }
}

/// The whole body; 413 when it is over the limit, 400 when the client goes away within it.
async fn body(body: Body) -> Result<Bytes, Problem> {
    match body.collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if TooLarge::is_cause_of(&error) => Err(Problem::payload_too_large()),
        Err(error) => {
            Err(Problem::malformed_json("The body could not be read to its end.").source(Aborted::new(error)))
        }
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        if error.is_data() { wrong_value(&path, &error.to_string()) } else { malformed(&error) }
    })?;
    deserializer.end().map_err(|error| malformed(&error))?;
    Ok(value)
}

fn malformed(error: &serde_json::Error) -> Problem {
    Problem::malformed_json(format!("The body is not JSON: {error}."))
}

/// Turns serde's words into a field error. The place in the text is cut off: the field says it better.
fn wrong_value(path: &str, message: &str) -> Problem {
    let message = message.split(" at line ").next().unwrap_or(message);
    if let Some(missing) = message
        .strip_prefix("missing field `")
        .and_then(|rest| rest.strip_suffix('`'))
        .filter(|_| !path.is_empty())
    {
        let field = if path == "." { missing.to_owned() } else { format!("{path}.{missing}") };
        return Problem::validation().field(field, "is required");
    }
    let message = match message.split_once(", expected ") {
        Some((_, expected)) if !expected.starts_with("struct ") && !expected.starts_with("one of ") => {
            format!("must be {}", plain(expected))
        }
        Some((_, expected)) if expected.starts_with("one of ") => format!("must be {expected}"),
        Some(_) => "must be an object".to_owned(),
        None => message.to_owned(),
    };
    Problem::validation().field(if path == "." { "body" } else { path }, message)
}

/// Rust's names of numbers, in words of the API.
fn plain(expected: &str) -> &str {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, not negative",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        other => other,
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
        || (essence.len() > 5
            && essence.is_char_boundary(essence.len() - 5)
            && essence[essence.len() - 5..].eq_ignore_ascii_case("+json"))
}

/// Parameters of the path; what can't be read is 400 `VALIDATION_FAILED` with the parameter's name.
#[derive(Clone, Copy, Debug, Default)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        use axum::extract::path::ErrorKind;
        let rejection = match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => return Ok(Self(value)),
            Err(rejection) => rejection,
        };
        let PathRejection::FailedToDeserializePathParams(failed) = rejection else {
            return Err(Problem::internal(rejection));
        };
        match failed.kind() {
            ErrorKind::ParseErrorAtKey { key, expected_type, .. } => {
                Err(Problem::validation().field(key, format!("must be {}", plain(expected_type))))
            }
            ErrorKind::ParseError { expected_type, .. }
            | ErrorKind::ParseErrorAtIndex { expected_type, .. } => {
                let message = format!("must be {}", plain(expected_type));
                Err(Problem::validation().field(only_parameter(parts, state).await, message))
            }
            ErrorKind::InvalidUtf8InPathParam { key } => {
                Err(Problem::validation().field(key, "must be UTF-8"))
            }
            ErrorKind::DeserializeError { key, message, .. } => {
                Err(Problem::validation().field(key, message))
            }
            ErrorKind::Message(message) => Err(Problem::validation().field("path", message)),
            _ => Err(Problem::internal(failed)),
        }
    }
}

/// The name of the path's parameter, where there is one alone.
async fn only_parameter<S: Send + Sync>(parts: &mut Parts, state: &S) -> String {
    let parameters = axum::extract::RawPathParams::from_request_parts(parts, state).await;
    let mut names = parameters.iter().flatten().map(|(name, _)| name);
    match (names.next(), names.next()) {
        (Some(name), None) => name.to_owned(),
        _ => "path".to_owned(),
    }
}

/// Parameters of the query; what can't be read is 400 `VALIDATION_FAILED` with the parameter's name.
#[derive(Clone, Copy, Debug, Default)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(QueryRejection::FailedToDeserializeQueryString(failed)) => {
                Err(wrong_query(&Chain(&failed).to_string()))
            }
            Err(rejection) => Err(Problem::internal(rejection)),
        }
    }
}

/// The last cause of an error: axum wraps what serde said.
struct Chain<'a>(&'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut error = self.0;
        while let Some(source) = error.source() {
            error = source;
        }
        write!(f, "{error}")
    }
}

fn wrong_query(message: &str) -> Problem {
    if let Some(missing) = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        return Problem::validation().field(missing, "is required");
    }
    // serde_path_to_error's form: "limit: invalid digit found in string".
    match message.split_once(": ") {
        Some((field, message)) if !field.contains(' ') => Problem::validation().field(field, message),
        _ => Problem::validation().field("query", message),
    }
}
