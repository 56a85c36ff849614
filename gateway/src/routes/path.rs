//! The one form of a path that is matched and sent.
//!
//! Invariant: what a route was chosen by is, byte for byte, what the service receives. Paths that two
//! parties could read differently (dot segments, encoded slashes, `;` parameters, empty segments) are
//! refused rather than repaired; the one repair is the decoding of characters that never needed
//! encoding (RFC 3986, 6.2.2.2).

use std::borrow::Cow;

/// Why a path is refused; the text is shown to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("The path has to start with a slash.")]
    NotAbsolute,
    #[error("The path must not contain dot segments.")]
    DotSegment,
    #[error("The path must not contain empty segments.")]
    EmptySegment,
    #[error("The path must not contain `;`, `\\` or control characters, encoded or not.")]
    Forbidden,
    #[error("The path must not contain encoded slashes or percent signs.")]
    EncodedDelimiter,
    #[error("The path contains an invalid percent-encoding.")]
    BadEncoding,
}

/// Returns the path as it is matched and sent.
pub fn normalise(path: &str) -> Result<Cow<'_, str>, PathError> {
    if !path.starts_with('/') {
        return Err(PathError::NotAbsolute);
    }
    let path = if path.contains('%') { Cow::Owned(decode_unreserved(path)?) } else { Cow::Borrowed(path) };
    if path.bytes().any(|byte| matches!(byte, b';' | b'\\' | 0..=0x20 | 0x7f..)) {
        return Err(PathError::Forbidden);
    }
    check_segments(&path)?;
    Ok(path)
}

fn check_segments(path: &str) -> Result<(), PathError> {
    let mut segments = path[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "." | ".." => return Err(PathError::DotSegment),
            // The last one may be empty: that is the trailing slash, and the path `/` itself.
            "" if segments.peek().is_some() => return Err(PathError::EmptySegment),
            _ => {}
        }
    }
    Ok(())
}

fn decode_unreserved(path: &str) -> Result<String, PathError> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let digits = rest.as_bytes().get(at + 1..at + 3).ok_or(PathError::BadEncoding)?;
        let byte = hex(digits[0])? << 4 | hex(digits[1])?;
        match byte {
            // A second decoding behind us would turn %25 into a new escape.
            b'/' | b'%' => return Err(PathError::EncodedDelimiter),
            b';' | b'\\' | 0..=0x1f | 0x7f => return Err(PathError::Forbidden),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => {
                out.push('%');
                out.extend(digits.iter().map(|digit| char::from(digit.to_ascii_uppercase())));
            }
        }
        rest = &rest[at + 3..];
    }
    out.push_str(rest);
    Ok(out)
}

/// What a piece of a normalised path says; as it is, if that is no UTF-8.
#[must_use]
pub fn decode(piece: &str) -> Cow<'_, str> {
    if !piece.contains('%') {
        return Cow::Borrowed(piece);
    }
    percent_encoding::percent_decode_str(piece).decode_utf8().unwrap_or(Cow::Borrowed(piece))
}

fn hex(digit: u8) -> Result<u8, PathError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(PathError::BadEncoding),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ordinary_paths_are_untouched() {
        for path in
            ["/", "/coupons", "/coupons/", "/coupons/17", "/.well-known/jwks.json", "/a/...", "/a,b=c@d"]
        {
            assert!(matches!(normalise(path), Ok(Cow::Borrowed(same)) if same == path), "{path}");
        }
    }

    #[test]
    fn needless_encoding_is_undone_and_needed_encoding_kept() {
        assert_eq!(normalise("/%63oupons/%7e").as_deref(), Ok("/coupons/~"));
        assert_eq!(normalise("/%ec%bf%a0?").as_deref(), Ok("/%EC%BF%A0?"));
        assert_eq!(normalise("/a%20b").as_deref(), Ok("/a%20b"));
    }

    #[test]
    fn ambiguous_paths_are_refused() {
        for (path, error) in [
            ("", PathError::NotAbsolute),
            ("*", PathError::NotAbsolute),
            ("/a/../internal", PathError::DotSegment),
            ("/a/%2e%2E/internal", PathError::DotSegment),
            ("/a/.%2e", PathError::DotSegment),
            ("/./a", PathError::DotSegment),
            ("//internal/x", PathError::EmptySegment),
            ("/a//b", PathError::EmptySegment),
            ("/coupons/1;v=2", PathError::Forbidden),
            ("/coupons/1%3bv=2", PathError::Forbidden),
            ("/a\\b", PathError::Forbidden),
            ("/a%5cb", PathError::Forbidden),
            ("/a%00", PathError::Forbidden),
            ("/a%0d%0aX-User-Id:1", PathError::Forbidden),
            ("/a/쿠폰", PathError::Forbidden),
            ("/a%2fb", PathError::EncodedDelimiter),
            ("/a%252fb", PathError::EncodedDelimiter),
            ("/a%2", PathError::BadEncoding),
            ("/a%", PathError::BadEncoding),
            ("/a%zz", PathError::BadEncoding),
            ("/a%쿠", PathError::BadEncoding),
        ] {
            assert_eq!(normalise(path), Err(error), "{path}");
        }
    }

    proptest! {
        #[test]
        fn what_passes_is_stable_and_unambiguous(path in "/([a-zA-Z0-9./;\\\\%~]|%[0-9a-fA-F]{2}|%2[ef]){0,24}") {
            if let Ok(once) = normalise(&path) {
                let twice = normalise(&once);
                prop_assert_eq!(twice.as_deref(), Ok(once.as_ref()));
                let lower = once.to_ascii_lowercase();
                for forbidden in [";", "\\", "%2f", "%5c", "%2e", "%25", "%3b", "%00"] {
                    prop_assert!(!lower.contains(forbidden), "{} in {}", forbidden, once);
                }
                prop_assert!(!once.split('/').any(|segment| segment == "." || segment == ".."));
                prop_assert!(!once.contains("//"));
            }
        }

        #[test]
        fn never_panics(path in ".{0,64}") {
            let _ = normalise(&path);
        }
    }
}
