//! Cross-origin requests (Fetch Standard, "CORS protocol"), with the settings and the strictness of Spring: nothing is
//! allowed that was not named.
//!
//! Invariant: where there is a configuration, its headers are the only ones of their kind in the answer, and
//! credentials are never allowed together with any origin at all.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use platform::http::problem::Problem;
use regex::Regex;
use serde_json::Value;

use crate::routes::arguments::text_of;
use crate::routes::definition::listed;
use crate::routes::pattern::PathPattern;
use crate::routes::suggestion::{plain, suggest};

const FIELDS: [&str; 7] = [
    "allowedOrigins",
    "allowedOriginPatterns",
    "allowedMethods",
    "allowedHeaders",
    "exposedHeaders",
    "allowCredentials",
    "maxAge",
];
const OF_ANSWERS: [HeaderName; 6] = [
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ACCESS_CONTROL_MAX_AGE,
];

/// Who may ask from another origin, and what.
#[derive(Debug, Clone)]
pub struct Cors {
    any_origin: bool,
    /// In lower case, without a trailing slash.
    origins: Vec<String>,
    patterns: Vec<Regex>,
    /// `None`: any.
    methods: Option<Vec<Method>>,
    any_header: bool,
    headers: Vec<String>,
    exposed: Option<HeaderValue>,
    credentials: bool,
    max_age: Option<u64>,
}

/// The configurations of all routes, by path, the first that matches.
#[derive(Debug, Clone, Default)]
pub struct GlobalCors(Vec<(PathPattern, std::sync::Arc<Cors>)>);

/// What a request says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrossOrigin {
    origin: HeaderValue,
    /// Of a preflight: what the browser wants to send.
    preflight: Option<Preflight>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preflight {
    pub method: Method,
    headers: Vec<String>,
}

/// What an answer has to say.
#[derive(Debug, Clone)]
pub struct Allowed {
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl CrossOrigin {
    /// `None` for a request that says nothing of an origin, or is of this one.
    #[must_use]
    pub fn of(method: &Method, headers: &HeaderMap) -> Option<Self> {
        let origin = headers.get(header::ORIGIN)?;
        let requested =
            headers.get(header::ACCESS_CONTROL_REQUEST_METHOD).filter(|_| method == Method::OPTIONS);
        let preflight = requested.map(|method| Preflight {
            // What is no method is one that nobody allows.
            method: Method::from_bytes(method.as_bytes()).unwrap_or(Method::CONNECT),
            headers: headers
                .get_all(header::ACCESS_CONTROL_REQUEST_HEADERS)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .flat_map(listed)
                .collect(),
        });
        if preflight.is_none() && is_own(origin, headers.get(header::HOST)) {
            return None;
        }
        Some(Self { origin: origin.clone(), preflight })
    }

    #[must_use]
    pub fn preflight(&self) -> Option<&Preflight> {
        self.preflight.as_ref()
    }
}

/// Whether an origin names the host that was asked; the scheme may have been changed by who ended TLS before us.
fn is_own(origin: &HeaderValue, host: Option<&HeaderValue>) -> bool {
    let (Ok(origin), Some(Ok(host))) = (origin.to_str(), host.map(HeaderValue::to_str)) else { return false };
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let port = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
    let bare = |authority: &str| authority.strip_suffix(port).unwrap_or(authority).to_ascii_lowercase();
    bare(authority) == bare(host)
}

impl Cors {
    /// From a route's metadata, or from one of the global configurations.
    pub fn from_metadata(value: &Value) -> Result<Self, String> {
        let Value::Object(fields) = value else { return Err("must be a map of CORS settings".to_owned()) };
        if let Some(unknown) =
            fields.keys().find(|key| !FIELDS.iter().any(|field| plain(field) == plain(key)))
        {
            return Err(format!("has no setting `{unknown}`{}", suggest(unknown, FIELDS)));
        }
        let field =
            |name: &str| fields.iter().find(|(key, _)| plain(key) == plain(name)).map(|(_, value)| value);
        let list =
            |name: &str| field(name).map(texts).transpose().map_err(|()| format!("`{name}` must be a list"));
        let origins = list("allowedOrigins")?.unwrap_or_default();
        let any_origin = origins.iter().any(|origin| origin == "*");
        let patterns = list("allowedOriginPatterns")?.unwrap_or_default();
        let credentials = match field("allowCredentials").and_then(text_of).as_deref() {
            None | Some("" | "false") => false,
            Some("true") => true,
            Some(_) => return Err("`allowCredentials` must be true or false".to_owned()),
        };
        if credentials && any_origin {
            return Err(
                "allows credentials to any origin, which no browser obeys: name the origins, or use \
                        allowedOriginPatterns"
                    .to_owned(),
            );
        }
        let methods = match list("allowedMethods")? {
            None => Some(vec![Method::GET, Method::HEAD]),
            Some(methods) if methods.iter().any(|method| method == "*") => None,
            Some(methods) => Some(
                methods
                    .iter()
                    .map(|method| {
                        Method::from_bytes(method.as_bytes()).map_err(|_| format!("`{method}` is no method"))
                    })
                    .collect::<Result<_, _>>()?,
            ),
        };
        let headers = list("allowedHeaders")?.unwrap_or_default();
        let exposed =
            list("exposedHeaders")?.filter(|exposed| !exposed.is_empty()).map(|exposed| exposed.join(", "));
        let exposed =
            exposed.map(HeaderValue::try_from).transpose().map_err(|_| "`exposedHeaders` are no names")?;
        let max_age = field("maxAge").and_then(text_of).map(|text| seconds(&text)).transpose()?;
        Ok(Self {
            any_origin,
            origins: origins.iter().map(|origin| canonical(origin)).collect(),
            patterns: patterns.iter().map(|pattern| origin_pattern(pattern)).collect::<Result<_, _>>()?,
            methods,
            any_header: headers.iter().any(|header| header == "*"),
            headers,
            exposed,
            credentials,
            max_age,
        })
    }

