//! Route files: a file makes a table or is told which of its settings is wrong, and a table leads nobody astray.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};

use crate::cors::GlobalCors;
use crate::routes::filter::outgoing::{Filtered, apply};
use crate::routes::path::normalise;
use crate::routes::predicate::Asked;
use crate::routes::weight::Draws;
use crate::routes::{RouteTable, Target};
use crate::standalone::Unusable;
use crate::standalone::document::Document;

/// What a problem begins with: the path of a setting, or what is wrong with the whole.
const PLACES: [&str; 15] = [
    "routes",
    "default-filters",
    "globalcors",
    "trusted-proxies",
    "httpclient",
    "limits",
    "public-paths",
    "reserved-paths",
    "route-enabled",
    "spring",
    "server",
    "resilience4j",
    "is no YAML: ",
    "has no settings",
    "says one thing twice: ",
];
const PATHS: [&str; 5] = ["/", "/users/17", "/api/v1/orders", "/a%20b/c", "/internal/x"];

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let document = match Document::parse(text, &|_| None) {
        Ok(document) => document,
        Err(Unusable(problems)) => {
            assert!(!problems.is_empty(), "refused without a reason");
            for problem in &problems {
                assert!(
                    PLACES.iter().any(|place| problem.starts_with(place)),
                    "{problem:?} names no setting"
                );
            }
            return;
        }
    };
    let table = RouteTable::build(&document.routing, &RouteTable::default(), |_| Target::Nowhere)
        .unwrap_or_else(|problems| panic!("found right and not built: {problems:?}"));
    assert!(GlobalCors::parse(&document.routing.globalcors.cors_configurations).is_ok());
    let _ = table.describe();
    for path in PATHS {
        for method in [Method::GET, Method::POST] {
            ask(&table, &method, path);
        }
    }
}

fn ask(table: &RouteTable, method: &Method, path: &str) {
    let mut headers = HeaderMap::new();
    headers.insert(HeaderName::from_static("host"), HeaderValue::from_static("shop.example"));
    let asked = Asked {
        method,
        path,
        query: Some("a=1&b"),
        headers: &headers,
        peer: Some(IpAddr::from([127, 0, 0, 1])),
        now_ms: 2_000_000_000_000,
        draws: Draws::default(),
    };
    let Ok(route) = table.find(&asked) else { return };
    assert!(!route.reserved.contain(path), "{path} is reserved");
    let variables = route.capture(&asked);
    let request = Request::builder().method(method).uri(path).body(()).expect("a request");
    let (mut parts, ()) = request.into_parts();
    parts.headers = headers;
    if let Ok(Filtered::Send { .. }) = apply(&route.request_filters, &mut parts, None, &variables) {
        let sent = parts.uri.path();
        assert_eq!(normalise(sent).as_deref(), Ok(sent), "{path} is sent as what could be read in two ways");
    }
}
