//! Predicates, filters and CORS on their way through the whole gateway.

use axum::body::Body;
use http::Request;
use platform::http::server::Peer;
use serde_json::{Value, json};

use super::harness::{Answer, Setting, claims};

/// A gateway with these routes only, all to an echo, none asking for a token.
async fn setting(routes: &Value, more: &Value) -> Setting {
    let mut setting = Setting::new().await;
    let routes: Vec<Value> = routes
        .as_array()
        .unwrap()
        .iter()
        .map(|route| {
            let mut whole = json!({"id": "r", "uri": "lb://coupon-service", "authentication": "none"});
            whole.as_object_mut().unwrap().extend(route.as_object().unwrap().clone());
            whole
        })
        .collect();
    // Not merged: none of the shipped routes shall be left, nor their switches.
    setting.settings["routes"] = json!(routes);
    setting.settings["route-enabled"] = json!({});
    setting.configure(more);
    setting
}

async fn get(setting: &mut Setting, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    setting.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn filters_change_what_the_service_gets_and_what_the_client_gets() {
    let route = json!([{
        "predicates": ["Path=/shop/{item}/**"],
        "filters": ["StripPrefix=1", "AddRequestHeader=X-Item, {item}", "AddRequestParameter=from, gateway",
                    "RemoveRequestHeader=X-Secret", "AddResponseHeader=X-Of, {item}", "RemoveResponseHeader=X-Shown",
                    "SetStatus=202"],
    }]);
    let mut setting =
        setting(&route, &json!({"default-filters": ["SetRequestHeader=X-Item, default"]})).await;
    let answer = get(&mut setting, "/shop/7/x?a=1", &[("x-secret", "1")]).await;
    let seen = answer.json();
    assert_eq!(answer.status, 202);
    assert_eq!(seen["uri"], "/7/x?a=1&from=gateway");
    assert_eq!(seen["headers"]["x-item"], json!(["default", "7"]), "the default filter first");
    assert!(seen["headers"].get("x-secret").is_none());
    assert_eq!(answer.header("x-of"), Some("7"));
    assert_eq!(answer.header("x-shown"), None);
}

#[tokio::test]
async fn a_filter_cannot_take_away_what_the_gateway_says() {
    let route = json!([{
        "predicates": ["Path=/x"], "authentication": "required",
        "filters": ["SetRequestHeader=X-Firstcome-Identity, forged", "RemoveRequestHeader=traceparent"],
    }]);
    let mut setting = setting(&route, &json!({})).await;
    let bearer = format!("Bearer {}", setting.token());
    let seen = get(&mut setting, "/x", &[("authorization", &bearer)]).await.json();
    let identity = seen["headers"]["x-firstcome-identity"].as_array().unwrap();
    assert_eq!(identity.len(), 1);
    assert!(identity[0].as_str().unwrap().starts_with("ey"), "{identity:?}");
    assert!(seen["headers"].get("traceparent").is_some());
}

#[tokio::test]
async fn no_rewriting_leads_to_what_is_reserved() {
    let route = json!([
        {"id": "rewrite", "predicates": ["Path=/a/**"], "filters": [r"RewritePath=/a(?<rest>.*), $\{rest}"]},
        {"id": "set", "predicates": ["Path=/b/{x}"], "filters": ["SetPath=/{x}"]},
    ]);
    let mut setting = setting(&route, &json!({})).await;
    assert_eq!(get(&mut setting, "/a/coupons", &[]).await.status, 200);
    for path in
        ["/a/internal/counts", "/a/Internal/counts", "/a/actuator/env", "/b/internal", "/a/%69nternal/x"]
    {
        assert_eq!(get(&mut setting, path, &[]).await.problem().0, 404, "{path}");
    }
    for path in ["/a//internal/x", "/a/x/../internal", "/a/%2e%2e/internal", "/b/..", "/b/x%2finternal"] {
        assert_eq!(get(&mut setting, path, &[]).await.problem().0, 400, "{path}");
    }
}

#[tokio::test]
async fn a_redirect_and_no_op_are_answered_here() {
    let route = json!([
        {"id": "old", "predicates": ["Path=/old"], "filters": ["RedirectTo=301, https://new.example/x, true"]},
        {"id": "gone", "uri": "no://op", "predicates": ["Path=/gone"],
         "filters": ["SetStatus=410", "SetResponseHeader=X-Why, moved"]},
    ]);
    let mut setting = setting(&route, &json!({})).await;
    let answer = get(&mut setting, "/old?a=1", &[]).await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (301, Some("https://new.example/x?a=1")));
    let answer = get(&mut setting, "/gone", &[]).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-why")), (410, Some("moved")));
}

