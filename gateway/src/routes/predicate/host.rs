//! Host patterns in Spring's notation: `**.example.org`, `{shop}.example.org`, `api-?.example.org:8443`.
//!
//! Between dots, `*` and `?` match inside one label, `**` any number of labels, also none, `{name}` one label. The
//! port belongs to what is matched if the client sent one. Case counts for nothing (RFC 9110, 4.2.3).

use std::fmt;
use std::sync::Arc;

use regex::Regex;

use crate::routes::variables::Variables;

#[derive(Debug, Clone)]
pub struct HostPattern {
    text: String,
    regex: Regex,
    names: Vec<Arc<str>>,
}

impl HostPattern {
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("the host pattern `{text}` {what}");
        let mut expression = String::from("(?i)^");
        let mut names = Vec::new();
        let labels: Vec<&str> = text.split('.').collect();
        // Whether the next label comes after a dot that is not written yet.
        let mut dot = false;
        for (at, label) in labels.iter().enumerate() {
            if *label == "**" {
                let last = at + 1 == labels.len();
                expression.push_str(match (dot, last) {
                    (false, true) => ".*",
                    (false, false) => r"(?:[^.]+\.)*",
                    (true, true) => r"(?:\.[^.]+)*",
                    (true, false) => r"(?:\.[^.]+)*\.",
                });
                dot = false;
                continue;
            }
            if label.is_empty() {
                return Err(wrong("has an empty label"));
            }
            if dot {
                expression.push_str(r"\.");
            }
            push_label(&mut expression, label, &mut names).map_err(wrong)?;
            dot = true;
        }
        expression.push('$');
        let regex =
            Regex::new(&expression).map_err(|_| wrong("holds no regular expression that is known here"))?;
        Ok(Self { text: text.to_owned(), regex, names })
    }

    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        self.regex.is_match(host)
    }

    /// False if it does not match.
    pub fn capture(&self, host: &str, variables: &mut Variables) -> bool {
        let Some(captures) = self.regex.captures(host) else { return false };
        for (index, name) in self.names.iter().enumerate() {
            let value = captures.name(&format!("fc{index}")).map_or("", |group| group.as_str());
            variables.set(name, value.to_owned());
        }
        true
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }
}

fn push_label(expression: &mut String, label: &str, names: &mut Vec<Arc<str>>) -> Result<(), &'static str> {
    let mut rest = label;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '*' => expression.push_str("[^.]*"),
            '?' => expression.push_str("[^.]"),
            '{' => {
                let (name, after) = rest.split_once('}').ok_or("has a brace that is not closed")?;
                let (name, allowed) = name.split_once(':').unwrap_or((name, "[^.]*"));
                if name.is_empty() {
                    return Err("has braces without a name");
                }
                expression.push_str(&format!("(?P<fc{}>{allowed})", names.len()));
                names.push(name.into());
                rest = after;
            }
            '}' => return Err("has a brace that closes nothing"),
            '/' => return Err("has a slash in it; a host has none"),
            other => expression.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
        }
    }
    Ok(())
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, host: &str) -> bool {
        HostPattern::parse(pattern).unwrap().matches(host)
    }

    #[test]
    fn stars_match_within_labels_and_double_stars_across() {
        assert!(matches("**.example.org", "example.org"));
        assert!(matches("**.example.org", "www.example.org"));
        assert!(matches("**.example.org", "a.b.example.org"));
        assert!(!matches("**.example.org", "badexample.org"));
        assert!(!matches("**.example.org", "example.org.evil"));
        assert!(matches("*.example.org", "www.example.org"));
        assert!(!matches("*.example.org", "a.b.example.org"));
        assert!(!matches("*.example.org", "example.org"));
        assert!(matches("example.**", "example.org.kr"));
        assert!(matches("a.**.z", "a.z") && matches("a.**.z", "a.b.c.z"));
        assert!(matches("**", "anything.at:80"));
        assert!(matches("a?.org", "ab.org") && !matches("a?.org", "a.org"));
        assert!(matches("Example.org", "eXAMPLE.ORG"));
    }

    #[test]
    fn the_port_counts_when_the_client_sends_it() {
        assert!(!matches("**.example.org", "www.example.org:8080"));
        assert!(matches("**.example.org:8080", "www.example.org:8080"));
        assert!(matches("**.example.org*", "www.example.org:8080"));
    }

    #[test]
    fn names_take_labels() {
        let pattern = HostPattern::parse("{shop}.{region:eu|us}.example.org").unwrap();
        let mut variables = Variables::default();
        assert!(pattern.capture("Toys.eu.example.org", &mut variables));
        assert_eq!(variables.get("shop"), Some("Toys"));
        assert_eq!(variables.get("region"), Some("eu"));
        assert!(!pattern.capture("toys.kr.example.org", &mut variables));
    }

    #[test]
    fn broken_patterns_are_refused() {
        for pattern in ["", "a..b", "{a.org", "a}.org", "{}.org", "a/b", "{a:[}.org"] {
            assert!(HostPattern::parse(pattern).is_err(), "{pattern}");
        }
    }
}
