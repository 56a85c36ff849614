use serde_json::json;

use super::*;

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
}

fn cross_origin(method: &Method, pairs: &[(&'static str, &str)]) -> Option<CrossOrigin> {
    CrossOrigin::of(method, &headers(pairs))
}

fn cors(value: &Value) -> Cors {
    Cors::from_metadata(value).unwrap()
}

/// What the answer says, in the order of its headers' names; `None` for 403.
fn judged(cors: &Cors, method: &Method, pairs: &[(&'static str, &str)]) -> Option<Vec<String>> {
    let asked = cross_origin(method, pairs).expect("a cross-origin request");
    let mut headers = HeaderMap::new();
    cors.judge(&asked, method).map_err(|problem| assert_eq!(problem.status(), 403)).ok()?.write(&mut headers);
    let mut lines: Vec<String> = headers
        .iter()
        .map(|(name, value)| {
            format!("{}: {}", name.as_str().trim_start_matches("access-control-"), value.to_str().unwrap())
        })
        .collect();
    lines.sort_unstable();
    Some(lines)
}

const SHOP: (&str, &str) = ("origin", "https://shop.example");

#[test]
fn a_request_without_origin_or_of_the_own_one_is_no_cross_origin_request() {
    assert_eq!(cross_origin(&Method::GET, &[]), None);
    assert_eq!(cross_origin(&Method::GET, &[SHOP, ("host", "Shop.example")]), None);
    assert_eq!(cross_origin(&Method::GET, &[SHOP, ("host", "shop.example:443")]), None);
    assert!(cross_origin(&Method::GET, &[SHOP, ("host", "shop.example:444")]).is_some());
    assert!(cross_origin(&Method::GET, &[("origin", "null"), ("host", "shop.example")]).is_some());
    let preflight = [SHOP, ("host", "shop.example"), ("access-control-request-method", "PUT")];
    assert!(cross_origin(&Method::OPTIONS, &preflight).unwrap().preflight().is_some());
    assert_eq!(cross_origin(&Method::GET, &preflight), None, "only OPTIONS is a preflight");
}

#[test]
fn nothing_is_allowed_that_was_not_named() {
    let nobody = cors(&json!({}));
    assert_eq!(judged(&nobody, &Method::GET, &[SHOP]), None);
    let origin = cors(&json!({"allowedOrigins": ["https://shop.example/"]}));
    assert_eq!(judged(&origin, &Method::GET, &[SHOP]).unwrap(), ["allow-origin: https://shop.example"]);
    assert!(judged(&origin, &Method::GET, &[("origin", "HTTPS://Shop.Example")]).is_some());
    assert_eq!(judged(&origin, &Method::GET, &[("origin", "http://shop.example")]), None, "another scheme");
    assert_eq!(judged(&origin, &Method::GET, &[("origin", "https://shop.example.evil")]), None);
    assert_eq!(judged(&origin, &Method::POST, &[SHOP]), None, "GET and HEAD unless others are named");
    let named = [SHOP, ("access-control-request-method", "GET"), ("access-control-request-headers", "x-a")];
    assert_eq!(judged(&origin, &Method::OPTIONS, &named), None);
    assert!(judged(&origin, &Method::OPTIONS, &named[..2]).is_some());
}

#[test]
fn a_preflight_hears_what_is_allowed() {
    let cors = cors(&json!({
        "allowedOrigins": "https://shop.example, https://other.example",
        "allowed-methods": ["GET", "PUT"],
        "allowedHeaders": ["X-A", "Content-Type"],
        "exposedHeaders": ["X-B", "X-C"],
        "allowCredentials": true,
        "maxAge": 600,
    }));
    let asked =
        [SHOP, ("access-control-request-method", "PUT"), ("access-control-request-headers", "x-a, x-other")];
    assert_eq!(
        judged(&cors, &Method::OPTIONS, &asked).unwrap(),
        [
            "allow-credentials: true",
            "allow-headers: x-a",
            "allow-methods: GET,PUT",
            "allow-origin: https://shop.example",
            "expose-headers: X-B, X-C",
            "max-age: 600",
        ]
    );
    let wrong = [SHOP, ("access-control-request-method", "DELETE")];
    assert_eq!(judged(&cors, &Method::OPTIONS, &wrong), None);
    let no_method = [SHOP, ("access-control-request-method", "P T")];
    assert_eq!(judged(&cors, &Method::OPTIONS, &no_method), None);
}

#[test]
fn stars_are_for_everything_but_credentials() {
    let all = cors(&json!({"allowedOrigins": "*", "allowedMethods": "*", "allowedHeaders": "*"}));
    let asked = [SHOP, ("access-control-request-method", "PATCH"), ("access-control-request-headers", "x-a")];
    assert_eq!(
        judged(&all, &Method::OPTIONS, &asked).unwrap(),
        ["allow-headers: x-a", "allow-methods: PATCH", "allow-origin: *"]
    );
    let refused = Cors::from_metadata(&json!({"allowedOrigins": "*", "allowCredentials": true})).unwrap_err();
    assert!(refused.contains("credentials to any origin"), "{refused}");
    let pattern = cors(&json!({"allowedOriginPatterns": "*", "allowCredentials": true}));
    assert!(
        judged(&pattern, &Method::GET, &[SHOP])
            .unwrap()
            .contains(&"allow-origin: https://shop.example".to_owned())
    );
}

#[test]
fn patterns_cover_subdomains_and_ports() {
    let cors = cors(
        &json!({"allowedOriginPatterns": ["https://*.example.org", "http://localhost:[*]", "http://a:[81,82]"]}),
    );
    let allowed = |origin: &str| judged(&cors, &Method::GET, &[("origin", origin)]).is_some();
    assert!(allowed("https://a.b.example.org"));
    assert!(!allowed("https://example.org"));
    assert!(!allowed("https://evil.org/.example.org"), "a star is no slash");
    assert!(!allowed("https://a.example.org.evil.org"));
    assert!(allowed("http://localhost") && allowed("http://localhost:3000"));
    assert!(allowed("http://a:82") && !allowed("http://a:83") && !allowed("http://a"));
    assert!(Cors::from_metadata(&json!({"allowedOriginPatterns": "http://a:[x]"})).is_err());
}

#[test]
fn the_most_specific_path_counts() {
    let configurations = [
        ("[/**]".to_owned(), json!({"allowedOrigins": "https://all.example"})),
        ("/api/**".to_owned(), json!({"allowedOrigins": "https://api.example"})),
    ];
    let global = GlobalCors::parse(configurations.iter().map(|(path, value)| (path, value))).unwrap();
    let allowed = |path: &str, origin: &str| {
        judged(global.find(path).unwrap(), &Method::GET, &[("origin", origin)]).is_some()
    };
    assert!(allowed("/api/x", "https://api.example") && !allowed("/api/x", "https://all.example"));
    assert!(allowed("/x", "https://all.example"));
    let wrong = [("api".to_owned(), json!({"maxAge": "soon"}))];
    let problems = GlobalCors::parse(wrong.iter().map(|(path, value)| (path, value))).unwrap_err();
    assert_eq!(problems.len(), 2, "{problems:?}");
}

#[test]
fn a_services_own_word_is_replaced() {
    let mut answer = headers(&[("access-control-allow-origin", "*"), ("vary", "Accept")]);
    prepare(&mut answer);
    assert!(!answer.contains_key("access-control-allow-origin"));
    assert_eq!(answer.get_all("vary").iter().count(), 4);
}