    /// What the answer says of it.
    ///
    /// # Errors
    /// 403 for an origin, a method or headers that are not allowed.
    pub fn judge(&self, asked: &CrossOrigin, method: &Method) -> Result<Allowed, Problem> {
        let origin = asked.origin.to_str().ok().and_then(|origin| self.origin(origin)).ok_or_else(refused)?;
        let method = asked.preflight.as_ref().map_or(method, |preflight| &preflight.method);
        if !self.methods.as_ref().is_none_or(|methods| methods.contains(method)) {
            return Err(refused());
        }
        let mut headers = vec![(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin)];
        if let Some(preflight) = &asked.preflight {
            let allowed: Vec<&str> = preflight
                .headers
                .iter()
                .map(String::as_str)
                .filter(|name| {
                    self.any_header || self.headers.iter().any(|header| header.eq_ignore_ascii_case(name))
                })
                .collect();
            if allowed.is_empty() && !preflight.headers.is_empty() {
                return Err(refused());
            }
            let methods = match &self.methods {
                Some(methods) => methods.iter().map(Method::as_str).collect::<Vec<_>>().join(","),
                None => method.to_string(),
            };
            let max_age = self.max_age.map(|seconds| seconds.to_string());
            for (name, text) in [
                (header::ACCESS_CONTROL_ALLOW_METHODS, Some(methods)),
                (
                    header::ACCESS_CONTROL_ALLOW_HEADERS,
                    Some(allowed.join(", ")).filter(|text| !text.is_empty()),
                ),
                (header::ACCESS_CONTROL_MAX_AGE, max_age),
            ] {
                headers.extend(
                    text.and_then(|text| HeaderValue::try_from(text).ok()).map(|value| (name, value)),
                );
            }
        }
        if let Some(exposed) = &self.exposed {
            headers.push((header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone()));
        }
        if self.credentials {
            headers.push((header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true")));
        }
        Ok(Allowed { headers })
    }

    fn origin(&self, origin: &str) -> Option<HeaderValue> {
        if self.any_origin {
            return Some(HeaderValue::from_static("*"));
        }
        let known = self.origins.contains(&canonical(origin));
        (known || self.patterns.iter().any(|pattern| pattern.is_match(origin)))
            .then(|| HeaderValue::from_str(origin).ok())?
    }
}

/// 403, for what is not allowed and for preflights where nothing is.
pub fn refused() -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "CORS_REFUSED", "This origin may not send this request.")
        .korean("이 출처에서는 이 요청을 보낼 수 없습니다.")
}

impl Allowed {
    pub fn write(self, headers: &mut HeaderMap) {
        for (name, value) in self.headers {
            headers.insert(name, value);
        }
    }
}

/// For every answer under a configuration: another origin may get another one. A service's own word is taken out first.
pub fn prepare(headers: &mut HeaderMap) {
    for name in OF_ANSWERS {
        headers.remove(name);
    }
    for vary in ["Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers"] {
        headers.append(header::VARY, HeaderValue::from_static(vary));
    }
}

impl GlobalCors {
    /// By path patterns, as written: with or without the brackets that keep them whole in YAML.
    pub fn parse<'a>(
        configurations: impl IntoIterator<Item = (&'a String, &'a Value)>,
    ) -> Result<Self, Vec<(String, String)>> {
        let (mut parsed, mut problems) = (Vec::new(), Vec::new());
        for (path, value) in configurations {
            let pattern = path.strip_prefix('[').and_then(|path| path.strip_suffix(']')).unwrap_or(path);
            let at = format!("globalcors.cors-configurations[{pattern}]");
            match (PathPattern::parse(pattern), Cors::from_metadata(value)) {
                (Ok(pattern), Ok(cors)) => parsed.push((pattern, std::sync::Arc::new(cors))),
                (pattern, cors) => {
                    problems.extend(
                        pattern.err().into_iter().chain(cors.err()).map(|problem| (at.clone(), problem)),
                    );
                }
            }
        }
        // Their order in the file is lost on its way through a configuration server.
        parsed.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.specificity()));
        if problems.is_empty() { Ok(Self(parsed)) } else { Err(problems) }
    }

    #[must_use]
    pub fn find(&self, path: &str) -> Option<&std::sync::Arc<Cors>> {
        self.0.iter().find(|(pattern, _)| pattern.matches(path)).map(|(_, cors)| cors)
    }
}

