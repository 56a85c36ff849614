//! The description of the API, made of what services say of themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use axum::body::Body;
use axum::routing::get;
use axum::{Json, Router};
use http::Request;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::harness::{Answer, Setting};

const DOCUMENT: &str = "/v3/api-docs";

fn document(paths: &Value) -> Value {
    json!({"openapi": "3.1.0", "info": {"title": "x", "version": "1"}, "paths": paths})
}

fn operation(id: &str) -> Value {
    json!({"operationId": id, "responses": {"200": {"description": "So be it"}}})
}

/// A coupon service that says what `document` says.
async fn described(setting: &mut Setting, document: &Arc<Mutex<Value>>) {
    let document = Arc::clone(document);
    let app = Router::new().route("/openapi.json", get(async move || Json(document.lock().clone())));
    let address = setting.serve(app).await;
    setting.publish("coupon-service", &[("coupons", address)]);
    setting.configure(&json!({"openapi": {"services": ["coupon-service"]}}));
}

async fn until(setting: &mut Setting, holds: impl Fn(&Answer) -> bool) -> Answer {
    for _ in 0..200 {
        let answer = setting.get(DOCUMENT).await;
        if holds(&answer) {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it never came to that");
}

#[tokio::test]
async fn what_routes_lead_to_is_described_as_a_client_asks_for_it() {
    let said = Arc::new(Mutex::new(document(&json!({
        "/coupons": {"get": operation("list"), "post": operation("create"), "delete": operation("no_route")},
        "/coupons/{id}": {"get": operation("show")},
        "/coupon-issues": {"post": operation("of_another_service")},
        "/internal/coupons": {"get": operation("reserved")},
        "/moved": {"get": operation("other_path")},
    }))));
    let mut setting = Setting::empty();
    described(&mut setting, &said).await;
    let mut routes = setting.settings["routes"].clone();
    routes.as_array_mut().unwrap().push(json!({
        "id": "moved", "uri": "lb://coupon-service", "predicates": ["Path=/moved"], "filters": ["PrefixPath=/old"],
    }));
    setting.configure(&json!({"routes": routes}));
    assert_eq!(setting.get("/coupons").await.status, 404, "the service knows nothing else");

    let answer = until(&mut setting, |answer| answer.status == 200).await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let paths = answer.json()["paths"].clone();
    let mut found = Vec::new();
    for (path, item) in paths.as_object().unwrap() {
        found.extend(item.as_object().unwrap().keys().map(|method| format!("{method} {path}")));
    }
    assert_eq!(found, ["get /coupons", "post /coupons", "get /coupons/{id}"]);
    assert_eq!(paths["/coupons"]["get"]["security"], json!([]));
    assert_eq!(paths["/coupons"]["post"]["security"], json!([{"bearer": []}]));
    assert!(paths["/coupons"]["post"]["responses"]["403"].is_object(), "its route asks for a role");

    let answer = setting.send(Request::post(DOCUMENT).body(Body::empty()).unwrap()).await;
    assert_eq!(answer.problem(), (405, "METHOD_NOT_ALLOWED".to_owned()));
    assert_eq!(answer.header("allow"), Some("GET, HEAD"));
}

#[tokio::test]
async fn the_last_word_of_a_service_stays_while_it_is_away() {
    let said = Arc::new(Mutex::new(document(&json!({"/coupons": {"get": operation("list")}}))));
    let mut setting = Setting::empty();
    described(&mut setting, &said).await;
    setting.configure(&json!({"openapi": {"services": ["user-service", "coupon-service"]}}));
    let answer = until(&mut setting, |answer| answer.status == 200).await;
    assert!(answer.json()["paths"]["/coupons"].is_object());
    setting.publish("coupon-service", &[]);
    setting.serve_keys().await; // and a user service that comes late, with something that is no document
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(setting.get(DOCUMENT).await.body, answer.body);
}

#[tokio::test]
async fn because_of_a_service_that_nobody_has_the_others_are_asked_no_more_often() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let said = document(&json!({"/coupons": {"get": operation("list")}}));
    let app = Router::new().fallback(async move || {
        counter.fetch_add(1, SeqCst);
        Json(said)
    });
    let mut setting = Setting::empty();
    let address = setting.serve(app).await;
    setting.publish("coupon-service", &[("coupons", address)]);
    setting.configure(&json!({"openapi": {"services": ["coupon-service", "user-service"]}}));
    until(&mut setting, |answer| answer.status == 200).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(asked.load(SeqCst), 1, "within ten seconds");
}

#[tokio::test]
async fn the_page_comes_out_of_the_binary_and_asks_nobody_else() {
    let mut setting = Setting::empty();
    setting.configure(&json!({"openapi": {"services": ["coupon-service"]}}));
    assert_eq!(setting.get(DOCUMENT).await.problem(), (503, "UPSTREAM_UNAVAILABLE".to_owned()));
    for path in ["/swagger-ui.html", "/swagger-ui/"] {
        let answer = setting.get(path).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("location")),
            (302, Some("/swagger-ui/index.html"))
        );
    }
    for (file, kind) in [
        ("index.html", "text/html"),
        ("index.css", "text/css"),
        ("swagger-ui.css", "text/css"),
        ("swagger-ui-bundle.js", "text/javascript"),
        ("swagger-ui-standalone-preset.js", "text/javascript"),
        ("swagger-initializer.js", "text/javascript"),
        ("favicon-32x32.png", "image/png"),
    ] {
        let answer = setting.get(&format!("/swagger-ui/{file}")).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, Some(kind)), "{file}");
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
    let script = setting.get("/swagger-ui/swagger-initializer.js").await;
    let script = String::from_utf8_lossy(&script.body).into_owned();
    assert!(script.contains(DOCUMENT) && script.contains(r#""validatorUrl": "none""#), "{script}");
    for path in ["/swagger-ui/nothing.js", "/swagger-ui", "/v3/api-docs/x"] {
        assert_eq!(setting.get(path).await.problem(), (404, "NOT_FOUND".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn without_services_these_paths_are_the_routes() {
    let mut setting = Setting::new().await;
    let routes = json!([{"id": "own", "uri": "lb://coupon-service", "predicates": ["Path=/swagger-ui.html,/v3/**"],
                         "authentication": "none"}]);
    setting.configure(&json!({"routes": routes, "route-enabled": null}));
    setting.settings.as_object_mut().unwrap().remove("route-enabled");
    for path in [DOCUMENT, "/swagger-ui.html"] {
        assert_eq!(setting.get(path).await.json()["service"], "coupon-service", "{path}");
    }
    assert_eq!(setting.get("/swagger-ui/index.html").await.status, 404);
}
