use super::*;

fn parse(text: &str) -> Result<Document, Unusable> {
    Document::parse(text, &|name| (name == "USER_URL").then(|| "http://users:8081".to_owned()))
}

const SPRING: &str = r#"
server:
  port: 9000
spring:
  application:
    name: edge
  data.redis: {host: cache.example, port: 6380}
  cloud:
    consul:
      host: consul.example
    discovery.client.simple.instances:
      orders:
        - uri: http://localhost:8091
          metadata: {weight: 3}
        - {host: "::1", port: 8092, secure: true}
    gateway:
      PREFIXdefault-filters:
        - AddResponseHeader=X-Edge, yes
      httpclient:
        connect-timeout: 1000
        response-timeout: 5s
      globalcors:
        cors-configurations:
          '[/**]':
            allowedOrigins: "https://shop.example"
      trusted-proxies: 10\..*
      metrics:
        enabled: true
      routes:
        - id: users
          uri: ${USER_URL:http://localhost:1}
          predicates:
            - Path=/users/**
          filters:
            - RewritePath=/users/?(?<segment>.*), /$\{segment}
        - uri: lb://orders
          order: -1
          predicates:
            - name: Path
              args:
                patterns: [/orders/**]
            - Method=GET
          filters:
            - name: SetPath
              args:
                template: /fixed
          metadata:
            response-timeout: 200
"#;

fn spring(new_prefix: bool) -> String {
    if new_prefix {
        // Everything below `gateway:` one level and two names deeper.
        let (head, body) = SPRING.split_once("    gateway:\n").unwrap();
        let body: String = body.replace("PREFIX", "").lines().map(|line| format!("    {line}\n")).collect();
        format!("{head}    gateway:\n      server:\n        webflux:\n{body}")
    } else {
        SPRING.replace("PREFIX", "")
    }
}

#[test]
fn a_springs_file_is_read_under_both_prefixes() {
    for new_prefix in [false, true] {
        let document = parse(&spring(new_prefix)).unwrap();
        let Document { routing, services, warnings, server, consul, redis, timeouts } = document;
        assert_eq!(routing.routes.len(), 2, "{new_prefix}");
        assert_eq!(routing.routes[0].uri, "http://users:8081");
        assert_eq!(routing.routes[1].id, "route-2");
        assert_eq!(routing.default_filters.len(), 1);
        assert_eq!(routing.trusted_proxies, r"10\..*");
        assert!(routing.globalcors.cors_configurations.contains_key("[/**]"));
        assert_eq!(server, (None, Some(9_000)));
        assert_eq!(consul.as_deref(), Some("http://consul.example:8500"));
        assert_eq!(redis.as_deref(), Some("cache.example:6380"));
        assert_eq!(timeouts.connect, Some(Duration::from_secs(1)));
        assert_eq!(timeouts.response, Some(Duration::from_secs(5)));
        let orders = &services["orders"];
        assert_eq!((orders[0].id.as_str(), orders[0].weight, orders[0].tls), ("localhost:8091", 3, false));
        assert_eq!((orders[1].id.as_str(), orders[1].weight, orders[1].tls), ("[::1]:8092", 1, true));
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(
            warnings[0].ends_with("gateway.metrics means nothing here")
                || warnings[0].ends_with("webflux.metrics means nothing here"),
            "{warnings:?}"
        );
    }
}

#[test]
fn our_own_form_needs_no_prefix() {
    let text = include_str!("../../../../config-repo/gateway.yml");
    let document = parse(text).unwrap();
    assert!(document.routing.routes.iter().any(|route| route.id == "coupon-issues-claim"));
}

#[test]
fn documents_lie_on_each_other_and_those_for_a_profile_are_left_out() {
    let document = parse(
        "server.port: 1\nspring.cloud.gateway.routes: [{id: a, uri: 'no://op', predicates: [Path=/a]}]\n---\n\
         server: {port: 2}\n---\nspring.config.activate.on-profile: prod\nserver.port: 3\n",
    )
    .unwrap();
    assert_eq!(document.server.1, Some(2));
    assert_eq!(document.warnings, ["document 3 is left out: it is for the profile prod"]);
}

#[test]
fn everything_wrong_is_told_with_its_path() {
    let text = "
spring.cloud.gateway:
  default-filters: AddResponseHeader=X-A, b
  httpclient: {connect-timeout: soon}
  routes:
    - id: a
      uri: no://op
      predicate: [Path=/a]
    - id: b
      uri: no://op
      predicates: [Pth=/b]
spring.cloud.discovery.client.simple.instances:
  orders: [{uri: 'ftp://x'}]
spring.security.oauth2.resourceserver.jwt.jwk-set-uri: http://x
";
    let Unusable(problems) = parse(text).unwrap_err();
    for expected in [
        "spring.cloud.gateway.default-filters: must be a list",
        "spring.cloud.gateway.httpclient.connect-timeout: must be milliseconds above 0 or a duration such as 5s, is `soon`",
        "spring.cloud.gateway.routes[0]: a route has no `predicate`; did you mean `predicates`?",
        "spring.cloud.discovery.client.simple.instances.orders[0]: `ftp://x` must be http://host:port or https://host:port",
    ] {
        assert!(problems.iter().any(|problem| problem == expected), "{expected}\nin {problems:#?}");
    }
    assert!(problems.iter().any(|problem| problem.contains("Pth is no predicate")), "{problems:#?}");
    assert!(
        problems.iter().any(|problem| problem.starts_with("spring.security.oauth2.resourceserver")),
        "{problems:#?}"
    );
    assert_eq!(problems.len(), 6, "{problems:#?}");
}

#[test]
fn a_service_without_instances_is_a_warning() {
    let document = parse("routes: [{id: a, uri: 'lb://orders', predicates: [Path=/a]}]").unwrap();
    assert!(document.warnings[0].contains("the route `a` will answer 503"), "{:?}", document.warnings);
    assert!(parse("[1]").is_err() && parse("a: [").is_err() && parse("").is_err());
}
