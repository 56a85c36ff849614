//! One test a filter, by its name in Spring; the table in docs/gateway.md names them.

use http::{HeaderMap, Request, Response};
use platform::http::problem::Problem;
use serde_json::{Value, json};

use super::outgoing::{self, Filtered};
use super::*;
use crate::limits::rate::KeyBy;
use crate::resilience::{BreakerSettings, RetrySettings};

fn compiled(definition: &Value) -> Filter {
    Filter::compile(&serde_json::from_value(definition.clone()).unwrap()).unwrap()
}

fn problems(definition: &str) -> String {
    Filter::compile(&Definition::shortcut(definition)).unwrap_err().join("\n")
}

fn variables() -> Variables {
    let mut variables = Variables::default();
    variables.set(&"segment".into(), "blue".to_owned());
    variables.set(&"odd".into(), "a%b c".to_owned());
    variables.set(&"rest".into(), "/a b/c".to_owned());
    variables
}

struct Sent {
    target: String,
    headers: HeaderMap,
    filtered: Filtered,
}

/// What becomes of a request whose path matched `{segment}` with `blue` and `{odd}` with `a%b c`.
fn send(filters: &[Value], target: &str, headers: &[(&'static str, &str)]) -> Result<Sent, Problem> {
    let filters: Vec<RequestFilter> = filters
        .iter()
        .map(|definition| match compiled(definition) {
            Filter::Request(filter) => filter,
            other => panic!("{other:?}"),
        })
        .collect();
    let mut parts = Request::get(target).body(()).unwrap().into_parts().0;
    for (name, value) in headers {
        parts.headers.append(*name, value.parse().unwrap());
    }
    let host = Some(HeaderValue::from_static("www.example.org"));
    let filtered = outgoing::apply(&filters, &mut parts, host, &variables())?;
    Ok(Sent { target: parts.uri.to_string(), headers: parts.headers, filtered })
}

fn target(filter: &str, from: &str) -> String {
    send(&[json!(filter)], from, &[]).unwrap().target
}

fn values<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect()
}

/// An answer 200 with these headers, after the filter.
fn answered(filter: &Value, headers: &[(&'static str, &str)]) -> (u16, HeaderMap) {
    let Filter::Response(filter) = compiled(filter) else { panic!("{filter}") };
    let mut parts = Response::new(()).into_parts().0;
    for (name, value) in headers {
        parts.headers.append(*name, value.parse().unwrap());
    }
    filter.apply(&mut parts, &variables());
    (parts.status.as_u16(), parts.headers)
}

#[test]
fn add_request_header() {
    let sent = send(&[json!("AddRequestHeader=X-Request-red, {segment}")], "/", &[("x-request-red", "old")])
        .unwrap();
    assert_eq!(values(&sent.headers, "x-request-red"), ["old", "blue"]);
    assert!(problems("AddRequestHeader=X A, b").contains("no name that a header may have"));
    assert_eq!(problems("AddRequestHeader=X-A"), "AddRequestHeader needs `value`");
}

#[test]
fn add_request_headers_if_not_present() {
    let filter = json!("AddRequestHeadersIfNotPresent=X-A:{segment}, X-B:b, X-C:c1, X-C:c2");
    let sent = send(&[filter], "/", &[("x-b", "own"), ("x-c", " ")]).unwrap();
    assert_eq!(values(&sent.headers, "x-a"), ["blue"]);
    assert_eq!(values(&sent.headers, "x-b"), ["own"]);
    assert_eq!(values(&sent.headers, "x-c"), [" ", "c1", "c2"], "blank is as none");
    assert!(problems("AddRequestHeadersIfNotPresent=X-A").contains("Name:value"));
}

#[test]
fn set_request_header() {
    let sent = send(&[json!("SetRequestHeader=X-A, {segment}")], "/", &[("x-a", "1"), ("x-a", "2")]).unwrap();
    assert_eq!(values(&sent.headers, "x-a"), ["blue"]);
}

#[test]
fn remove_request_header() {
    let sent = send(&[json!("RemoveRequestHeader=X-A")], "/", &[("x-a", "1"), ("x-b", "2")]).unwrap();
    assert_eq!(sent.headers.len(), 1);
}

#[test]
fn map_request_header() {
    let sent = send(&[json!("MapRequestHeader=Blue, X-Red")], "/", &[("blue", "1"), ("x-red", "0")]).unwrap();
    assert_eq!(values(&sent.headers, "x-red"), ["0", "1"]);
    assert_eq!(values(&sent.headers, "blue"), ["1"]);
}

#[test]
fn preserve_host_header() {
    let host = |filters: &[Value]| match send(filters, "/", &[]).unwrap().filtered {
        Filtered::Send { host } => host,
        other => panic!("{other:?}"),
    };
    assert_eq!(host(&[]), None, "the service's own address");
    assert_eq!(host(&[json!("PreserveHostHeader")]).unwrap(), "www.example.org");
    assert!(problems("PreserveHostHeader=x").contains("takes no arguments"));
}

#[test]
fn set_request_host_header() {
    let sent = send(&[json!("SetRequestHostHeader={segment}.example.org")], "/", &[]).unwrap();
    assert_eq!(sent.filtered, Filtered::Send { host: Some(HeaderValue::from_static("blue.example.org")) });
}

#[test]
fn strip_prefix() {
    assert_eq!(target("StripPrefix=2", "/name/bar/foo?a=1"), "/foo?a=1");
    assert_eq!(target("StripPrefix", "/name/bar/"), "/bar/", "one by default");
    assert_eq!(target("StripPrefix=2", "/name/bar/"), "/");
    assert_eq!(target("StripPrefix=9", "/name"), "/");
    assert_eq!(target("StripPrefix=0", "/name"), "/name");
}

#[test]
fn prefix_path() {
    assert_eq!(target("PrefixPath=/mypath", "/hello?a=1"), "/mypath/hello?a=1");
    let odd = send(&[json!("PrefixPath=/{odd}")], "/hello", &[]).err().unwrap();
    assert_eq!(odd.status(), 400, "an encoded percent sign could be read in two ways");
    let twice = send(&[json!("PrefixPath=/one"), json!("PrefixPath=/two")], "/x", &[]).unwrap();
    assert_eq!(twice.target, "/one/x", "once a request");
    assert!(problems("PrefixPath=mypath").contains("must start with a slash"));
}

#[test]
fn set_path() {
    assert_eq!(target("SetPath=/{segment}", "/red/blue?a=1"), "/blue?a=1");
    assert_eq!(
        target("SetPath=/new{rest}", "/old/a%20b/c"),
        "/new/a%20b/c",
        "what `{{*rest}}` took keeps its slashes"
    );
}

#[test]
fn rewrite_path() {
    assert_eq!(target(r"RewritePath=/red/?(?<segment>.*), /$\{segment}", "/red/blue?a=1"), "/blue?a=1");
    assert_eq!(target("RewritePath=/red/(.*), /$1", "/other"), "/other", "what does not match stays");
    let to_dots = send(&[json!(r"RewritePath=/red(?<s>.*), /$\{s}")], "/red..", &[]).err().unwrap();
    assert_eq!(to_dots.status(), 400, "what comes out has to be a plain path");
    let doubled = send(&[json!(r"RewritePath=/red(?<s>.*), /$\{s}")], "/red/internal", &[]).err().unwrap();
    assert_eq!(doubled.status(), 400);
    assert!(problems("RewritePath=/a(.*), /$2").contains("names group 2"));
}

#[test]
fn add_request_parameter() {
    assert_eq!(target("AddRequestParameter=red, {segment}", "/x?a=%20b"), "/x?a=%20b&red=blue");
    assert_eq!(target("AddRequestParameter=red, {odd}", "/x"), "/x?red=a%25b%20c", "encoded");
}

#[test]
fn remove_request_parameter() {
    assert_eq!(target("RemoveRequestParameter=red", "/x?red=1&a=%41&red&b"), "/x?a=%41&b");
    assert_eq!(target("RemoveRequestParameter=red", "/x?r%65d=1"), "/x", "however it is written");
    assert_eq!(target("RemoveRequestParameter=blue", "/x"), "/x");
}

#[test]
fn rewrite_request_parameter() {
    assert_eq!(
        target("RewriteRequestParameter=campaign, fall 2026", "/x?campaign=old&a=1&campaign"),
        "/x?a=1&campaign=fall%202026"
    );
    assert_eq!(target("RewriteRequestParameter=campaign, new", "/x?a=1"), "/x?a=1");
}

#[test]
fn request_header_size() {
    let filter = [json!("RequestHeaderSize=20B")];
    assert!(send(&filter, "/", &[("x-a", "12345"), ("x-b", "12345")]).is_ok());
    let problem = send(&filter, "/", &[("x-a", "123456789"), ("x-a", "123456789")]).err().unwrap();
    assert_eq!(problem.status(), 431);
    assert_eq!(problem.errors()[0].field, "x-a");
}

#[test]
fn request_size() {
    for (definition, expected) in [
        (json!({"name": "RequestSize", "args": {"maxSize": "5MB"}}), 5 << 20),
        (json!({"name": "RequestSize", "args": {"max-size": 7}}), 7),
        (json!("RequestSize=1KB"), 1_024),
        (json!("RequestSize"), 5_000_000),
    ] {
        let Filter::RequestSize(size) = compiled(&definition) else { panic!("{definition}") };
        assert_eq!(size, expected, "{definition}");
    }
    assert!(problems("RequestSize=0").contains("above 0"));
    // That it counts bodies is tested with bodies, in app/tests/filters.rs.
}

#[test]
fn redirect_to() {
    let redirect = |definition: &str, from: &str| match send(&[json!(definition)], from, &[])
        .unwrap()
        .filtered
    {
        Filtered::Redirect { status, location } => (status.as_u16(), location.to_str().unwrap().to_owned()),
        other => panic!("{other:?}"),
    };
    assert_eq!(redirect("RedirectTo=302, https://acme.org", "/x?a=1"), (302, "https://acme.org".to_owned()));
    assert_eq!(redirect("RedirectTo=MOVED_PERMANENTLY, /y#z, true", "/x?a=1"), (301, "/y?a=1#z".to_owned()));
    assert_eq!(redirect("RedirectTo=308, /y?b=2, true", "/x?a=1").1, "/y?b=2&a=1");
    assert!(problems("RedirectTo=200, /y").contains("of a redirection"));
    assert!(problems("RedirectTo=302").contains("needs `url`"));
}

#[test]
fn set_status() {
    assert_eq!(answered(&json!("SetStatus=401"), &[]).0, 401);
    assert_eq!(answered(&json!("SetStatus=BAD_REQUEST"), &[]).0, 400);
    assert_eq!(answered(&json!("SetStatus=im-a-teapot"), &[]).0, 418);
    assert!(problems("SetStatus=FINE").contains("NOT_FOUND"));
}

#[test]
fn add_response_header() {
    let (_, headers) = answered(&json!("AddResponseHeader=X-Red, {segment}"), &[("x-red", "own")]);
    assert_eq!(values(&headers, "x-red"), ["own", "blue"]);
    let (_, headers) = answered(&json!("AddResponseHeader=X-Red, Blue, false"), &[("x-red", "own")]);
    assert_eq!(values(&headers, "x-red"), ["own"]);
}

#[test]
fn set_response_header() {
    let (_, headers) =
        answered(&json!("SetResponseHeader=X-Red, {segment}"), &[("x-red", "1"), ("x-red", "2")]);
    assert_eq!(values(&headers, "x-red"), ["blue"]);
}

#[test]
fn remove_response_header() {
    assert!(answered(&json!("RemoveResponseHeader=Server"), &[("server", "x")]).1.is_empty());
}

#[test]
fn rewrite_response_header() {
    let filter = json!(r"RewriteResponseHeader=X-Red, password=[^&]+, password=***");
    let (_, headers) =
        answered(&filter, &[("x-red", "/42?user=ford&password=omg!what&flag=true"), ("x-red", "-")]);
    assert_eq!(values(&headers, "x-red"), ["/42?user=ford&password=***&flag=true", "-"]);
}

#[test]
fn dedupe_response_header() {
    let of = |definition: &str| {
        let (_, headers) = answered(
            &json!(definition),
            &[("x-a", "1"), ("x-a", "2"), ("x-a", "1"), ("x-b", "3"), ("x-b", "3")],
        );
        values(&headers, "x-a").join(",") + "/" + &values(&headers, "x-b").join(",")
    };
    assert_eq!(of("DedupeResponseHeader=X-A X-B"), "1/3");
    assert_eq!(of("DedupeResponseHeader=X-A X-B, RETAIN_LAST"), "1/3");
    assert_eq!(of("DedupeResponseHeader=X-A, RETAIN_UNIQUE"), "1,2/3,3");
    assert!(problems("DedupeResponseHeader=X-A, RETAIN").contains("RETAIN_FIRST"));
}

#[test]
fn secure_headers() {
    let (_, headers) = answered(&json!("SecureHeaders"), &[("x-frame-options", "SAMEORIGIN")]);
    assert_eq!(values(&headers, "x-frame-options"), ["SAMEORIGIN"], "the service's own word counts");
    assert_eq!(values(&headers, "x-xss-protection"), ["1 ; mode=block"]);
    assert_eq!(values(&headers, "strict-transport-security"), ["max-age=631138519"]);
    assert_eq!(values(&headers, "x-content-type-options"), ["nosniff"]);
    assert_eq!(values(&headers, "referrer-policy"), ["no-referrer"]);
    assert!(
        values(&headers, "content-security-policy")[0].starts_with("default-src 'self' https:; font-src")
    );
    assert_eq!(values(&headers, "x-download-options"), ["noopen"]);
    assert_eq!(values(&headers, "x-permitted-cross-domain-policies"), ["none"]);
    assert_eq!(headers.len(), 8, "no Permissions-Policy unless asked for");
    let (_, headers) = answered(
        &json!({"name": "SecureHeaders", "args": {"disable": "X-Frame-Options,referrer-policy",
                "enable": ["permissions-policy"], "permissionsPolicy": "geolocation=(self)",
                "contentSecurityPolicyHeaderValue": "default-src 'none'"}}),
        &[],
    );
    assert_eq!(values(&headers, "permissions-policy"), ["geolocation=(self)"]);
    assert_eq!(values(&headers, "content-security-policy"), ["default-src 'none'"]);
    assert_eq!(headers.len(), 7);
    let wrong = json!({"name": "SecureHeaders", "args": {"disable": "x-frame-option"}});
    let wrong = Filter::compile(&serde_json::from_value(wrong).unwrap()).unwrap_err();
    assert!(wrong[0].contains("did you mean `x-frame-options`?"), "{wrong:?}");
}

#[test]
fn retry() {
    let of = |definition: Value| match compiled(&definition) {
        Filter::Retry(settings) => settings,
        other => panic!("{other:?}"),
    };
    let defaults = RetrySettings::default();
    assert_eq!(of(json!("Retry")), defaults);
    assert_eq!(of(json!("Retry=5")), RetrySettings { retries: 5, ..defaults.clone() });
    let full = of(json!({"name": "Retry", "args": {
        "retries": 2, "statuses": "BAD_GATEWAY,404", "series": "", "methods": ["GET", "POST"],
        "exceptions": ["java.net.ConnectException"], "timeout": "2s",
        "backoff": {"firstBackoff": "10ms", "maxBackoff": "50ms", "factor": 3, "basedOnPreviousValue": false},
        "jitter": {"randomFactor": 0.5},
    }}));
    assert_eq!((full.retries, full.series.len(), full.on_broken, full.on_timeout), (2, 0, true, false));
    assert_eq!(full.statuses.into_iter().collect::<Vec<_>>(), [404, 502]);
    assert_eq!(full.methods, ["GET", "POST"]);
    let backoff = full.backoff.unwrap();
    assert_eq!((backoff.first.as_millis(), backoff.factor, backoff.jitter), (10, 3.0, 0.5));
    assert!(problems("Retry=0").contains("above 0"));
    let wrong = json!({"name": "Retry", "args": {"exceptions": "com.acme.Odd", "series": "FINE", "methods": "get",
                       "backoff": {"firstBackoff": "5s", "maxBackoff": "1s"}}});
    let wrong = Filter::compile(&serde_json::from_value(wrong).unwrap()).unwrap_err();
    assert_eq!(wrong.len(), 4, "{wrong:#?}");
}

#[test]
fn circuit_breaker() {
    let of = |definition: Value| match compiled(&definition) {
        Filter::CircuitBreaker(settings) => settings,
        other => panic!("{other:?}"),
    };
    let short = of(json!("CircuitBreaker=shop"));
    assert_eq!(short, BreakerSettings { name: "shop".to_owned(), ..BreakerSettings::default() });
    let full = of(json!({"name": "CircuitBreaker", "args": {
        "name": "shop", "fallbackUri": "forward:/fallback/shop?x=1", "statusCodes": ["500", "NOT_FOUND"],
        "slidingWindowSize": 20, "minimumNumberOfCalls": 10, "failureRateThreshold": 25.5,
        "waitDurationInOpenState": "5s", "permittedNumberOfCallsInHalfOpenState": 3, "timeoutDuration": "PT2S",
    }}));
    assert_eq!(full.fallback.as_deref(), Some("/fallback/shop"), "its query means nothing, as in Spring");
    assert_eq!(full.statuses.into_iter().collect::<Vec<_>>(), [404, 500]);
    assert_eq!((full.window, full.minimum, full.failure_rate, full.trials), (20, 10, 25.5, 3));
    assert_eq!((full.open_for.as_secs(), full.time_limit.as_secs()), (5, 2));
    let wrong = json!({"name": "CircuitBreaker", "args": {"fallbackUri": "https://x", "failureRateThreshold": 101,
                       "slidingWindowSize": 0}});
    let wrong = Filter::compile(&serde_json::from_value(wrong).unwrap()).unwrap_err();
    assert_eq!(wrong.len(), 3, "{wrong:#?}");
}

#[test]
fn request_rate_limiter() {
    let of = |definition: Value| match compiled(&definition) {
        Filter::RateLimiter(settings) => settings,
        other => panic!("{other:?}"),
    };
    let spring = of(json!({"name": "RequestRateLimiter", "args": {
        "redis-rate-limiter.replenishRate": 10, "redis-rate-limiter.burstCapacity": 20,
        "redis-rate-limiter.requestedTokens": 2, "key-resolver": "#{@principalNameKeyResolver}"}}));
    assert_eq!((spring.rate, spring.capacity, spring.requested), (10, 20, 2));
    assert_eq!((spring.key, spring.deny_empty_key), (KeyBy::Principal, true));
    assert_eq!((spring.status.as_u16(), spring.empty_key_status.as_u16()), (429, 403));
    let short = of(json!("RequestRateLimiter=5, 8"));
    assert_eq!((short.rate, short.capacity, short.requested), (5, 8, 1));
    let ours = of(json!({"name": "RequestRateLimiter", "args": {
        "redisRateLimiter": {"replenishRate": 1, "burstCapacity": 0}, "keyResolver": "header:X-Api-Key",
        "denyEmptyKey": false, "statusCode": "SERVICE_UNAVAILABLE", "emptyKeyStatus": 401}}));
    assert_eq!(ours.key, KeyBy::Header(HeaderName::from_static("x-api-key")));
    assert_eq!((ours.capacity, ours.deny_empty_key, ours.status.as_u16()), (0, false, 503));
    let wrong = json!({"name": "RequestRateLimiter", "args": {
        "redis-rate-limiter.replenishRate": 10, "redis-rate-limiter.burstCapacity": 5,
        "key-resolver": "#{@userKeyResolver}", "rate-limiter": "#{@mine}", "status-code": 200}});
    let wrong = Filter::compile(&serde_json::from_value(wrong).unwrap()).unwrap_err();
    assert_eq!(wrong.len(), 4, "{wrong:#?}");
    assert!(problems("RequestRateLimiter").contains("needs `redis-rate-limiter.replenishRate`"));
}

#[test]
fn every_known_name_is_known_to_the_compiler() {
    for name in NAMES {
        if let Err(problems) = Filter::compile(&Definition::shortcut(name)) {
            assert!(!problems.iter().any(|problem| problem.contains("is no filter")), "{problems:?}");
        }
    }
    assert!(problems("TokenRelay").contains("no OAuth2 client"));
    assert!(problems("StripPrefx=1").contains("did you mean `StripPrefix`?"));
}
