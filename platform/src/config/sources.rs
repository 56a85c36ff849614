//! Property sources and how they lie on each other. Invariant: the stronger source wins by the leaf, a list wins or
//! loses as a whole, and each value knows where it came from.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::{Problems, bootstrap::PREFIX};

/// One source, as a tree.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) name: String,
    pub(super) tree: Value,
}

impl Source {
    /// From flat keys such as `a.b[0].c`, as a configuration server gives them.
    pub(super) fn from_flat(name: String, flat: &Map<String, Value>) -> Self {
        let mut tree = Value::Object(Map::new());
        for (key, value) in flat {
            put(&mut tree, &segments(key), value.clone());
        }
        Self { name, tree }
    }

    /// One environment variable, `FIRSTCOME_MYSQL__PASSWORD_FILE` for `mysql.password-file`.
    pub(super) fn from_variable(name: &str, value: &str) -> Self {
        let path: Vec<Segment> = name
            .strip_prefix(PREFIX)
            .unwrap_or(name)
            .split("__")
            .map(|segment| Segment::Name(segment.to_ascii_lowercase().replace('_', "-")))
            .collect();
        let mut tree = Value::Object(Map::new());
        put(&mut tree, &path, Value::String(value.to_owned()));
        Self { name: format!("environment variable {name}"), tree }
    }
}

enum Segment {
    Name(String),
    Index(usize),
}

/// More elements than any list of settings has; an index beyond is a name.
const MAX_INDEX: usize = 10_000;

fn segments(key: &str) -> Vec<Segment> {
    let mut segments = Vec::new();
    let mut name = String::new();
    let mut chars = key.chars();
    let end = |name: &mut String, segments: &mut Vec<Segment>| {
        if !name.is_empty() {
            segments.push(Segment::Name(std::mem::take(name)));
        }
    };
    while let Some(c) = chars.next() {
        match c {
            '.' => end(&mut name, &mut segments),
            '[' => {
                end(&mut name, &mut segments);
                let inside: String = chars.by_ref().take_while(|c| *c != ']').collect();
                segments.push(match inside.parse() {
                    Ok(index) if index <= MAX_INDEX => Segment::Index(index),
                    _ => Segment::Name(inside),
                });
            }
            c => name.push(c),
        }
    }
    end(&mut name, &mut segments);
    segments
}

fn put(tree: &mut Value, path: &[Segment], value: Value) {
    match path {
        [] => *tree = value,
        [Segment::Name(name), rest @ ..] => {
            if !tree.is_object() {
                *tree = Value::Object(Map::new());
            }
            if let Value::Object(map) = tree {
                put(map.entry(name.clone()).or_insert(Value::Null), rest, value);
            }
        }
        [Segment::Index(index), rest @ ..] => {
            if !tree.is_array() {
                *tree = Value::Array(Vec::new());
            }
            if let Value::Array(list) = tree {
                if list.len() <= *index {
                    list.resize(index + 1, Value::Null);
                }
                put(&mut list[*index], rest, value);
            }
        }
    }
}

/// Lays the sources on each other, the strongest first in the list. The second result says by path where each value
/// came from.
pub(super) fn layer(sources: Vec<Source>) -> (Value, BTreeMap<String, String>) {
    let mut tree = Value::Object(Map::new());
    let mut origins = BTreeMap::new();
    for source in sources.into_iter().rev() {
        leaves(&source.tree, String::new(), &mut |path, _| {
            origins.insert(path, source.name.clone());
        });
        merge(&mut tree, source.tree);
    }
    (tree, origins)
}

fn merge(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                merge(under.entry(key).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over,
    }
}

/// Every leaf with its path.
pub(super) fn leaves(tree: &Value, path: String, each: &mut impl FnMut(String, &Value)) {
    match tree {
        Value::Object(map) if !map.is_empty() || path.is_empty() => {
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                leaves(value, path, each);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for (index, value) in list.iter().enumerate() {
                leaves(value, format!("{path}[{index}]"), each);
            }
        }
        leaf => each(path, leaf),
    }
}

const FILE_SUFFIX: &str = "-file";

/// Replaces each `x-file` by `x` with the file's content, without the line break at its end.
pub(super) fn read_files(tree: &mut Value, path: &str, problems: &mut Problems) {
    match tree {
        Value::Object(map) => {
            let files: Vec<String> = map.keys().filter(|key| key.ends_with(FILE_SUFFIX)).cloned().collect();
            for key in files {
                let Some(Value::String(file)) = map.remove(&key) else { continue };
                if file.is_empty() {
                    continue;
                }
                let setting = key.trim_end_matches(FILE_SUFFIX).to_owned();
                let at = if path.is_empty() { key } else { format!("{path}.{key}") };
                if map.get(&setting).is_some_and(|value| !is_empty(value)) {
                    let plain = at.trim_end_matches(FILE_SUFFIX).to_owned();
                    problems.add(&at, format_args!("is given, and so is {plain}: only one of them may be"));
                    continue;
                }
                match std::fs::read_to_string(Path::new(&file)) {
                    Ok(content) => {
                        let content = content.trim_end_matches(['\n', '\r']).to_owned();
                        map.insert(setting, Value::String(content));
                    }
                    Err(error) => problems.add(&at, format_args!("can't read {file}: {error}")),
                }
            }
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                read_files(value, &path, problems);
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter_mut().enumerate() {
                read_files(value, &format!("{path}[{index}]"), problems);
            }
        }
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_str() == Some("")
}
