//! Events to a tree. Iterative, so that no nesting of the input can exhaust the stack.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::Value;
use yaml_rust2::Event;
use yaml_rust2::parser::Tag;

use super::scalar::{CORE_TAGS, resolve};
use super::{MAX_DEPTH, Node};

/// One document while it is read.
#[derive(Default)]
pub(super) struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Arc<Node>>,
    root: Option<Arc<Node>>,
}

/// A collection whose end has not come.
enum Open {
    List {
        anchor: usize,
        items: Vec<Arc<Node>>,
    },
    Map {
        anchor: usize,
        entries: Vec<(String, Arc<Node>)>,
        merged: Vec<Arc<Node>>,
        key: Option<Key>,
        seen: HashSet<String>,
    },
}

enum Key {
    Plain(String),
    /// `<<`
    Merge,
}

impl Builder {
    pub(super) fn root(&mut self) -> Option<Arc<Node>> {
        self.root.take()
    }

    pub(super) fn take(&mut self, event: Event) -> Result<(), &'static str> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                if self.awaits_key() && tag.is_none() && text == "<<" && is_plain(style) {
                    return self.key(Key::Merge);
                }
                let value = resolve(text, is_plain(style), tag.as_ref())?;
                if self.awaits_key() {
                    let key = key_of(&value);
                    self.remember(anchor, &Arc::new(Node::Scalar(value)));
                    return self.key(Key::Plain(key));
                }
                self.add(anchor, Node::Scalar(value).into())
            }
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned().ok_or("an alias has no anchor before it")?;
                if self.awaits_key() {
                    return match &*node {
                        Node::Scalar(value) => self.key(Key::Plain(key_of(value))),
                        _ => Err("a key is no scalar"),
                    };
                }
                self.add(0, node)
            }
            Event::SequenceStart(anchor, tag) => {
                self.open(tag.as_ref(), "seq", Open::List { anchor, items: Vec::new() })
            }
            Event::MappingStart(anchor, tag) => {
                let (entries, merged, key, seen) = Default::default();
                self.open(tag.as_ref(), "map", Open::Map { anchor, entries, merged, key, seen })
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            _ => Ok(()),
        }
    }

    fn awaits_key(&self) -> bool {
        matches!(self.open.last(), Some(Open::Map { key: None, .. }))
    }

    fn key(&mut self, new: Key) -> Result<(), &'static str> {
        if let Some(Open::Map { key, seen, .. }) = self.open.last_mut() {
            if let Key::Plain(name) = &new
                && !seen.insert(name.clone())
            {
                return Err("a key is there twice");
            }
            *key = Some(new);
        }
        Ok(())
    }

    fn open(&mut self, tag: Option<&Tag>, expected: &str, open: Open) -> Result<(), &'static str> {
        if self.open.len() >= MAX_DEPTH {
            return Err("is nested too deeply");
        }
        if self.awaits_key() {
            return Err("a key is no scalar");
        }
        if tag.is_some_and(|tag| tag.handle != CORE_TAGS || tag.suffix != expected) {
            return Err("has a tag that is not supported");
        }
        self.open.push(open);
        Ok(())
    }

    fn close(&mut self) -> Result<(), &'static str> {
        let (anchor, node) = match self.open.pop() {
            None => return Err("ends before it began"),
            Some(Open::List { anchor, items }) => {
                let height = height(items.iter())?;
                (anchor, Node::List(items, height))
            }
            Some(Open::Map { anchor, entries, merged, seen, .. }) => {
                let entries = merge(entries, &merged, seen)?;
                let height = height(entries.iter().map(|(_, value)| value))?;
                (anchor, Node::Map(entries, height))
            }
        };
        self.add(anchor, node.into())
    }

    fn add(&mut self, anchor: usize, node: Arc<Node>) -> Result<(), &'static str> {
        self.remember(anchor, &node);
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { entries, merged, key, .. }) => match key.take() {
                Some(Key::Plain(key)) => entries.push((key, node)),
                Some(Key::Merge) => merged.push(node),
                None => return Err("a key is no scalar"),
            },
        }
        Ok(())
    }

    fn remember(&mut self, anchor: usize, node: &Arc<Node>) {
        // 0 is none.
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
    }
}

/// Aliases may nest deeper than the text does.
fn height<'a>(children: impl Iterator<Item = &'a Arc<Node>>) -> Result<usize, &'static str> {
    let height = children.map(|child| child.height() + 1).max().unwrap_or(1);
    if height > MAX_DEPTH { Err("is nested too deeply") } else { Ok(height) }
}

/// What a map says itself wins over what it merges; of what it merges, the first.
fn merge(
    own: Vec<(String, Arc<Node>)>,
    merged: &[Arc<Node>],
    mut seen: HashSet<String>,
) -> Result<Vec<(String, Arc<Node>)>, &'static str> {
    const WRONG: &str = "<< is neither a map nor a list of maps";
    if merged.is_empty() {
        return Ok(own);
    }
    let mut entries = Vec::new();
    let mut from = |node: &Node| match node {
        Node::Map(map, _) => {
            entries.extend(map.iter().filter(|(key, _)| seen.insert(key.clone())).cloned());
            Ok(())
        }
        _ => Err(WRONG),
    };
    for node in merged {
        match &**node {
            Node::List(items, _) => items.iter().try_for_each(|item| from(item))?,
            node => from(node)?,
        }
    }
    entries.extend(own);
    Ok(entries)
}

/// Spring's form of a key: what isn't text stands in brackets.
fn key_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => format!("[{other}]"),
    }
}

fn is_plain(style: yaml_rust2::scanner::TScalarStyle) -> bool {
    style == yaml_rust2::scanner::TScalarStyle::Plain
}
