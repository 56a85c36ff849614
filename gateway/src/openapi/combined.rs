//! Many OpenAPI documents as one: what a client may ask, as a client has to ask it.
//!
//! Invariant: the same documents, in the same order, and the same routes give the same document, whatever names the
//! services have chosen.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use platform::http::description;
use platform::http::problem::Problem;
use serde_json::{Map, Value, json};

use crate::config::Authentication;
use crate::rescue::Failure;
use crate::routes::Access;

/// Of a path item, what is an operation.
const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];
const COMPONENTS: &str = "#/components/";
const BEARER: &str = "bearer";
/// Of a response: its examples of problems, as a JSON pointer (RFC 6901).
const PROBLEMS: &str = "/content/application~1problem+json/examples";

/// `access` says who may use an operation of a service, by its method and an example of its path; none where no route
/// leads. Of several services that use one name for different things the first keeps it; the others' are called
/// `service.Name`.
#[must_use]
pub fn combine(
    documents: &[(&str, &Value)],
    access: impl Fn(&str, &Method, &str) -> Option<Access>,
) -> Value {
    let mut whole = Whole::default();
    whole.components.insert("schemas".to_owned(), json!(description::schemas()));
    for (service, document) in documents {
        whole.add(service, document, &access);
    }
    let description = "Log in, and send the access token as `Authorization: Bearer`. Errors are RFC 9457 problems, with a \
                       stable `code`.";
    let bearer = json!({BEARER: {"type": "http", "scheme": "bearer", "bearerFormat": "JWT",
                                 "description": "The `accessToken` of a login."}});
    whole.components.insert("securitySchemes".to_owned(), bearer);
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Firstcome", "version": env!("CARGO_PKG_VERSION"), "description": description},
        "servers": [{"url": "/"}],
        "tags": whole.tags.into_values().collect::<Value>(),
        "paths": whole.paths,
        "components": whole.components,
    })
}

#[derive(Default)]
struct Whole {
    paths: Map<String, Value>,
    /// By kind, then by name.
    components: Map<String, Value>,
    tags: BTreeMap<String, Value>,
    operation_ids: BTreeSet<String>,
}

impl Whole {
    fn add(
        &mut self,
        service: &str,
        document: &Value,
        access: &impl Fn(&str, &Method, &str) -> Option<Access>,
    ) {
        let mut paths = Value::Object(reachable(service, document, access));
        let mut used = components_of(document, &paths);
        self.part(service, &mut paths, &mut used);
        for (reference, component) in used {
            if let Some((kind, name)) =
                reference.strip_prefix(COMPONENTS).and_then(|path| path.split_once('/'))
            {
                self.components.entry(kind).or_insert_with(|| json!({}))[name] = component;
            }
        }
        let Value::Object(paths) = paths else { return };
        for (path, item) in paths {
            let Value::Object(item) = item else { continue };
            for operation in item.values().filter(|part| part.get("responses").is_some()) {
                self.describe_tags(document, operation);
            }
            let Value::Object(known) = self.paths.entry(path).or_insert_with(|| json!({})) else { continue };
            for (part, mut value) in item {
                if let Some(Value::String(id)) = value.get_mut("operationId") {
                    if self.operation_ids.contains(id) {
                        *id = format!("{service}.{id}");
                    }
                    self.operation_ids.insert(id.clone());
                }
                known.entry(part).or_insert(value);
            }
        }
    }

    /// Gives other names to the components whose own are taken, until no two different ones share any.
    fn part(&self, service: &str, paths: &mut Value, used: &mut BTreeMap<String, Value>) {
        loop {
            let taken = |(reference, component): &(&String, &Value)| {
                let known = self.component(reference);
                known.is_some_and(|known| known != *component)
            };
            let Some((reference, _)) = used.iter().find(taken) else { return };
            let old = reference.clone();
            let (kind, name) = old.rsplit_once('/').unwrap_or_default();
            let new = format!("{kind}/{service}.{name}");
            if let Some(component) = used.remove(&old) {
                used.insert(new.clone(), component);
            }
            for value in used.values_mut().chain([&mut *paths]) {
                for_each_text(value, &mut |text: &mut String| {
                    if *text == old {
                        text.clone_from(&new);
                    }
                });
            }
        }
    }

    fn component(&self, reference: &str) -> Option<&Value> {
        let (kind, name) = reference.strip_prefix(COMPONENTS)?.split_once('/')?;
        self.components.get(kind)?.get(name)
    }

    fn describe_tags(&mut self, document: &Value, operation: &Value) {
        let described = document["tags"].as_array().map(Vec::as_slice).unwrap_or_default();
        for name in operation["tags"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let tag = described.iter().find(|tag| tag["name"] == name).cloned();
            let tag = tag.unwrap_or_else(|| json!({"name": name}));
            self.tags.entry(name.to_owned()).or_insert(tag);
        }
    }
}

/// The paths with the operations that a route leads to, as the gateway offers them.
fn reachable(
    service: &str,
    document: &Value,
    access: &impl Fn(&str, &Method, &str) -> Option<Access>,
) -> Map<String, Value> {
    let mut kept = Map::new();
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        let mut item = item.as_object().cloned().unwrap_or_default();
        let shared = item.get("parameters").cloned().unwrap_or_default();
        item.retain(|name, operation| {
            if !METHODS.contains(&name.as_str()) {
                return true;
            }
            let Ok(method) = name.to_ascii_uppercase().parse::<Method>() else { return false };
            if !operation.is_object() {
                return false;
            }
            let example = example_path(path, &[&operation["parameters"], &shared]);
            let access = access(service, &method, &example);
            if let Some(access) = &access {
                offer(operation, access, &example);
            }
            access.is_some()
        });
        if item.keys().any(|name| METHODS.contains(&name.as_str())) {
            kept.insert(path.clone(), Value::Object(item));
        }
    }
    kept
}

