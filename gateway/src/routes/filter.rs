//! What a route does to a request on its way in and to the answer on its way out: the filters of Spring Cloud Gateway,
//! under their names.
//!
//! Invariant: filters of requests run in the order of the list, those of answers in the reverse, as each of Spring's
//! wraps the ones behind it. A definition is compiled before the first request or refused with a reason.

pub mod outgoing;
mod rate_limiter;
pub mod replacement;
mod resilience;
pub mod response;
pub mod secure_headers;

use http::{HeaderName, HeaderValue, StatusCode};

use super::arguments::{Arguments, Shape};
use super::definition::Definition;
use super::suggestion::suggest;
use super::variables::{Template, Variables};
use crate::limits::rate::RateSettings;
use crate::resilience::{BreakerSettings, RetrySettings};
use outgoing::RequestFilter;
use replacement::Replacement;
use response::{ResponseFilter, Strategy};
use secure_headers::SecureHeaders;

/// Every name that is known.
pub const NAMES: [&str; 27] = [
    "AddRequestHeader",
    "AddRequestHeadersIfNotPresent",
    "AddRequestParameter",
    "AddResponseHeader",
    "CircuitBreaker",
    "DedupeResponseHeader",
    "MapRequestHeader",
    "PrefixPath",
    "PreserveHostHeader",
    "RedirectTo",
    "RemoveRequestHeader",
    "RemoveRequestParameter",
    "RemoveResponseHeader",
    "RequestHeaderSize",
    "RequestRateLimiter",
    "RequestSize",
    "Retry",
    "RewritePath",
    "RewriteRequestParameter",
    "RewriteResponseHeader",
    "SecureHeaders",
    "SetPath",
    "SetRequestHeader",
    "SetRequestHostHeader",
    "SetResponseHeader",
    "SetStatus",
    "StripPrefix",
];
/// Spring's, which are none of ours, and why.
const NOT_HERE: [(&str, &str); 14] = [
    ("CacheRequestBody", "bodies pass through without being kept"),
    ("FallbackHeaders", "causes of failures stay inside"),
    ("JsonToGrpc", "it needs Java's gRPC"),
    ("LocalResponseCache", "answers are not kept"),
    ("ModifyRequestBody", "it needs Java code"),
    ("ModifyResponseBody", "it needs Java code"),
    ("RemoveJsonAttributesResponseBody", "bodies pass through unread"),
    ("RequestHeaderToRequestUri", "a client may not choose where its request goes"),
    ("RewriteLocationResponseHeader", "use RewriteResponseHeader on Location"),
    ("SaveSession", "there are no sessions here"),
    ("SetRequestUri", "a request's text may not choose where it goes"),
    ("SpringCloudCircuitBreaker", "its name in a file is CircuitBreaker"),
    ("TokenRelay", "there is no OAuth2 client here"),
    ("Default", "write the filter under default-filters"),
];
/// Spring's default of RequestSize.
const REQUEST_SIZE: u64 = 5_000_000;
/// Spring's default of RequestHeaderSize.
const REQUEST_HEADER_SIZE: u64 = 16_000;

/// A filter works on requests, on answers, or has a say in how bodies are counted.
#[derive(Debug, Clone)]
pub enum Filter {
    Request(RequestFilter),
    Response(ResponseFilter),
    /// Bytes of a request's body, counted whether announced or not; 413 beyond.
    RequestSize(u64),
    Retry(RetrySettings),
    CircuitBreaker(BreakerSettings),
    RateLimiter(RateSettings),
}

/// A header's value, made once where nothing in it varies.
#[derive(Debug, Clone)]
pub enum ValueTemplate {
    Fixed(HeaderValue),
    Varying(Template),
}

impl ValueTemplate {
    /// `None`: what a client put into a path is no header's value.
    #[must_use]
    pub fn expand(&self, variables: &Variables) -> Option<HeaderValue> {
        match self {
            Self::Fixed(value) => Some(value.clone()),
            Self::Varying(template) => HeaderValue::try_from(template.expand(variables, str::to_owned)).ok(),
        }
    }

    fn names(&self) -> Vec<&str> {
        match self {
            Self::Fixed(_) => Vec::new(),
            Self::Varying(template) => template.names().collect(),
        }
    }
}

