//! YAML files as SnakeYAML and Spring Boot read them: YAML 1.1 scalars, unique keys, merge keys, and flat properties
//! at the end. Invariant: whatever the bytes are, reading ends soon and without a panic, within bounds of depth, size
//! and repetition.

mod build;
mod scalar;

use std::sync::Arc;

use serde_json::Value;
use yaml_rust2::Event;
use yaml_rust2::parser::Parser;

use crate::document::{Properties, Unreadable};
use build::Builder;

/// SnakeYAML's nesting limit.
const MAX_DEPTH: usize = 50;
/// What a document may unfold to by aliases; far above any real file.
const MAX_NODES: usize = 200_000;
/// Spring's name for a document that is no map.
const WHOLE_DOCUMENT: &str = "document";

/// A value of the tree. Aliases share.
#[derive(Debug)]
enum Node {
    Scalar(Value),
    List(Vec<Arc<Node>>, usize),
    Map(Vec<(String, Arc<Node>)>, usize),
}

impl Node {
    /// How many levels are below.
    fn height(&self) -> usize {
        match self {
            Self::Scalar(_) => 0,
            Self::List(_, height) | Self::Map(_, height) => *height,
        }
    }
}

/// The documents of a file as flat properties. Empty documents are none.
///
/// # Errors
/// When it isn't YAML in UTF-8, or says a key twice, or goes beyond the bounds.
pub fn parse(bytes: &[u8]) -> Result<Vec<Properties>, Unreadable> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Unreadable::new(Some(line_at(bytes, error.valid_up_to())), "is not UTF-8"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some(at) = text.find(|c| !is_printable(c)) {
        return Err(Unreadable::new(
            Some(line_at(text.as_bytes(), at)),
            "has a character that YAML does not allow",
        ));
    }
    let mut parser = Parser::new_from_str(text);
    let mut documents = Vec::new();
    let mut builder = Builder::default();
    loop {
        let (event, mark) = parser.next_token().map_err(|error| {
            Unreadable::new(Some(error.marker().line()), format!("is no YAML: {}", error.info()))
        })?;
        match event {
            Event::StreamEnd => return Ok(documents),
            Event::DocumentStart => builder = Builder::default(),
            Event::DocumentEnd => {
                if let Some(root) = builder.root() {
                    let properties = flatten(&root).map_err(|reason| Unreadable::new(None, reason))?;
                    documents.extend(properties);
                }
            }
            event => builder.take(event).map_err(|reason| Unreadable::new(Some(mark.line()), reason))?,
        }
    }
}

fn line_at(bytes: &[u8], at: usize) -> usize {
    bytes[..at].iter().filter(|&&byte| byte == b'\n').count() + 1
}

/// YAML 1.1, section 5.1.
fn is_printable(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..)
}

fn flatten(root: &Node) -> Result<Option<Properties>, &'static str> {
    let mut flat = Flat { properties: Properties::default(), nodes: 0 };
    match root {
        Node::Scalar(Value::Null) => return Ok(None),
        Node::Map(..) => flat.add(String::new(), root)?,
        _ => flat.add(WHOLE_DOCUMENT.to_owned(), root)?,
    }
    Ok(Some(flat.properties))
}

struct Flat {
    properties: Properties,
    nodes: usize,
}

impl Flat {
    fn add(&mut self, path: String, node: &Node) -> Result<(), &'static str> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err("unfolds to too many values");
        }
        match node {
            Node::Scalar(Value::Null) => self.properties.put(path, Value::from("")),
            Node::Scalar(value) => self.properties.put(path, value.clone()),
            Node::List(items, _) if items.is_empty() => self.properties.put(path, Value::from("")),
            Node::List(items, _) => {
                for (index, item) in items.iter().enumerate() {
                    self.add(format!("{path}[{index}]"), item)?;
                }
            }
            // Nothing of an empty map is left.
            Node::Map(entries, _) => {
                for (key, value) in entries {
                    let path = match (path.as_str(), key.starts_with('[')) {
                        ("", _) => key.clone(),
                        (path, true) => format!("{path}{key}"),
                        (path, false) => format!("{path}.{key}"),
                    };
                    self.add(path, value)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
