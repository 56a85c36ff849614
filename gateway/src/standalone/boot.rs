//! What a file asks of Spring Boot for the whole of an application: more settings, and another beginning of all paths.
//!
//! Invariant: a file whose settings would be missing, or whose paths would be others, is refused.

use serde_json::Value;

use super::tree::at;
use crate::routes::arguments::text_of;
use crate::routes::suggestion::plain;

const IMPORT: &str = "spring.config.import";

/// What a document imports, as one text or a list.
pub(super) fn imports(document: &Value) -> Vec<Value> {
    let section = at(document, &["spring", "config"]).and_then(Value::as_object);
    // As a list it may be written by its places too, `import[0]`.
    let named = section.into_iter().flatten().filter(|(name, _)| plain(name).starts_with("import"));
    named.map(|(_, value)| value.clone()).collect()
}

/// Nothing is imported here. What is optional Spring does without, too.
pub(super) fn judge_imports(imports: &[Value], problems: &mut Vec<String>, warnings: &mut Vec<String>) {
    let elements = imports.iter().flat_map(|import| match import {
        Value::Array(list) => list.as_slice(),
        one => std::slice::from_ref(one),
    });
    for element in elements {
        let Some(text) = text_of(element) else {
            problems.push(format!("{IMPORT}: must be a text or a list of texts"));
            continue;
        };
        for location in text.split([',', ';']).map(str::trim).filter(|location| !location.is_empty()) {
            let shown = without_login(location);
            if location.starts_with("optional:") {
                warnings.push(format!("{IMPORT}: {shown} is not imported: this file alone is read"));
            } else {
                problems.push(format!(
                    "{IMPORT}: `{shown}` is not imported, and what it says would be missing: write that into this \
                     file, or put `optional:` before it"
                ));
            }
        }
    }
}

fn without_login(location: &str) -> String {
    let Some((scheme, rest)) = location.split_once("://") else { return location.to_owned() };
    let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
    format!("{scheme}://{place}")
}

/// Paths are matched as clients send them.
pub(super) fn judge_base_path(tree: &Value, problems: &mut Vec<String>) {
    let Some(path) = at(tree, &["spring", "webflux", "base-path"]) else { return };
    let is_none = text_of(path).is_some_and(|path| path.trim().trim_matches('/').is_empty());
    if !is_none {
        problems.push(
            "spring.webflux.base-path: can't be done: write it into the paths of the routes, and take it out here"
                .to_owned(),
        );
    }
}
