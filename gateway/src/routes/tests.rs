use http::HeaderMap;
use serde_json::json;

use super::*;
use crate::config::RoutingSettings;
use crate::routes::weight::Draws;

/// Routing settings from JSON: what a configuration has, with nothing behind the uris.
fn settings(value: &Value) -> RoutingSettings {
    let field = |name: &str| value.get(name).cloned();
    RoutingSettings {
        routes: serde_json::from_value(field("routes").unwrap_or(json!([]))).unwrap(),
        default_filters: serde_json::from_value(field("default-filters").unwrap_or(json!([]))).unwrap(),
        public_paths: serde_json::from_value(field("public-paths").unwrap_or(json!([]))).unwrap(),
        reserved_paths: vec!["internal".to_owned(), "actuator".to_owned()],
        route_enabled: serde_json::from_value(field("route-enabled").unwrap_or(json!({}))).unwrap(),
        ..RoutingSettings::default()
    }
}

fn table(value: &Value) -> RouteTable {
    RouteTable::build(&settings(value), &RouteTable::default(), |_| Target::Nowhere).unwrap()
}

fn problems(value: &Value) -> Vec<String> {
    let problems =
        RouteTable::build(&settings(value), &RouteTable::default(), |_| Target::Nowhere).unwrap_err();
    problems.into_iter().map(|(path, problem)| format!("{path}: {problem}")).collect()
}

/// The route's id, or the status of the refusal.
fn found(table: &RouteTable, method: &str, path: &str) -> Result<String, u16> {
    let (method, headers) = (method.parse().unwrap(), HeaderMap::new());
    let asked = Asked {
        method: &method,
        path,
        query: None,
        headers: &headers,
        peer: None,
        now_ms: 0,
        draws: Draws::default(),
    };
    table.find(&asked).map(|route| route.id.to_string()).map_err(|problem| problem.status().as_u16())
}

fn route(id: &str, predicates: &[&str]) -> Value {
    json!({"id": id, "uri": "no://op", "predicates": predicates})
}

#[test]
fn the_first_route_that_fits_wins_in_the_order_of_the_list_unless_told_otherwise() {
    let mut late = route("late", &["Path=/a/**"]);
    late["order"] = json!(1);
    let table = table(&json!({"routes": [
        late,
        route("first", &["Path=/a/b"]),
        route("second", &["Path=/a/{any}", "Method=GET,POST"]),
    ]}));
    assert_eq!(found(&table, "GET", "/a/b").as_deref(), Ok("first"));
    assert_eq!(found(&table, "GET", "/a/c").as_deref(), Ok("second"));
    assert_eq!(found(&table, "PUT", "/a/c").as_deref(), Ok("late"));
}

#[test]
fn a_known_path_with_an_unknown_method_is_405_and_an_unknown_path_404() {
    let table = table(&json!({"routes": [
        route("read", &["Path=/a", "Method=GET"]),
        route("write", &["Method=POST", "Path=/a"]),
        route("other", &["Path=/a", "Method=PUT", "Header=X-Never"]),
    ]}));
    assert_eq!(found(&table, "DELETE", "/a"), Err(405));
    assert_eq!(found(&table, "HEAD", "/a"), Err(405), "Method=GET does not cover HEAD");
    assert_eq!(found(&table, "GET", "/b"), Err(404));
    let headers = HeaderMap::new();
    let asked = Asked {
        method: &Method::DELETE,
        path: "/a",
        query: None,
        headers: &headers,
        peer: None,
        now_ms: 0,
        draws: Draws::default(),
    };
    let rendered = table.find(&asked).unwrap_err().render("/a", None, false);
    assert_eq!(rendered.headers()["allow"], "GET, POST", "PUT stands behind another predicate");
}

#[test]
fn what_is_reserved_is_never_routed() {
    let table = table(&json!({"routes": [route("all", &["Path=/**"])]}));
    for path in ["/internal", "/internal/counts", "/INTERNAL/x", "/actuator/health", "/actuator/"] {
        assert_eq!(found(&table, "GET", path), Err(404), "{path}");
    }
    assert_eq!(found(&table, "GET", "/internals").as_deref(), Ok("all"));
}

