//! A YAML file as Spring sees it: all its documents in one tree, keys with dots in them as paths, names relaxed.

use std::collections::{BTreeMap, BTreeSet};
use std::str::Split;

use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::Unusable;
use crate::routes::arguments::text_of;
use crate::routes::suggestion::{plain, suggest};

/// All documents of the file in one tree.
pub(super) fn documents(text: &str, warnings: &mut Vec<String>) -> Result<Value, Unusable> {
    let mut tree = Value::Object(Map::new());
    for (index, document) in serde_yaml_ng::Deserializer::from_str(text).enumerate() {
        let document = serde_yaml_ng::Value::deserialize(document)
            .and_then(|mut value| value.apply_merge().map(|()| value))
            .map_err(|error| Unusable(vec![format!("is no YAML: {error}")]))?;
        let document = json(document);
        match &document {
            Value::Null => continue,
            Value::Object(_) => {}
            _ => return Err(Unusable(vec!["has no settings at its top".to_owned()])),
        }
        let conditions = [
            ("profile", at(&document, &["spring", "config", "activate", "on-profile"])),
            ("profile", at(&document, &["spring", "profiles"]).filter(|value| !value.is_object())),
            ("cloud platform", at(&document, &["spring", "config", "activate", "on-cloud-platform"])),
        ];
        let set =
            conditions.into_iter().find_map(|(what, value)| Some((what, value.filter(|it| !it.is_null())?)));
        if let Some((what, value)) = set {
            let value = match value {
                Value::Array(all) => all.iter().filter_map(text_of).collect::<Vec<_>>().join(", "),
                one => text_of(one).unwrap_or_default(),
            };
            warnings.push(format!("document {} is left out: it is for the {what} {value}", index + 1));
            continue;
        }
        merge(&mut tree, document);
    }
    Ok(tree)
}

/// Keys with dots in them are paths, as in Spring; a key in brackets is one name.
fn json(value: serde_yaml_ng::Value) -> Value {
    use serde_yaml_ng::Value as Yaml;
    match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(flag) => Value::Bool(flag),
        Yaml::Number(number) => serde_json::to_value(number).unwrap_or(Value::Null),
        Yaml::String(text) => Value::String(text),
        Yaml::Sequence(list) => list.into_iter().map(json).collect(),
        Yaml::Tagged(tagged) => json(tagged.value),
        Yaml::Mapping(map) => {
            let mut object = Value::Object(Map::new());
            for (key, value) in map {
                let key = text_of(&json(key)).unwrap_or_default();
                let mut value = json(value);
                let path: Vec<&str> =
                    if key.starts_with('[') { vec![&key] } else { key.split('.').collect() };
                for name in path.into_iter().rev() {
                    value = Value::Object(Map::from_iter([(name.to_owned(), value)]));
                }
                merge(&mut object, value);
            }
            object
        }
    }
}

/// Maps join, everything else is replaced.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// The path of a name in the section of this path, which is empty at the top.
fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

pub(super) fn flatten(value: &Value, path: String, properties: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                flatten(value, below(&path, key), properties);
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                flatten(value, format!("{path}[{index}]"), properties);
            }
        }
        leaf => drop(properties.insert(path, text_of(leaf).unwrap_or_default())),
    }
}

/// By relaxed names.
pub(super) fn child<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value.as_object()?.iter().find(|(key, _)| plain(key) == plain(name)).map(|(_, value)| value)
}

pub(super) fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, name| child(value, name))
}

/// A plain value below this path; an empty one is none.
pub(super) fn text(tree: &Value, path: &[&str]) -> Option<String> {
    at(tree, path).and_then(text_of).filter(|text| !text.is_empty())
}

/// A boolean below this path, in the words that Spring takes for one; an empty one is none.
pub(super) fn flag(tree: &Value, path: &[&str]) -> Result<Option<bool>, String> {
    let Some(text) = text(tree, path) else { return Ok(None) };
    let is_one_of = |words: [&str; 4]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    if is_one_of(["true", "on", "yes", "1"]) {
        Ok(Some(true))
    } else if is_one_of(["false", "off", "no", "0"]) {
        Ok(Some(false))
    } else {
        Err(format!("`{text}` is neither true nor false"))
    }
}

/// A list, or a text that is cut at commas.
pub(super) fn list(tree: &Value, path: &[&str]) -> Vec<String> {
    match at(tree, path) {
        Some(Value::Array(list)) => list.iter().filter_map(text_of).collect(),
        Some(value) => crate::routes::definition::listed(&text_of(value).unwrap_or_default()),
        None => Vec::new(),
    }
}

/// Where something else stands in place of a section. In the paths of `sections`, `*` is any name.
pub(super) fn misplaced(tree: &Value, sections: &[String]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for path in sections {
        collect_misplaced(tree, String::new(), path.split('.'), &mut found);
    }
    found
}

fn collect_misplaced(value: &Value, path: String, mut names: Split<'_, char>, found: &mut BTreeSet<String>) {
    let Value::Object(fields) = value else {
        if !value.is_null() {
            found.insert(path);
        }
        return;
    };
    let Some(name) = names.next() else { return };
    for (key, value) in fields {
        if name == "*" {
            collect_misplaced(value, below(&path, key), names.clone(), found);
        } else if plain(key) == plain(name) {
            collect_misplaced(value, below(&path, name), names.clone(), found);
        }
    }
}

/// What is below `path` and nobody reads: the shortest paths, each with a suggestion. `known` are paths of which
/// everything is read, or nothing that is anybody's business here.
pub(super) fn unread(tree: &Value, path: &str, known: &[String]) -> Vec<(String, String)> {
    let names: Vec<&str> = path.split('.').collect();
    let mut found = Vec::new();
    if let Some(section) = at(tree, &names) {
        collect_unread(section, path, known, &mut found);
    }
    found
}

fn collect_unread(section: &Value, path: &str, known: &[String], found: &mut Vec<(String, String)>) {
    let Value::Object(fields) = section else {
        if !section.is_null() {
            found.push((path.to_owned(), String::new()));
        }
        return;
    };
    let below = format!("{}.", plain(path));
    for (key, value) in fields {
        let path = format!("{path}.{key}");
        let is = plain(&path);
        if known.iter().any(|known| plain(known) == is) {
            continue;
        }
        let inner = format!("{is}.");
        if known.iter().any(|known| plain(known).starts_with(&inner)) {
            collect_unread(value, &path, known, found);
            continue;
        }
        let siblings = known.iter().filter(|known| plain(known).starts_with(&below));
        let siblings = siblings.filter_map(|known| known.split('.').nth(below.matches('.').count()));
        found.push((path, suggest(key, siblings)));
    }
}
