//! What stands in a file and is not read: an error where that would weaken the gateway, else a warning.

use serde_json::Value;

use super::tree::{at, child, misplaced, unread};

/// What is read below the gateway's prefix, ours among it.
const OF_GATEWAY: [&str; 10] = [
    "routes",
    "default-filters",
    "globalcors.cors-configurations",
    "globalcors.add-to-simple-url-handler-mapping",
    "trusted-proxies",
    "httpclient.connect-timeout",
    "httpclient.response-timeout",
    "public-paths",
    "reserved-paths",
    "route-enabled",
];
/// What is read elsewhere; `limits` in our own form alone.
const ELSEWHERE: [&str; 22] = [
    "limits.request-body",
    "server.address",
    "server.port",
    "server.ssl",
    "server.tls",
    "spring.cloud.consul.enabled",
    "spring.cloud.consul.host",
    "spring.cloud.consul.port",
    "spring.cloud.discovery.client.simple.instances",
    "spring.data.redis.host",
    "spring.data.redis.password",
    "spring.data.redis.port",
    "spring.data.redis.sentinel.master",
    "spring.data.redis.sentinel.nodes",
    "spring.data.redis.sentinel.password",
    "spring.data.redis.sentinel.username",
    "spring.data.redis.ssl",
    "spring.data.redis.username",
    "resilience4j.circuitbreaker.configs",
    "resilience4j.circuitbreaker.instances",
    "resilience4j.timelimiter.configs",
    "resilience4j.timelimiter.instances",
];
/// Sections of our own form that are not read in a file.
const NOT_OF_A_FILE: [&str; 9] =
    ["admin", "consul", "identity", "jwt", "openapi", "redis", "telemetry", "trace", "upstream"];
/// Sections that are read, `*` being any name: a value in place of one would be passed over.
const SECTIONS: [&str; 13] = [
    "resilience4j.circuitbreaker.configs.*",
    "resilience4j.circuitbreaker.instances.*",
    "resilience4j.timelimiter.configs.*",
    "resilience4j.timelimiter.instances.*",
    "server.ssl",
    "server.tls",
    "spring.cloud.consul",
    "spring.cloud.discovery.client.simple.instances",
    "spring.cloud.gateway.server.webflux",
    "spring.config",
    "spring.data.redis.sentinel",
    "spring.redis.sentinel",
    "spring.webflux",
];
/// The same below the gateway's prefix.
const SECTIONS_OF_GATEWAY: [&str; 3] =
    ["globalcors.cors-configurations", "httpclient.proxy", "httpclient.ssl"];
/// Below which nothing is passed over in silence. `spring.security` is one more: there it is an error.
const HEEDED: [&str; 5] = ["server", "spring.cloud", "spring.data.redis", "spring.redis", "resilience4j"];
/// What would weaken the gateway's connections if it were passed over.
const NEEDED: [(&str, &str); 4] = [
    (
        "httpclient.ssl.trusted-x509-certificates",
        "services are believed by the system's certificate authorities",
    ),
    ("httpclient.ssl.ssl-bundle", "services are believed by the system's certificate authorities"),
    ("httpclient.ssl.key-store", "this gateway shows services no certificate"),
    ("httpclient.proxy.host", "this gateway asks services directly"),
];

/// One line each, with the path. `prefix` is the gateway's, empty in our own form.
pub(super) fn problems(tree: &Value, prefix: &str) -> Vec<String> {
    let mut problems = needed(tree, prefix);
    problems.extend(values_for_sections(tree, prefix));
    problems
}

/// The same for what only means nothing.
pub(super) fn warnings(tree: &Value, prefix: &str) -> Vec<String> {
    if prefix.is_empty() { not_of_a_file(tree).into_iter().collect() } else { passed_over(tree, prefix) }
}

fn passed_over(tree: &Value, prefix: &str) -> Vec<String> {
    let known = OF_GATEWAY.iter().map(|name| format!("{prefix}{name}"));
    let mut known: Vec<String> = known.chain(ELSEWHERE.iter().map(|&path| path.to_owned())).collect();
    if at(tree, &["spring", "data", "redis"]).is_none() {
        let old = |path: &&str| path.strip_prefix("spring.data.").map(|rest| format!("spring.{rest}"));
        known.extend(ELSEWHERE.iter().filter_map(old));
    }
    let unread = HEEDED.iter().flat_map(|path| unread(tree, path, &known));
    unread.map(|(path, hint)| format!("{path} means nothing here{hint}")).collect()
}

/// What a file in our own form says in vain, on one line.
fn not_of_a_file(tree: &Value) -> Option<String> {
    let sections = NOT_OF_A_FILE.iter().filter(|name| child(tree, name).is_some());
    let mut paths: Vec<String> = sections.map(|&name| name.to_owned()).collect();
    let known = ELSEWHERE.map(str::to_owned);
    for section in ["limits", "server"] {
        paths.extend(unread(tree, section, &known).into_iter().map(|(path, _)| path));
    }
    let listed = paths.join(", ");
    (!paths.is_empty()).then(|| format!("only a gateway with a configuration server reads {listed}"))
}

fn needed(tree: &Value, prefix: &str) -> Vec<String> {
    let named = |name: &str| {
        let path = format!("{prefix}{name}");
        at(tree, &path.split('.').collect::<Vec<_>>()).map(|_| path)
    };
    let lines = NEEDED.iter().filter_map(|(name, why)| Some(format!("{}: {why}", named(name)?)));
    lines.collect()
}

fn values_for_sections(tree: &Value, prefix: &str) -> Vec<String> {
    let sections = SECTIONS.iter().map(|&path| path.to_owned());
    let sections = sections.chain(SECTIONS_OF_GATEWAY.iter().map(|path| format!("{prefix}{path}")));
    let sections = sections.chain(prefix.is_empty().then(|| "limits".to_owned()));
    let found = misplaced(tree, &sections.collect::<Vec<_>>());
    found.into_iter().map(|path| format!("{path}: must be a section, and not a value or a list")).collect()
}