#[tokio::test]
async fn a_routes_own_size_replaces_the_general_one() {
    let route = json!([
        {"id": "large", "predicates": ["Path=/large"], "filters": ["RequestSize=40KB"]},
        {"id": "small", "predicates": ["Path=/small"], "filters": ["RequestSize=10B"]},
        {"id": "two", "predicates": ["Path=/two"], "filters": ["RequestSize=10B", "RequestSize=40KB"]},
    ]);
    let mut setting = setting(&route, &json!({})).await;
    let chunked = |size: usize| {
        Body::from_stream(futures_util::stream::iter([Ok::<_, std::io::Error>(vec![b'x'; size])]))
    };
    for (path, size, status) in [
        ("/large", 20 << 10, 200),
        ("/large", 41 << 10, 413),
        ("/small", 10, 200),
        ("/small", 11, 413),
        ("/two", 10, 200),
        ("/two", 11, 413),
    ] {
        let announced =
            Request::post(path).header("content-length", size).body(Body::from(vec![b'x'; size])).unwrap();
        assert_eq!(setting.send(announced).await.status, status, "{path} {size}");
        let counted = Request::post(path).body(chunked(size)).unwrap();
        assert_eq!(setting.send(counted).await.status, status, "{path} {size} chunked");
    }
}

#[tokio::test]
async fn roles_and_scopes_are_asked_for_at_the_door() {
    let route = json!([
        {"id": "role", "predicates": ["Path=/role"], "authentication": "required", "roles": ["ADMIN", "SUPPORT"]},
        {"id": "scope", "predicates": ["Path=/scope"], "authentication": "required", "scopes": ["coupon:write", "a"]},
    ]);
    let mut setting = setting(&route, &json!({})).await;
    let with = |setting: &Setting, change: Value| {
        let mut claims = claims(7);
        claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        format!("Bearer {}", setting.signer.sign(&claims))
    };
    let support = with(&setting, json!({"roles": ["SUPPORT"]}));
    let user = with(&setting, json!({"roles": ["USER"], "scope": "coupon:write"}));
    let both = with(&setting, json!({"scope": "a x coupon:write"}));
    assert_eq!(get(&mut setting, "/role", &[("authorization", &support)]).await.status, 200);
    let refused = get(&mut setting, "/role", &[("authorization", &user)]).await;
    assert_eq!(refused.problem(), (403, "FORBIDDEN".to_owned()));
    assert_eq!(refused.json()["requiredRoles"], json!(["ADMIN", "SUPPORT"]));
    assert_eq!(get(&mut setting, "/role", &[]).await.status, 401);
    assert_eq!(get(&mut setting, "/scope", &[("authorization", &both)]).await.status, 200);
    let refused = get(&mut setting, "/scope", &[("authorization", &user)]).await;
    assert_eq!(refused.json()["requiredScopes"], json!(["coupon:write", "a"]));
}