/// Both of `https://Example.org/` and `https://example.org`.
fn canonical(origin: &str) -> String {
    origin.strip_suffix('/').unwrap_or(origin).to_ascii_lowercase()
}

/// `https://*.example.org:[8080,8443]`: stars stand for anything but a slash, the list or `[*]` for ports.
fn origin_pattern(pattern: &str) -> Result<Regex, String> {
    if pattern == "*" {
        return Regex::new("").map_err(|error| error.to_string());
    }
    let wrong =
        || format!("`{pattern}` is no pattern of an origin, such as https://*.example.org:[8080,8443]");
    let (host, ports) = match pattern.strip_suffix(']').and_then(|pattern| pattern.split_once(":[")) {
        Some((host, "*")) => (host, r"(:\d+)?".to_owned()),
        Some((host, ports)) if ports.split(',').all(|port| port.trim().parse::<u16>().is_ok()) => {
            let ports: Vec<&str> = ports.split(',').map(str::trim).collect();
            (host, format!(":({})", ports.join("|")))
        }
        Some(_) => return Err(wrong()),
        None => (pattern, String::new()),
    };
    let host: Vec<String> = host.split('*').map(regex::escape).collect();
    // A slash would let `https://evil/.example.org` through.
    Regex::new(&format!("^{}{ports}$", host.join("[^/]*"))).map_err(|_| wrong())
}

fn texts(value: &Value) -> Result<Vec<String>, ()> {
    match value {
        Value::Array(list) => list.iter().map(|value| text_of(value).ok_or(())).collect(),
        Value::Object(_) => Err(()),
        value => Ok(listed(&text_of(value).unwrap_or_default())),
    }
}

fn seconds(text: &str) -> Result<u64, String> {
    let seconds = text.trim().parse().ok().or_else(|| {
        let duration = humantime::parse_duration(text).ok()?;
        Some(duration.as_secs())
    });
    seconds.ok_or_else(|| format!("`maxAge` must be seconds, is `{text}`"))
}

#[cfg(test)]
mod tests;
