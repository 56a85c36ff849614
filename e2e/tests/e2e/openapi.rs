//! The description of the API, held against the running system: each operation is asked with the example of its request,
//! and each answer has to be one that is described.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use e2e::client::{Answer, Client, with_token};
use e2e::coupons::in_seconds;
use e2e::stack::{Stack, shared};
use e2e::{secrets, users};
use jsonschema::{Draft, Validator};
use reqwest::Method;
use serde_json::{Value, json};

const DOCUMENT: &str = "/v3/api-docs";
const METHODS: [&str; 6] = ["get", "put", "post", "delete", "patch", "head"];
/// Until all services have said what they do, and for a claim to be decided.
const WITHIN: Duration = Duration::from_secs(20);
const LOGIN: &str = "post /users/login";
/// Each operation, in an order in which it finds what it needs.
const STEPS: [&str; 20] = [
    "post /users/sign-up",
    LOGIN,
    "post /users/token/refresh",
    "get /users/me",
    "get /.well-known/jwks.json",
    "post /coupons",
    "get /coupons",
    "get /coupons/{id}",
    "patch /coupons/{id}",
    "post /coupon-issues",
    "get /coupon-issues/{couponId}/me",
    "get /coupon-issues/me",
    "post /users/{id}/roles",
    "put /users/me/password",
    LOGIN,
    "post /users/logout",
    LOGIN,
    "post /users/logout/all",
    LOGIN,
    "delete /users/me",
];
/// Members of answers that stand for the same thing wherever an example shows them.
const NAMES: [&str; 3] = ["userId", "couponId", "refreshToken"];

/// The document as the gateway gives it, once every service is in it.
async fn document(client: &Client) -> Value {
    let begun = Instant::now();
    loop {
        let answer = client.get(DOCUMENT, None).await;
        if answer.status == 200 {
            let document = answer.expect(200);
            if ["/users/me", "/coupons", "/coupon-issues"]
                .iter()
                .all(|path| document["paths"].get(path).is_some())
            {
                return document;
            }
        }
        assert!(begun.elapsed() < WITHIN, "{}", answer.text);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// `method path` and the operation.
fn operations(document: &Value) -> BTreeMap<String, &Value> {
    let mut found = BTreeMap::new();
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        for method in METHODS {
            if let Some(operation) = item.get(method) {
                found.insert(format!("{method} {path}"), operation);
            }
        }
    }
    found
}

/// Checks values against a schema of the document.
fn validator(document: &Value, schema: &Value) -> Validator {
    let whole = json!({"components": document["components"], "allOf": [schema]});
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .should_validate_formats(true)
        .build(&whole)
        .unwrap_or_else(|error| panic!("no schema: {error}: {schema}"))
}

#[track_caller]
fn check(document: &Value, schema: &Value, value: &Value, what: &str) {
    let problems: Vec<_> =
        validator(document, schema).iter_errors(value).map(|error| error.to_string()).collect();
    assert!(problems.is_empty(), "{what}: {problems:?}: {value}");
}

/// Of a body or a parameter: its `example`, or each of its `examples`.
fn examples(part: &Value) -> Vec<&Value> {
    let many = part["examples"].as_object().into_iter().flat_map(|examples| examples.values());
    part.get("example").into_iter().chain(many.map(|example| &example["value"])).collect()
}

/// Every `example` of the schemas themselves, and of what is in them.
fn check_schemas(document: &Value, schema: &Value, what: &str) {
    if let Some(example) = schema.get("example").filter(|_| schema.get("type").is_some()) {
        check(document, schema, example, what);
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        check_schemas(document, property, &format!("{what}.{name}"));
    }
}

#[tokio::test]
async fn every_example_of_the_openapi_document_keeps_to_its_schema() {
    let _stack = shared().await;
    let client = Client::gateway(&Stack::load());
    let document = document(&client).await;
    assert_eq!(document["openapi"], "3.1.0");
    for (name, operation) in operations(&document) {
        assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{name} has no summary");
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let what = format!("{name} {}", parameter["name"]);
            let shown = examples(parameter);
            assert!(!shown.is_empty() || parameter["required"] != true, "{what} has no example");
            shown.iter().for_each(|example| check(&document, &parameter["schema"], example, &what));
        }
        let responses = operation["responses"].as_object().expect("responses");
        assert!(responses.keys().any(|status| status.starts_with('2')), "{name} can't succeed");
        let request = operation.get("requestBody").map(|body| ("request", body));
        for (part, body) in
            request.into_iter().chain(responses.iter().map(|(status, body)| (&**status, body)))
        {
            assert!(body["content"].is_object() || part == "204", "{name} {part} says nothing of its body");
            for (kind, content) in body["content"].as_object().into_iter().flatten() {
                let what = format!("{name} {part}");
                let expected = if part.starts_with(['4', '5']) {
                    "application/problem+json"
                } else {
                    "application/json"
                };
                assert_eq!(kind, expected, "{what}");
                let shown = examples(content);
                assert!(!shown.is_empty(), "{what} has no example");
                shown.iter().for_each(|example| check(&document, &content["schema"], example, &what));
            }
        }
    }
    for (name, schema) in document["components"]["schemas"].as_object().expect("schemas") {
        check_schemas(&document, schema, name);
    }
}

