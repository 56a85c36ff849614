use super::*;

fn table(routes: &[(&str, &[&str], i32)]) -> RouteTable {
    let routes = routes
        .iter()
        .map(|(id, predicates, order)| {
            let settings = RouteSettings {
                id: (*id).to_owned(),
                uri: "noop:".to_owned(),
                predicates: predicates.iter().map(|text| (*text).to_owned()).collect(),
                filters: Vec::new(),
                authentication: Authentication::None,
                order: *order,
                metadata: BTreeMap::new(),
            };
            Route::new(settings, Target::Noop).unwrap()
        })
        .collect();
    RouteTable::new(routes)
}

fn found(table: &RouteTable, method: &str, path: &str) -> Result<String, u16> {
    table
        .find(&method.parse().unwrap(), path)
        .map(|route| route.id.to_string())
        .map_err(|problem| problem.status().as_u16())
}

#[test]
fn the_first_route_that_fits_wins_in_the_order_of_the_list_unless_told_otherwise() {
    let table = table(&[
        ("late", &["Path=/a/**"], 1),
        ("first", &["Path=/a/b"], 0),
        ("second", &["Path=/a/{any}", "Method=GET,POST"], 0),
    ]);
    assert_eq!(found(&table, "GET", "/a/b").as_deref(), Ok("first"));
    assert_eq!(found(&table, "GET", "/a/c").as_deref(), Ok("second"));
    assert_eq!(found(&table, "PUT", "/a/c").as_deref(), Ok("late"));
}

#[test]
fn a_known_path_with_an_unknown_method_is_405_and_an_unknown_path_404() {
    let table = table(&[("read", &["Path=/a", "Method=GET"], 0), ("write", &["Path=/a", "Method=POST"], 0)]);
    assert_eq!(found(&table, "DELETE", "/a"), Err(405));
    assert_eq!(found(&table, "HEAD", "/a"), Err(405), "Method=GET does not cover HEAD");
    assert_eq!(found(&table, "GET", "/b"), Err(404));
}

#[test]
fn what_is_internal_is_never_routed() {
    let table = table(&[("all", &["Path=/**"], 0)]);
    for path in ["/internal", "/internal/counts", "/INTERNAL/x", "/actuator/health", "/actuator/"] {
        assert_eq!(found(&table, "GET", path), Err(404), "{path}");
    }
    assert_eq!(found(&table, "GET", "/internals").as_deref(), Ok("all"));
}

#[test]
fn wrong_predicates_are_all_named() {
    let shortcuts = ["Path=a", "Method=get", "Host=x", "nonsense", "Path=/internal/**"].map(str::to_owned);
    let problems = Predicates::parse(&shortcuts).unwrap_err();
    assert_eq!(problems.len(), 5, "{problems:?}");
    assert!(
        Predicates::parse(&["Method=GET".to_owned()]).is_err(),
        "a route without a path takes everything"
    );
}

#[test]
fn uris_are_a_service_an_address_or_nothing() {
    assert_eq!(TargetUri::parse("noop:"), Ok((TargetUri::Noop, "")));
    assert_eq!(TargetUri::parse("lb://a-b/x/y"), Ok((TargetUri::Service("a-b".to_owned()), "/x/y")));
    let address = TargetUri::Address { host: "h".to_owned(), port: 80 };
    assert_eq!(TargetUri::parse("http://h"), Ok((address, "")));
    for wrong in ["", "x", "lb://", "lb://a:1", "https://h", "http://", "http://u@h", "http://h:99999"] {
        assert!(TargetUri::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn the_request_is_rewritten_to_what_was_matched() {
    let rewritten = |uri: &str| {
        let mut request = Request::get(uri).body(()).unwrap();
        normalise(&mut request)
            .map(|()| request.uri().to_string())
            .map_err(|problem| problem.status().as_u16())
    };
    assert_eq!(rewritten("/a?b=%2F..").as_deref(), Ok("/a?b=%2F.."));
    assert_eq!(rewritten("/%61?b").as_deref(), Ok("/a?b"));
    assert_eq!(rewritten("http://elsewhere.example/a?b").as_deref(), Ok("/a?b"));
    assert_eq!(rewritten("/a/..%2fb"), Err(400));
}
