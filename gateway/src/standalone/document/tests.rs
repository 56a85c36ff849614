use platform::config::TlsVersion;

use super::*;
use crate::config::JwtAlgorithm;

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
        let Document { routing, services, warnings, fixed } = document;
        let Fixed { jwt, door, consul, redis, timeouts, is_spring, request_body } = fixed;
        assert_eq!(routing.routes.len(), 2, "{new_prefix}");
        assert_eq!(routing.routes[0].uri, "http://users:8081");
        assert_eq!(routing.routes[1].id, "route-2");
        assert_eq!(routing.default_filters.len(), 1);
        assert_eq!(routing.trusted_proxies, r"10\..*");
        assert!(routing.globalcors.cors_configurations.contains_key("[/**]"));
        assert_eq!(door, Door { port: Some(9_000), ..Door::default() });
        assert_eq!((jwt, is_spring, request_body), (None, true, u64::MAX));
        assert_eq!(routing.default_authentication, Authentication::None);
        assert_eq!(consul.as_deref(), Some("http://consul.example:8500"));
        assert_eq!(redis.unwrap().address, "cache.example:6380");
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
    assert_eq!(document.routing.default_authentication, Authentication::Required);
    assert!(!document.fixed.is_spring);
    let unread = &document.warnings[0];
    assert!(unread.contains("reads jwt, openapi, trace, upstream, limits.in-flight, "), "{unread}");
    assert!(unread.contains("server.workers") && !unread.contains("request-body"), "{unread}");
}

#[test]
fn our_own_form_bounds_bodies_as_with_a_configuration_server() {
    let own = |beside: &str| {
        let route = "routes: [{id: a, uri: 'no://op', predicates: [Path=/a]}]";
        parse(&format!("{route}\n{beside}")).map_err(|Unusable(problems)| problems)
    };
    for (beside, bytes) in
        [("", 16 << 10), ("limits.request-body: 1MiB", 1 << 20), ("limits: {requestBody: }", 16 << 10)]
    {
        assert_eq!(own(beside).unwrap().fixed.request_body, bytes, "{beside}");
    }
    for wrong in ["limits.request-body: much", "limits.request-body: [1]"] {
        let problems = own(wrong).unwrap_err();
        assert_eq!(problems, ["limits.request-body: must be a size such as 16KiB or 5MB"], "{wrong}");
    }
    assert_eq!(own("limits: 5").unwrap_err(), ["limits: must be a section, and not a value or a list"]);
    assert_eq!(beside("limits: 5").unwrap().fixed.request_body, u64::MAX, "somebody else's");
}

