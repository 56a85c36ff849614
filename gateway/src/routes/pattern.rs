//! Path patterns in Spring's notation: `/coupons/**`, `/users/{id:\d+}/roles`, `/files/{name}.json`.
//!
//! `*` and `?` match inside one segment, `{name}` is one segment or a part of one, `{name:regex}` too but only what the
//! expression matches, `**` and `{*rest}` are the rest of the path (also none of it), at the end only. A pattern
//! without a trailing slash also matches the path with one, as in Spring; not the other way round.

use std::fmt;
use std::sync::Arc;

use regex::Regex;

use super::path::decode;
use super::variables::{Variables, is_name};

#[derive(Debug, Clone)]
pub struct PathPattern {
    text: String,
    segments: Vec<Segment>,
    rest: Rest,
    trailing_slash: bool,
    /// Whether a path's trailing slash that the pattern does not have is forgiven.
    lenient: bool,
}

#[derive(Debug, Clone)]
enum Segment {
    Literal(String),
    Any,
    Wildcards(String),
    Variable(Arc<str>),
    /// The expression has one group a name, in this order.
    Composed(Regex, Vec<Arc<str>>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rest {
    Nothing,
    Anything,
    /// `{*name}`, which takes the slash before it along.
    Variable(Arc<str>),
}

impl PathPattern {
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(body) = text.strip_prefix('/') else {
            return Err(format!("the pattern `{text}` has to start with a slash"));
        };
        let mut parts = split(body);
        let trailing_slash = parts.len() > 1 && parts.last() == Some(&"");
        if parts.last() == Some(&"") {
            parts.pop();
        }
        let rest = match parts.last() {
            Some(&"**") => Rest::Anything,
            Some(last) => match last.strip_prefix("{*").and_then(|last| last.strip_suffix('}')) {
                Some(name) if is_name(name) => Rest::Variable(name.into()),
                Some(_) => return Err(format!("in the pattern `{text}`, `{last}` is not a name in braces")),
                None => Rest::Nothing,
            },
            None => Rest::Nothing,
        };
        if rest != Rest::Nothing {
            parts.pop();
        }
        let segments = parts.into_iter().map(|part| Segment::parse(part, text)).collect::<Result<_, _>>()?;
        Ok(Self { text: text.to_owned(), segments, rest, trailing_slash, lenient: true })
    }

    /// Forgives no trailing slash.
    #[must_use]
    pub fn strict(self) -> Self {
        Self { lenient: false, ..self }
    }

    /// `path` is a normalised path.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        self.walk(path, &mut |_, _| {})
    }

    /// Takes the values of the names from a path that matches.
    pub fn capture(&self, path: &str, variables: &mut Variables) {
        self.walk(path, &mut |name, value| variables.set(name, value.to_owned()));
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        let rest = match &self.rest {
            Rest::Variable(name) => Some(&**name),
            Rest::Nothing | Rest::Anything => None,
        };
        self.segments.iter().flat_map(Segment::names).map(|name| &**name).chain(rest)
    }

    fn walk(&self, path: &str, found: &mut impl FnMut(&Arc<str>, &str)) -> bool {
        let Some(body) = path.strip_prefix('/') else { return false };
        let (mut left, slash) = match body.strip_suffix('/') {
            Some(left) => (left, true),
            None => (body, false),
        };
        if self.rest == Rest::Nothing
            && ((self.trailing_slash && !slash) || (!self.lenient && slash && !self.trailing_slash))
        {
            return false;
        }
        for expected in &self.segments {
            if left.is_empty() {
                return false;
            }
            let (segment, after) = left.split_once('/').unwrap_or((left, ""));
            if !expected.matches(&decode(segment), found) {
                return false;
            }
            left = after;
        }
        match &self.rest {
            Rest::Nothing => left.is_empty(),
            Rest::Anything => true,
            Rest::Variable(name) => {
                let slashes = usize::from(slash);
                // What is left, with the slash before it and the one after it.
                let from = path.len() - slashes - left.len();
                let rest = if left.is_empty() { if slash { "/" } else { "" } } else { &path[from - 1..] };
                found(name, &decode(rest));
                true
            }
        }
    }

    /// Higher for patterns that say more of a path.
    #[must_use]
    pub fn specificity(&self) -> (usize, usize, bool) {
        let literal = self.segments.iter().filter(|segment| matches!(segment, Segment::Literal(_))).count();
        (self.segments.len(), literal, self.rest == Rest::Nothing)
    }

