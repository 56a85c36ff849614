//! The endpoints and who may see them.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequest as _, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use subtle::ConstantTimeEq as _;
use tower::ServiceExt as _;

use super::Shared;
use crate::health::Status;
use crate::http::extract::{Json, Path};
use crate::http::problem::Problem;

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/actuator/health", get(health))
        .route("/actuator/health/liveness", get(liveness))
        .route("/actuator/health/readiness", get(readiness))
        .route("/actuator/info", get(info))
        .route("/actuator/prometheus", get(prometheus))
        .route("/actuator/env", get(environment))
        .route("/actuator/loggers", get(loggers))
        .route("/actuator/loggers/{name}", get(logger).post(set_logger))
        .fallback(own)
        .with_state(shared)
}

/// The bearer token, compared in constant time; an empty setting lets nobody in.
fn authorize(shared: &Shared, headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let token = shared.token.expose().as_bytes();
    match given {
        Some(given) if !token.is_empty() && bool::from(given.ct_eq(token)) => Ok(()),
        _ => Err(Problem::unauthenticated()),
    }
}

fn state(status: Status, components: Option<Value>) -> Response {
    let mut body = Map::new();
    body.insert("status".to_owned(), status.as_str().into());
    if let Some(components) = components {
        body.insert("components".to_owned(), components);
    }
    let code = if status == Status::Up { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(body)).into_response()
}

async fn health(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let details = authorize(&shared, &headers).is_ok().then(|| shared.health.details());
    state(shared.health.status(), details)
}

async fn liveness(State(shared): State<Arc<Shared>>) -> Response {
    state(shared.health.liveness(), None)
}

async fn readiness(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let details = authorize(&shared, &headers).is_ok().then(|| shared.health.details());
    state(shared.health.readiness(), details)
}

async fn info(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let info = &shared.info;
    let short: String = info.commit.chars().take(7).collect();
    Json(json!({
        "app": {"name": info.service, "instance": info.instance},
        "git": {"commit": {"id": info.commit, "short": short}},
        "build": {"version": info.version},
        "config": {"commit": info.config_commit},
        "process": {"pid": std::process::id(), "started": crate::clock::rfc3339(info.started_ms)},
    }))
}

async fn prometheus(State(shared): State<Arc<Shared>>) -> Response {
    let mut response = Response::new(Body::from(shared.metrics.render()));
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, text);
    response
}

async fn environment(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Result<Json<Value>, Problem> {
    authorize(&shared, &headers)?;
    Ok(Json(shared.environment.clone()))
}

const ROOT: &str = "ROOT";

async fn loggers(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Result<Json<Value>, Problem> {
    authorize(&shared, &headers)?;
    let mut loggers = Map::new();
    for (name, level) in shared.levels.configured() {
        loggers.insert(name, json!({"configuredLevel": level, "effectiveLevel": level}));
    }
    Ok(Json(json!({"levels": ["OFF", "ERROR", "WARN", "INFO", "DEBUG", "TRACE"], "loggers": loggers})))
}

async fn logger(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Path(name): Path<String>,
) -> Result<Json<Value>, Problem> {
    authorize(&shared, &headers)?;
    let configured = shared.levels.configured();
    let own = configured.get(&name);
    // The nearest name above it that has a level.
    let mut above = name.as_str();
    let effective = loop {
        if let Some(level) = configured.get(above) {
            break Some(level);
        }
        match above.rsplit_once("::") {
            Some((parent, _)) => above = parent,
            None => break configured.get(ROOT),
        }
    };
    Ok(Json(json!({"configuredLevel": own, "effectiveLevel": effective})))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SetLevel {
    /// Null takes the logger's own level away.
    configured_level: Option<String>,
}

async fn set_logger(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<StatusCode, Problem> {
    authorize(&shared, request.headers())?;
    let Json(SetLevel { configured_level }) = Json::<SetLevel>::from_request(request, &()).await?;
    shared
        .levels
        .set(&name, configured_level.as_deref())
        .map_err(|reason| Problem::validation().field("configuredLevel", reason))?;
    tracing::info!(logger = name, level = configured_level.as_deref(), "log level set");
    Ok(StatusCode::NO_CONTENT)
}

/// The service's own routes. Nobody learns without the token what is there.
async fn own(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    if !request.uri().path().starts_with("/actuator/") {
        return Problem::not_found().into_response();
    }
    if let Err(problem) = authorize(&shared, request.headers()) {
        return problem.into_response();
    }
    let router = shared.own.read().clone();
    match router.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

#[cfg(test)]
mod tests;
