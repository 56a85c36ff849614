//! Header hygiene, the same on every route and in both directions.
//!
//! Invariant: nothing that a client claims about its own identity or origin reaches a service, no header
//! of one hop travels to the next, and a service's internal headers never reach a client. What the
//! gateway itself says is set after the cleaning, so that no `Connection` header can name it away.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Claims about identity or origin that only the gateway may make. Compared with `_` read as `-`,
/// because some servers hand both to their programs under one name.
const RESERVED_PREFIXES: [&str; 4] = ["x-user-", "x-internal-", "x-firstcome-", "x-forwarded-"];
const RESERVED_NAMES: [&str; 2] = ["forwarded", "x-real-ip"];
/// Those of them that speak of the request's way, and of our own signed identity: forged ones are refused everywhere.
const OF_ORIGIN: [&str; 2] = ["x-forwarded-", "x-firstcome-"];

/// RFC 9110, 7.6.1, with the older habits that it warns of.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whose the services behind the gateway are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    /// Ours, which believe the signed identity and nothing else.
    Identity,
    /// Anybody's, which judge tokens themselves and may use our reserved names for their own purposes.
    Standalone,
}

/// Prepares a request's headers for the way to a service.
pub fn clean_request(headers: &mut HeaderMap, behind: Behind) {
    remove_hop_by_hop(headers);
    match behind {
        Behind::Identity => {
            remove_matching(headers, is_reserved);
            // A token that is not sent cannot leak from the services' logs.
            headers.remove(header::AUTHORIZATION);
        }
        Behind::Standalone => remove_matching(headers, is_of_origin),
    }
    // Each hop has its own: the service's address, the length as the body says it, and 100-continue,
    // which the gateway's own server has answered already.
    headers.remove(header::HOST);
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::EXPECT);
    join_cookies(headers);
}

/// HTTP/2 may part cookies into headers of their own, HTTP/1 not (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let parts: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&parts.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

/// Prepares a service's response headers for the way to the client.
pub fn clean_response(headers: &mut HeaderMap, behind: Behind) {
    // A length next to a transfer encoding is wrong by definition (RFC 9112, 6.3).
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
    remove_hop_by_hop(headers);
    if behind == Behind::Identity {
        remove_matching(headers, is_reserved);
    }
    // The gateway's own span answers the client.
    headers.remove("traceparent");
    headers.remove("tracestate");
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    remove_matching(headers, |name| HOP_BY_HOP.contains(&name));
}

fn is_reserved(name: &str) -> bool {
    // Most names are decided by their first letter.
    match name.as_bytes().first() {
        Some(b'x') => {
            RESERVED_PREFIXES.iter().any(|prefix| starts_with_loosely(name, prefix))
                || (name.len() == RESERVED_NAMES[1].len() && starts_with_loosely(name, RESERVED_NAMES[1]))
        }
        Some(b'f') => name == RESERVED_NAMES[0],
        _ => false,
    }
}

fn is_of_origin(name: &str) -> bool {
    OF_ORIGIN.iter().any(|prefix| starts_with_loosely(name, prefix))
        || RESERVED_NAMES
            .iter()
            .any(|reserved| name.len() == reserved.len() && starts_with_loosely(name, reserved))
}

/// `name` is lower case, as `HeaderName` keeps it.
fn starts_with_loosely(name: &str, prefix: &str) -> bool {
    name.len() >= prefix.len()
        && name.bytes().zip(prefix.bytes()).all(|(have, want)| have == want || (have == b'_' && want == b'-'))
}

