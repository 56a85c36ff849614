use platform::http::problem::PROBLEM_JSON;
use serde_json::{Value, json};

use super::*;

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// An operation that answers with a schema.
fn operation(id: &str, schema: &str) -> Value {
    let content = json!({"application/json": {"schema": reference(schema)}});
    json!({"operationId": id, "tags": ["things"], "security": [{"identity": []}],
           "responses": {"200": {"description": "A thing", "content": content}}})
}

fn document(paths: &Value, schemas: &Value) -> Value {
    json!({"openapi": "3.1.0", "info": {"title": "x", "version": "1"}, "paths": paths,
           "components": {"schemas": schemas, "securitySchemes": {"identity": {"type": "apiKey"}}}})
}

fn open(_: &str, _: &Method, path: &str) -> Option<Access> {
    (!path.starts_with("/internal"))
        .then(|| Access { authentication: Authentication::None, ..Access::default() })
}

#[test]
fn what_no_route_leads_to_is_left_out_with_all_that_it_alone_refers_to() {
    let document = document(
        &json!({
            "/things": {"get": operation("list", "Thing"), "delete": operation("purge", "Secret")},
            "/internal/things": {"get": operation("all", "Secret")},
        }),
        &json!({
            "Thing": {"type": "object", "properties": {"part": reference("Part")}},
            "Part": {"type": "string"},
            "Secret": {"type": "string"},
        }),
    );
    let access = |service: &str, method: &Method, path: &str| {
        open(service, method, path).filter(|_| method == Method::GET)
    };
    let whole = combine(&[("a", &document)], access);
    assert_eq!(whole["paths"].as_object().unwrap().keys().collect::<Vec<_>>(), ["/things"]);
    assert_eq!(whole["paths"]["/things"].as_object().unwrap().keys().collect::<Vec<_>>(), ["get"]);
    let schemas = whole["components"]["schemas"].as_object().unwrap();
    assert_eq!(schemas.keys().collect::<Vec<_>>(), ["FieldProblem", "Part", "Problem", "Thing"]);
    let schemes = whole["components"]["securitySchemes"].as_object().unwrap();
    assert_eq!(schemes.keys().collect::<Vec<_>>(), ["bearer"]);
    assert_eq!(whole["servers"], json!([{"url": "/"}]));
    assert_eq!(whole["tags"], json!([{"name": "things"}]));
}

#[test]
fn of_two_that_use_one_name_the_first_keeps_it() {
    let schemas = |part: &str| json!({"Thing": {"properties": {"part": reference("Part")}}, "Part": {"type": part}, "Same": {"type": "null"}});
    let paths =
        |path: &str| json!({path: {"get": operation("show", "Thing"), "put": operation("same", "Same")}});
    let first = document(&paths("/a"), &schemas("string"));
    let second = document(&paths("/b"), &schemas("integer"));
    let whole = combine(&[("one", &first), ("two", &second)], open);

    let schemas = &whole["components"]["schemas"];
    assert_eq!(schemas["Part"]["type"], "string");
    assert_eq!(schemas["two.Part"]["type"], "integer");
    assert_eq!(schemas["Thing"]["properties"]["part"], reference("Part"));
    assert_eq!(schemas["two.Thing"]["properties"]["part"], reference("two.Part"), "by what it refers to");
    assert!(schemas.get("two.Same").is_none(), "{schemas}");
    let of = |path: &str| whole["paths"][path]["get"].clone();
    let schema = |path: &str| of(path)["responses"]["200"]["content"]["application/json"]["schema"].clone();
    assert_eq!((schema("/a"), schema("/b")), (reference("Thing"), reference("two.Thing")));
    assert_eq!(
        (of("/a")["operationId"].as_str(), of("/b")["operationId"].as_str()),
        (Some("show"), Some("two.show"))
    );

    let again = combine(&[("one", &first), ("two", &second)], open);
    assert_eq!(whole.to_string(), again.to_string());
}

#[test]
fn security_is_the_gateways_word() {
    let document = document(&json!({"/things": {"get": operation("list", "Thing")}}), &json!({"Thing": {}}));
    for (authentication, security, refuses) in [
        (Authentication::Required, json!([{"bearer": []}]), true),
        (Authentication::Optional, json!([{}, {"bearer": []}]), true),
        (Authentication::None, json!([]), false),
    ] {
        let access = |_: &str, _: &Method, _: &str| Some(Access { authentication, ..Access::default() });
        let list = combine(&[("a", &document)], access)["paths"]["/things"]["get"].take();
        assert_eq!(list["security"], security);
        assert_eq!(list["responses"].get("401").is_some(), refuses, "{authentication:?}");
        assert!(list["responses"].get("403").is_none());
    }
    let admin =
        |_: &str, _: &Method, _: &str| Some(Access { roles: vec!["ADMIN".to_owned()], ..Access::default() });
    let mut document = document;
    let own = serde_json::to_value(description::responses(&[Problem::forbidden()])).unwrap();
    document["paths"]["/things"]["get"]["responses"]["403"] = own["403"].clone();
    let list = combine(&[("a", &document)], admin)["paths"]["/things"]["get"].take();
    let examples = &list["responses"]["403"]["content"][PROBLEM_JSON]["examples"];
    assert_eq!(examples["FORBIDDEN"]["value"]["requiredRoles"], json!(["ADMIN"]));
}

#[test]
fn the_gateways_refusals_join_those_of_the_service() {
    let busy = Problem::new(http::StatusCode::SERVICE_UNAVAILABLE, "BUSY", "Busy.");
    let mut put = operation("put", "Thing");
    put["responses"]["503"] =
        serde_json::to_value(description::responses(&[busy, Problem::overloaded()])).unwrap()["503"].take();
    put["requestBody"] = json!({"content": {}});
    put["parameters"] = json!([{"in": "path", "name": "id", "example": 7}]);
    let document = document(&json!({"/things/{id}": {"put": put}}), &json!({"Thing": {}}));
    let responses = combine(&[("a", &document)], open)["paths"]["/things/{id}"]["put"]["responses"].take();

    let statuses: Vec<_> = responses.as_object().unwrap().keys().collect();
    assert_eq!(statuses, ["200", "400", "408", "413", "429", "502", "503", "504"]);
    let examples = &responses["503"]["content"][PROBLEM_JSON]["examples"];
    assert_eq!(
        examples.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["BUSY", "OVERLOADED", "UPSTREAM_UNAVAILABLE"]
    );
    assert_eq!(examples["BUSY"]["value"]["instance"], "/things/7");
    assert_eq!(responses["503"]["description"].as_str().unwrap().matches("OVERLOADED").count(), 1);
}

#[test]
fn a_document_of_another_form_does_no_harm() {
    for odd in [
        json!(null),
        json!([]),
        json!({"paths": [1]}),
        json!({"paths": {"/a": 7, "/b": {"get": 7}, "/c": {"get": {"responses": 7}}, "d": {"get": {}}}}),
        json!({"paths": {"/a": {"get": {"responses": {"200": 7, "503": 7}, "x": reference("Gone")}}}, "components": 7}),
        json!({"paths": {"/a": {"get": {"responses": {"503": {"headers": [], "content":
            {"application/problem+json": {"examples": {}}}}}}}}}),
    ] {
        assert!(combine(&[("a", &odd)], open)["paths"].is_object(), "{odd}");
    }
}
