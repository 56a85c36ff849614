//! What has to hold of a request for a route to take it: the predicates of Spring Cloud Gateway, under their names.
//!
//! Invariant: a definition is compiled before the first request or refused with a reason; matching allocates only
//! where a header's or query's own text has to be decoded.

pub mod address;
pub mod host;
pub mod time;

use std::borrow::Cow;
use std::net::IpAddr;

use http::{HeaderMap, HeaderName, Method, header};
use regex::Regex;

use super::arguments::{Arguments, Shape};
use super::definition::Definition;
use super::pattern::PathPattern;
use super::suggestion::suggest;
use super::variables::Variables;
use super::weight::{Draws, Group};
use address::Addresses;
use host::HostPattern;

/// Every name that is known.
pub const NAMES: [&str; 12] = [
    "After",
    "Before",
    "Between",
    "Cookie",
    "Header",
    "Host",
    "Method",
    "Path",
    "Query",
    "RemoteAddr",
    "Weight",
    "XForwardedRemoteAddr",
];
/// Spring's, which need code of the user's own or of a platform that is none of ours.
const NOT_HERE: [(&str, &str); 3] = [
    ("ReadBody", "it needs Java code"),
    ("Version", "it needs Spring's API versioning; use Header or Path"),
    ("CloudFoundryRouteService", "it is of Cloud Foundry alone"),
];

#[derive(Debug, Clone)]
pub enum Predicate {
    Path(Vec<PathPattern>),
    Method(Vec<Method>),
    Host(Vec<HostPattern>),
    /// Without an expression: it is there and not empty.
    Header(HeaderName, Option<Regex>),
    /// Without an expression: it is there.
    Query(String, Option<Regex>),
    Cookie(String, Regex),
    /// A share of a group, of which [`Group`] knows the whole.
    Weight {
        group: String,
        weight: u32,
        share: Option<Group>,
    },
    /// From the first to before the second, in Unix milliseconds.
    During(u64, u64),
    /// Where the connection comes from.
    RemoteAddr(Addresses),
    /// Where the request comes from, as that many trusted proxies say.
    XForwardedRemoteAddr(Addresses, usize),
}

/// What is known of a request when its route is looked for.
#[derive(Debug)]
pub struct Asked<'a> {
    pub method: &'a Method,
    /// Normalised.
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
    /// Who made the connection; `None` in tests without one.
    pub peer: Option<IpAddr>,
    /// Unix milliseconds.
    pub now_ms: u64,
    pub draws: Draws,
}

impl Predicate {
    /// Every problem, each a sentence's end behind the predicate's name.
    pub fn compile(definition: &Definition) -> Result<Self, Vec<String>> {
        let read = |shape, fields| Arguments::read(definition, shape, fields);
        match definition.name.as_str() {
            "Path" => path(read(
                Shape::ListAndFlag("patterns", "matchTrailingSlash"),
                &["patterns", "matchTrailingSlash"],
            )),
            "Method" => method(read(Shape::List("methods"), &["methods"])),
            "Host" => host(read(Shape::List("patterns"), &["patterns"])),
            "Header" => header(read(Shape::Fields(&["header", "regexp"]), &["header", "regexp"])),
            "Query" => query(read(Shape::Fields(&["param", "regexp"]), &["param", "regexp"])),
            "Cookie" => cookie(read(Shape::Fields(&["name", "regexp"]), &["name", "regexp"])),
            "Weight" => weight(read(
                Shape::Fields(&["weight.group", "weight.weight"]),
                &["weight.group", "weight.weight"],
            )),
            "After" => during(read(Shape::Fields(&["datetime"]), &["datetime"]), Some("datetime"), None),
            "Before" => during(read(Shape::Fields(&["datetime"]), &["datetime"]), None, Some("datetime")),
            "Between" => {
                const FIELDS: &[&str] = &["datetime1", "datetime2"];
                during(read(Shape::Fields(FIELDS), FIELDS), Some(FIELDS[0]), Some(FIELDS[1]))
            }
            "RemoteAddr" => remote_address(read(Shape::List("sources"), &["sources"])),
            "XForwardedRemoteAddr" => {
                forwarded_address(read(Shape::List("sources"), &["sources", "maxTrustedIndex"]))
            }
            other => Err(vec![unknown(other)]),
        }
        .map_err(|problems| problems.iter().map(|problem| format!("{} {problem}", definition.name)).collect())
    }

