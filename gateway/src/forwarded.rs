//! Who the client is, and what the services hear about the way of its request (`X-Forwarded-*`).
//!
//! Invariant: only a peer that is trusted has a say; whatever anybody else says of itself is dropped, and then the
//! services hear nothing, as in Spring without trusted proxies.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use regex::Regex;

use crate::routes::definition::listed;
use crate::routes::predicate::address::{Addresses, parse};

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
/// Proxies in a row before it looks like somebody's game.
const MOST_PROXIES: usize = 32;

/// The proxies before this one whose word counts.
#[derive(Debug, Clone, Default)]
pub enum TrustedProxies {
    #[default]
    Nobody,
    Networks(Addresses),
    /// Spring's form: it has to match the whole address.
    Pattern(Regex),
}

/// What a trusted peer said, and this hop added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarded(Vec<(HeaderName, HeaderValue)>);

impl TrustedProxies {
    /// Networks parted by commas, or a regular expression over an address.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self::Nobody);
        }
        if let Ok(networks) = Addresses::parse(&listed(text)) {
            return Ok(Self::Networks(networks));
        }
        Regex::new(&format!("^(?:{text})$")).map(Self::Pattern).map_err(|_| {
            format!("`{text}` is neither a list of networks such as 10.0.0.0/8 nor a regular expression that is known here")
        })
    }

    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        match self {
            Self::Nobody => false,
            Self::Networks(networks) => networks.contain(address),
            Self::Pattern(pattern) => pattern.is_match(&address.to_canonical().to_string()),
        }
    }

    /// The nearest address that is no trusted proxy's.
    #[must_use]
    pub fn client(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Option<IpAddr> {
        let peer = peer?.to_canonical();
        if !self.trusts(peer) {
            return Some(peer);
        }
        let lines = headers.get_all(FOR).iter();
        let chain: Vec<&[u8]> = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).collect();
        let mut nearest = peer;
        for entry in chain.iter().rev().take(MOST_PROXIES) {
            // What is no address ends the chain: beyond it nobody vouches for anything.
            let Some(address) = std::str::from_utf8(entry).ok().and_then(parse) else { break };
            nearest = address;
            if !self.trusts(address) {
                break;
            }
        }
        Some(nearest)
    }

    /// For the service, before the headers are cleaned; `None` if the peer has no say.
    #[must_use]
    pub fn forward(
        &self,
        peer: Option<IpAddr>,
        headers: &HeaderMap,
        scheme: &'static str,
    ) -> Option<Forwarded> {
        let peer = peer.filter(|peer| self.trusts(*peer))?.to_canonical();
        let said = |name: &HeaderName| {
            let lines: Vec<&str> =
                headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
            lines.join(",")
        };
        let first = |name: &HeaderName, otherwise: String| {
            Some(said(name)).filter(|said| !said.is_empty()).unwrap_or(otherwise)
        };
        let chain = match said(&FOR) {
            chain if chain.is_empty() => peer.to_string(),
            chain => format!("{chain},{peer}"),
        };
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let proto = first(&PROTO, scheme.to_owned());
        let port = host.rsplit_once(':').map(|(_, port)| port).filter(|port| port.parse::<u16>().is_ok());
        let port = port.unwrap_or(if proto == "https" { "443" } else { "80" }).to_owned();
        let all = [
            (FOR, chain),
            (HOST, first(&HOST, host.to_owned())),
            (PORT, first(&PORT, port)),
            (PROTO, proto),
            (PREFIX, said(&PREFIX)),
        ];
        let headers = all.into_iter().filter(|(_, text)| !text.is_empty());
        Some(Forwarded(
            headers.filter_map(|(name, text)| Some((name, HeaderValue::try_from(text).ok()?))).collect(),
        ))
    }
}

impl Forwarded {
    pub fn write(self, headers: &mut HeaderMap) {
        for (name, value) in self.0 {
            headers.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        headers
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn both_forms_of_trust() {
        for text in ["10.0.0.0/8, 127.0.0.1", r"10\..*|127\.0\.0\.1"] {
            let trusted = TrustedProxies::parse(text).unwrap();
            assert!(trusted.trusts("10.1.2.3".parse().unwrap()), "{text}");
            assert!(trusted.trusts("::ffff:127.0.0.1".parse().unwrap()), "{text}");
            assert!(!trusted.trusts("11.1.2.3".parse().unwrap()), "{text}");
            assert!(!trusted.trusts("127.0.0.11".parse().unwrap()), "{text}: the whole address");
        }
        assert!(TrustedProxies::parse("10.0.0.0/8, (").is_err());
        assert!(!TrustedProxies::parse("").unwrap().trusts("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn the_client_is_the_nearest_that_nobody_trusts() {
        let trusted = TrustedProxies::parse("10.0.0.0/8").unwrap();
        let client = |peer, chain: &[(&'static str, &str)]| {
            trusted.client(ip(peer), &headers(chain)).unwrap().to_string()
        };
        let forged = [("x-forwarded-for", "6.6.6.6")];
        assert_eq!(client("9.9.9.9", &forged), "9.9.9.9", "its own word counts for nothing");
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", "6.6.6.6, 9.9.9.9")]), "9.9.9.9");
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", "6.6.6.6, 9.9.9.9, 10.0.0.2")]), "9.9.9.9");
        assert_eq!(
            client("10.0.0.1", &[("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "9.9.9.9")]),
            "9.9.9.9"
        );
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", "6.6.6.6, rubbish")]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        let long = format!("9.9.9.9{}", ", 10.0.0.3".repeat(MOST_PROXIES));
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", &long)]), "10.0.0.3", "no chain is that long");
        let mut odd = HeaderMap::new();
        odd.insert(FOR, HeaderValue::from_bytes(b"\xff, 9.9.9.9").unwrap());
        assert_eq!(
            trusted.client(ip("10.0.0.1"), &odd),
            ip("9.9.9.9"),
            "what a client wrote hides it from nobody"
        );
        assert_eq!(TrustedProxies::Nobody.client(None, &headers(&forged)), None);
    }

    #[test]
    fn services_hear_of_the_way_only_behind_a_trusted_peer() {
        let trusted = TrustedProxies::parse("10.0.0.0/8").unwrap();
        let asked = headers(&[
            ("host", "shop.example:8443"),
            ("x-forwarded-for", "9.9.9.9"),
            ("x-forwarded-proto", "https"),
        ]);
        assert_eq!(trusted.forward(ip("9.9.9.9"), &asked, "http"), None);
        let mut sent = HeaderMap::new();
        trusted.forward(ip("10.0.0.1"), &asked, "http").unwrap().write(&mut sent);
        for (name, value) in [
            ("x-forwarded-for", "9.9.9.9,10.0.0.1"),
            ("x-forwarded-host", "shop.example:8443"),
            ("x-forwarded-port", "8443"),
            ("x-forwarded-proto", "https"),
        ] {
            assert_eq!(sent[name], value, "{name}");
        }
        assert_eq!(sent.len(), 4);
    }
}
