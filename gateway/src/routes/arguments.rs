//! What stands behind a predicate's or filter's name, read by the names of its fields.
//!
//! Invariant: every argument that is written is read or complained about; all complaints come at once.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use http::HeaderName;
use regex::Regex;
use serde_json::Value;

use super::definition::{Definition, Written, listed};
use super::suggestion::{plain, suggest};

/// How the arguments of a shortcut come to their names, as Spring's `ShortcutType` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One argument a field, in this order.
    Fields(&'static [&'static str]),
    /// All arguments are the list of this field.
    List(&'static str),
    /// The same, but a last `true` or `false` is the second field's.
    ListAndFlag(&'static str, &'static str),
}

/// The arguments of one definition. Each getter takes its argument out; [`Arguments::finish`] finds what is left over.
#[derive(Debug)]
pub struct Arguments {
    given: BTreeMap<&'static str, Value>,
    problems: Vec<String>,
}

impl Arguments {
    /// `fields`: all names that the full form knows, in the shape's order first.
    #[must_use]
    pub fn read(definition: &Definition, shape: Shape, fields: &'static [&'static str]) -> Self {
        let mut arguments = Self { given: BTreeMap::new(), problems: Vec::new() };
        match &definition.arguments {
            Written::Listed(list) => arguments.take_list(list.as_deref().unwrap_or_default(), shape),
            Written::Named(named) => arguments.take_named(named, shape, fields),
        }
        arguments
    }

    fn take_list(&mut self, list: &[String], shape: Shape) {
        let texts = |list: &[String]| Value::Array(list.iter().cloned().map(Value::String).collect());
        match shape {
            Shape::Fields(fields) => {
                for (field, text) in fields.iter().zip(list) {
                    self.given.insert(field, Value::String(text.clone()));
                }
                if list.len() > fields.len() {
                    let most = match fields {
                        [] => "no arguments".to_owned(),
                        [field] => format!("one argument ({field})"),
                        _ => format!("at most {} arguments ({})", fields.len(), fields.join(", ")),
                    };
                    self.complain(format_args!(
                        "takes {most}, but {} are given; a comma within one needs the full form",
                        list.len()
                    ));
                }
            }
            Shape::List(field) => drop(self.given.insert(field, texts(list))),
            Shape::ListAndFlag(field, flag) => {
                let list = match list.split_last() {
                    Some((last, rest)) if is_flag(last) => {
                        self.given.insert(flag, Value::String(last.clone()));
                        rest
                    }
                    _ => list,
                };
                self.given.insert(field, texts(list));
            }
        }
    }

    fn take_named(&mut self, named: &BTreeMap<String, Value>, shape: Shape, fields: &'static [&'static str]) {
        let list = match shape {
            Shape::Fields(_) => None,
            Shape::List(field) | Shape::ListAndFlag(field, _) => Some(field),
        };
        // Spring's own names for the arguments of a shortcut, which some write out.
        let mut numbered = Vec::new();
        for (key, value) in flat(named) {
            if let Some(number) = key.strip_prefix("_genkey_").and_then(|number| number.parse::<usize>().ok())
            {
                numbered.push((number, text_of(&value).unwrap_or_default()));
            } else if let Some(field) = fields.iter().find(|field| plain(field) == plain(&key)) {
                self.given.insert(field, value);
            } else if let Some(list) = list {
                // Where there is but one list, Spring takes it by whatever name.
                self.given.insert(list, value);
            } else {
                let hint = suggest(&key, fields.iter().copied());
                self.complain(format_args!("has no argument `{key}`{hint}"));
            }
        }
        numbered.sort_unstable();
        if !numbered.is_empty() {
            let list: Vec<String> = numbered.into_iter().map(|(_, text)| text).collect();
            self.take_list(&list, shape);
        }
    }

    pub fn complain(&mut self, problem: impl Display) {
        self.problems.push(problem.to_string());
    }

    /// Whether it is written, and still to be read.
    #[must_use]
    pub fn has(&self, field: &str) -> bool {
        self.given.contains_key(field)
    }

    /// The value as it is, for fields that have a structure of their own.
    pub fn value(&mut self, field: &'static str) -> Option<Value> {
        self.given.remove(field).filter(|value| !value.is_null())
    }

    pub fn text(&mut self, field: &'static str) -> Option<String> {
        match self.value(field)? {
            Value::Array(_) | Value::Object(_) => {
                self.complain(format_args!("`{field}` must be one value"));
                None
            }
            value => text_of(&value),
        }
    }

    /// Complains if it is missing or empty.
    pub fn required(&mut self, field: &'static str) -> String {
        let text = self.text(field).unwrap_or_default();
        if text.is_empty() {
            self.missing(field);
        }
        text
    }

    /// Whether nothing was complained of yet.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }

    /// Says so, unless what was wrong before may be why.
    pub fn missing(&mut self, field: &'static str) {
        if self.problems.is_empty() {
            self.complain(format_args!("needs `{field}`"));
        }
    }

    pub fn header_name(&mut self, field: &'static str) -> Option<HeaderName> {
        let text = self.required(field);
        let name = HeaderName::from_bytes(text.as_bytes()).ok();
        if name.is_none() && !text.is_empty() {
            self.complain(format_args!("`{field}`: `{text}` is no name that a header may have"));
        }
        name
    }

    pub fn parsed<T: FromStr>(&mut self, field: &'static str, what: &str) -> Option<T> {
        let text = self.text(field)?;
        let parsed = text.trim().parse().ok();
        if parsed.is_none() {
            self.complain(format_args!("`{field}` must be {what}, is `{text}`"));
        }
        parsed
    }

    pub fn flag(&mut self, field: &'static str) -> Option<bool> {
        self.parsed(field, "true or false")
    }

    /// A list, or a text that is cut at commas.
    pub fn list(&mut self, field: &'static str) -> Vec<String> {
        match self.value(field) {
            None => Vec::new(),
            Some(Value::Array(list)) => {
                let texts: Option<Vec<String>> = list.iter().map(text_of).collect();
                texts.unwrap_or_else(|| {
                    self.complain(format_args!("`{field}` must be a list of plain values"));
                    Vec::new()
                })
            }
            Some(Value::Object(_)) => {
                self.complain(format_args!("`{field}` must be a list"));
                Vec::new()
            }
            Some(value) => listed(&text_of(&value).unwrap_or_default()),
        }
    }

    /// A list that is not empty.
    pub fn required_list(&mut self, field: &'static str) -> Vec<String> {
        let list = self.list(field);
        if list.is_empty() {
            self.missing(field);
        }
        list
    }

    /// What is given has to match the whole of a text, as in Java's `matches`.
    pub fn whole_regex(&mut self, field: &'static str) -> Option<Regex> {
        let text = self.text(field)?;
        self.regex(field, &text, &format!("^(?:{text})$"))
    }

    /// What is given has to occur in a text, as in Java's `find`.
    pub fn inner_regex(&mut self, field: &'static str) -> Option<Regex> {
        let text = self.text(field)?;
        self.regex(field, &text, &text)
    }

    fn regex(&mut self, field: &'static str, written: &str, pattern: &str) -> Option<Regex> {
        match Regex::new(pattern) {
            Ok(regex) => Some(regex),
            Err(error) => {
                let reason = match error {
                    regex::Error::Syntax(text) => reason_of(&text),
                    regex::Error::CompiledTooBig(_) => "it is too large".to_owned(),
                    other => other.to_string(),
                };
                self.complain(format_args!(
                    "`{field}`: `{written}` is no regular expression that is known here: {reason}"
                ));
                None
            }
        }
    }

    /// A number of milliseconds, text with a unit (`250ms`, `5s`), or ISO 8601 (`PT5S`).
    pub fn duration(&mut self, field: &'static str) -> Option<Duration> {
        let text = self.text(field)?;
        let duration = parse_duration(&text);
        if duration.is_none() {
            self.complain(format_args!("`{field}` must be a duration such as 250ms or 5s, is `{text}`"));
        }
        duration
    }

    /// Bytes: a number, or text with a unit of 1,024 (`16KB`, `5MB`), as Spring's `DataSize` has it.
    pub fn size(&mut self, field: &'static str) -> Option<u64> {
        let text = self.text(field)?;
        let size = parse_size(&text);
        if size.is_none() {
            self.complain(format_args!("`{field}` must be a size such as 16KB or 5MB, is `{text}`"));
        }
        size
    }

    /// `built` if nothing is wrong with what was read, and nothing was left unread.
    pub fn finish<T>(mut self, built: Option<T>) -> Result<T, Vec<String>> {
        if self.problems.is_empty() {
            let unread: Vec<_> = std::mem::take(&mut self.given).into_keys().collect();
            for field in unread {
                self.complain(format_args!("has no use for `{field}` here"));
            }
        }
        match built {
            Some(built) if self.problems.is_empty() => Ok(built),
            _ => Err(self.problems),
        }
    }
}

