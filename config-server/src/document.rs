//! Documents: what a file of properties becomes. Invariant: keys are flat, unique and in the file's order, and what
//! can't be read is refused as a whole.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::profiles::Expression;
use crate::{properties, yaml};

/// SnakeYAML's limit of a file, which Spring keeps.
pub const MAX_BYTES: usize = 3 * 1024 * 1024;
/// Parsed files that are kept; a repository has far fewer at any commit.
const MAX_CACHED: usize = 1024;
/// What decides whether a document counts.
const ON_PROFILE: &str = "spring.config.activate.on-profile";

/// Flat properties in the order of their file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Properties {
    entries: Vec<(String, Value)>,
    places: HashMap<String, usize>,
}

impl Properties {
    /// The later of two values wins, in the place of the first.
    pub fn put(&mut self, key: String, value: Value) {
        match self.places.get(&key) {
            Some(place) => self.entries[*place].1 = value,
            None => {
                self.places.insert(key.clone(), self.entries.len());
                self.entries.push((key, value));
            }
        }
    }

    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.places.get(key).map(|place| &self.entries[*place].1)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl Serialize for Properties {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.entries.iter().map(|(key, value)| (key, value)))
    }
}

/// One document of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    pub properties: Arc<Properties>,
    /// Any of them; none is always.
    on_profile: Vec<Expression>,
}

impl Document {
    /// # Errors
    /// When its condition is no profile expression.
    pub fn new(properties: Properties) -> Result<Self, Unreadable> {
        let mut on_profile = Vec::new();
        let single = properties.get(ON_PROFILE).into_iter();
        let indexed = (0..).map_while(|index| properties.get(&format!("{ON_PROFILE}[{index}]")));
        for value in single.chain(indexed) {
            let text = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
                let expression = Expression::parse(part)
                    .ok_or_else(|| Unreadable::new(None, format!("{ON_PROFILE} is no profile expression")))?;
                on_profile.push(expression);
            }
        }
        Ok(Self { properties: Arc::new(properties), on_profile })
    }

    /// Whether it counts while these profiles are active.
    #[must_use]
    pub fn applies(&self, profiles: &[String]) -> bool {
        self.on_profile.is_empty() || self.on_profile.iter().any(|expression| expression.holds(profiles))
    }
}

/// Why a file can't be read. Never holds any of the file's content, which may be secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{reason}", Place(.line))]
pub struct Unreadable {
    line: Option<usize>,
    reason: String,
}

impl Unreadable {
    /// `line` counts from 1.
    pub fn new(line: Option<usize>, reason: impl Into<String>) -> Self {
        Self { line, reason: reason.into() }
    }
}

struct Place<'a>(&'a Option<usize>);

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |line| write!(f, "line {line}: "))
    }
}

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    Properties,
    Yaml,
}

impl Format {
    /// # Errors
    /// When the bytes aren't what they should be.
    pub fn parse(self, bytes: &[u8]) -> Result<Vec<Document>, Unreadable> {
        if bytes.len() > MAX_BYTES {
            return Err(Unreadable::new(None, format!("is larger than {MAX_BYTES} bytes")));
        }
        let documents = match self {
            Self::Properties => properties::parse(bytes)?,
            Self::Yaml => yaml::parse(bytes)?,
        };
        documents.into_iter().map(Document::new).collect()
    }
}

type Parsed = Result<Arc<[Document]>, Unreadable>;

/// Parsed files by the id of their content, which never changes.
#[derive(Debug, Default)]
pub struct Documents(Mutex<HashMap<(String, Format), Parsed>>);

impl Documents {
    #[must_use]
    pub fn known(&self, id: &str, format: Format) -> Option<Parsed> {
        let cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cached.get(&(id.to_owned(), format)).cloned()
    }

    /// # Errors
    /// When the bytes aren't what they should be.
    pub fn parse(&self, id: String, format: Format, bytes: &[u8]) -> Parsed {
        let parsed = format.parse(bytes).map(Arc::from);
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if cached.len() >= MAX_CACHED {
            cached.clear();
        }
        cached.insert((id, format), parsed.clone());
        parsed
    }
}
