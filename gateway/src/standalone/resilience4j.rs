//! `resilience4j`: the settings of circuits, which stand beside the routes in a Spring file and are arguments of the
//! filter here.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::tree::{at, child, text};
use crate::config::RoutingSettings;
use crate::routes::arguments::text_of;
use crate::routes::definition::{Definition, Written};
use crate::routes::suggestion::plain;

const FILTER: &str = "CircuitBreaker";
/// By their registry.
const SETTINGS: [(&str, &[&str]); 2] = [
    (
        "circuitbreaker",
        &[
            "slidingWindowSize",
            "minimumNumberOfCalls",
            "failureRateThreshold",
            "waitDurationInOpenState",
            "permittedNumberOfCallsInHalfOpenState",
        ],
    ),
    ("timelimiter", &["timeoutDuration"]),
];

/// Gives each filter of the name what the file says of its circuit, unless the filter says it itself.
pub(super) fn apply(tree: &Value, routing: &mut RoutingSettings, warnings: &mut Vec<String>) {
    let Some(section) = child(tree, "resilience4j") else { return };
    let routes = routing.routes.iter_mut().flat_map(|route| &mut route.filters);
    let filters = routing.default_filters.iter_mut().chain(routes).filter(|filter| filter.name == FILTER);
    let mut names = BTreeSet::new();
    for filter in filters {
        let Some(mut arguments) = named(filter) else { continue };
        let circuit =
            ["name", "_genkey_0"].into_iter().find_map(|name| arguments.get(name).and_then(text_of));
        let circuit = circuit.unwrap_or_default();
        for (registry, settings) in SETTINGS {
            let Some(registry) = child(section, registry) else { continue };
            for setting in settings {
                let value = of_circuit(registry, &circuit, setting);
                let is_given = arguments.keys().any(|key| plain(key) == plain(setting));
                if let Some(value) = value.filter(|_| !is_given) {
                    arguments.insert((*setting).to_owned(), value.clone());
                }
            }
        }
        filter.arguments = Written::Named(arguments);
        names.insert(circuit);
    }
    warnings
        .extend(SETTINGS.iter().flat_map(|(registry, settings)| unused(section, registry, settings, &names)));
}

/// The circuit's own value, else that of the configuration that it is based on.
fn of_circuit<'a>(registry: &'a Value, circuit: &str, setting: &str) -> Option<&'a Value> {
    // Names of circuits are no names of settings: they are compared as they are.
    let instance = child(registry, "instances").and_then(|instances| instances.get(circuit));
    let base = instance.and_then(|instance| text(instance, &["base-config"]));
    let configs = child(registry, "configs");
    let config = configs.and_then(|configs| configs.get(base.as_deref().unwrap_or("default")));
    instance.and_then(|instance| child(instance, setting)).or_else(|| child(config?, setting))
}

/// The filter's arguments under their names; `None` if the shortcut has more than its one.
fn named(filter: &Definition) -> Option<BTreeMap<String, Value>> {
    match &filter.arguments {
        Written::Named(arguments) => Some(arguments.clone()),
        Written::Listed(list) => match list.as_deref().unwrap_or_default() {
            [] => Some(BTreeMap::new()),
            [name] => Some(BTreeMap::from([("name".to_owned(), Value::String(name.clone()))])),
            _ => None,
        },
    }
}

fn unused(section: &Value, registry: &str, settings: &[&str], circuits: &BTreeSet<String>) -> Vec<String> {
    let mut lines = Vec::new();
    for group in ["configs", "instances"] {
        let named = at(section, &[registry, group]).and_then(Value::as_object).into_iter().flatten();
        for (name, fields) in named {
            let path = format!("resilience4j.{registry}.{group}.{name}");
            if group == "instances" && !circuits.contains(name) {
                lines.push(format!("{path} means nothing here: no filter CircuitBreaker has this name"));
                continue;
            }
            for (key, value) in fields.as_object().into_iter().flatten() {
                let counts = text_of(value).is_some_and(|value| value.eq_ignore_ascii_case("COUNT_BASED"));
                let is_known = settings.iter().chain(&["baseConfig"]).any(|known| plain(known) == plain(key));
                let is_default = counts && plain(key) == "slidingwindowtype";
                if !is_known && !is_default {
                    lines.push(format!("{path}.{key} means nothing here"));
                }
            }
        }
    }
    lines
}