/// Maps within maps become dotted names, as `backoff.firstBackoff`.
fn flat(named: &BTreeMap<String, Value>) -> Vec<(String, Value)> {
    let mut leaves = Vec::new();
    for (key, value) in named {
        match value {
            Value::Object(inner) => {
                let inner =
                    inner.iter().map(|(name, value)| (format!("{key}.{name}"), value.clone())).collect();
                leaves.extend(flat(&inner));
            }
            other => leaves.push((key.clone(), other.clone())),
        }
    }
    leaves
}

fn is_flag(text: &str) -> bool {
    text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false")
}

/// The last line of what the regex parser says holds the reason.
fn reason_of(text: &str) -> String {
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

pub(crate) fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null => Some(String::new()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Ok(millis) = text.parse() {
        return Some(Duration::from_millis(millis));
    }
    match text.strip_prefix("PT").or_else(|| text.strip_prefix("pt")) {
        Some(iso) if !iso.is_empty() => iso_duration(&iso.to_ascii_uppercase()),
        Some(_) => None,
        None => humantime::parse_duration(text).ok(),
    }
}

/// ISO 8601 without days: `1H30M5.25S`.
fn iso_duration(mut text: &str) -> Option<Duration> {
    let mut seconds = 0.0;
    for (unit, factor) in [('H', 3_600.0), ('M', 60.0), ('S', 1.0)] {
        if let Some((number, rest)) = text.split_once(unit) {
            seconds += number.parse::<f64>().ok()? * factor;
            text = rest;
        }
    }
    (text.is_empty()).then(|| Duration::try_from_secs_f64(seconds).ok())?
}

#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim().to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "KB" | "KIB" => 1 << 10,
        "MB" | "MIB" => 1 << 20,
        "GB" | "GIB" => 1 << 30,
        "TB" | "TIB" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SHAPE: Shape = Shape::Fields(&["name", "regexp"]);

    fn read(definition: &Value, shape: Shape, fields: &'static [&'static str]) -> Arguments {
        Arguments::read(&serde_json::from_value(definition.clone()).unwrap(), shape, fields)
    }

    fn problems(arguments: Arguments) -> String {
        arguments.finish(Some(())).unwrap_err().join("\n")
    }

    #[test]
    fn every_form_comes_to_the_same_arguments() {
        for definition in [
            json!("Header=X-A, a.*"),
            json!({"name": "Header", "args": {"name": "X-A", "regexp": "a.*"}}),
            json!({"name": "Header", "args": {"NAME": "X-A", "reg-exp": "a.*"}}),
            json!({"name": "Header", "args": {"_genkey_1": "a.*", "_genkey_0": "X-A"}}),
        ] {
            let mut arguments = read(&definition, SHAPE, &["name", "regexp"]);
            assert_eq!(arguments.required("name"), "X-A", "{definition}");
            assert_eq!(arguments.text("regexp").as_deref(), Some("a.*"), "{definition}");
            assert_eq!(arguments.finish(Some(())), Ok(()));
        }
    }

    #[test]
    fn a_list_takes_all_and_a_flag_the_last_if_it_is_one() {
        let shape = Shape::ListAndFlag("patterns", "matchTrailingSlash");
        for (definition, list, flag) in [
            (json!("Path=/a, /b"), vec!["/a", "/b"], None),
            (json!("Path=/a, false"), vec!["/a"], Some(false)),
            (json!({"name": "Path", "args": {"patterns": "/a,/b"}}), vec!["/a", "/b"], None),
            (json!({"name": "Path", "args": {"pattern": "/a"}}), vec!["/a"], None),
            (
                json!({"name": "Path", "args": {"patterns": ["/a"], "match-trailing-slash": true}}),
                vec!["/a"],
                Some(true),
            ),
            (json!({"name": "Path", "args": {"_genkey_0": "/a", "_genkey_1": "/b"}}), vec!["/a", "/b"], None),
        ] {
            let mut arguments = read(&definition, shape, &["patterns", "matchTrailingSlash"]);
            assert_eq!(arguments.required_list("patterns"), list, "{definition}");
            assert_eq!(arguments.flag("matchTrailingSlash"), flag, "{definition}");
        }
    }

    #[test]
    fn too_many_unknown_and_missing_ones_are_told() {
        let text = problems(read(&json!("Header=X-A, a{1,2}"), SHAPE, &["name", "regexp"]));
        assert!(text.contains("at most 2 arguments (name, regexp), but 3 are given"), "{text}");
        let text =
            problems(read(&json!({"name": "Header", "args": {"regex": "a"}}), SHAPE, &["name", "regexp"]));
        assert_eq!(text, "has no argument `regex`; did you mean `regexp`?");
        let mut arguments = read(&json!("Header"), SHAPE, &["name", "regexp"]);
        arguments.required("name");
        assert_eq!(problems(arguments), "needs `name`");
        let mut arguments = read(&json!("Header=X-A, (?=a)"), SHAPE, &["name", "regexp"]);
        assert!(arguments.whole_regex("regexp").is_none());
        arguments.required("name");
        assert!(problems(arguments).contains("look-around"), "the reason is told");
    }

    #[test]
    fn durations_and_sizes_have_springs_forms() {
        for (text, millis) in
            [("250", 250), ("250ms", 250), ("5s", 5_000), ("PT1.5S", 1_500), ("PT1M", 60_000)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5 apples", "PT", "PTx", "-1", "P1D"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        for (text, bytes) in [("5", 5), ("5B", 5), ("16KB", 16_384), ("5MB", 5 << 20), ("1GiB", 1 << 30)] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "MB", "-1", "5XB", "99999999999999999999"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