/// The path with its parameters' examples in their places, or `1`.
fn example_path(path: &str, parameters: &[&Value]) -> String {
    let value = |name: &str| {
        let mut all = parameters.iter().filter_map(|list| list.as_array()).flatten();
        let parameter = all.find(|parameter| parameter["in"] == "path" && parameter["name"] == name);
        match parameter.map(|parameter| &parameter["example"]) {
            Some(Value::String(text)) => text.clone(),
            Some(example @ Value::Number(_)) => example.to_string(),
            _ => "1".to_owned(),
        }
    };
    let parts =
        path.split('/').map(|part| match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            Some(name) => value(name),
            None => part.to_owned(),
        });
    parts.collect::<Vec<_>>().join("/")
}

/// Puts in what the gateway does before and around the service: its word on tokens, and its refusals.
fn offer(operation: &mut Value, access: &Access, path: &str) {
    operation["security"] = match access.authentication {
        Authentication::Required => json!([{BEARER: []}]),
        Authentication::Optional => json!([{}, {BEARER: []}]),
        Authentication::None => json!([]),
    };
    let problems = problems(access, operation.get("requestBody").is_some());
    let Ok(Value::Object(refusals)) = serde_json::to_value(description::responses(&problems)) else { return };
    let Value::Object(responses) = &mut operation["responses"] else { return };
    for (status, refusal) in refusals {
        match responses.get_mut(&status) {
            // Before the service the gateway looks at roles: its word is what a client hears.
            Some(known) => join(known, &refusal, status == "403"),
            None => drop(responses.insert(status, refusal)),
        }
    }
    for response in responses.values_mut() {
        if let Some(Value::Object(examples)) = response.pointer_mut(PROBLEMS) {
            for example in examples.values_mut().filter(|example| example["value"]["instance"].is_string()) {
                example["value"]["instance"] = json!(path);
            }
        }
    }
}

/// What the gateway may answer itself.
fn problems(access: &Access, has_body: bool) -> Vec<Problem> {
    let mut problems = vec![
        Problem::validation().field("path", "has an empty segment"),
        Problem::rate_limited().retry_after(1),
        Problem::upstream_error(),
        Problem::overloaded(),
        Problem::upstream_unavailable(),
        Problem::upstream_timeout(),
    ];
    if access.authentication != Authentication::None {
        problems.extend([Problem::unauthenticated(), Problem::token_expired()]);
    }
    if !access.roles.is_empty() {
        problems.push(Problem::forbidden().with("requiredRoles", &access.roles));
    } else if !access.scopes.is_empty() {
        problems.push(Problem::forbidden().with("requiredScopes", &access.scopes));
    }
    if has_body {
        problems.extend([Failure::ClientSlow, Failure::BodyTooLarge].map(Problem::from));
    }
    problems
}

/// Adds the codes of `refusal` that `known` lacks, or those that it `replaces` too. A response of another form is left as
/// it is.
fn join(known: &mut Value, refusal: &Value, replaces: bool) {
    let Some(Value::Object(new)) = refusal.pointer(PROBLEMS) else { return };
    let mut lines = vec![known["description"].as_str().unwrap_or_default().to_owned()];
    let Some(Value::Object(examples)) = known.pointer_mut(PROBLEMS) else { return };
    for (code, example) in new {
        let is_known = examples.contains_key(code);
        if !is_known {
            lines.push(format!("`{code}`: {}", example["summary"].as_str().unwrap_or_default()));
        }
        if !is_known || replaces {
            examples.insert(code.clone(), example.clone());
        }
    }
    known["description"] = lines.join("\n\n").into();
    if let (Some(new), Value::Object(known)) = (refusal["headers"].as_object(), known)
        && let Value::Object(headers) = known.entry("headers").or_insert_with(|| json!({}))
    {
        for (name, header) in new {
            headers.entry(name.clone()).or_insert_with(|| header.clone());
        }
    }
}

/// The components that the paths refer to, directly or by others, by their references.
fn components_of(document: &Value, paths: &Value) -> BTreeMap<String, Value> {
    let mut used = BTreeMap::new();
    let mut left = references(paths);
    while let Some(reference) = left.pop() {
        let component = reference.strip_prefix('#').and_then(|pointer| document.pointer(pointer));
        if let Some(component) = component.filter(|_| !used.contains_key(&reference)) {
            left.extend(references(component));
            used.insert(reference, component.clone());
        }
    }
    used
}

fn references(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) if text.starts_with(COMPONENTS) => vec![text.clone()],
        Value::Array(values) => values.iter().flat_map(references).collect(),
        Value::Object(members) => members.values().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

fn for_each_text(value: &mut Value, change: &mut impl FnMut(&mut String)) {
    match value {
        Value::String(text) => change(text),
        Value::Array(values) => values.iter_mut().for_each(|value| for_each_text(value, change)),
        Value::Object(members) => members.values_mut().for_each(|value| for_each_text(value, change)),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
