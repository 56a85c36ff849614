//! A YAML file as Spring sees it: all its documents in one tree, keys with dots in them as paths, names relaxed.

use std::collections::{BTreeMap, BTreeSet};
use std::str::Split;

use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::{Unusable, boot};
use crate::routes::arguments::text_of;
use crate::routes::suggestion::{plain, suggest};

/// Settings that are read, without `-` and in lower case: on the way to them and below them `a-b` and `aB` are one name.
const READ: [&str; 24] = [
    "defaultfilters",
    "globalcors",
    "httpclient",
    "limits.requestbody",
    "publicpaths",
    "reservedpaths",
    "resilience4j.circuitbreaker",
    "resilience4j.timelimiter",
    "routeenabled",
    "routes",
    "server.address",
    "server.port",
    "server.ssl",
    "server.tls",
    "spring.cloud.consul",
    "spring.cloud.discovery.client.simple",
    "spring.cloud.gateway",
    "spring.config",
    "spring.data.redis",
    "spring.profiles",
    "spring.redis",
    "spring.security",
    "spring.webflux",
    "trustedproxies",
];
/// Sections of these names hold names that somebody chose, which are compared as they are.
const OF_NAMES: [&str; 5] = ["configs", "corsconfigurations", "instances", "metadata", "routeenabled"];

/// All documents of the file in one tree, and what they import, each for itself.
pub(super) fn documents(text: &str, warnings: &mut Vec<String>) -> Result<(Value, Vec<Value>), Unusable> {
    let mut tree = Value::Object(Map::new());
    let (mut imports, mut problems) = (Vec::new(), Vec::new());
    for (index, document) in serde_yaml_ng::Deserializer::from_str(text).enumerate() {
        let document = serde_yaml_ng::Value::deserialize(document)
            .and_then(|mut value| value.apply_merge().map(|()| value))
            .map_err(|error| Unusable(vec![format!("is no YAML: {error}")]))?;
        let mut twice = Vec::new();
        let document = json(document, "", &mut twice);
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
        problems.extend(twice);
        imports.extend(boot::imports(&document));
        merge(&mut tree, document, "", "", &mut |_, _| {});
    }
    if problems.is_empty() { Ok((tree, imports)) } else { Err(Unusable(problems)) }
}

/// Keys with dots in them are paths, as in Spring; a key in brackets is one name. `twice` takes what is said more than
/// once.
fn json(value: serde_yaml_ng::Value, path: &str, twice: &mut Vec<String>) -> Value {
    use serde_yaml_ng::Value as Yaml;
    match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(flag) => Value::Bool(flag),
        Yaml::Number(number) => serde_json::to_value(number).unwrap_or(Value::Null),
        Yaml::String(text) => Value::String(text),
        Yaml::Sequence(list) => {
            let elements = list.into_iter().enumerate();
            elements.map(|(index, value)| json(value, &format!("{path}[{index}]"), twice)).collect()
        }
        Yaml::Tagged(tagged) => json(tagged.value, path, twice),
        Yaml::Mapping(map) => {
            let mut object = Value::Object(Map::new());
            for (key, value) in map {
                let key = text_of(&json(key, path, twice)).unwrap_or_default();
                let mut value = json(value, &below(path, &key), twice);
                let names: Vec<&str> =
                    if key.starts_with('[') { vec![&key] } else { key.split('.').collect() };
                for name in names.into_iter().rev() {
                    value = Value::Object(Map::from_iter([(name.to_owned(), value)]));
                }
                merge(&mut object, value, path, path, &mut |old, new| twice.push(said_twice(old, new)));
            }
            object
        }
    }
}

fn said_twice(old: &str, new: &str) -> String {
    if old == new {
        format!("says one thing twice: `{old}` stands below two keys of one meaning; keep one of them")
    } else {
        format!("says one thing twice: `{old}` and `{new}` are one setting; keep one of them")
    }
}

/// Maps join, everything else is replaced. `old` and `new` are the paths of both as they are written; `replaced` hears of
/// those at which something was there already.
fn merge(into: &mut Value, from: Value, old: &str, new: &str, replaced: &mut dyn FnMut(&str, &str)) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            let are_chosen = is_of_names(new);
            for (key, value) in from {
                let new = below(new, &key);
                let is_relaxed = !are_chosen && !key.starts_with('[') && is_read(&new);
                let same = |name: &str| name == key || (is_relaxed && plain(name) == plain(&key));
                match into.iter_mut().find(|(name, _)| same(name)) {
                    Some((name, there)) => merge(there, value, &below(old, name), &new, replaced),
                    None => drop(into.insert(key, value)),
                }
            }
        }
        // An empty section says nothing, and takes nothing away.
        (Value::Object(_), Value::Null) => {}
        (into, from) => {
            if is_read(new) && !(into.is_null() && from.is_object()) {
                replaced(old, new);
            }
            *into = from;
        }
    }
}

fn is_read(path: &str) -> bool {
    let path = plain(path);
    READ.iter().any(|&known| {
        let is_below =
            path.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
        is_below || known.strip_prefix(path.as_str()).is_some_and(|rest| rest.starts_with('.'))
    })
}

fn is_of_names(section: &str) -> bool {
    let section = plain(section);
    let name = section.rsplit('.').next().unwrap_or_default();
    OF_NAMES.contains(&name)
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