    /// Whether this one matches every path that `other` does, as far as can be told by looking at both.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let (own, others) = (&self.segments, &other.segments);
        let long_enough = match self.rest {
            Rest::Nothing => own.len() == others.len() && other.rest == Rest::Nothing,
            Rest::Anything | Rest::Variable(_) => own.len() <= others.len(),
        };
        long_enough && own.iter().zip(others).all(|(own, other)| own.covers(other))
    }

    /// Whether some path below `prefix` (one literal segment, such as `internal`) is all that could match.
    #[must_use]
    pub fn is_within(&self, prefix: &str) -> bool {
        match self.segments.first() {
            Some(Segment::Literal(literal)) => literal.eq_ignore_ascii_case(prefix),
            Some(_) | None => false,
        }
    }
}

impl PartialEq for PathPattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.lenient == other.lenient
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// At the slashes outside of braces, in which a regular expression may have some.
fn split(body: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_i32);
    for (at, byte) in body.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b'/' if depth <= 0 => {
                parts.push(&body[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&body[start..]);
    parts
}

impl Segment {
    fn parse(part: &str, pattern: &str) -> Result<Self, String> {
        if part.is_empty() {
            return Err(format!("the pattern `{pattern}` has an empty segment"));
        }
        if part == "**" || part.starts_with("{*") {
            return Err(format!("in the pattern `{pattern}`, `{part}` is allowed at the end only"));
        }
        if part == "*" {
            return Ok(Self::Any);
        }
        if part.contains(['{', '}']) {
            return Self::compose(part, pattern);
        }
        Ok(if part.contains(['*', '?']) {
            Self::Wildcards(part.to_owned())
        } else {
            Self::Literal(decode(part).into_owned())
        })
    }

    fn compose(part: &str, pattern: &str) -> Result<Self, String> {
        let wrong = |what: &str| Err(format!("in the pattern `{pattern}`, `{part}` {what}"));
        let (mut expression, mut names, mut rest) = (String::from("^"), Vec::new(), part);
        while let Some(open) = rest.find(['{', '}']) {
            if rest[open..].starts_with('}') {
                return wrong("has a brace that closes nothing");
            }
            push_wildcards(&mut expression, &rest[..open]);
            let Some(inside) = braced(&rest[open..]) else { return wrong("has a brace that is not closed") };
            rest = &rest[open + inside.len() + 2..];
            let (name, allowed) = match inside.split_once(':') {
                Some((name, allowed)) => (name, Some(allowed)),
                None => (inside, None),
            };
            if !is_name(name) {
                return wrong("has braces without a name");
            }
            if allowed.is_none() && part.len() == inside.len() + 2 {
                return Ok(Self::Variable(name.into()));
            }
            // Named, because the expression may have groups of its own.
            let group = names.len();
            expression.push_str(&format!("(?P<fc{group}>{})", allowed.unwrap_or(".*")));
            names.push(Arc::from(name));
        }
        push_wildcards(&mut expression, rest);
        expression.push('$');
        match Regex::new(&expression) {
            Ok(regex) => Ok(Self::Composed(regex, names)),
            Err(_) => wrong("holds no regular expression that is known here"),
        }
    }

    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any | Self::Variable(_), _) => true,
            (Self::Literal(own), Self::Literal(other)) | (Self::Wildcards(own), Self::Wildcards(other)) => {
                own == other
            }
            (Self::Wildcards(pattern), Self::Literal(text)) => {
                wildcards_match(pattern.as_bytes(), text.as_bytes())
            }
            (Self::Composed(own, _), Self::Composed(other, _)) => own.as_str() == other.as_str(),
            (Self::Composed(own, _), Self::Literal(text)) => own.is_match(text),
            _ => false,
        }
    }

    fn names(&self) -> &[Arc<str>] {
        match self {
            Self::Variable(name) => std::slice::from_ref(name),
            Self::Composed(_, names) => names,
            Self::Literal(_) | Self::Any | Self::Wildcards(_) => &[],
        }
    }

    fn matches(&self, segment: &str, found: &mut impl FnMut(&Arc<str>, &str)) -> bool {
        match self {
            Self::Literal(literal) => literal == segment,
            Self::Any => true,
            Self::Wildcards(pattern) => wildcards_match(pattern.as_bytes(), segment.as_bytes()),
            Self::Variable(name) => {
                found(name, segment);
                true
            }
            Self::Composed(regex, names) => {
                let Some(captures) = regex.captures(segment) else { return false };
                for (index, name) in names.iter().enumerate() {
                    found(name, captures.name(&format!("fc{index}")).map_or("", |group| group.as_str()));
                }
                true
            }
        }
    }
}

/// The inside of the braces that `text` begins with; braces within count.
fn braced(text: &str) -> Option<&str> {
    let mut depth = 0_u32;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(&text[1..at]);
                }
            }
            _ => {}
        }
    }
    None
}