    #[must_use]
    pub fn holds(&self, asked: &Asked<'_>) -> bool {
        match self {
            Self::Path(patterns) => patterns.iter().any(|pattern| pattern.matches(asked.path)),
            Self::Method(methods) => methods.contains(asked.method),
            Self::Host(patterns) => {
                asked.host().is_some_and(|host| patterns.iter().any(|pattern| pattern.matches(host)))
            }
            Self::Header(name, regex) => asked.header_values(name).any(|value| match regex {
                Some(regex) => regex.is_match(value),
                None => !value.is_empty(),
            }),
            Self::Query(name, regex) => asked.query_values(name).any(|value| match regex {
                Some(regex) => value.is_some_and(|value| regex.is_match(&value)),
                None => true,
            }),
            Self::Cookie(name, regex) => asked.cookies(name).any(|value| regex.is_match(value)),
            Self::Weight { share, .. } => share.as_ref().is_some_and(|share| share.holds(&asked.draws)),
            Self::During(from, to) => (*from..*to).contains(&asked.now_ms),
            Self::RemoteAddr(addresses) => asked.peer.is_some_and(|peer| addresses.contain(peer)),
            Self::XForwardedRemoteAddr(addresses, trusted) => {
                address::forwarded(asked.headers, asked.peer, *trusted)
                    .is_some_and(|client| addresses.contain(client))
            }
        }
    }

    /// The names that a request's path or host gives values to.
    pub fn names(&self) -> Vec<&str> {
        match self {
            Self::Path(patterns) => patterns.iter().flat_map(PathPattern::names).collect(),
            Self::Host(patterns) => patterns.iter().flat_map(HostPattern::names).collect(),
            _ => Vec::new(),
        }
    }

    /// Of the first pattern that matches.
    pub fn capture(&self, asked: &Asked<'_>, variables: &mut Variables) {
        match self {
            Self::Path(patterns) => {
                if let Some(pattern) = patterns.iter().find(|pattern| pattern.matches(asked.path)) {
                    pattern.capture(asked.path, variables);
                }
            }
            Self::Host(patterns) => {
                if let Some(host) = asked.host() {
                    patterns.iter().any(|pattern| pattern.capture(host, variables));
                }
            }
            _ => {}
        }
    }
}

impl<'a> Asked<'a> {
    /// As the client wrote it, with the port if it wrote one.
    fn host(&self) -> Option<&'a str> {
        self.headers.get(header::HOST)?.to_str().ok()
    }

    /// Each of the comma lists of all headers of this name.
    fn header_values(&self, name: &HeaderName) -> impl Iterator<Item = &'a str> {
        self.headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok()).flat_map(list_elements)
    }

    /// `None` for `?name` without `=`.
    fn query_values(&self, name: &str) -> impl Iterator<Item = Option<Cow<'a, str>>> {
        let pairs = self.query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        pairs.filter_map(move |pair| {
            let (key, value) = match pair.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (pair, None),
            };
            (query_text(key) == name).then(|| value.map(query_text))
        })
    }

    fn cookies(&self, name: &str) -> impl Iterator<Item = &'a str> {
        let lines = self.headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
        lines.flat_map(|line| line.split(';')).filter_map(move |pair| {
            let (key, value) = pair.trim().split_once('=')?;
            (key == name).then(|| value.trim_matches('"'))
        })
    }
}

/// RFC 9110, 5.6.1; commas within quotes part nothing.
fn list_elements(value: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(value);
    std::iter::from_fn(move || {
        let text = rest?;
        let mut quoted = false;
        let comma = text.bytes().position(|byte| {
            quoted ^= byte == b'"';
            byte == b',' && !quoted
        });
        let element = match comma {
            Some(at) => {
                rest = Some(&text[at + 1..]);
                &text[..at]
            }
            None => {
                rest = None;
                text
            }
        };
        Some(element.trim())
    })
}

/// A query's text as a form has it: `+` is a blank.
fn query_text(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let text = text.replace('+', " ");
    Cow::Owned(percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned())
}

fn unknown(name: &str) -> String {
    match NOT_HERE.iter().find(|(known, _)| *known == name) {
        Some((_, why)) => format!("is a predicate of Spring that is not known here: {why}"),
        None => format!("is no predicate{}", suggest(name, NAMES)),
    }
}

type Compiled = Result<Predicate, Vec<String>>;

