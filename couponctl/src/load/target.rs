//! Where requests go, and the bytes of a request.

use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::{Context, Result, bail};

#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// One at least. Where there are several, each of them may be asked.
    pub(crate) gateways: Vec<SocketAddr>,
    /// Host and port as given, for the Host header; of the first one, as clients of a balancer know one name only.
    pub(crate) authority: String,
}

impl Target {
    /// `http://HOST[:PORT]`; only this machine, unless told otherwise.
    pub(crate) fn parse(url: &str, allow_remote: bool) -> Result<Self> {
        let Some(rest) = url.strip_prefix("http://") else { bail!("{url:?} does not begin with http://") };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.is_empty() || authority.contains(['/', '?', '#', '@', ' ']) {
            bail!("{url:?} is not of the form http://HOST[:PORT]");
        }
        let bare_v6 = authority.starts_with('[') && authority.ends_with(']');
        let with_port = if bare_v6 || !authority.contains(':') {
            format!("{authority}:80")
        } else {
            authority.to_owned()
        };
        let addresses: Vec<SocketAddr> =
            with_port.to_socket_addrs().with_context(|| format!("cannot resolve {authority}"))?.collect();
        let Some(&address) = addresses.first() else { bail!("cannot resolve {authority}") };
        if !allow_remote && !addresses.iter().all(|address| address.ip().is_loopback()) {
            bail!("{authority} is not this machine; --allow-remote if that is meant");
        }
        Ok(Self { gateways: vec![address], authority: authority.to_owned() })
    }

    /// Gateways that stand side by side.
    pub(crate) fn parse_all(urls: &[String], allow_remote: bool) -> Result<Self> {
        let each = urls.iter().map(|url| Self::parse(url, allow_remote));
        let mut each = each.collect::<Result<Vec<_>>>()?.into_iter();
        let Some(mut first) = each.next() else { bail!("no gateway") };
        first.gateways.extend(each.flat_map(|other| other.gateways));
        Ok(first)
    }

    /// A request, but for its token. `body` is JSON.
    pub(crate) fn request(&self, method: &str, path: &str, body: Option<&str>) -> Request {
        let content = body.map_or_else(String::new, |body| {
            format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len())
        });
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: couponctl\r\nAccept: application/json\r\n{content}",
            self.authority
        );
        Request {
            before: format!("{head}Authorization: Bearer ").into_bytes(),
            after: format!("\r\n\r\n{}", body.unwrap_or_default()).into_bytes(),
            anonymous: format!("{head}\r\n{}", body.unwrap_or_default()).into_bytes(),
        }
    }
}

/// What lies around the token of a request; made once, as thousands a second are sent.
#[derive(Debug)]
pub(crate) struct Request {
    before: Vec<u8>,
    after: Vec<u8>,
    anonymous: Vec<u8>,
}

impl Request {
    /// The bytes with this token, in place of what `out` held.
    pub(crate) fn write(&self, token: &[u8], out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.before);
        out.extend_from_slice(token);
        out.extend_from_slice(&self.after);
    }

    /// The bytes without any token.
    pub(crate) fn anonymous(&self) -> &[u8] {
        &self.anonymous
    }
}

/// A path that can stand in a request line.
pub(crate) fn parse_path(text: &str) -> Result<String, String> {
    if text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err("a path begins with / and holds no spaces".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_unless_told_otherwise() {
        for url in
            ["http://127.0.0.1:8080", "http://127.0.0.1:8080/", "http://[::1]:8080", "http://127.0.0.1"]
        {
            assert!(Target::parse(url, false).is_ok(), "{url}");
        }
        let error = Target::parse("http://192.0.2.1:8080", false).unwrap_err().to_string();
        assert!(error.contains("--allow-remote"), "{error}");
        assert!(Target::parse("http://192.0.2.1:8080", true).is_ok());
        for url in
            ["https://127.0.0.1", "127.0.0.1:8080", "http://127.0.0.1:1/x", "http://", "http://a@127.0.0.1"]
        {
            assert!(Target::parse(url, true).is_err(), "{url}");
        }
    }

    #[test]
    fn gateways_side_by_side_have_the_name_of_the_first() {
        let urls = ["http://127.0.0.1:8080", "http://127.0.0.1:8081"].map(str::to_owned);
        let target = Target::parse_all(&urls, false).unwrap();
        assert_eq!(target.authority, "127.0.0.1:8080");
        assert_eq!(target.gateways.iter().map(SocketAddr::port).collect::<Vec<_>>(), [8080, 8081]);
        assert!(Target::parse_all(&["http://127.0.0.1".to_owned(), "x".to_owned()], false).is_err());
    }

    #[test]
    fn a_request_is_whole() {
        let target = Target::parse("http://127.0.0.1:8080", false).unwrap();
        let mut out = b"rubbish".to_vec();
        target.request("POST", "/coupon-issues", Some(r#"{"couponId":7}"#)).write(b"a.b.c", &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "POST /coupon-issues HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: couponctl\r\n\
             Accept: application/json\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\
             Authorization: Bearer a.b.c\r\n\r\n{\"couponId\":7}"
        );
        let get = target.request("GET", "/coupons/7", None);
        assert!(get.anonymous().ends_with(b"Accept: application/json\r\n\r\n"));
    }
}
