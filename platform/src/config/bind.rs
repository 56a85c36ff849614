//! From a tree of values to a struct. Text becomes what the field wants (an environment variable is always text), and
//! every problem is found: what is wrong is noted, taken out, and the rest is tried again.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::value::{Error, MapDeserializer, SeqDeserializer};
use serde::de::{
    self, DeserializeOwned, Deserializer, Error as _, IntoDeserializer, Unexpected, Visitor,
    value::StrDeserializer,
};
use serde_json::Value;
use serde_path_to_error::Segment;

use super::Problems;

/// More problems than that say nothing more.
const MAX_PROBLEMS: usize = 100;

/// The names of a struct's fields; None if it isn't a plain struct.
pub(super) fn fields<T: DeserializeOwned>() -> Option<&'static [&'static str]> {
    struct Probe<'a>(&'a mut Option<&'static [&'static str]>);
    impl<'de> Deserializer<'de> for Probe<'_> {
        type Error = Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
            Err(Error::custom("only asked"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Error> {
            *self.0 = Some(fields);
            Err(Error::custom("only asked"))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }
    let mut found = None;
    let _ = T::deserialize(Probe(&mut found));
    found
}

/// Binds as much as can be bound; what can't is in `problems`, and stands at its default.
pub(super) fn bind<T: DeserializeOwned>(tree: &mut Value, at: &str, problems: &mut Problems) -> Option<T> {
    let mut removed = Removed::default();
    for _ in 0..MAX_PROBLEMS {
        let error = match serde_path_to_error::deserialize::<_, T>(Bound(tree)) {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        let mut path: Vec<Segment> = error.path().iter().cloned().collect();
        let message = error.inner().to_string();
        if let Some(field) = message.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next()) {
            let named = matches!(path.last(), Some(Segment::Map { key }) if key == field);
            if !named {
                path.retain(|segment| !matches!(segment, Segment::Unknown));
                path.push(Segment::Map { key: field.to_owned() });
            }
            problems.add(&removed.join(at, &path), "is no setting that is known here");
        } else if let Some(field) =
            message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'))
        {
            let mut missing = path.clone();
            missing.push(Segment::Map { key: field.to_owned() });
            let missing = removed.join(at, &missing);
            // What was wrong was taken out, and is missing since.
            if !problems
                .iter()
                .any(|line| line.strip_prefix(&missing).is_some_and(|rest| rest.starts_with(": ")))
            {
                problems.add(&missing, "is missing");
            }
        } else {
            problems.add(&removed.join(at, &path), message);
        }
        if !removed.remove(tree, at.to_owned(), &path) {
            return None;
        }
    }
    None
}

/// What was taken out of lists, so that the others are still called by the index that they have in the file.
#[derive(Default)]
struct Removed(BTreeMap<String, BTreeSet<usize>>);

impl Removed {
    fn original(&self, list: &str, index: usize) -> usize {
        let before = self.0.get(list).into_iter().flatten();
        before.fold(index, |index, removed| if *removed <= index { index + 1 } else { index })
    }

    fn join(&self, at: &str, path: &[Segment]) -> String {
        path.iter().fold(at.to_owned(), |text, segment| self.step(text, segment))
    }

    fn step(&self, mut text: String, segment: &Segment) -> String {
        match segment {
            Segment::Seq { index } => {
                let index = self.original(&text, *index);
                text.push_str(&format!("[{index}]"));
            }
            Segment::Map { key } | Segment::Enum { variant: key } => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(key);
            }
            Segment::Unknown => {}
        }
        text
    }

    /// Takes out what the path leads to, or the nearest list element or setting around it.
    fn remove(&mut self, tree: &mut Value, at: String, path: &[Segment]) -> bool {
        let [first, rest @ ..] = path else { return false };
        let inside = self.step(at.clone(), first);
        match (first, tree) {
            (Segment::Map { key } | Segment::Enum { variant: key }, Value::Object(map)) => {
                match map.get_mut(key) {
                    Some(inner) => self.remove(inner, inside, rest) || map.remove(key).is_some(),
                    None => false,
                }
            }
            (Segment::Seq { index }, Value::Array(list)) if *index < list.len() => {
                if !self.remove(&mut list[*index], inside, rest) {
                    list.remove(*index);
                    let original = self.original(&at, *index);
                    self.0.entry(at).or_default().insert(original);
                }
                true
            }
            _ => false,
        }
    }
}

/// A value that becomes what is asked of it.
#[derive(Clone, Copy)]
struct Bound<'a>(&'a Value);