/// What is known of the things that the examples name.
struct Run {
    client: Client,
    document: Value,
    /// By the example's value.
    known: BTreeMap<String, Value>,
    user: String,
    admin: String,
}

impl Run {
    /// The example with what it names in the running system.
    fn real(&self, example: &Value) -> Value {
        match example {
            Value::Array(values) => values.iter().map(|value| self.real(value)).collect(),
            Value::Object(members) => {
                members.iter().map(|(name, value)| (name.clone(), self.real(value))).collect()
            }
            value => self.known.get(&text(value)).unwrap_or(value).clone(),
        }
    }

    /// What the example of an answer shows stands for what was answered.
    fn learn(&mut self, example: &Value, answer: &Value) {
        for (name, shown) in example.as_object().into_iter().flatten() {
            if NAMES.contains(&name.as_str()) {
                self.known.insert(text(shown), answer[name].clone());
            }
            self.learn(shown, &answer[name]);
        }
    }

    async fn ask(&self, name: &str, operation: &Value) -> Answer {
        let (method, path) = name.split_once(' ').expect("a method and a path");
        let mut path = path.to_owned();
        for parameter in
            operation["parameters"].as_array().into_iter().flatten().filter(|it| it["in"] == "path")
        {
            let place = format!("{{{}}}", parameter["name"].as_str().unwrap_or_default());
            path = path.replace(&place, &text(&self.real(examples(parameter)[0])));
        }
        let forbidden =
            "/responses/403/content/application~1problem+json/examples/FORBIDDEN/value/requiredRoles";
        let anybody = operation["security"]
            .as_array()
            .is_none_or(|security| security.is_empty() || security.contains(&json!({})));
        let token = match operation.pointer(forbidden) {
            _ if anybody => None,
            Some(_) => Some(&*self.admin),
            None => Some(&*self.user),
        };
        let method: Method = method.to_ascii_uppercase().parse().expect("a method");
        let mut request = with_token(self.client.request(method, &path), token);
        if let Some(body) = operation.get("requestBody") {
            request = request.json(&self.real(examples(&body["content"]["application/json"])[0]));
        }
        self.client.send(request).await
    }

    /// Asks until it is done, and checks that the answer is as it is described.
    async fn step(&mut self, name: &str) {
        let operation = operations(&self.document)[name].clone();
        let begun = Instant::now();
        let answer = loop {
            let answer = self.ask(name, &operation).await;
            self.check(name, &operation, &answer);
            // A claim may say so at first, on a busy machine.
            if answer.status != 503 {
                break answer;
            }
            assert!(begun.elapsed() < WITHIN, "{name}: {}", answer.text);
            tokio::time::sleep(Duration::from_millis(250)).await;
        };
        assert!((200..300).contains(&answer.status), "{name}: {} {}", answer.status, answer.text);
        if let Some(example) =
            operation["responses"][answer.status.to_string()]["content"]["application/json"].get("example")
        {
            let body = answer.json();
            if let Some(access) = body["token"]["accessToken"].as_str() {
                self.user = secrets::met(access);
                secrets::met(body["token"]["refreshToken"].as_str().unwrap_or_default());
            }
            self.learn(example, &body);
        }
    }

    fn check(&self, name: &str, operation: &Value, answer: &Answer) {
        let status = answer.status.to_string();
        let described = operation["responses"].get(&status);
        let described =
            described.unwrap_or_else(|| panic!("{name}: {status} is not described: {}", answer.text));
        let kind = answer.header("content-type");
        match described.get("content") {
            None => assert_eq!((answer.text.as_str(), kind), ("", ""), "{name}: {status} has a body"),
            Some(content) => {
                let content =
                    content.get(kind).unwrap_or_else(|| panic!("{name}: {status} has the type {kind}"));
                check(&self.document, &content["schema"], &answer.json(), &format!("{name} {status}"));
            }
        }
        for header in
            ["location", "retry-after"].into_iter().filter(|header| !answer.header(header).is_empty())
        {
            let mut names = described["headers"].as_object().into_iter().flat_map(|headers| headers.keys());
            assert!(names.any(|name| name.eq_ignore_ascii_case(header)), "{name}: {status} has {header}");
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[tokio::test]
async fn every_operation_of_the_openapi_document_does_what_its_example_says() {
    let _stack = shared().await;
    let stack = Stack::load();
    let client = Client::gateway(&stack);
    let document = document(&client).await;
    let all: BTreeSet<String> = operations(&document).into_keys().collect();
    let asked: BTreeSet<String> = STEPS.iter().map(|step| (*step).to_owned()).collect();
    assert_eq!(all, asked, "each operation is asked");

    let (password, new) = (secrets::password(), secrets::password());
    let known = [
        ("kim@example.com", users::email()),
        ("correct horse", password),
        ("battery staple", new.clone()),
        ("2026-11-21T10:00:00.000Z", in_seconds(-5)),
        ("2026-11-22T10:00:00.000Z", in_seconds(3600)),
    ];
    let known = known.into_iter().map(|(example, real)| (example.to_owned(), real.into())).collect();
    let admin = users::admin(&stack, &client).await;
    let mut run = Run { client, document, known, user: String::new(), admin };
    for step in STEPS {
        run.step(step).await;
        if step == "put /users/me/password" {
            run.known.insert("correct horse".to_owned(), new.clone().into());
        }
    }
}