impl Filter {
    /// Every problem, each a sentence's end behind the filter's name.
    pub fn compile(definition: &Definition) -> Result<Self, Vec<String>> {
        compile(definition).map_err(|problems| {
            problems.iter().map(|problem| format!("{} {problem}", definition.name)).collect()
        })
    }

    /// The variables that it needs a path or host pattern for.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        match self {
            Self::Request(filter) => filter.names(),
            Self::Response(filter) => filter.names(),
            Self::RequestSize(_) | Self::Retry(_) | Self::CircuitBreaker(_) | Self::RateLimiter(_) => {
                Vec::new()
            }
        }
    }
}

#[expect(clippy::too_many_lines, reason = "one line or two for each filter there is")]
fn compile(definition: &Definition) -> Result<Filter, Vec<String>> {
    const NONE: &[&str] = &[];
    const NAME: &[&str] = &["name"];
    const NAME_VALUE: &[&str] = &["name", "value"];
    let read = |fields| Arguments::read(definition, Shape::Fields(fields), fields);
    // Those behind the first few can be named in the full form only.
    let read_as = |fields: &'static [&'static str], shortcut: usize| {
        Arguments::read(definition, Shape::Fields(&fields[..shortcut]), fields)
    };
    let request = |(arguments, filter): (Arguments, Option<RequestFilter>)| {
        arguments.finish(filter).map(Filter::Request)
    };
    let response = |(arguments, filter): (Arguments, Option<ResponseFilter>)| {
        arguments.finish(filter).map(Filter::Response)
    };
    match definition.name.as_str() {
        "AddRequestHeader" => request(name_value(read(NAME_VALUE), RequestFilter::AddHeader)),
        "SetRequestHeader" => request(name_value(read(NAME_VALUE), RequestFilter::SetHeader)),
        "RemoveRequestHeader" => request(header(read(NAME), "name", RequestFilter::RemoveHeader)),
        "AddRequestHeadersIfNotPresent" => request(if_not_present(definition)),
        "MapRequestHeader" => {
            let mut arguments = read(&["fromHeader", "toHeader"]);
            let (from, to) = (arguments.header_name("fromHeader"), arguments.header_name("toHeader"));
            let filter = from.zip(to).map(|(from, to)| RequestFilter::MapHeader(from, to));
            arguments.finish(filter).map(Filter::Request)
        }
        "SetRequestHostHeader" => {
            let mut arguments = read(&["host"]);
            let value = value(&mut arguments, "host");
            arguments.finish(value.map(RequestFilter::SetHost)).map(Filter::Request)
        }
        "PreserveHostHeader" => read(NONE).finish(Some(RequestFilter::PreserveHost)).map(Filter::Request),
        "StripPrefix" => {
            let mut arguments = read(&["parts"]);
            let parts = arguments.parsed("parts", "a whole number, 0 or more").unwrap_or(1);
            arguments.finish(Some(RequestFilter::StripPrefix(parts))).map(Filter::Request)
        }
        "PrefixPath" => request(path(read(&["prefix"]), "prefix", RequestFilter::PrefixPath)),
        "SetPath" => request(path(read(&["template"]), "template", RequestFilter::SetPath)),
        "RewritePath" => {
            let mut arguments = read(&["regexp", "replacement"]);
            let rewrite = rewrite(&mut arguments);
            arguments.finish(rewrite.map(RequestFilter::RewritePath)).map(Filter::Request)
        }
        "AddRequestParameter" => {
            let mut arguments = read(NAME_VALUE);
            let (name, value) = (arguments.required("name"), arguments.required("value"));
            let filter = RequestFilter::AddParameter(name, Template::parse(&value));
            arguments.finish(Some(filter)).map(Filter::Request)
        }
        "RemoveRequestParameter" => {
            let mut arguments = read(NAME);
            let name = arguments.required("name");
            arguments.finish(Some(RequestFilter::RemoveParameter(name))).map(Filter::Request)
        }
        "RewriteRequestParameter" => {
            let mut arguments = read(&["name", "replacement"]);
            let filter = RequestFilter::RewriteParameter(
                arguments.required("name"),
                arguments.required("replacement"),
            );
            arguments.finish(Some(filter)).map(Filter::Request)
        }
        "RequestHeaderSize" => {
            let mut arguments = read(&["maxSize"]);
            let size = arguments.size("maxSize").unwrap_or(REQUEST_HEADER_SIZE);
            arguments.finish(Some(RequestFilter::HeaderSize(size))).map(Filter::Request)
        }
        "RequestSize" => {
            let mut arguments = read(&["maxSize"]);
            let size = arguments.size("maxSize").unwrap_or(REQUEST_SIZE);
            if size == 0 {
                arguments.complain("`maxSize` must be above 0");
            }
            arguments.finish(Some(Filter::RequestSize(size)))
        }
        "Retry" => resilience::retry(read_as(resilience::RETRY, 9)).map(Filter::Retry),
        "RequestRateLimiter" => {
            let arguments = read_as(rate_limiter::FIELDS, rate_limiter::SHORTCUT);
            rate_limiter::rate_limiter(arguments).map(Filter::RateLimiter)
        }
        "CircuitBreaker" => {
            resilience::circuit_breaker(read_as(resilience::CIRCUIT_BREAKER, 1)).map(Filter::CircuitBreaker)
        }
        "RedirectTo" => request(redirect(read(&["status", "url", "includeRequestParams"]))),
        "SetStatus" => {
            let mut arguments = read(&["status"]);
            let status = status(&mut arguments);
            arguments.finish(status.map(ResponseFilter::SetStatus)).map(Filter::Response)
        }
        "AddResponseHeader" => {
            let mut arguments = read(&["name", "value", "override"]);
            // With `override` false, a header that is there stays alone.
            let overrides = arguments.flag("override").unwrap_or(true);
            response(name_value(arguments, |name, value| ResponseFilter::AddHeader {
                name,
                value,
                overrides,
            }))
        }
        "SetResponseHeader" => response(name_value(read(NAME_VALUE), ResponseFilter::SetHeader)),
        "RemoveResponseHeader" => response(header(read(NAME), "name", ResponseFilter::RemoveHeader)),
        "RewriteResponseHeader" => {
            let mut arguments = read(&["name", "regexp", "replacement"]);
            let (name, rewrite) = (arguments.header_name("name"), rewrite(&mut arguments));
            let filter =
                name.zip(rewrite).map(|(name, rewrite)| ResponseFilter::RewriteHeader(name, rewrite));
            arguments.finish(filter).map(Filter::Response)
        }
        "DedupeResponseHeader" => response(dedupe(read(&["name", "strategy"]))),
        "SecureHeaders" => {
            let headers = SecureHeaders::compile(read(secure_headers::FIELDS))?;
            Ok(Filter::Response(ResponseFilter::SecureHeaders(headers)))
        }
        other => Err(vec![unknown(other)]),
    }
}

