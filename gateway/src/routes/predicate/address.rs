//! Addresses of clients: lists of networks, and who a chain of proxies says the client is.

use std::net::IpAddr;

use http::HeaderMap;
use ipnet::IpNet;

/// Networks; a single address is one of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses(Vec<IpNet>);

impl Addresses {
    /// `192.168.1.0/24`, `10.1.1.1`, `2001:db8::/32`.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<Self, String> {
        let network = |text: &str| {
            let text = text.trim();
            text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
                format!(
                    "`{text}` is neither an address nor a network such as 192.168.1.0/24 or 2001:db8::/32"
                )
            })
        };
        texts.iter().map(|text| network(text.as_ref())).collect::<Result<_, _>>().map(Self)
    }

    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        // An IPv4 client of an IPv6 socket is that IPv4 client.
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Who the client is if `trusted` proxies stand before us: the entry of `X-Forwarded-For` that the outermost of them
/// wrote. What stands before it, anybody may have written. Without the header, the peer.
#[must_use]
pub fn forwarded(headers: &HeaderMap, peer: Option<IpAddr>, trusted: usize) -> Option<IpAddr> {
    let mut values = headers.get_all("x-forwarded-for").iter();
    // Two headers could be joined in two orders: nobody who is to be trusted sends them.
    let (Some(value), None) = (values.next(), values.next()) else { return peer };
    let Ok(value) = value.to_str() else { return peer };
    let chain: Vec<&str> = value.split(',').map(str::trim).collect();
    let at = chain.len().saturating_sub(trusted);
    parse(chain[at]).or(peer)
}

/// An address, with or without port, brackets or quotes.
#[must_use]
pub fn parse(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"');
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        return Some(address.ip().to_canonical());
    }
    text.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| ("x-forwarded-for".parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn networks_and_single_addresses() {
        let addresses = Addresses::parse(&["192.168.1.0/24", "10.1.1.1", "2001:db8::/32"]).unwrap();
        for (address, expected) in [
            ("192.168.1.77", true),
            ("192.168.2.77", false),
            ("10.1.1.1", true),
            ("10.1.1.2", false),
            ("::ffff:10.1.1.1", true),
            ("2001:db8::5", true),
            ("2001:db9::5", false),
        ] {
            assert_eq!(addresses.contain(address.parse().unwrap()), expected, "{address}");
        }
        for text in ["", "10.1.1", "10.1.1.1/33", "example.org"] {
            assert!(Addresses::parse(&[text]).is_err(), "{text}");
        }
    }

    #[test]
    fn only_what_trusted_proxies_wrote_is_believed() {
        let peer: Option<IpAddr> = "9.9.9.9".parse().ok();
        let of = |values: &[&str], trusted| forwarded(&headers(values), peer, trusted).unwrap().to_string();
        assert_eq!(of(&["1.1.1.1, 2.2.2.2, 3.3.3.3"], 1), "3.3.3.3");
        assert_eq!(of(&["1.1.1.1, 2.2.2.2, 3.3.3.3"], 2), "2.2.2.2");
        assert_eq!(of(&["1.1.1.1, 2.2.2.2"], 5), "1.1.1.1");
        assert_eq!(of(&["1.1.1.1", "2.2.2.2"], 1), "9.9.9.9", "two headers");
        assert_eq!(of(&["rubbish"], 1), "9.9.9.9");
        assert_eq!(of(&[], 1), "9.9.9.9");
        assert_eq!(of(&["[2001:db8::1]:443"], 1), "2001:db8::1");
    }
}
