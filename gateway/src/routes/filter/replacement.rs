//! Java's `replaceAll`: `$1`, `${name}` and `\$` in what is put in, and Spring's `$\{name}`, which hides a brace from its
//! placeholders.

use std::borrow::Cow;

use regex::Regex;

#[derive(Debug, Clone)]
pub struct Replacement {
    regex: Regex,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Group(usize),
}

impl Replacement {
    /// The problem is a sentence's end.
    pub fn parse(regex: Regex, text: &str) -> Result<Self, String> {
        let text = text.replace("$\\", "$");
        let (mut parts, mut plain) = (Vec::new(), String::new());
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '\\' => plain.push(chars.next().ok_or("ends with a `\\` that hides nothing")?),
                '$' => {
                    let group = if chars.next_if_eq(&'{').is_some() {
                        let name: String = std::iter::from_fn(|| chars.next_if(|c| *c != '}')).collect();
                        chars.next().ok_or_else(|| format!("has `${{{name}` without its closing brace"))?;
                        let mut names = regex.capture_names();
                        names.position(|known| known == Some(name.as_str())).ok_or_else(|| {
                            format!("names the group `{name}`, which `regexp` does not have")
                        })?
                    } else {
                        numbered(&mut chars, regex.captures_len())?
                    };
                    if !plain.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut plain)));
                    }
                    parts.push(Part::Group(group));
                }
                other => plain.push(other),
            }
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self { regex, parts })
    }

    /// Every match replaced; the text itself where there is none.
    #[must_use]
    pub fn apply<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.regex.replace_all(text, |captures: &regex::Captures<'_>| {
            let mut out = String::new();
            for part in &self.parts {
                match part {
                    Part::Text(text) => out.push_str(text),
                    Part::Group(group) => {
                        out.push_str(captures.get(*group).map_or("", |group| group.as_str()));
                    }
                }
            }
            out
        })
    }
}

/// As many digits as still name a group, as Java reads them.
fn numbered(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, groups: usize) -> Result<usize, String> {
    let digit = |c: char| c.to_digit(10).map(|digit| digit as usize);
    let mut group = chars.next_if(char::is_ascii_digit).and_then(digit).ok_or(
        "has a `$` with neither a number nor a name in braces behind it; write `\\$` for the sign itself",
    )?;
    if group >= groups {
        return Err(format!("names group {group}, but `regexp` has {}", groups - 1));
    }
    while let Some(next) = chars.peek().copied().and_then(digit).map(|next| group * 10 + next) {
        if next >= groups {
            break;
        }
        group = next;
        chars.next();
    }
    Ok(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(regex: &str, replacement: &str, text: &str) -> String {
        Replacement::parse(Regex::new(regex).unwrap(), replacement).unwrap().apply(text).into_owned()
    }

    #[test]
    fn groups_are_put_in_by_name_and_number() {
        assert_eq!(apply("/red/?(?<segment>.*)", r"/$\{segment}", "/red/blue"), "/blue");
        assert_eq!(apply("/red/?(?<segment>.*)", "/${segment}", "/red"), "/");
        assert_eq!(apply("/foo/(.*)", "/$1", "/foo/bar"), "/bar");
        assert_eq!(apply("(a)(b)?", "[$2$1]", "ab-a"), "[ba]-[a]");
        assert_eq!(apply("(a)", "$10", "a"), "a0", "there is no tenth group");
        assert_eq!(apply("a", "$0$0", "aba"), "aabaa");
        assert_eq!(apply("a", r"\$x\\", "a"), r"$x\");
        assert_eq!(apply("x", "y", "abc"), "abc");
    }

    #[test]
    fn what_names_no_group_is_refused() {
        let regex = Regex::new("(?<a>.)").unwrap();
        for (replacement, why) in [
            ("$", "neither a number"),
            ("$x", "neither a number"),
            ("$2", "names group 2, but `regexp` has 1"),
            ("${x}", "names the group `x`"),
            ("${a", "closing brace"),
            (r"a\", "hides nothing"),
        ] {
            let error = Replacement::parse(regex.clone(), replacement).unwrap_err();
            assert!(error.contains(why), "{replacement}: {error}");
        }
    }
}
