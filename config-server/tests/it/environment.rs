//! What is answered, in form and order.

use crate::support::Git;

fn shop() -> Git {
    Git::new(&[
        ("application.yml", "server: {port: 0}\nshared: all\n"),
        ("application-dev.yml", "shared: dev\n"),
        ("application-prod.yml", "shared: prod\n"),
        ("orders.yml", "limit: 010\nrate: 1e3\nflags: [on, {name: x}]\nnothing: ~\nempty: {}\nnone: []\n"),
        ("orders.yaml", "limit: 1\n"),
        ("orders.properties", "limit=2\n"),
        ("orders-prod.yml", "limit: 9\n"),
    ])
}

#[tokio::test]
async fn sources_are_ordered_as_spring_orders_them() {
    let git = shop();
    let server = git.server().await;
    let commit = git.run(&["rev-parse", "HEAD"]);
    let shown = server.shown("/orders/dev,prod", &[(&commit, "COMMIT")]).await;
    insta::assert_snapshot!(shown, @r#"
    200 OK
    {"name":"orders","profiles":["dev,prod"],"label":null,"version":"COMMIT","state":"","propertySources":[
    {"name":"REPO/orders-prod.yml","source":{"limit":9}},
    {"name":"REPO/application-prod.yml","source":{"shared":"prod"}},
    {"name":"REPO/application-dev.yml","source":{"shared":"dev"}},
    {"name":"REPO/orders.properties","source":{"limit":"2"}},
    {"name":"REPO/orders.yml","source":{"limit":8,"rate":1000.0,"flags[0]":true,"flags[1].name":"x","nothing":"","none":""}},
    {"name":"REPO/orders.yaml","source":{"limit":1}},
    {"name":"REPO/application.yml","source":{"server.port":0,"shared":"all"}}]}
    "#);
}

#[tokio::test]
async fn a_label_is_given_back_with_its_slashes() {
    let git = shop();
    git.run(&["checkout", "--quiet", "-b", "feature/x"]);
    let commit = git.commit(&[("application.yml", "shared: feature\n")]);
    let server = git.server().await;
    for path in
        ["/web/default/feature(_)x", "/web/default/feature%2Fx", "/web/default/refs(_)heads(_)feature(_)x"]
    {
        let (status, body) = server.get(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        assert_eq!(body["version"], commit.as_str());
    }
    let shown = server.shown("/web/default/feature(_)x", &[(&commit, "COMMIT")]).await;
    insta::assert_snapshot!(shown, @r#"
    200 OK
    {"name":"web","profiles":["default"],"label":"feature/x","version":"COMMIT","state":"","propertySources":[
    {"name":"REPO/application.yml","source":{"shared":"feature"}}]}
    "#);
}

#[tokio::test]
async fn documents_count_by_their_profile_and_the_later_wins() {
    let git = Git::new(&[(
        "application.yml",
        "a: 1\n---\nspring.config.activate.on-profile: prod & !eu\na: 2\n---\nspring.config.activate.on-profile: [x, y]\na: 3\n",
    )]);
    let server = git.server().await;
    assert_eq!(server.value("/web/default", "a").await, 1);
    assert_eq!(server.value("/web/prod", "a").await, 2);
    assert_eq!(server.value("/web/prod,eu", "a").await, 1);
    assert_eq!(server.value("/web/prod,y", "a").await, 3);
    let commit = git.run(&["rev-parse", "HEAD"]);
    let shown = server.shown("/web/prod", &[(&commit, "COMMIT")]).await;
    insta::assert_snapshot!(shown, @r#"
    200 OK
    {"name":"web","profiles":["prod"],"label":null,"version":"COMMIT","state":"","propertySources":[
    {"name":"Config resource 'file [REPO/application.yml]' via location '' (document #1)","source":{"spring.config.activate.on-profile":"prod & !eu","a":2}},
    {"name":"Config resource 'file [REPO/application.yml]' via location '' (document #0)","source":{"a":1}}]}
    "#);
}

#[tokio::test]
async fn who_is_unknown_gets_what_all_get() {
    let git = shop();
    let server = git.server().await;
    assert_eq!(server.value("/stranger/nowhere", "shared").await, "all");
}

#[tokio::test]
async fn an_unreadable_file_is_named_and_not_shown() {
    let git = Git::new(&[("application.yml", "a: 1\n"), ("orders.yml", "ok: 1\npassword: [hunter2\n")]);
    let server = git.server().await;
    let commit = git.run(&["rev-parse", "HEAD"]);
    let shown = server.shown("/orders/default", &[(&commit, "COMMIT")]).await;
    assert!(!shown.contains("hunter2"));
    insta::assert_snapshot!(shown, @r#"
    404 Not Found
    {"type":"urn:firstcome:problem:unreadable-file","title":"Not Found","status":404,"code":"UNREADABLE_FILE","detail":"orders.yml of commit COMMIT: line 3: is no YAML: while parsing a flow sequence, expected ',' or ']'.","instance":"/orders/default","traceId":"TRACE"}
    "#);
    assert_eq!(server.value("/web/default", "a").await, 1);
}

#[tokio::test]
async fn unknown_labels_and_odd_names_are_refused() {
    let git = shop();
    let server = git.server().await;
    insta::assert_snapshot!(server.shown("/orders/prod/nowhere", &[]).await, @r#"
    404 Not Found
    {"type":"urn:firstcome:problem:label-not-found","title":"Not Found","status":404,"code":"LABEL_NOT_FOUND","detail":"The repository has no such branch, tag or commit.","instance":"/orders/prod/nowhere","traceId":"TRACE"}
    "#);
    insta::assert_snapshot!(server.shown("/or~ders/prod", &[]).await, @r#"
    400 Bad Request
    {"type":"urn:firstcome:problem:validation-failed","title":"Bad Request","status":400,"code":"VALIDATION_FAILED","detail":"The request has values that are not acceptable.","instance":"/or~ders/prod","traceId":"TRACE","errors":[{"field":"application","message":"must have at most 200 characters, of A-Z, a-z, 0-9, '.', '_', '-' and ','"}]}
    "#);
    for label in [
        "HEAD~1",
        "main%5E",
        "main:application.yml",
        "0000000000000000000000000000000000000000",
        "..(_)main",
        "main%0Amain",
        "main%00",
        "--help",
        "%2e%2e%2f%2e%2e",
    ] {
        let (status, body) = server.get(&format!("/orders/prod/{label}")).await;
        assert_eq!(
            (status.as_u16(), body["code"].as_str()),
            (404, Some("LABEL_NOT_FOUND")),
            "{label}: {body}"
        );
    }
    for (path, status) in [
        ("/orders/prod,", 404),
        ("/,orders/prod", 404),
        ("/..%2f..%2fetc/passwd", 400),
        ("/%2e%2e/prod", 400),
        ("/.git/config", 400),
        ("/orders/a%0Ab", 400),
        ("/orders/%ED%95%9C", 400),
        ("/orders/%FF", 400),
        ("/orders", 404),
        ("/", 404),
        ("/a/b/c/d", 404),
    ] {
        let (got, body) = server.get(path).await;
        assert_eq!(got, status, "{path}: {body}");
        assert!(body["code"].is_string(), "{path}: {body}");
    }
    let long = "a".repeat(300);
    assert_eq!(server.get(&format!("/{long}/prod")).await.0, 400);
}
