//! One test a predicate, by its name in Spring; the table in docs/gateway.md names them.

use serde_json::{Value, json};

use super::*;

fn predicate(definition: &Value) -> Predicate {
    Predicate::compile(&serde_json::from_value(definition.clone()).unwrap()).unwrap()
}

/// Whether it holds for `GET /` with these headers.
fn with_headers(definition: &str, headers: &[(&'static str, &str)]) -> bool {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::from_static(name), value.parse().unwrap());
    }
    predicate(&json!(definition)).holds(&Asked { headers: &map, ..asked(&HeaderMap::new()) })
}

fn asked(headers: &HeaderMap) -> Asked<'_> {
    Asked {
        method: &Method::GET,
        path: "/",
        query: None,
        headers,
        peer: None,
        now_ms: 0,
        draws: Draws::of(1),
    }
}

fn with_query(definition: &str, query: &str) -> bool {
    let headers = HeaderMap::new();
    predicate(&json!(definition)).holds(&Asked { query: Some(query), ..asked(&headers) })
}

fn at_time(definition: &Value, now_ms: u64) -> bool {
    let headers = HeaderMap::new();
    predicate(definition).holds(&Asked { now_ms, ..asked(&headers) })
}

fn from_peer(definition: &Value, peer: &str, forwarded: &str) -> bool {
    let headers =
        HeaderMap::from_iter([(HeaderName::from_static("x-forwarded-for"), forwarded.parse().unwrap())]);
    predicate(definition).holds(&Asked { peer: peer.parse().ok(), ..asked(&headers) })
}

#[test]
fn path() {
    let holds = |definition: Value, path: &str| {
        let headers = HeaderMap::new();
        predicate(&definition).holds(&Asked { path, ..asked(&headers) })
    };
    assert!(holds(json!("Path=/red/{segment},/blue/{segment}"), "/blue/1"));
    assert!(holds(json!("Path=/red/{segment}"), "/red/1/"), "a trailing slash is forgiven");
    assert!(!holds(json!("Path=/red/{segment}, false"), "/red/1/"));
    assert!(!holds(
        json!({"name": "Path", "args": {"patterns": ["/red"], "matchTrailingSlash": false}}),
        "/red/"
    ));
    assert!(!holds(json!("Path=/red/{segment}"), "/red/1/2"));
}

#[test]
fn method() {
    let holds = |definition: Value, method: Method| {
        let headers = HeaderMap::new();
        predicate(&definition).holds(&Asked { method: &method, ..asked(&headers) })
    };
    assert!(holds(json!("Method=GET,POST"), Method::POST));
    assert!(!holds(json!("Method=GET,POST"), Method::HEAD));
    assert!(holds(json!({"name": "Method", "args": {"methods": ["PUT"]}}), Method::PUT));
}

#[test]
fn host() {
    assert!(with_headers("Host=**.somehost.org,**.anotherhost.org", &[("host", "www.anotherhost.org")]));
    assert!(!with_headers("Host=**.somehost.org", &[("host", "www.somehost.org:8080")]), "the port counts");
    assert!(!with_headers("Host=**.somehost.org", &[]));
}

#[test]
fn header() {
    assert!(with_headers(r"Header=X-Request-Id, \d+", &[("x-request-id", "123")]));
    assert!(!with_headers(r"Header=X-Request-Id, \d+", &[("x-request-id", "a123")]), "the whole value");
    assert!(with_headers(r"Header=X-Request-Id, \d+", &[("x-request-id", "a"), ("x-request-id", "x, 7")]));
    assert!(
        !with_headers(r"Header=X-Request-Id, \d+", &[("x-request-id", "\"a, 7\"")]),
        "quotes hold together"
    );
    assert!(with_headers("Header=X-Request-Id", &[("x-request-id", "anything")]));
    assert!(!with_headers("Header=X-Request-Id", &[("x-request-id", "")]), "empty is as none");
    assert!(!with_headers("Header=X-Request-Id", &[]));
}

#[test]
fn query() {
    assert!(with_query("Query=green", "a=1&green"));
    assert!(with_query("Query=green", "green="));
    assert!(!with_query("Query=green", "greene=1"));
    assert!(with_query("Query=red, gree.", "red=x&red=green"));
    assert!(!with_query("Query=red, gree.", "red=greenish"), "the whole value");
    assert!(!with_query("Query=red, .*", "red"), "no value at all");
    assert!(with_query("Query=red, .*", "red="));
    assert!(with_query("Query=my name, a b", "my+name=a%20b"));
}