impl<'de> IntoDeserializer<'de, Error> for Bound<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Bound<'de> {
    fn unexpected(self) -> Unexpected<'de> {
        match self.0 {
            Value::Null => Unexpected::Unit,
            Value::Bool(value) => Unexpected::Bool(*value),
            Value::Number(_) => Unexpected::Other("a number"),
            // The text itself may be meant for nobody's eyes.
            Value::String(_) => Unexpected::Other("text"),
            Value::Array(_) => Unexpected::Seq,
            Value::Object(_) => Unexpected::Map,
        }
    }

    fn refuse<V: Visitor<'de>>(self, visitor: &V) -> Error {
        de::Error::invalid_type(self.unexpected(), visitor)
    }

    fn entries<V: Visitor<'de>>(
        map: &'de serde_json::Map<String, Value>,
        visitor: V,
    ) -> Result<V::Value, Error> {
        let entries = map.iter().map(|(key, value)| (StrDeserializer::new(key.as_str()), Bound(value)));
        visitor.visit_map(MapDeserializer::new(entries))
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $type:ty,)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.0 {
                Value::String(text) => match text.trim().parse::<$type>() {
                    Ok(number) => visitor.$visit(number),
                    Err(_) => Err(self.refuse(&visitor)),
                },
                _ => self.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Bound<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => {
                if let Some(number) = number.as_u64() {
                    visitor.visit_u64(number)
                } else if let Some(number) = number.as_i64() {
                    visitor.visit_i64(number)
                } else {
                    visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN))
                }
            }
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(list) => visitor.visit_seq(SeqDeserializer::new(list.iter().map(Bound))),
            Value::Object(map) => Self::entries(map, visitor),
        }
    }

    numbers! {
        deserialize_i8 visit_i64 i64, deserialize_i16 visit_i64 i64, deserialize_i32 visit_i64 i64,
        deserialize_i64 visit_i64 i64, deserialize_u8 visit_u64 u64, deserialize_u16 visit_u64 u64,
        deserialize_u32 visit_u64 u64, deserialize_u64 visit_u64 u64, deserialize_f32 visit_f64 f64,
        deserialize_f64 visit_f64 f64,
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::String(text) if text.eq_ignore_ascii_case("true") => visitor.visit_bool(true),
            Value::String(text) if text.eq_ignore_ascii_case("false") => visitor.visit_bool(false),
            Value::String(_) => Err(self.refuse(&visitor)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            // An empty value of YAML.
            Value::Null => visitor.visit_str(""),
            // Unquoted in YAML, as in `password: 12345`.
            Value::Number(number) => visitor.visit_string(number.to_string()),
            Value::Bool(value) => visitor.visit_str(if *value { "true" } else { "false" }),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            Value::String(text) if text.is_empty() => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    /// A comma list is a list too, and an empty text (that is how the configuration server says `[]`) an empty one.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_seq(SeqDeserializer::new(std::iter::empty::<Self>())),
            Value::String(text) => {
                let parts: Vec<Value> = text
                    .split(',')
                    .map(str::trim)
                    .filter(|part| !part.is_empty())
                    .map(|part| Value::String(part.to_owned()))
                    .collect();
                visitor.visit_seq(SeqDeserializer::new(parts.into_iter().map(Owned)))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_map(MapDeserializer::new(std::iter::empty::<(Self, Self)>())),
            Value::String(text) if text.is_empty() => {
                visitor.visit_map(MapDeserializer::new(std::iter::empty::<(Self, Self)>()))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            // serde_json knows the externally tagged forms; its numbers and texts are kept as they are.
            Value::Object(_) => self
                .0
                .deserialize_enum(name, variants, visitor)
                .map_err(|error| Error::custom(error.to_string())),
            Value::String(text) => visitor.visit_enum(StrDeserializer::new(text)),
            _ => Err(self.refuse(&visitor)),
        }
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

/// The same for a part of a comma list.
struct Owned(Value);

impl<'de> IntoDeserializer<'de, Error> for Owned {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Owned {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::String(text) => de::value::StringDeserializer::new(text).deserialize_any(visitor),
            other => Err(de::Error::invalid_type(Bound(&other).unexpected(), &visitor)),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::String(text) => visitor.visit_enum(de::value::StringDeserializer::new(text)),
            other => Err(de::Error::invalid_type(Bound(&other).unexpected(), &visitor)),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        Bound(&self.0).parsed(visitor)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        Bound(&self.0).parsed(visitor)
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        Bound(&self.0).parsed(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

impl Bound<'_> {
    fn parsed<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0.as_str().and_then(|text| text.parse::<u64>().ok()) {
            Some(number) => visitor.visit_u64(number),
            None => Err(de::Error::invalid_type(self.unexpected(), &visitor)),
        }
    }
}