fn path(mut arguments: Arguments) -> Compiled {
    let lenient = arguments.flag("matchTrailingSlash").unwrap_or(true);
    let mut patterns = Vec::new();
    for text in arguments.required_list("patterns") {
        match PathPattern::parse(&text) {
            Ok(pattern) => patterns.push(if lenient { pattern } else { pattern.strict() }),
            Err(problem) => arguments.complain(format_args!("= {problem}")),
        }
    }
    arguments.finish(Some(Predicate::Path(patterns)))
}

fn method(mut arguments: Arguments) -> Compiled {
    let mut methods = Vec::new();
    for text in arguments.required_list("methods") {
        match Method::from_bytes(text.as_bytes()) {
            Ok(method) if text == text.to_ascii_uppercase() => methods.push(method),
            _ => arguments.complain(format_args!("= `{text}` is no HTTP method; they are in capitals")),
        }
    }
    arguments.finish(Some(Predicate::Method(methods)))
}

fn host(mut arguments: Arguments) -> Compiled {
    let mut patterns = Vec::new();
    for text in arguments.required_list("patterns") {
        match HostPattern::parse(&text) {
            Ok(pattern) => patterns.push(pattern),
            Err(problem) => arguments.complain(format_args!("= {problem}")),
        }
    }
    arguments.finish(Some(Predicate::Host(patterns)))
}

fn header(mut arguments: Arguments) -> Compiled {
    let name = arguments.header_name("header");
    let regex = arguments.whole_regex("regexp");
    arguments.finish(name.map(|name| Predicate::Header(name, regex)))
}

fn query(mut arguments: Arguments) -> Compiled {
    let (name, regex) = (arguments.required("param"), arguments.whole_regex("regexp"));
    arguments.finish(Some(Predicate::Query(name, regex)))
}

fn cookie(mut arguments: Arguments) -> Compiled {
    let name = arguments.required("name");
    let regex = arguments.whole_regex("regexp");
    if regex.is_none() {
        arguments.missing("regexp");
    }
    arguments.finish(regex.map(|regex| Predicate::Cookie(name, regex)))
}

fn weight(mut arguments: Arguments) -> Compiled {
    let group = arguments.required("weight.group");
    let weight = arguments.parsed("weight.weight", "a whole number, 0 or more");
    if weight.is_none() {
        arguments.missing("weight.weight");
    }
    arguments.finish(weight.map(|weight| Predicate::Weight { group, weight, share: None }))
}

fn during(mut arguments: Arguments, from: Option<&'static str>, to: Option<&'static str>) -> Compiled {
    let mut time = |field: Option<&'static str>, otherwise: u64| {
        let Some(field) = field else { return otherwise };
        let text = arguments.required(field);
        time::parse(&text).unwrap_or_else(|| {
            if text.is_empty() {
                return otherwise;
            }
            arguments.complain(format_args!(
                "`{field}` must be a time such as 2026-12-24T18:00:00+09:00, or milliseconds since 1970, is `{text}`"
            ));
            otherwise
        })
    };
    // Both ends are outside, as in Spring, whose times are finer than ours.
    let (after, before) = (time(from, 0), time(to, u64::MAX));
    let after = if from.is_some() { after.saturating_add(1) } else { 0 };
    if from.is_some() && to.is_some() && after >= before && arguments.is_sound() {
        arguments.complain("has its first time after its second");
    }
    arguments.finish(Some(Predicate::During(after, before)))
}

fn addresses(arguments: &mut Arguments) -> Addresses {
    let sources = arguments.required_list("sources");
    Addresses::parse(&sources).unwrap_or_else(|problem| {
        arguments.complain(format_args!("= {problem}"));
        Addresses::default()
    })
}

fn remote_address(mut arguments: Arguments) -> Compiled {
    let addresses = addresses(&mut arguments);
    arguments.finish(Some(Predicate::RemoteAddr(addresses)))
}

fn forwarded_address(mut arguments: Arguments) -> Compiled {
    let addresses = addresses(&mut arguments);
    let trusted = arguments.parsed("maxTrustedIndex", "a whole number above 0").unwrap_or(1);
    if trusted == 0 {
        arguments.complain("`maxTrustedIndex` must be above 0");
    }
    arguments.finish(Some(Predicate::XForwardedRemoteAddr(addresses, trusted)))
}

#[cfg(test)]
mod tests;