#[test]
fn cookie() {
    assert!(with_headers("Cookie=chocolate, ch.p", &[("cookie", "a=b; chocolate=chip")]));
    assert!(with_headers(
        "Cookie=chocolate, ch.p",
        &[("cookie", "chocolate=x"), ("cookie", "chocolate=\"chip\"")]
    ));
    assert!(!with_headers("Cookie=chocolate, ch.p", &[("cookie", "Chocolate=chip; chocolate=chips")]));
    let missing = Predicate::compile(&Definition::shortcut("Cookie=chocolate")).unwrap_err();
    assert_eq!(missing, ["Cookie needs `regexp`"]);
}

#[test]
fn after_before_and_between() {
    let (noon, one) = (1_766_577_600_000, 1_766_581_200_000); // 2025-12-24T12:00Z, 13:00Z
    let after = json!("After=2025-12-24T12:00:00Z");
    assert_eq!([noon - 1, noon, noon + 1].map(|now| at_time(&after, now)), [false, false, true]);
    let before = json!("Before=2025-12-24T13:00:00+01:00[Europe/Berlin]");
    assert_eq!([noon - 1, noon, noon + 1].map(|now| at_time(&before, now)), [true, false, false]);
    let between =
        json!({"name": "Between", "args": {"datetime1": noon, "datetime2": "2025-12-24T13:00:00Z"}});
    assert_eq!([noon, noon + 1, one - 1, one].map(|now| at_time(&between, now)), [false, true, true, false]);
    let wrong = Predicate::compile(&Definition::shortcut("Between=2000, 1000")).unwrap_err();
    assert_eq!(wrong, ["Between has its first time after its second"]);
}

#[test]
fn remote_addr() {
    let definition = json!("RemoteAddr=192.168.1.1/24, 10.1.1.1");
    assert!(from_peer(&definition, "192.168.1.77", "1.1.1.1"));
    assert!(from_peer(&definition, "10.1.1.1", "1.1.1.1"));
    assert!(!from_peer(&definition, "10.1.1.2", "192.168.1.1"), "what a header says counts for nothing");
}

#[test]
fn x_forwarded_remote_addr() {
    let definition = json!("XForwardedRemoteAddr=192.168.1.1/24");
    assert!(from_peer(&definition, "9.9.9.9", "1.1.1.1, 192.168.1.77"));
    assert!(
        !from_peer(&definition, "9.9.9.9", "192.168.1.77, 1.1.1.1"),
        "anybody may have written the first"
    );
    let two = json!({"name": "XForwardedRemoteAddr", "args": {"sources": ["192.168.1.1/24"], "maxTrustedIndex": 2}});
    assert!(from_peer(&two, "9.9.9.9", "192.168.1.77, 1.1.1.1"));
}

#[test]
fn weight() {
    for definition in [
        json!("Weight=group1, 8"),
        json!({"name": "Weight", "args": {"weight.group": "group1", "weight.weight": 8}}),
        json!({"name": "Weight", "args": {"weight": {"group": "group1", "weight": "8"}}}),
    ] {
        let Predicate::Weight { group, weight, .. } = predicate(&definition) else { panic!("{definition}") };
        assert_eq!((group.as_str(), weight), ("group1", 8));
    }
    // How requests are shared is tested where it is done, in weight.rs.
    assert!(Predicate::compile(&Definition::shortcut("Weight=group1, -1")).is_err());
    assert!(Predicate::compile(&Definition::shortcut("Weight=group1")).is_err());
}

#[test]
fn every_known_name_compiles_and_the_rest_says_why_not() {
    for name in NAMES {
        let problems = Predicate::compile(&Definition::shortcut(name)).unwrap_err();
        assert!(problems.iter().all(|problem| problem.contains("needs")), "{problems:?}");
    }
    let problems = Predicate::compile(&Definition::shortcut("ReadBody=x")).unwrap_err();
    assert_eq!(problems, ["ReadBody is a predicate of Spring that is not known here: it needs Java code"]);
}
