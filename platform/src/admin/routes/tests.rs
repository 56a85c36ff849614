use std::collections::BTreeMap;

use http_body_util::BodyExt as _;
use parking_lot::RwLock;

use super::*;
use crate::admin::BuildInfo;
use crate::config::{Secret, ServerSettings};
use crate::health::Health;
use crate::http::server::{Front, layered};

const TOKEN: &str = "the admin token";

fn front(token: &str) -> (Front, Health) {
    let health = Health::new();
    let (_, handle) = tracing_subscriber::reload::Layer::new(tracing_subscriber::EnvFilter::new("info"));
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let shared = Shared {
        health: health.clone(),
        info: BuildInfo::new("example", "example-1", Some("c0ffee".to_owned())),
        environment: crate::config::environment(&json!({"a": {"b": 1}}), &BTreeMap::new(), "local"),
        token: Secret::new(token),
        levels: crate::telemetry::Levels::new("info,hyper=warn", handle),
        metrics: crate::telemetry::Metrics(recorder.handle()),
        own: RwLock::new(Router::new().route("/actuator/own", get(async || "own"))),
    };
    (layered(router(Arc::new(shared)), &ServerSettings::default()), health)
}

async fn ask(front: &Front, path: &str, token: Option<&str>) -> (u16, Value) {
    let mut request = http::Request::get(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let response = front.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (
        status,
        serde_json::from_slice(&body).unwrap_or_else(|_| String::from_utf8_lossy(&body).into_owned().into()),
    )
}

#[tokio::test]
async fn probes_say_how_it_is_and_hide_why() {
    let (front, health) = front(TOKEN);
    let mysql = health.component("mysql");
    let readiness = "/actuator/health/readiness";
    assert_eq!(ask(&front, readiness, None).await, (503, json!({"status": "OUT_OF_SERVICE"})));
    health.started();
    assert_eq!(ask(&front, readiness, None).await, (503, json!({"status": "DOWN"})));
    assert_eq!(ask(&front, "/actuator/health/liveness", None).await, (200, json!({"status": "UP"})));
    let (status, body) = ask(&front, "/actuator/health", Some(TOKEN)).await;
    assert_eq!((status, &body["components"]["mysql"]["details"]["reason"]), (503, &json!("starting")));
    mysql.up();
    assert_eq!(ask(&front, "/actuator/health", None).await, (200, json!({"status": "UP"})));
    assert_eq!(ask(&front, "/actuator/health", Some("wrong")).await, (200, json!({"status": "UP"})));
    health.stopping();
    assert_eq!(ask(&front, readiness, None).await.0, 503);
}

#[tokio::test]
async fn only_health_info_and_metrics_are_open() {
    let (front, _) = front(TOKEN);
    let (status, info) = ask(&front, "/actuator/info", None).await;
    assert_eq!((status, &info["config"]["commit"]), (200, &json!("c0ffee")));
    assert_eq!(ask(&front, "/actuator/prometheus", None).await.0, 200);
    for path in
        ["/actuator/env", "/actuator/loggers", "/actuator/loggers/ROOT", "/actuator/own", "/actuator/none"]
    {
        for token in [None, Some(""), Some("wrong"), Some("the admin token and more")] {
            let (status, body) = ask(&front, path, token).await;
            assert_eq!((status, &body["code"]), (401, &json!("UNAUTHENTICATED")), "{path}");
        }
    }
    assert_eq!(ask(&front, "/actuator/own", Some(TOKEN)).await, (200, json!("own")));
    assert_eq!(ask(&front, "/actuator/none", Some(TOKEN)).await.1["code"], "NOT_FOUND");
    let (_, shown) = ask(&front, "/actuator/env", Some(TOKEN)).await;
    assert_eq!(shown["propertySources"][0]["properties"]["a.b"], json!({"value": 1, "origin": "defaults"}));
}

#[tokio::test]
async fn an_empty_token_lets_nobody_in() {
    let (front, _) = front("");
    for token in [None, Some(""), Some("x")] {
        assert_eq!(ask(&front, "/actuator/env", token).await.0, 401);
    }
}

#[tokio::test]
async fn loggers_show_their_own_and_their_inherited_level() {
    let (front, _) = front(TOKEN);
    let (_, loggers) = ask(&front, "/actuator/loggers", Some(TOKEN)).await;
    assert_eq!(loggers["loggers"]["hyper"]["configuredLevel"], "WARN");
    assert_eq!(loggers["loggers"]["ROOT"]["effectiveLevel"], "INFO");
    let (_, logger) = ask(&front, "/actuator/loggers/hyper::client", Some(TOKEN)).await;
    assert_eq!(logger, json!({"configuredLevel": null, "effectiveLevel": "WARN"}));
    let request = http::Request::post("/actuator/loggers/hyper")
        .header("authorization", format!("Bearer {TOKEN}"))
        .header("content-type", "application/json")
        .body(Body::from(r#"{"configuredLevel": "LOUD"}"#))
        .unwrap();
    let response = front.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 400);
}
