//! What `{names}` in the patterns of a route took from a request, and the templates that use it.

use std::sync::Arc;

/// Captured values, decoded, by name. The last pattern that has a name wins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variables(Vec<(Arc<str>, String)>);

impl Variables {
    pub fn set(&mut self, name: &Arc<str>, value: String) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((Arc::clone(name), value)),
        }
    }

    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| &**known == name).map(|(_, value)| value.as_str())
    }
}

/// Text with `{name}` in it. Braces that hold no name are text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(String),
}

impl Template {
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let (mut parts, mut rest) = (Vec::new(), text);
        let mut plain = String::new();
        while let Some(open) = rest.find('{') {
            let (before, inside) = rest.split_at(open);
            plain.push_str(before);
            let named = inside[1..].split_once('}').filter(|(name, _)| is_name(name));
            rest = match named {
                Some((name, after)) => {
                    if !plain.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut plain)));
                    }
                    parts.push(Part::Variable(name.to_owned()));
                    after
                }
                None => {
                    plain.push('{');
                    &inside[1..]
                }
            };
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Self(parts)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Variable(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    /// The text itself, if nothing in it varies.
    #[must_use]
    pub fn fixed(&self) -> Option<&str> {
        match self.0.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// `encode` is applied to what was captured, not to the template's own text.
    #[must_use]
    pub fn expand(&self, variables: &Variables, encode: impl Fn(&str) -> String) -> String {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Variable(name) => out.push_str(&encode(variables.get(name).unwrap_or_default())),
            }
        }
        out
    }
}

pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filled_in_and_other_braces_stay() {
        let mut variables = Variables::default();
        variables.set(&"id".into(), "old".to_owned());
        variables.set(&"id".into(), "7".to_owned());
        variables.set(&"x-y".into(), "z".to_owned());
        for (template, expanded) in [
            ("plain", "plain"),
            ("v-{id}", "v-7"),
            ("{id}{x-y}", "7z"),
            ("{\"a\": {id}}", "{\"a\": 7}"),
            ("{}{ id }{id", "{}{ id }{id"),
            ("a{none}b", "ab"),
            ("", ""),
        ] {
            assert_eq!(Template::parse(template).expand(&variables, str::to_owned), expanded, "{template}");
        }
        assert_eq!(Template::parse("{id}/{x}").names().collect::<Vec<_>>(), ["id", "x"]);
        assert_eq!(Template::parse("plain").fixed(), Some("plain"));
        assert_eq!(Template::parse("{id}").fixed(), None);
    }
}
