//! Header hygiene: nothing of one hop and no claim about who asks gets through, and nothing else is lost.

use std::collections::BTreeSet;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::headers::{Behind, clean_request, clean_response};

/// Lower case, `_` as `-`: as a server would hand it to its programs.
const CLAIMS: [&str; 6] =
    ["x-user-", "x-internal-", "x-firstcome-", "x-forwarded-", "forwarded", "x-real-ip"];
const OF_ONE_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Replaced by the gateway's own.
const REPLACED: [&str; 4] = ["authorization", "host", "content-length", "expect"];

/// Lines of `name:value`.
pub fn run(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        let (name, value) = line.split_at(line.iter().position(|byte| *byte == b':').unwrap_or(line.len()));
        let name = HeaderName::from_bytes(name);
        let value = HeaderValue::from_bytes(value.get(1..).unwrap_or_default());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let named = named(&headers);
    for clean in [clean_request, clean_response] {
        let mut kept = headers.clone();
        clean(&mut kept, Behind::Identity);
        for name in kept.keys() {
            assert!(!is_claim(name.as_str()), "{name} survives");
            assert!(!OF_ONE_HOP.contains(&name.as_str()), "{name} survives");
            assert!(!named.contains(name.as_str()), "{name}, named in Connection, survives");
        }
        let mut again = kept.clone();
        clean(&mut again, Behind::Identity);
        assert_eq!(again, kept, "once is enough");
    }
    let mut kept = headers.clone();
    clean_request(&mut kept, Behind::Identity);
    for name in REPLACED {
        assert!(!kept.contains_key(name), "{name} survives");
    }
    for name in headers.keys() {
        let text = name.as_str();
        let has_to_go = is_claim(text) || OF_ONE_HOP.contains(&text) || REPLACED.contains(&text);
        // Cookies are joined, and one of a server to a proxy is of one hop too.
        if has_to_go || named.contains(text) || matches!(text, "cookie" | "proxy-authenticate") {
            continue;
        }
        assert!(kept.get_all(name).iter().eq(headers.get_all(name).iter()), "{name} is lost or changed");
    }
}

fn is_claim(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('_', "-");
    CLAIMS.iter().any(|claim| if claim.ends_with('-') { name.starts_with(claim) } else { name == *claim })
}

/// What the `Connection` headers name.
fn named(headers: &HeaderMap) -> BTreeSet<String> {
    let lines = headers.get_all("connection").iter();
    let text: Vec<String> =
        lines.map(|line| String::from_utf8_lossy(line.as_bytes()).to_ascii_lowercase()).collect();
    text.iter()
        .flat_map(|line| line.split(','))
        .map(|name| name.trim_matches([' ', '\t']).to_owned())
        .collect()
}