#[test]
fn documents_lie_on_each_other_and_those_for_a_profile_are_left_out() {
    let document = parse(
        "server.port: 1\nspring.cloud.gateway.routes: [{id: a, uri: 'no://op', predicates: [Path=/a]}]\n---\n\
         server: {port: 2}\n---\nspring.config.activate.on-profile: prod\nserver.port: 3\n---\n\
         spring.config.activate.on-profile: [dev, test]\nserver.port: 4\n---\n\
         spring.config.activate.on-cloud-platform: kubernetes\nserver.port: 5\n",
    )
    .unwrap();
    assert_eq!(document.fixed.door.port, Some(2));
    let left_out =
        ["3 is left out: it is for the profile prod", "4 is left out: it is for the profile dev, test"];
    let left_out = left_out.into_iter().chain(["5 is left out: it is for the cloud platform kubernetes"]);
    assert_eq!(document.warnings, left_out.map(|line| format!("document {line}")).collect::<Vec<_>>());
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
spring.security.oauth2.resourceserver.opaque-token.introspection-uri: http://x
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
        problems
            .iter()
            .any(|problem| problem.starts_with("spring.security.oauth2.resourceserver.opaque-token: ")),
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

/// A file with one route and this beside it.
fn beside(text: &str) -> Result<Document, Vec<String>> {
    let route = "spring.cloud.gateway.routes: [{id: a, uri: 'no://op', predicates: [Path=/a]}]";
    parse(&format!("{route}\n{text}")).map_err(|Unusable(problems)| problems)
}

#[test]
fn a_resource_server_asks_for_tokens_on_every_route() {
    const JWT: &str = "spring.security.oauth2.resourceserver.jwt";
    let document = beside(&format!(
        "{JWT}: {{jwk-set-uri: 'https://id.example/keys', issuer-uri: 'https://id.example', audiences: a}}"
    ))
    .unwrap();
    assert_eq!(document.routing.default_authentication, Authentication::Required);
    assert_eq!(document.warnings, [""; 0]);
    let jwt = document.fixed.jwt.unwrap();
    assert_eq!(
        (jwt.issuer.as_str(), jwt.jwks_uri.as_str()),
        ("https://id.example", "https://id.example/keys")
    );
    assert_eq!((jwt.audience, jwt.algorithms), (vec!["a".to_owned()], vec![JwtAlgorithm::RS256]));

    let discovered =
        beside(&format!("{JWT}:\n  issuerUri: https://id.example\n  jws-algorithms: [ES256, ps512]"))
            .unwrap();
    let jwt = discovered.fixed.jwt.unwrap();
    assert_eq!((jwt.jwks_uri.as_str(), jwt.audience.len()), ("", 0));
    assert_eq!(jwt.algorithms, [JwtAlgorithm::ES256, JwtAlgorithm::PS512]);
    let clear = beside(&format!("{JWT}.jwk-set-uri: http://id/keys\n{JWT}.authority-prefix: X_")).unwrap();
    assert_eq!(clear.warnings.len(), 2, "{:?}", clear.warnings);
}

#[test]
fn what_a_file_asks_for_to_keep_somebody_out_is_not_passed_over() {
    for (text, problem) in [
        ("spring.security.oauth2.resourceserver.jwt:", ".jwt: needs `jwk-set-uri` or `issuer-uri`"),
        ("spring.security.oauth2.resourceserver.jwt: {audiences: a}", ".jwt: needs `jwk-set-uri`"),
        (
            "spring.security.oauth2.resourceserver.jwt.jwk-set-uri: file:keys",
            ".jwk-set-uri: `file:keys` must be",
        ),
        (
            "spring.security.oauth2.resourceserver.jwt.issuer-uri: '${ISSUER}'",
            ".issuer-uri: `${ISSUER}` must be",
        ),
        (
            "spring.security.oauth2.resourceserver.jwt: {issuer-uri: 'https://i', jws-algorithms: HS256}",
            "`HS256` is none",
        ),
        (
            "spring.security.oauth2.resourceserver.jwt: {issuer-uri: 'https://i', jws-algorithms: [none]}",
            "`none` is none",
        ),
        (
            "spring.security.oauth2.resourceserver.jwt: {issuer-uri: 'https://i', principal-claim-name: x}",
            "claim-name: is not",
        ),
        (
            "spring.security.oauth2.resourceserver.jwt: {issuer-uri: 'https://i', public-key-location: x}",
            "location: is not",
        ),
        (
            "spring.security.oauth2.resourceserver.jwt: {issuer-uri: 'https://i', jwkSetUrl: x}",
            "did you mean `jwk-set-uri`?",
        ),
        (
            "spring.security.oauth2.resourceserver.jwt: {issuer-uri: 'https://i', audiences: []}",
            ".audiences: is empty",
        ),
        (
            "spring.security.oauth2.resourceserver.jwt: {jwk-set-uri: 'https://i/k', issuer-uri: '${I:}'}",
            ".issuer-uri: is empty",
        ),
        (
            "spring.security.oauth2.resourceserver.opaquetoken.client-id: x",
            "resourceserver.opaquetoken: is not",
        ),
        (
            "spring.security.oauth2.client.registration.x.client-id: x",
            "spring.security.oauth2.client: is not",
        ),
        ("spring.security.user.name: x", "spring.security.user: is not"),
        ("server.ssl.key-store: classpath:x.p12", "server.ssl.key-store: can't be done"),
        ("server.ssl.bundle: web", "server.ssl.bundle: can't be done"),
        (
            "server.ssl: {certificate: a, certificate-private-key: b, client-auth: need}",
            "client-auth: can't be done",
        ),
        ("server.ssl: {certificate: a}", "server.ssl.certificate-private-key: must name a file"),
        (
            "server.ssl: {certificate: 'classpath:a', certificate-private-key: b}",
            "server.ssl.certificate: must name",
        ),
        ("server.ssl: {enabled: true}", "server.ssl.certificate: must name a file"),
        ("server.tls: {certificate: a}", "server.tls.private-key: must name a file"),
        ("server.ssl.enabled-protocols: [TLSv1, TLSv1.1]", "enabled-protocols: must name TLSv1.2, TLSv1.3"),
        ("server.ssl.enabled-protocols: '${NO_PROTOCOLS:}'", "enabled-protocols: must name TLSv1.2, TLSv1.3"),
        ("server.ssl.enabled-protocols: TLSv1.3+TLSv1.4", "`TLSv1.3+TLSv1.4` is no version of TLS"),
        ("server.tls.versions: [SSLv3]", "server.tls.versions: must name TLSv1.2, TLSv1.3"),
        ("server.ssl.ciphers: TLS_AES_256_GCM_SHA384", "server.ssl.ciphers: can't be chosen; leave it out"),
        ("server.address: localhost", "server.address: `localhost` is no IP address"),
        ("server.port: 80800", "server.port: `80800` is no port"),
        ("server.port: '${PORT}'", "server.port: `${PORT}` is no port"),
        ("spring.data.redis: {host: h, port: x}", "spring.data.redis.port: `x` is no port"),
        ("spring.data.redis.url: 'redis://u:p@h'", "spring.data.redis.url: is not read"),
        ("spring.data.redis.cluster.nodes: 'a:1'", "spring.data.redis.cluster: is not read"),
        ("spring.data.redis: {host: h, ssl: {bundle: b}}", "spring.data.redis.ssl.bundle: can't be done"),
        (
            "spring.data.redis: {host: h, ssl: {enabled: '${TLS}'}}",
            "spring.data.redis.ssl: `${TLS}` is neither",
        ),
        ("spring.data.redis.sentinel.nodes: 'a:1'", "spring.data.redis.sentinel.master: is missing"),
        ("spring.cloud.consul: {host: h, port: x}", "spring.cloud.consul.port: `x` is no port"),
        ("spring.cloud.consul: {host: h, scheme: https}", "spring.cloud.consul: is asked by http://"),
        (
            "spring.cloud.gateway.httpclient.proxy.host: p",
            "httpclient.proxy.host: this gateway asks services directly",
        ),
        (
            "spring.cloud.gateway.httpclient.ssl.trusted-x509-certificates: [a]",
            "certificates: services are believed",
        ),
    ] {
        let problems = beside(text).unwrap_err();
        assert!(problems.iter().any(|line| line.contains(problem)), "{text}: {problems:#?}");
    }
}

#[test]
fn what_a_file_imports_is_named_and_refused_unless_it_is_optional() {
    let document = beside(
        "spring.config.import: 'optional:file:other.yml, optional:configserver:http://me:secret@config:8888'\n---\n\
         spring.config.import: ['${NO_IMPORT:}', 'optional:file:more.yml']\n---\n\
         spring.config: {activate.on-profile: x, import: 'file:x.yml'}",
    )
    .unwrap();
    let left_out = "document 3 is left out: it is for the profile x".to_owned();
    let passed_over = ["file:other.yml", "configserver:http://config:8888", "file:more.yml"]
        .map(|it| format!("spring.config.import: optional:{it} is not imported: this file alone is read"));
    assert_eq!(document.warnings, [&[left_out][..], &passed_over].concat());
    for (text, location) in [
        (
            "spring.config.import: file:routes.yml\n---\nspring.config.import: 'optional:file:x'",
            "file:routes.yml",
        ),
        ("spring.config.import: ['configserver:http://u:p@config']", "configserver:http://config"),
        ("spring.config.import: 'optional:file:a;file:b'", "file:b"),
        ("spring.config: {'import[0]': 'vault:'}", "vault:"),
        ("spring.config.import: '${IMPORTS}'", "${IMPORTS}"),
    ] {
        let problems = beside(text).unwrap_err();
        assert_eq!(problems.len(), 1, "{text}: {problems:?}");
        assert!(
            problems[0].starts_with(&format!("spring.config.import: `{location}` is not")),
            "{problems:?}"
        );
    }
    let problems = beside("spring.config.import: {a: b}").unwrap_err();
    assert_eq!(problems, ["spring.config.import: must be a text or a list of texts"]);
}

#[test]
fn a_base_path_is_refused_as_it_would_change_every_path() {
    for text in [
        "spring.webflux.base-path: /api",
        "spring.webflux: {basePath: '${BASE}'}",
        "spring.webflux.base-path: [/a]",
    ] {
        let problems = beside(text).unwrap_err();
        assert!(problems[0].starts_with("spring.webflux.base-path: can't be done"), "{text}: {problems:?}");
    }
    for text in [
        "spring.webflux.base-path: /",
        "spring.webflux.base-path:",
        "spring.webflux.static-path-pattern: /s/**",
    ] {
        assert!(beside(text).is_ok(), "{text}");
    }
    assert_eq!(
        beside("spring.webflux: /api").unwrap_err(),
        ["spring.webflux: must be a section, and not a value or a list"]
    );
}

#[test]
fn a_weight_that_cannot_be_read_is_refused_and_not_taken_for_1() {
    const PATH: &str = "spring.cloud.discovery.client.simple.instances.s";
    let with = |metadata: &str| beside(&format!("{PATH}: [{{uri: 'http://h:1', metadata: {metadata}}}]"));
    for (metadata, weight) in
        [("{weight: 0}", 0), ("{weight: '7'}", 7), ("{weight: }", 1), ("{}", 1), ("", 1)]
    {
        assert_eq!(with(metadata).unwrap().services["s"][0].weight, weight, "{metadata}");
    }
    for (metadata, problem) in [
        ("{weight: heavy}", "metadata.weight: `heavy` is no whole number, 0 or more"),
        ("{weight: -1}", "metadata.weight: `-1` is no whole number, 0 or more"),
        ("{weight: 1.5}", "metadata.weight: `1.5` is no whole number, 0 or more"),
        ("{Weight: '${WEIGHT}'}", "metadata.weight: `${WEIGHT}` is no whole number, 0 or more"),
        ("{weight: [1]}", "metadata.weight: must be a whole number, 0 or more"),
        ("heavy", "metadata: must be a section, and not a value or a list"),
    ] {
        assert_eq!(with(metadata).unwrap_err(), [format!("{PATH}[0]: {problem}")], "{metadata}");
    }
}

#[test]
fn spellings_of_one_section_are_joined() {
    let document = parse(
        "
spring.cloud.gateway:
  globalCors.corsConfigurations: {'[/a]': {allowedOrigins: 'https://a.example'}}
  trustedProxies: old
spring:
  cloud:
    gateway:
      global-cors: {cors-configurations: {'[/b]': {allowed-origins: 'https://b.example'}}}
      routes:
        - {id: a, uri: 'lb://orders', predicates: [Path=/a], metadata: {team: x, Team: y}}
        - {id: b, uri: 'lb://Orders', predicates: [Path=/b]}
    discovery.client.simple.instances: {orders: [{uri: 'http://h:1'}]}
Spring.Cloud.discovery.client.simple.instances: {Orders: [{uri: 'http://h:2'}]}
server.ssl.certificate: a
Server: {SSL: {certificatePrivateKey: b}}
logging.level: {com.example.Bar: info, com.example.bar: debug}
---
spring.cloud.gateway.trusted-proxies: new
server:
server.ssl.enabledProtocols: TLSv1.2
---
server.ssl: {enabled-protocols: TLSv1.3}
",
    )
    .unwrap();
    let Document { routing, services, warnings, fixed } = document;
    let paths: Vec<&String> = routing.globalcors.cors_configurations.keys().collect();
    assert_eq!(paths, ["[/a]", "[/b]"]);
    assert_eq!(routing.trusted_proxies, "new");
    assert_eq!(routing.routes[0].metadata.len(), 2, "these names are somebody's own");
    assert_eq!((services["orders"].len(), services["Orders"].len()), (1, 1));
    assert_eq!(fixed.door.tls.unwrap().versions, [TlsVersion::V13]);
    assert_eq!(warnings, [""; 0]);
}

#[test]
fn what_two_spellings_say_of_one_setting_is_refused_and_both_are_named() {
    for (text, one, other) in [
        ("server.port: 1\nserver.Port: 2", "server.port", "server.Port"),
        (
            "server.ssl: {enabled-protocols: TLSv1.3, enabledProtocols: TLSv1.2}",
            "server.ssl.enabled-protocols",
            "server.ssl.enabledProtocols",
        ),
        (
            "spring.cloud.gateway: {defaultFilters: [SetStatus=200], default-filters: [SetStatus=201]}",
            "spring.cloud.gateway.defaultFilters",
            "spring.cloud.gateway.default-filters",
        ),
        (
            "spring.cloud.gateway: {globalCors.cors-configurations./a.maxAge: 1, globalcors.corsConfigurations./a.max-age: 2}",
            "spring.cloud.gateway.globalCors.cors-configurations./a.maxAge",
            "spring.cloud.gateway.globalcors.corsConfigurations./a.max-age",
        ),
        (
            "spring.cloud.gateway.default-filters: [{name: RequestSize, args: {maxSize: 5, max-size: 7}}]",
            "spring.cloud.gateway.default-filters[0].args.maxSize",
            "spring.cloud.gateway.default-filters[0].args.max-size",
        ),
        (
            "spring.security.oauth2.resourceserver.jwt: {issuer-uri: 'https://a', issuerUri: 'https://b'}",
            "spring.security.oauth2.resourceserver.jwt.issuer-uri",
            "spring.security.oauth2.resourceserver.jwt.issuerUri",
        ),
    ] {
        let problem =
            format!("says one thing twice: `{one}` and `{other}` are one setting; keep one of them");
        assert_eq!(beside(text).unwrap_err(), [problem], "{text}");
    }
    for (text, path) in [
        ("spring: {cloud: {gateway.routes: []}}", "spring.cloud.gateway.routes"),
        ("server: {port: 1}\nserver.port: 2", "server.port"),
        (
            "spring.cloud.gateway.route-enabled: {a: true}\nspring.cloud.gateway: {route-enabled.a: false}",
            "spring.cloud.gateway.route-enabled.a",
        ),
        ("server: text\nserver.port: 1", "server"),
    ] {
        let problem =
            format!("says one thing twice: `{path}` stands below two keys of one meaning; keep one of them");
        assert_eq!(beside(text).unwrap_err(), [problem], "{text}");
    }
    let both =
        "server: {ssl: {certificate: a, certificate-private-key: b}, tls: {certificate: a, private-key: b}}";
    assert_eq!(beside(both).unwrap_err(), ["server.tls: stands beside server.ssl; keep one of them"]);
    let left_out = "---\nspring.config.activate.on-profile: x\nserver: {port: 1}\nserver.port: 2";
    assert!(beside(left_out).is_ok());
}

#[test]
fn a_value_in_place_of_a_section_is_named() {
    for (text, path) in [
        ("server: text", "server"),
        ("server.ssl: true", "server.ssl"),
        ("server.tls: text", "server.tls"),
        ("server.ssl: [{certificate: a}]", "server.ssl"),
        ("spring.data.redis: cache.example", "spring.data.redis"),
        ("spring.data.redis: {host: h, sentinel: 'a:1'}", "spring.data.redis.sentinel"),
        ("spring.redis: cache.example", "spring.redis"),
        ("spring.cloud.consul: consul.example", "spring.cloud.consul"),
        ("spring.cloud.discovery.client.simple: text", "spring.cloud.discovery.client.simple"),
        ("spring.cloud.gateway.globalCors: text", "spring.cloud.gateway.globalcors"),
        ("spring.cloud.gateway.httpclient: 5s", "spring.cloud.gateway.httpclient"),
        ("spring.cloud.gateway.httpclient.proxy: p", "spring.cloud.gateway.httpclient.proxy"),
        ("resilience4j.circuitbreaker: text", "resilience4j.circuitbreaker"),
        ("resilience4j.timelimiter.instances.shop: 2s", "resilience4j.timelimiter.instances.shop"),
    ] {
        let problem = format!("{path}: must be a section, and not a value or a list");
        assert_eq!(beside(text).unwrap_err(), [problem], "{text}");
    }
    let own = "server.tls: text\nroutes: [{id: a, uri: 'no://op', predicates: [Path=/a]}]";
    assert_eq!(parse(own).unwrap_err().0, ["server.tls: must be a section, and not a value or a list"]);
    let instances = "spring.cloud.discovery.client.simple.instances.orders: {uri: 'http://h:1'}";
    assert!(beside(instances).unwrap_err()[0].ends_with("instances.orders: must be a list"));
    assert!(beside("server:\nspring.data.redis:\nresilience4j:").is_ok(), "an empty one says nothing");
}

#[test]
fn what_means_nothing_below_the_known_prefixes_is_named() {
    let document = beside(
        "
server: {netty.idle-timeout: 5s, forward-headers-strategy: native, porte: 80}
spring.cloud: {loadbalancer.cache.enabled: true, consul: {host: c, discovery.register: false}}
spring.cloud.gateway: {httpclient.pool.max-connections: 5, globalcors.cors-configuration: {}}
spring.data.redis: {host: h, hst: x, database: 3}
spring.redis.host: other
resilience4j: {retry.instances.a.max-attempts: 3, circuitbreaker.instances.nobody: {}}
management.server.port: 1
",
    )
    .unwrap();
    let mut warnings = document.warnings;
    warnings.sort_unstable();
    assert_eq!(
        warnings,
        [
            "resilience4j.circuitbreaker.instances.nobody means nothing here: no filter CircuitBreaker has this name",
            "resilience4j.retry means nothing here",
            "server.forward-headers-strategy means nothing here",
            "server.netty means nothing here",
            "server.porte means nothing here; did you mean `port`?",
            "spring.cloud.consul.discovery means nothing here",
            "spring.cloud.gateway.globalcors.cors-configuration means nothing here; did you mean `cors-configurations`?",
            "spring.cloud.gateway.httpclient.pool means nothing here",
            "spring.cloud.loadbalancer means nothing here",
            "spring.data.redis.database means nothing here",
            "spring.data.redis.hst means nothing here; did you mean `host`?",
            "spring.redis.host means nothing here",
        ]
    );
}

#[test]
fn both_prefixes_at_once_leave_one_unread_and_say_so() {
    let document = beside(
        "spring.cloud.gateway.server.webflux.routes: [{id: b, uri: 'no://op', predicates: [Path=/b]}]",
    )
    .unwrap();
    assert_eq!(document.routing.routes[0].id, "b");
    assert_eq!(document.warnings, ["spring.cloud.gateway.routes means nothing here"]);
}

#[test]
fn certificates_and_redis_are_taken_over() {
    let document = beside(
        "
server: {address: 0.0.0.0, port: 8443, ssl: {certificate: 'file:/etc/tls/a.pem', certificate-private-key: b.pem,
                                             client-auth: none, protocol: TLS}}
spring.data.redis: {username: u, password: p, ssl.enabled: true, sentinel: {master: m, nodes: 'a:1, b:2', password: s}}
",
    )
    .unwrap();
    let Door { address, port, tls } = document.fixed.door;
    assert_eq!((address.unwrap().to_string().as_str(), port), ("0.0.0.0", Some(8_443)));
    let tls = tls.unwrap();
    assert_eq!(tls.certificate.to_str(), Some("/etc/tls/a.pem"));
    assert_eq!(tls.private_key.to_str(), Some("b.pem"));
    assert_eq!(tls.versions, [TlsVersion::V12, TlsVersion::V13]);
    assert_eq!(
        document.warnings,
        ["server.ssl.protocol means nothing here: `enabled-protocols` says what is spoken"]
    );
    let redis = document.fixed.redis.unwrap();
    assert_eq!((redis.username.as_str(), redis.password.expose(), redis.tls.enabled), ("u", "p", true));
    assert_eq!((redis.master.as_str(), redis.sentinel_password.expose()), ("m", "s"));
    assert_eq!(redis.sentinels, ["a:1", "b:2"]);
    let off =
        beside("server.ssl: {enabled: false, key-store: x}\nspring.redis: {host: h, ssl: true}").unwrap();
    assert_eq!(off.fixed.door.tls, None);
    assert!(off.fixed.redis.unwrap().tls.enabled);
    let own = parse(
        "server.tls: {certificate: a, private-key: b}\nroutes: [{id: a, uri: 'no://op', predicates: [Path=/a]}]",
    );
    assert_eq!(own.unwrap().fixed.door.tls.unwrap().private_key.to_str(), Some("b"));
}

#[test]
fn the_versions_of_tls_are_those_that_a_file_names() {
    let files = "certificate: a, certificate-private-key: b";
    for (protocols, versions, old) in [
        ("TLSv1.3", vec![TlsVersion::V13], vec![]),
        ("tlsv1.2", vec![TlsVersion::V12], vec![]),
        ("'TLSv1.3, TLSv1.2'", vec![TlsVersion::V13, TlsVersion::V12], vec![]),
        ("[TLSv1.1, TLSv1.2, SSLv3]", vec![TlsVersion::V12], vec!["TLSv1.1", "SSLv3"]),
    ] {
        let document = beside(&format!("server.ssl: {{{files}, enabled-protocols: {protocols}}}")).unwrap();
        assert_eq!(document.fixed.door.tls.unwrap().versions, versions, "{protocols}");
        let never = old.iter().map(|old| format!("server.ssl.enabled-protocols: {old} is never spoken"));
        assert_eq!(document.warnings, never.collect::<Vec<_>>(), "{protocols}");
    }
    let own = parse(
        "server.tls: {certificate: a, private-key: b, versions: [TLSv1.3]}\n\
         routes: [{id: a, uri: 'no://op', predicates: [Path=/a]}]",
    );
    assert_eq!(own.unwrap().fixed.door.tls.unwrap().versions, [TlsVersion::V13]);
}

#[test]
fn circuits_have_the_settings_that_stand_beside_the_routes() {
    let document = parse(
        "
resilience4j:
  circuitbreaker:
    configs:
      default: {sliding-window-size: 10, failure-rate-threshold: 40}
      slow: {waitDurationInOpenState: 5s, slow-call-rate-threshold: 1}
    instances:
      shop: {base-config: slow, minimum-number-of-calls: 4, sliding-window-type: COUNT_BASED}
  timelimiter.instances.shop.timeout-duration: 2s
spring.cloud.gateway:
  default-filters: [CircuitBreaker]
  routes:
    - {id: a, uri: 'no://op', predicates: [Path=/a], filters: [CircuitBreaker=shop]}
    - id: b
      uri: no://op
      predicates: [Path=/b]
      filters: [{name: CircuitBreaker, args: {name: shop, minimum_number_of_calls: 7}}]
",
    )
    .unwrap();
    let routing = &document.routing;
    let written = |filter: &crate::routes::definition::Definition| filter.to_string();
    assert_eq!(
        written(&routing.default_filters[0]),
        "CircuitBreaker failureRateThreshold=40,slidingWindowSize=10"
    );
    assert_eq!(
        written(&routing.routes[0].filters[0]),
        "CircuitBreaker minimumNumberOfCalls=4,name=shop,timeoutDuration=2s,waitDurationInOpenState=5s"
    );
    assert_eq!(
        written(&routing.routes[1].filters[0]),
        "CircuitBreaker minimum_number_of_calls=7,name=shop,timeoutDuration=2s,waitDurationInOpenState=5s"
    );
    assert_eq!(
        document.warnings,
        ["resilience4j.circuitbreaker.configs.slow.slow-call-rate-threshold means nothing here"]
    );
    let wrong = "resilience4j.circuitbreaker.configs.default.sliding-window-size: 0\n\
                 spring.cloud.gateway.routes: [{id: a, uri: 'no://op', predicates: [Path=/a], filters: [CircuitBreaker=a]}]";
    assert!(parse(wrong).unwrap_err().0[0].contains("slidingWindowSize"));
}

#[test]
fn booleans_are_read_in_springs_words_and_others_are_errors() {
    let text = |secure: &str, consul: &str| {
        format!(
            "spring.cloud:\n  consul: {{host: c, enabled: {consul}}}\n  gateway.routes: [{{id: a, uri: 'lb://s', predicates: [Path=/a]}}]\n  \
             discovery.client.simple.instances.s: [{{host: h, port: 1, secure: {secure}}}]\n"
        )
    };
    for (word, value) in
        [("yes", true), ("on", true), ("1", true), ("TRUE", true), ("no", false), ("off", false)]
    {
        let document = parse(&text(word, word)).unwrap();
        assert_eq!(document.services["s"][0].tls, value, "{word}");
        assert_eq!(document.fixed.consul.is_some(), value, "{word}");
    }
    let problems = parse(&text("ja", "nein")).unwrap_err().0;
    assert!(
        problems.iter().any(|line| line.contains("secure: `ja` is neither true nor false")),
        "{problems:?}"
    );
    assert!(problems.iter().any(|line| line.contains("consul.enabled: `nein` is neither")), "{problems:?}");
}
