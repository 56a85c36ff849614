//! Path patterns in Spring's notation: `/coupons/**`, `/users/{id}/roles`, `/files/*.json`.
//!
//! `*` and `?` match inside one segment, `{name}` is one segment, `**` and `{*rest}` are the rest of the
//! path (also none of it), at the end only. A pattern without a trailing slash also matches the path
//! with one, as in Spring; not the other way round.

use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    text: String,
    segments: Vec<Segment>,
    rest: bool,
    trailing_slash: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Any,
    Wildcards(String),
}

impl PathPattern {
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(body) = text.strip_prefix('/') else {
            return Err(format!("the pattern `{text}` has to start with a slash"));
        };
        let trailing_slash = body.ends_with('/');
        let mut parts: Vec<&str> = body.split('/').collect();
        if parts.last() == Some(&"") {
            parts.pop();
        }
        let rest = parts.last().is_some_and(|last| *last == "**" || is_capture_rest(last));
        if rest {
            parts.pop();
        }
        let segments = parts.into_iter().map(|part| Segment::parse(part, text)).collect::<Result<_, _>>()?;
        Ok(Self { text: text.to_owned(), segments, rest, trailing_slash })
    }

    /// `path` is a normalised path.
    pub fn matches(&self, path: &str) -> bool {
        let (body, slash) = match path.strip_prefix('/') {
            Some(body) => (body.strip_suffix('/').unwrap_or(body), body.ends_with('/')),
            None => return false,
        };
        if self.trailing_slash && !slash {
            return false;
        }
        let mut given = body.split('/').filter(|segment| !segment.is_empty());
        for expected in &self.segments {
            match given.next() {
                Some(segment) if expected.matches(segment) => {}
                _ => return false,
            }
        }
        self.rest || given.next().is_none()
    }

    /// Whether some path below `prefix` (one literal segment, such as `internal`) could match.
    pub fn reaches(&self, prefix: &str) -> bool {
        match self.segments.first() {
            Some(Segment::Literal(literal)) => literal.eq_ignore_ascii_case(prefix),
            Some(_) | None => false,
        }
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn is_capture_rest(part: &str) -> bool {
    part.starts_with("{*") && part.ends_with('}')
}

impl Segment {
    fn parse(part: &str, pattern: &str) -> Result<Self, String> {
        if part.is_empty() {
            return Err(format!("the pattern `{pattern}` has an empty segment"));
        }
        if part == "**" || is_capture_rest(part) {
            return Err(format!("in the pattern `{pattern}`, `{part}` is allowed at the end only"));
        }
        if let Some(name) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            return if name.is_empty() || name.contains([':', '{', '}']) {
                Err(format!("in the pattern `{pattern}`, `{part}` is not a name in braces"))
            } else {
                Ok(Self::Any)
            };
        }
        if part.contains(['{', '}']) {
            return Err(format!("in the pattern `{pattern}`, braces have to hold a whole segment"));
        }
        Ok(match part {
            "*" => Self::Any,
            _ if part.contains(['*', '?']) => Self::Wildcards(part.to_owned()),
            _ => Self::Literal(part.to_owned()),
        })
    }

    fn matches(&self, segment: &str) -> bool {
        match self {
            Self::Literal(literal) => literal == segment,
            Self::Any => true,
            Self::Wildcards(pattern) => wildcards_match(pattern.as_bytes(), segment.as_bytes()),
        }
    }
}

/// Greedy matching with one point to return to: linear in practice, never exponential.
fn wildcards_match(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(b'?') => (p, t) = (p + 1, t + 1),
            Some(byte) if *byte == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, from)) => {
                    (p, t) = (at + 1, from + 1);
                    star = Some((at, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        PathPattern::parse(pattern).unwrap().matches(path)
    }

    #[test]
    fn the_rest_includes_nothing() {
        assert!(matches("/coupons/**", "/coupons"));
        assert!(matches("/coupons/**", "/coupons/"));
        assert!(matches("/coupons/**", "/coupons/1/x"));
        assert!(matches("/{*all}", "/"));
        assert!(!matches("/coupons/**", "/couponsx"));
    }

    #[test]
    fn a_trailing_slash_is_forgiven_one_way() {
        assert!(matches("/lit/a", "/lit/a/"));
        assert!(!matches("/lit/b/", "/lit/b"));
        assert!(matches("/lit/b/", "/lit/b/"));
    }

    #[test]
    fn one_segment_wildcards() {
        assert!(matches("/users/{id}/roles", "/users/7/roles"));
        assert!(!matches("/users/{id}/roles", "/users/7/8/roles"));
        assert!(!matches("/users/{id}", "/users"));
        assert!(matches("/f/*.json", "/f/a.b.json"));
        assert!(!matches("/f/*.json", "/f/a.jsonx"));
        assert!(matches("/f/a?c", "/f/abc"));
        assert!(!matches("/f/a?c", "/f/ac"));
        assert!(!matches("/F/abc", "/f/abc"));
    }

    #[test]
    fn broken_patterns_are_refused() {
        for pattern in ["coupons", "/a/**/b", "/a//b", "/a/{id", "/a/{}", "/a/x{id}", "/a/{id:[0-9]+}"] {
            assert!(PathPattern::parse(pattern).is_err(), "{pattern}");
        }
    }
}