fn remove_matching(headers: &mut HeaderMap, unwanted: impl Fn(&str) -> bool) {
    // Most requests hold none, and an empty Vec does not allocate.
    let found: Vec<HeaderName> = headers.keys().filter(|name| unwanted(name.as_str())).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        headers
    }

    #[test]
    fn claims_about_identity_and_origin_are_removed() {
        let mut headers = map(&[
            ("X-User-Id", "1"),
            ("X-User-Id", "2"),
            ("x_user_role", "ADMIN"),
            ("X-Internal-Caller", "x"),
            ("X-Firstcome-Identity", "forged"),
            ("X-FORWARDED-FOR", "10.0.0.1"),
            ("Forwarded", "for=10.0.0.1"),
            ("X-Real-IP", "10.0.0.1"),
            ("Authorization", "Bearer x"),
            ("Host", "example.org"),
            ("Content-Length", "4"),
            ("Accept-Language", "ko"),
            ("X-Request-Id", "kept"),
            ("X-Users", "kept"),
            ("traceparent", "kept"),
        ]);
        clean_request(&mut headers, Behind::Identity);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept-language", "traceparent", "x-request-id", "x-users"]);
    }

    #[test]
    fn services_of_others_keep_what_is_theirs_but_no_claim_about_the_way() {
        let mut headers = map(&[
            ("Authorization", "Bearer x"),
            ("X-User-Id", "1"),
            ("X-Firstcome-Identity", "forged"),
            ("X_Forwarded_For", "10.0.0.1"),
            ("Forwarded", "for=10.0.0.1"),
            ("X-Real-IP", "10.0.0.1"),
        ]);
        clean_request(&mut headers, Behind::Standalone);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "x-user-id"]);
    }

    #[test]
    fn cookies_become_one_header() {
        let mut headers = map(&[("cookie", "a=1"), ("cookie", "b=2; c=3")]);
        clean_request(&mut headers, Behind::Identity);
        assert_eq!(headers.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2; c=3"]);
    }

    #[test]
    fn headers_named_in_connection_go_in_neither_direction() {
        for clean in [clean_request, clean_response] {
            let mut headers = map(&[
                ("Connection", "keep-alive, X-Secret"),
                ("Connection", "x-other"),
                ("Keep-Alive", "timeout=5"),
                ("X-Secret", "1"),
                ("X-Other", "1"),
                ("Upgrade", "websocket"),
                ("Content-Type", "text/plain"),
            ]);
            clean(&mut headers, Behind::Identity);
            assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["content-type"]);
        }
    }

    #[test]
    fn a_response_keeps_its_length_unless_it_is_chunked() {
        let mut plain = map(&[("Content-Length", "4"), ("X-Firstcome-Debug", "1")]);
        clean_response(&mut plain, Behind::Identity);
        assert_eq!(plain.len(), 1);
        let mut chunked = map(&[("Content-Length", "4"), ("Transfer-Encoding", "chunked")]);
        clean_response(&mut chunked, Behind::Identity);
        assert!(chunked.is_empty());
    }

    fn any_case_name() -> impl Strategy<Value = String> {
        let names = prop_oneof![
            Just("x-user-id"),
            Just("x-user-role"),
            Just("x-internal-call"),
            Just("x-firstcome-identity"),
            Just("x-forwarded-for"),
            Just("forwarded"),
            Just("connection"),
            Just("te"),
            Just("transfer-encoding"),
            Just("accept"),
            Just("content-type"),
            Just("x-other"),
        ];
        (names, any::<u32>()).prop_map(|(name, upper)| {
            name.chars()
                .enumerate()
                .map(|(at, c)| if upper >> (at % 32) & 1 == 1 { c.to_ascii_uppercase() } else { c })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn nothing_reserved_survives_whatever_the_mixture(
            pairs in prop::collection::vec((any_case_name(), "[a-z, -]{0,20}"), 0..16),
        ) {
            let pairs: Vec<(&str, &str)> = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            for clean in [clean_request, clean_response] {
                let mut headers = map(&pairs);
                clean(&mut headers, Behind::Identity);
                for name in headers.keys() {
                    prop_assert!(["accept", "content-type", "x-other"].contains(&name.as_str()), "{}", name);
                }
                let mut again = headers.clone();
                clean(&mut again, Behind::Identity);
                prop_assert_eq!(again, headers);
            }
        }
    }
}
