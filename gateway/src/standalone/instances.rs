//! `spring.cloud.discovery.client.simple.instances`: the services that a file itself knows.

use std::collections::HashMap;

use serde_json::Value;

use super::tree::{at, child, flag};
use crate::balance::Known;
use crate::balance::endpoint::Address;
use crate::routes::arguments::text_of;
use crate::routes::uri::TargetUri;

const PATH: [&str; 6] = ["spring", "cloud", "discovery", "client", "simple", "instances"];

pub(super) fn read(tree: &Value, problems: &mut Vec<String>) -> HashMap<String, Vec<Known>> {
    let mut services = HashMap::new();
    let named = at(tree, &PATH).and_then(Value::as_object);
    for (service, instances) in named.into_iter().flatten() {
        let mut known = Vec::new();
        if !instances.is_array() && !instances.is_null() {
            problems.push(format!("{}.{service}: must be a list", PATH.join(".")));
        }
        for (index, instance) in instances.as_array().into_iter().flatten().enumerate() {
            match listed(instance) {
                Ok(instance) => known.push(instance),
                Err(problem) => problems.push(format!("{}.{service}[{index}]: {problem}", PATH.join("."))),
            }
        }
        services.insert(service.clone(), known);
    }
    services
}

fn listed(instance: &Value) -> Result<Known, String> {
    let text = |name: &str| child(instance, name).and_then(text_of).filter(|text| !text.is_empty());
    let uri = match (text("uri"), text("host"), text("port")) {
        (Some(uri), ..) => uri,
        (None, Some(host), Some(port)) => {
            let secure = flag(instance, &["secure"]).map_err(|problem| format!("secure: {problem}"))?;
            let scheme = if secure == Some(true) { "https" } else { "http" };
            let host = if host.contains(':') { format!("[{host}]") } else { host };
            format!("{scheme}://{host}:{port}")
        }
        _ => return Err("needs `uri`, or `host` and `port`".to_owned()),
    };
    let Ok((TargetUri::Address { host, port, tls }, _)) = TargetUri::parse(&uri) else {
        return Err(format!("`{uri}` must be http://host:port or https://host:port"));
    };
    let metadata = child(instance, "metadata").filter(|metadata| !metadata.is_null());
    if metadata.is_some_and(|metadata| !metadata.is_object()) {
        return Err("metadata: must be a section, and not a value or a list".to_owned());
    }
    let field = |name: &str| metadata.and_then(|metadata| child(metadata, name));
    let address = Address::of(&host, port);
    Ok(Known {
        id: text("instance-id").unwrap_or_else(|| address.to_string()),
        address,
        tls,
        weight: field("weight").map_or(Ok(1), weight)?,
        zone: field("zone").and_then(text_of).unwrap_or_default(),
    })
}

/// An empty one is none, as everywhere in a file.
fn weight(value: &Value) -> Result<u32, String> {
    match text_of(value) {
        Some(text) if text.is_empty() => Ok(1),
        Some(text) => {
            text.parse().map_err(|_| format!("metadata.weight: `{text}` is no whole number, 0 or more"))
        }
        None => Err("metadata.weight: must be a whole number, 0 or more".to_owned()),
    }
}
