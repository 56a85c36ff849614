//! Filters of requests, and the request that they make out of the client's.
//!
//! Invariant: whatever the filters put together, what is sent has a path in the one normal form, or is not sent.

use std::borrow::Cow;

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use platform::http::problem::Problem;

use super::ValueTemplate;
use super::replacement::Replacement;
use crate::routes::path;
use crate::routes::variables::{Template, Variables};

/// All but RFC 3986's unreserved characters: what a client put in stays a part of one segment, or of one value.
const PART: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[derive(Debug, Clone)]
pub enum RequestFilter {
    AddHeader(HeaderName, ValueTemplate),
    SetHeader(HeaderName, ValueTemplate),
    RemoveHeader(HeaderName),
    AddHeadersIfNotPresent(Vec<(HeaderName, ValueTemplate)>),
    /// Copies the values of the first to the second.
    MapHeader(HeaderName, HeaderName),
    SetHost(ValueTemplate),
    PreserveHost,
    StripPrefix(usize),
    PrefixPath(Template),
    SetPath(Template),
    RewritePath(Replacement),
    AddParameter(String, Template),
    RemoveParameter(String),
    RewriteParameter(String, String),
    /// Bytes of a header's name and all its values; 431 beyond.
    HeaderSize(u64),
    RedirectTo {
        status: StatusCode,
        location: HeaderValue,
        with_parameters: bool,
    },
}

/// A request between its first and its last filter.
#[derive(Debug)]
pub struct Outgoing<'a> {
    headers: &'a mut HeaderMap,
    /// Both as they came, until a filter changes them.
    path: Cow<'a, str>,
    query: Option<Cow<'a, str>>,
    /// What the client asked for, and whether the service is to hear it.
    host: Option<HeaderValue>,
    preserve_host: bool,
    prefixed: bool,
    target_changed: bool,
}

/// What comes of a request's filters.
#[derive(Debug, PartialEq, Eq)]
pub enum Filtered {
    /// `Host` as the service is to hear it, if not its own address.
    Send { host: Option<HeaderValue> },
    /// Answered here.
    Redirect { status: StatusCode, location: HeaderValue },
}

/// Runs the filters in order. `host`: the client's `Host`, which the headers no longer have.
///
/// # Errors
/// 400 for what the filters can make no request of, 431 for too much in one header.
pub fn apply(
    filters: &[RequestFilter],
    request: &mut Parts,
    host: Option<HeaderValue>,
    variables: &Variables,
) -> Result<Filtered, Problem> {
    let Parts { headers, uri, .. } = request;
    let mut outgoing = Outgoing {
        path: Cow::Borrowed(uri.path()),
        query: uri.query().map(Cow::Borrowed),
        headers,
        host,
        preserve_host: false,
        prefixed: false,
        target_changed: false,
    };
    for filter in filters {
        if let Some(redirect) = outgoing.apply(filter, variables)? {
            return Ok(redirect);
        }
    }
    let host = outgoing.host.filter(|_| outgoing.preserve_host);
    if outgoing.target_changed {
        *uri = target(&outgoing.path, outgoing.query.as_deref())?;
    }
    Ok(Filtered::Send { host })
}

fn target(path: &str, query: Option<&str>) -> Result<Uri, Problem> {
    let refused = |message: String| Problem::validation().field("path", message);
    let path = path::normalise(path).map_err(|error| refused(error.to_string()))?;
    let target = match query.filter(|query| !query.is_empty()) {
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
        None => PathAndQuery::try_from(path.as_ref()),
    };
    target.map(Uri::from).map_err(|error| refused(error.to_string()))
}

fn no_value() -> Problem {
    Problem::validation().field("path", "has a part that can be no header's value")
}