#[test]
fn everything_that_is_wrong_is_told_at_once_with_its_place_and_a_suggestion() {
    let found = problems(&json!({
        "default-filters": ["AddResponseHeadr=X-A, b"],
        "public-paths": ["a"],
        "route-enabled": {"secnd": false},
        "routes": [
            {"id": "first", "uri": "lb//x", "predicates": ["Pth=/a", "Method=get"], "filters": ["StripPrefix=x"]},
            {"id": "second", "uri": "no://op", "predicates": ["Path=/internal/**", "Header=X-A, ("]},
            {"id": "second", "uri": "no://op", "predicates": [],
             "metadata": {"connect-timeout": "soon", "response-timeout": -1, "cors": {"allowedOrigin": "*"}}},
            {"id": "third", "uri": "no://op", "predicates": ["Path=/t/{id}"],
             "filters": ["SetPath=/{other}", {"name": "ReadBody", "args": {}}, "ModifyRequestBody"]},
            {"id": "fourth", "uri": "no://op", "predicates": ["Path=/f"], "authentication": "none", "roles": ["ADMIN"]},
        ],
    }));
    for expected in [
        "default-filters[0]: AddResponseHeadr is no filter; did you mean `AddResponseHeader`?",
        "public-paths[0]: the pattern `a` has to start with a slash",
        "route-enabled: there is no route `secnd`; did you mean `second`?",
        "routes[0].uri: `lb//x` is none of lb://service, http://host:port, https://host:port and no://op",
        "routes[0].predicates[0]: Pth is no predicate; did you mean `Path`?",
        "routes[0].predicates[1]: Method = `get` is no HTTP method; they are in capitals",
        "routes[0].filters[0]: StripPrefix `parts` must be a whole number, 0 or more, is `x`",
        "routes[1].predicates: `/internal/**` is never routed: it is reserved",
        "routes[2].id: `second` is used more than once",
        "routes[2].predicates: must name at least one, such as `Path=/**`",
        "routes[2].metadata.connect-timeout: must be milliseconds above 0 or a duration such as 5s, is `soon`",
        "routes[2].metadata.cors: has no setting `allowedOrigin`; did you mean `allowedOrigins`?",
        "routes[3].filters: a filter uses `{other}`, which no Path or Host of this route has",
        "routes[3].filters[1]: ReadBody is no filter",
        "routes[3].filters[2]: ModifyRequestBody is a filter of Spring that is not known here: it needs Java code",
        "routes[4].authentication: asks for roles or scopes, and so has to be `required`",
    ] {
        assert!(found.iter().any(|line| line == expected), "{expected}\nin {found:#?}");
    }
    assert!(
        found.iter().any(|line| line.starts_with("routes[1].predicates[1]: Header `regexp`: `(`")),
        "{found:#?}"
    );
    assert_eq!(found.len(), 17, "{found:#?}");
}

#[test]
fn a_route_may_be_switched_off_and_still_has_to_be_right() {
    let mut off = route("off", &["Path=/off"]);
    off["enabled"] = json!(false);
    let routes = json!([off, route("also", &["Path=/also"]), route("on", &["Path=/on"])]);
    let table = table(&json!({"routes": routes, "route-enabled": {"also": false}}));
    assert_eq!(table.len(), 1);
    let wrong = json!({"routes": [route("off", &["Pth=/off"])], "route-enabled": {"off": false}});
    assert_eq!(problems(&wrong).len(), 1);
}

#[test]
fn who_may_use_a_route_is_required_unless_the_path_is_public_or_the_route_says_so() {
    let mut own = route("own", &["Path=/public/own"]);
    own["authentication"] = json!("required");
    let table = table(&json!({
        "public-paths": ["/public/**", "/both"],
        "routes": [
            own,
            route("public", &["Path=/public/{x},/both"]),
            route("half", &["Path=/both/more,/public/x"]),
            route("host", &["Host=**"]),
        ],
    }));
    let of = |id: &str| {
        let route = table.iter().find(|route| &*route.id == id).unwrap();
        route.access.authentication
    };
    assert_eq!(of("own"), Authentication::Required);
    assert_eq!(of("public"), Authentication::None);
    assert_eq!(of("half"), Authentication::Required, "one of its paths is not public");
    assert_eq!(of("host"), Authentication::Required);
}

#[test]
fn default_filters_take_turns_with_those_of_the_route() {
    let table = table(&json!({
        "default-filters": ["AddRequestHeader=X-Order, d1", "AddRequestHeader=X-Order, d2"],
        "routes": [{"id": "r", "uri": "no://op", "predicates": ["Path=/**"], "filters": [
            "AddRequestHeader=X-Order, r1", "AddRequestHeader=X-Order, r2", "AddRequestHeader=X-Order, r3",
        ]}],
    }));
    let mut parts = Request::get("/").body(()).unwrap().into_parts().0;
    let route = table.iter().next().unwrap();
    filter::outgoing::apply(&route.request_filters, &mut parts, None, &Variables::default()).unwrap();
    let order: Vec<&str> =
        parts.headers.get_all("x-order").iter().filter_map(|value| value.to_str().ok()).collect();
    assert_eq!(order, ["d1", "r1", "d2", "r2", "r3"]);
}

#[test]
fn a_routes_own_times_are_in_its_metadata() {
    let timeouts = |metadata: Value| {
        let route = json!({"id": "r", "uri": "no://op", "predicates": ["Path=/**"], "metadata": metadata});
        table(&json!({"routes": [route]})).iter().next().unwrap().timeouts
    };
    let millis = |millis| Some(Duration::from_millis(millis));
    assert_eq!(
        timeouts(json!({"connect-timeout": 200, "response-timeout": "3s", "other": true})),
        Timeouts { connect: millis(200), response: millis(3_000) }
    );
    assert_eq!(timeouts(json!({"response-timeout": -1})).response, Some(Duration::MAX), "switched off");
    assert_eq!(timeouts(json!({})), Timeouts::default());
}

#[test]
fn absolute_targets_are_cut_to_their_path() {
    let mut request = Request::get("http://evil.example/%63oupons?a=%2f").body(()).unwrap();
    normalise(&mut request).unwrap();
    assert_eq!(request.uri(), "/coupons?a=%2f");
    let mut request = Request::get("/a/../b").body(()).unwrap();
    assert_eq!(normalise(&mut request).unwrap_err().status(), 400);
}
