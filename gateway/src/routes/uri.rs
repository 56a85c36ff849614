//! A route's uri.

use std::fmt;

/// Where a route's requests go, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetUri {
    /// `lb://service`: an instance that discovery knows.
    Service(String),
    /// `http://host:port` or `https://host:port`: this address.
    Address { host: String, port: u16, tls: bool },
    /// `no://op`: nowhere; the filters have the answer.
    Nowhere,
}

const FORMS: &str = "lb://service, http://host:port, https://host:port and no://op";

impl TargetUri {
    /// The target, and the path behind it (empty if none). WebSockets are a request's own business, so that `ws` is
    /// `http` and `wss` is `https`.
    pub fn parse(text: &str) -> Result<(Self, &str), String> {
        if text == "no://op" {
            return Ok((Self::Nowhere, ""));
        }
        // Spring's way to say both at once.
        let text = match text.strip_prefix("lb:") {
            Some(inner) if inner.starts_with("ws://") || inner.starts_with("http://") => {
                return Self::service(inner.split_once("://").map_or("", |(_, rest)| rest));
            }
            _ => text,
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(|| format!("`{text}` is none of {FORMS}"))?;
        match scheme {
            "lb" => Self::service(rest),
            "http" | "ws" => Self::address(rest, false),
            "https" | "wss" => Self::address(rest, true),
            other => Err(format!("`{other}://` is none of {FORMS}")),
        }
    }

    fn service(rest: &str) -> Result<(Self, &str), String> {
        let (authority, path) = split_path(rest);
        // Of a service's instances each has its own port, so that one in the uri says nothing.
        let name = authority.split(':').next().unwrap_or_default();
        if is_service_name(name) {
            Ok((Self::Service(name.to_owned()), path))
        } else {
            Err(format!("`{authority}` is not a service's name"))
        }
    }

    fn address(rest: &str, tls: bool) -> Result<(Self, &str), String> {
        let (authority, path) = split_path(rest);
        let (host, port) =
            parse_authority(authority, tls).ok_or_else(|| format!("`{authority}` is not host:port"))?;
        Ok((Self::Address { host, port, tls }, path))
    }
}

impl fmt::Display for TargetUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(f, "lb://{name}"),
            Self::Address { host, port, tls } => {
                write!(f, "http{}://{host}:{port}", if *tls { "s" } else { "" })
            }
            Self::Nowhere => f.write_str("no://op"),
        }
    }
}

fn split_path(rest: &str) -> (&str, &str) {
    rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()))
}

fn is_service_name(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn parse_authority(text: &str, tls: bool) -> Option<(String, u16)> {
    const HTTP_PORT: u16 = 80;
    const HTTPS_PORT: u16 = 443;
    let authority: http::uri::Authority = text.parse().ok()?;
    let host = authority.host();
    if host.is_empty() || text.contains('@') {
        return None;
    }
    // Not `authority.port()`, which takes a port that is too large for none.
    let port = match text.strip_prefix(host)?.strip_prefix(':') {
        Some(port) => port.parse().ok()?,
        None if tls => HTTPS_PORT,
        None => HTTP_PORT,
    };
    Some((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_a_service_an_address_or_nowhere() {
        let address = |host: &str, port, tls| TargetUri::Address { host: host.to_owned(), port, tls };
        for (text, target, path) in [
            ("no://op", TargetUri::Nowhere, ""),
            ("lb://a-b/x/y", TargetUri::Service("a-b".to_owned()), "/x/y"),
            ("lb://a.b:80", TargetUri::Service("a.b".to_owned()), ""),
            ("lb:ws://a", TargetUri::Service("a".to_owned()), ""),
            ("http://h", address("h", 80, false), ""),
            ("http://h?x=1", address("h", 80, false), "?x=1"),
            ("ws://h:81/", address("h", 81, false), "/"),
            ("https://[::1]", address("[::1]", 443, true), ""),
            ("wss://h:8443", address("h", 8443, true), ""),
        ] {
            assert_eq!(TargetUri::parse(text), Ok((target, path)), "{text}");
        }
        for text in [
            "",
            "coupon-service",
            "lb://",
            "lb://a b",
            "ftp://h",
            "http://",
            "http://h:99999",
            "http://u@h",
            "localhost:80",
            "no://where",
            "forward:/x",
        ] {
            assert!(TargetUri::parse(text).is_err(), "{text}");
        }
    }
}