impl Outgoing<'_> {
    fn apply(&mut self, filter: &RequestFilter, variables: &Variables) -> Result<Option<Filtered>, Problem> {
        let expand = |value: &ValueTemplate| value.expand(variables).ok_or_else(no_value);
        match filter {
            RequestFilter::AddHeader(name, value) => drop(self.headers.append(name, expand(value)?)),
            RequestFilter::SetHeader(name, value) => drop(self.headers.insert(name, expand(value)?)),
            RequestFilter::RemoveHeader(name) => drop(self.headers.remove(name)),
            RequestFilter::AddHeadersIfNotPresent(added) => {
                // Judged for all before the first is added: one name may come twice.
                let missing = |name: &HeaderName| self.headers.get_all(name).iter().all(is_blank);
                let added: Vec<_> = added.iter().filter(|(name, _)| missing(name)).collect();
                for (name, value) in added {
                    self.headers.append(name, expand(value)?);
                }
            }
            RequestFilter::MapHeader(from, to) => {
                let values: Vec<_> = self.headers.get_all(from).iter().cloned().collect();
                for value in values {
                    self.headers.append(to, value);
                }
            }
            RequestFilter::SetHost(value) => {
                self.host = Some(expand(value)?);
                self.preserve_host = true;
            }
            RequestFilter::PreserveHost => self.preserve_host = true,
            RequestFilter::StripPrefix(parts) => self.set_path(strip_prefix(&self.path, *parts)),
            RequestFilter::PrefixPath(prefix) => {
                if !self.prefixed {
                    self.prefixed = true;
                    let prefix = prefix.expand(variables, encode_path);
                    self.set_path(format!("{prefix}{}", self.path));
                }
            }
            RequestFilter::SetPath(template) => self.set_path(template.expand(variables, encode_path)),
            RequestFilter::RewritePath(rewrite) => self.set_path(rewrite.apply(&self.path).into_owned()),
            RequestFilter::AddParameter(name, value) => {
                let pair = format!("{}={}", encode(name), value.expand(variables, encode));
                self.set_query(|pairs| pairs.push(pair));
            }
            RequestFilter::RemoveParameter(name) => {
                self.set_query(|pairs| pairs.retain(|pair| !is_named(pair, name)));
            }
            RequestFilter::RewriteParameter(name, value) => self.set_query(|pairs| {
                if pairs.iter().any(|pair| is_named(pair, name)) {
                    pairs.retain(|pair| !is_named(pair, name));
                    pairs.push(format!("{}={}", encode(name), encode(value)));
                }
            }),
            RequestFilter::HeaderSize(limit) => self.check_header_size(*limit)?,
            RequestFilter::RedirectTo { status, location, with_parameters } => {
                let location = if *with_parameters { self.with_query(location) } else { location.clone() };
                return Ok(Some(Filtered::Redirect { status: *status, location }));
            }
        }
        Ok(None)
    }

    fn set_path(&mut self, path: String) {
        self.path = Cow::Owned(path);
        self.target_changed = true;
    }

    /// The pairs of the query as they are written; those that nobody touches stay as they were.
    fn set_query(&mut self, change: impl FnOnce(&mut Vec<String>)) {
        let query = self.query.take().unwrap_or_default();
        let mut pairs: Vec<String> =
            query.split('&').filter(|pair| !pair.is_empty()).map(str::to_owned).collect();
        change(&mut pairs);
        self.query = Some(Cow::Owned(pairs.join("&")));
        self.target_changed = true;
    }

    fn with_query(&self, location: &HeaderValue) -> HeaderValue {
        let (Ok(url), Some(query)) =
            (location.to_str(), self.query.as_deref().filter(|query| !query.is_empty()))
        else {
            return location.clone();
        };
        let (url, fragment) =
            url.split_once('#').map_or((url, None), |(url, fragment)| (url, Some(fragment)));
        let sign = if url.contains('?') { '&' } else { '?' };
        let fragment = fragment.map(|fragment| format!("#{fragment}")).unwrap_or_default();
        HeaderValue::try_from(format!("{url}{sign}{query}{fragment}")).unwrap_or_else(|_| location.clone())
    }

    fn check_header_size(&self, limit: u64) -> Result<(), Problem> {
        for name in self.headers.keys() {
            let values: usize = self.headers.get_all(name).iter().map(HeaderValue::len).sum();
            if (name.as_str().len() + values) as u64 > limit {
                return Err(Problem::new(
                    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                    "HEADER_TOO_LARGE",
                    "A header of the request is over the limit.",
                )
                .korean("요청 헤더가 허용된 크기를 넘었습니다.")
                .field(name.as_str(), format!("must have at most {limit} bytes with its name")));
            }
        }
        Ok(())
    }
}

impl RequestFilter {
    pub(super) fn names(&self) -> Vec<&str> {
        match self {
            Self::AddHeader(_, value) | Self::SetHeader(_, value) | Self::SetHost(value) => value.names(),
            Self::AddHeadersIfNotPresent(headers) => {
                headers.iter().flat_map(|(_, value)| value.names()).collect()
            }
            Self::PrefixPath(template) | Self::SetPath(template) | Self::AddParameter(_, template) => {
                template.names().collect()
            }
            _ => Vec::new(),
        }
    }
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, PART).to_string()
}

/// Slashes are those of `{*rest}`: no other name can have taken one.
fn encode_path(text: &str) -> String {
    text.split('/').map(encode).collect::<Vec<_>>().join("/")
}

fn is_blank(value: &HeaderValue) -> bool {
    value.as_bytes().trim_ascii().is_empty()
}

fn is_named(pair: &str, name: &str) -> bool {
    let key = pair.split('=').next().unwrap_or_default().replace('+', " ");
    percent_encoding::percent_decode_str(&key).decode_utf8_lossy() == name
}

/// Fewer segments than are stripped leave the root; a trailing slash stays if anything does.
fn strip_prefix(path: &str, parts: usize) -> String {
    let kept: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).skip(parts).collect();
    let slash = if !kept.is_empty() && path.ends_with('/') { "/" } else { "" };
    format!("/{}{slash}", kept.join("/"))
}

/// The client's `Host`, for [`apply`].
#[must_use]
pub fn host_of(request: &HeaderMap) -> Option<HeaderValue> {
    request.get(header::HOST).cloned()
}