fn push_wildcards(expression: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '*' => expression.push_str(".*"),
            '?' => expression.push('.'),
            other => expression.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
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

    /// `name=value` of each name, in order.
    fn captured(pattern: &str, path: &str) -> Vec<String> {
        let pattern = PathPattern::parse(pattern).unwrap();
        assert!(pattern.matches(path), "{pattern} {path}");
        let mut variables = Variables::default();
        pattern.capture(path, &mut variables);
        pattern.names().map(|name| format!("{name}={}", variables.get(name).unwrap())).collect()
    }

    #[test]
    fn the_rest_includes_nothing() {
        assert!(matches("/coupons/**", "/coupons"));
        assert!(matches("/coupons/**", "/coupons/"));
        assert!(matches("/coupons/**", "/coupons/1/x"));
        assert!(matches("/{*all}", "/"));
        assert!(matches("/**", "/"));
        assert!(!matches("/coupons/**", "/couponsx"));
    }

    #[test]
    fn a_trailing_slash_is_forgiven_one_way() {
        assert!(matches("/lit/a", "/lit/a/"));
        assert!(!matches("/lit/b/", "/lit/b"));
        assert!(matches("/lit/b/", "/lit/b/"));
        assert!(matches("/", "/"));
        let strict = PathPattern::parse("/lit/a").unwrap().strict();
        assert!(strict.matches("/lit/a") && !strict.matches("/lit/a/"));
    }

    #[test]
    fn one_segment_wildcards() {
        assert!(matches("/users/{id}/roles", "/users/7/roles"));
        assert!(!matches("/users/{id}/roles", "/users/7/8/roles"));
        assert!(!matches("/users/{id}", "/users"));
        assert!(!matches("/users/*", "/users/"));
        assert!(matches("/f/*.json", "/f/a.b.json"));
        assert!(!matches("/f/*.json", "/f/a.jsonx"));
        assert!(matches("/f/a?c", "/f/abc"));
        assert!(!matches("/f/a?c", "/f/ac"));
        assert!(!matches("/F/abc", "/f/abc"));
    }

    #[test]
    fn what_is_encoded_is_compared_decoded() {
        assert!(matches("/쿠폰", "/%EC%BF%A0%ED%8F%B0"));
        assert!(matches("/a b", "/a%20b"));
        assert_eq!(captured("/{name}", "/a%20b"), ["name=a b"]);
    }

    #[test]
    fn names_take_what_they_match() {
        assert_eq!(captured("/a/{one}/{two}", "/a/1/2/"), ["one=1", "two=2"]);
        assert_eq!(captured("/a/{*rest}", "/a/1/2"), ["rest=/1/2"]);
        assert_eq!(captured("/a/{*rest}", "/a/1/"), ["rest=/1/"]);
        assert_eq!(captured("/a/{*rest}", "/a/"), ["rest=/"]);
        assert_eq!(captured("/a/{*rest}", "/a"), ["rest="]);
        assert_eq!(captured("/{name}.{ext:json|xml}", "/a.b.xml"), ["name=a.b", "ext=xml"]);
        assert_eq!(captured(r"/x{id:(\d){3}}*", "/x123y"), ["id=123"]);
    }

    #[test]
    fn expressions_match_whole_segments() {
        assert!(matches(r"/{id:\d+}", "/17"));
        assert!(!matches(r"/{id:\d+}", "/17a"));
        assert!(!matches(r"/{id:\d+}", "/"));
        assert!(matches(r"/{id:[a-z/]+}/x", "/abc/x"), "a slash in braces parts nothing");
    }

    #[test]
    fn a_wider_pattern_covers_a_narrower_one() {
        let covers = |wide: &str, narrow: &str| {
            PathPattern::parse(wide).unwrap().covers(&PathPattern::parse(narrow).unwrap())
        };
        for (wide, narrow) in [
            ("/**", "/a/{b}/**"),
            ("/a/**", "/a"),
            ("/a/{x}", "/a/{id:[0-9]+}"),
            ("/a/*.json", "/a/b.json"),
            ("/a/b", "/a/b"),
        ] {
            assert!(covers(wide, narrow), "{wide} {narrow}");
        }
        for (wide, narrow) in [
            ("/a/**", "/**"),
            ("/a/b", "/a/{x}"),
            ("/a/*", "/a/b/c"),
            ("/a/*", "/a/**"),
            ("/a/*.json", "/a/*"),
        ] {
            assert!(!covers(wide, narrow), "{wide} {narrow}");
        }
    }

    #[test]
    fn broken_patterns_are_refused() {
        for pattern in [
            "coupons",
            "/a/**/b",
            "/a//b",
            "/a/{id",
            "/a/{}",
            "/a/id}",
            "/a/{id:[}",
            "/{*a}/b",
            "/{*}",
            "/{:a}",
        ] {
            assert!(PathPattern::parse(pattern).is_err(), "{pattern}");
        }
    }
}