fn unknown(name: &str) -> String {
    match NOT_HERE.iter().find(|(known, _)| *known == name) {
        Some((_, why)) => format!("is a filter of Spring that is not known here: {why}"),
        None => format!("is no filter{}", suggest(name, NAMES)),
    }
}

fn header<T>(
    mut arguments: Arguments,
    field: &'static str,
    make: impl FnOnce(HeaderName) -> T,
) -> (Arguments, Option<T>) {
    let name = arguments.header_name(field);
    (arguments, name.map(make))
}

fn name_value<T>(
    mut arguments: Arguments,
    make: impl FnOnce(HeaderName, ValueTemplate) -> T,
) -> (Arguments, Option<T>) {
    let (name, value) = (arguments.header_name("name"), value(&mut arguments, "value"));
    (arguments, name.zip(value).map(|(name, value)| make(name, value)))
}

fn value(arguments: &mut Arguments, field: &'static str) -> Option<ValueTemplate> {
    let text = arguments.required(field);
    value_of(arguments, field, &text)
}

fn value_of(arguments: &mut Arguments, field: &str, text: &str) -> Option<ValueTemplate> {
    let template = Template::parse(text);
    let Ok(value) = HeaderValue::from_str(text) else {
        arguments.complain(format_args!("`{field}` has characters that no header may have"));
        return None;
    };
    Some(if template.fixed().is_some() {
        ValueTemplate::Fixed(value)
    } else {
        ValueTemplate::Varying(template)
    })
}

fn path(
    mut arguments: Arguments,
    field: &'static str,
    make: impl FnOnce(Template) -> RequestFilter,
) -> (Arguments, Option<RequestFilter>) {
    let text = arguments.required(field);
    if !text.is_empty() && !text.starts_with('/') {
        arguments.complain(format_args!("`{field}` must start with a slash, is `{text}`"));
    }
    (arguments, Some(make(Template::parse(&text))))
}