#[tokio::test]
async fn cross_origin_requests_need_a_configuration() {
    const SHOP: (&str, &str) = ("origin", "https://shop.example");
    let route = json!([
        {"id": "own", "predicates": ["Path=/own", "Method=GET"],
         "metadata": {"cors": {"allowedOrigins": "https://own.example"}}},
        {"id": "put", "predicates": ["Path=/api/x", "Method=PUT"], "authentication": "required"},
        {"id": "any", "predicates": ["Path=/any"]},
    ]);
    let cors = json!({"globalcors": {"cors-configurations": {"[/api/**]": {
        "allowedOrigins": ["https://shop.example"], "allowedMethods": ["PUT"], "allowCredentials": true}}}});
    let mut setting = setting(&route, &cors).await;
    let preflight = async |setting: &mut Setting, path: &str, origin: &str, method: &str| {
        let request =
            Request::options(path).header("origin", origin).header("access-control-request-method", method);
        setting.send(request.body(Body::empty()).unwrap()).await
    };
    let allowed = preflight(&mut setting, "/api/x", "https://shop.example", "PUT").await;
    assert_eq!(allowed.status, 200, "without a token: a browser sends none");
    assert_eq!(allowed.header("access-control-allow-origin"), Some("https://shop.example"));
    assert_eq!(allowed.headers.get_all("vary").iter().count(), 3);
    for (path, origin, method) in [
        ("/api/x", "https://evil.example", "PUT"),
        ("/api/x", "null", "PUT"),
        ("/own", "https://shop.example", "GET"),
        ("/any", "https://shop.example", "GET"),
    ] {
        let refused = preflight(&mut setting, path, origin, method).await;
        assert_eq!(refused.problem(), (403, "CORS_REFUSED".to_owned()), "{path} {origin}");
        assert_eq!(refused.header("access-control-allow-origin"), None);
    }
    assert_eq!(preflight(&mut setting, "/none", "https://shop.example", "GET").await.status, 404);

    let refused =
        Request::put("/api/x").header("origin", "https://shop.example").body(Body::empty()).unwrap();
    let refused = setting.send(refused).await;
    assert_eq!(refused.problem().0, 401);
    assert_eq!(
        refused.header("access-control-allow-origin"),
        Some("https://shop.example"),
        "so that it can be read"
    );
    let own = get(&mut setting, "/own", &[("origin", "https://own.example")]).await;
    assert_eq!(
        (own.status.as_u16(), own.header("access-control-allow-origin")),
        (200, Some("https://own.example"))
    );
    assert_eq!(get(&mut setting, "/own", &[SHOP]).await.status, 403);
    let free = get(&mut setting, "/any", &[SHOP]).await;
    assert_eq!((free.status.as_u16(), free.header("vary")), (200, None), "nothing is configured for it");
}

#[tokio::test]
async fn only_a_trusted_proxy_has_a_say_about_the_way() {
    let route = json!([{"predicates": ["Path=/x"], "filters": ["PreserveHostHeader"]}]);
    let mut setting = setting(&route, &json!({"trusted-proxies": "10.0.0.0/8"})).await;
    let mut seen = async |peer: &str| {
        let mut request = Request::get("/x")
            .header("host", "shop.example")
            .header("x-forwarded-for", "9.9.9.9")
            .header("x-forwarded-proto", "https")
            .body(Body::empty())
            .unwrap();
        request.extensions_mut().insert(Peer { address: peer.parse().unwrap(), tls: false });
        setting.send(request).await.json()["headers"].clone()
    };
    let trusted = seen("10.0.0.1:99").await;
    assert_eq!(trusted["x-forwarded-for"], json!(["9.9.9.9,10.0.0.1"]));
    assert_eq!(trusted["x-forwarded-proto"], json!(["https"]));
    assert_eq!(trusted["x-forwarded-host"], json!(["shop.example"]));
    assert_eq!(trusted["host"], json!(["shop.example"]));
    let other = seen("11.0.0.1:99").await;
    assert!(!other.as_object().unwrap().keys().any(|name| name.starts_with("x-forwarded")), "{other}");
}

#[tokio::test]
async fn weights_share_requests() {
    let route = json!([
        {"id": "eight", "predicates": ["Path=/x", "Weight=g, 8"], "filters": ["AddRequestHeader=X-Of, eight"]},
        {"id": "two", "predicates": ["Path=/x", "Weight=g, 2"], "filters": ["AddRequestHeader=X-Of, two"]},
    ]);
    let mut setting = setting(&route, &json!({})).await;
    let mut eight = 0;
    for _ in 0..400 {
        let of = get(&mut setting, "/x", &[]).await.json()["headers"]["x-of"][0].clone();
        eight += u32::from(of == "eight");
    }
    assert!((280..360).contains(&eight), "{eight} of 400");
}
