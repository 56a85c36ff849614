//! Filters of answers.

use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::ValueTemplate;
use super::replacement::Replacement;
use super::secure_headers::SecureHeaders;
use crate::routes::variables::Variables;

#[derive(Debug, Clone)]
pub enum ResponseFilter {
    AddHeader { name: HeaderName, value: ValueTemplate, overrides: bool },
    SetHeader(HeaderName, ValueTemplate),
    RemoveHeader(HeaderName),
    RewriteHeader(HeaderName, Replacement),
    Dedupe(Vec<HeaderName>, Strategy),
    SetStatus(StatusCode),
    SecureHeaders(SecureHeaders),
}

/// Which of a header's values stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    RetainFirst,
    RetainLast,
    RetainUnique,
}

impl ResponseFilter {
    pub fn apply(&self, answer: &mut Parts, variables: &Variables) {
        let headers = &mut answer.headers;
        match self {
            Self::AddHeader { name, value, overrides } => {
                if let Some(value) = value.expand(variables)
                    && (*overrides || !headers.contains_key(name))
                {
                    headers.append(name, value);
                }
            }
            Self::SetHeader(name, value) => {
                if let Some(value) = value.expand(variables) {
                    headers.insert(name, value);
                }
            }
            Self::RemoveHeader(name) => drop(headers.remove(name)),
            Self::RewriteHeader(name, replacement) => rewrite(headers, name, replacement),
            Self::Dedupe(names, strategy) => names.iter().for_each(|name| strategy.apply(headers, name)),
            Self::SetStatus(status) => answer.status = *status,
            Self::SecureHeaders(secure) => secure.apply(headers),
        }
    }

    pub(super) fn names(&self) -> Vec<&str> {
        match self {
            Self::AddHeader { value, .. } | Self::SetHeader(_, value) => value.names(),
            _ => Vec::new(),
        }
    }
}

fn replace(headers: &mut HeaderMap, name: &HeaderName, values: impl IntoIterator<Item = HeaderValue>) {
    headers.remove(name);
    for value in values {
        headers.append(name, value);
    }
}

fn rewrite(headers: &mut HeaderMap, name: &HeaderName, replacement: &Replacement) {
    if !headers.contains_key(name) {
        return;
    }
    let rewritten = |value: &HeaderValue| {
        let text = value.to_str().ok()?;
        HeaderValue::from_str(&replacement.apply(text)).ok()
    };
    let values: Vec<_> =
        headers.get_all(name).iter().map(|value| rewritten(value).unwrap_or_else(|| value.clone())).collect();
    replace(headers, name, values);
}

impl Strategy {
    fn apply(self, headers: &mut HeaderMap, name: &HeaderName) {
        let mut values: Vec<HeaderValue> = headers.get_all(name).iter().cloned().collect();
        if values.len() < 2 {
            return;
        }
        match self {
            Self::RetainFirst => values.truncate(1),
            Self::RetainLast => drop(values.drain(..values.len() - 1)),
            Self::RetainUnique => {
                let mut seen = Vec::new();
                values.retain(|value| {
                    let new = !seen.contains(value);
                    seen.extend(new.then(|| value.clone()));
                    new
                });
            }
        }
        replace(headers, name, values);
    }
}