fn rewrite(arguments: &mut Arguments) -> Option<Replacement> {
    let regex = arguments.inner_regex("regexp");
    if regex.is_none() {
        arguments.missing("regexp");
    }
    // What is replaced by nothing is taken out.
    let text = arguments.text("replacement").unwrap_or_default();
    match Replacement::parse(regex?, &text) {
        Ok(replacement) => Some(replacement),
        Err(problem) => {
            arguments.complain(format_args!("`replacement` {problem}"));
            None
        }
    }
}

/// `Name:value` in a list, as Spring has it.
fn if_not_present(definition: &Definition) -> (Arguments, Option<RequestFilter>) {
    let mut arguments = Arguments::read(definition, Shape::List("keyValues"), &["keyValues"]);
    let mut headers = Vec::new();
    for pair in arguments.required_list("keyValues") {
        let Some((name, text)) = pair.split_once(':') else {
            arguments.complain(format_args!("`{pair}` is not of the form Name:value"));
            continue;
        };
        let name = HeaderName::from_bytes(name.trim().as_bytes());
        match (name, value_of(&mut arguments, "value", text.trim())) {
            (Ok(name), Some(value)) => headers.push((name, value)),
            (Err(_), _) => {
                arguments.complain(format_args!("`{pair}` begins with no name that a header may have"));
            }
            (Ok(_), None) => {}
        }
    }
    (arguments, Some(RequestFilter::AddHeadersIfNotPresent(headers)))
}

/// A number, or Java's name for it.
pub(super) fn parse_status(text: &str) -> Option<StatusCode> {
    if let Ok(status) = text.parse() {
        return Some(status);
    }
    let plain = |text: &str| -> String {
        text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_uppercase()).collect()
    };
    let name = plain(text);
    (100..600)
        .filter_map(|code| StatusCode::from_u16(code).ok())
        .find(|status| status.canonical_reason().is_some_and(|reason| plain(reason) == name))
}

fn status(arguments: &mut Arguments) -> Option<StatusCode> {
    let text = arguments.required("status");
    let status = parse_status(&text);
    if status.is_none() && !text.is_empty() {
        arguments.complain(format_args!(
            "`status` must be a number such as 404, or a name such as NOT_FOUND, is `{text}`"
        ));
    }
    status
}

fn redirect(mut arguments: Arguments) -> (Arguments, Option<RequestFilter>) {
    let (status, url) = (status(&mut arguments), arguments.required("url"));
    let with_parameters = arguments.flag("includeRequestParams").unwrap_or(false);
    if status.is_some_and(|status| !status.is_redirection()) {
        arguments.complain("`status` must be of a redirection, 300 to 399");
    }
    let location = HeaderValue::from_str(&url).ok().filter(|_| url.parse::<http::Uri>().is_ok());
    if location.is_none() && !url.is_empty() {
        arguments.complain(format_args!("`url`: `{url}` is no URL"));
    }
    let filter = status.zip(location).map(|(status, location)| RequestFilter::RedirectTo {
        status,
        location,
        with_parameters,
    });
    (arguments, filter)
}

fn dedupe(mut arguments: Arguments) -> (Arguments, Option<ResponseFilter>) {
    let names = arguments.required("name");
    let names: Vec<_> =
        names.split_whitespace().map(|name| HeaderName::from_bytes(name.as_bytes())).collect();
    let strategy = match arguments.text("strategy").map(|text| text.to_ascii_uppercase()).as_deref() {
        None | Some("RETAIN_FIRST") => Some(Strategy::RetainFirst),
        Some("RETAIN_LAST") => Some(Strategy::RetainLast),
        Some("RETAIN_UNIQUE") => Some(Strategy::RetainUnique),
        Some(_) => {
            arguments.complain("`strategy` must be RETAIN_FIRST, RETAIN_LAST or RETAIN_UNIQUE");
            None
        }
    };
    let names: Result<Vec<_>, _> = names.into_iter().collect();
    if names.is_err() {
        arguments.complain("`name` must be names of headers, parted by blanks");
    }
    let filter = names.ok().zip(strategy).map(|(names, strategy)| ResponseFilter::Dedupe(names, strategy));
    (arguments, filter)
}

#[cfg(test)]
mod tests;
