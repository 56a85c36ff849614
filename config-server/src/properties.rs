//! `.properties` files, as Spring Boot reads them: ISO 8859-1, escapes, continued lines, `key[]` lists, and `#---` or
//! `!---` between documents. Every value is text.

use serde_json::Value;

use crate::document::{Properties, Unreadable};

/// # Errors
/// When a `\u` isn't followed by four hexadecimal digits.
pub fn parse(bytes: &[u8]) -> Result<Vec<Properties>, Unreadable> {
    // One byte is one character: that is what ISO 8859-1 means.
    let text: String = bytes.iter().map(|&byte| char::from(byte)).collect();
    let mut documents = Vec::new();
    let mut current = Properties::default();
    let mut lines = natural_lines(&text).enumerate();
    while let Some((index, line)) = lines.next() {
        let line = line.trim_start_matches(is_space);
        if line.starts_with(['#', '!']) {
            if line[1..].trim_end_matches(is_space) == "---" {
                documents.push(std::mem::take(&mut current));
            }
            continue;
        }
        let mut logical = line.to_owned();
        while continues(&logical) {
            logical.pop();
            let Some((_, next)) = lines.next() else { break };
            logical.push_str(next.trim_start_matches(is_space));
        }
        if logical.is_empty() {
            continue;
        }
        put(&mut current, &logical).map_err(|reason| Unreadable::new(Some(index + 1), reason))?;
    }
    documents.push(current);
    documents.retain(|document| !document.is_empty());
    Ok(documents)
}

fn natural_lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\u{c}')
}

/// An odd number of backslashes at the end.
fn continues(line: &str) -> bool {
    line.bytes().rev().take_while(|&byte| byte == b'\\').count() % 2 == 1
}

fn put(properties: &mut Properties, line: &str) -> Result<(), &'static str> {
    let (key, value) = split(line);
    let key = unescape(key)?;
    match key.strip_suffix("[]") {
        Some(list) => {
            for (index, element) in value.split(',').enumerate() {
                properties.put(
                    format!("{list}[{index}]"),
                    Value::String(unescape(element.trim_matches(is_space))?),
                );
            }
        }
        None => properties.put(key, Value::String(unescape(value)?)),
    }
    Ok(())
}

/// The key ends at the first `=`, `:` or space that isn't escaped; one `=` or `:` with the spaces around it is skipped.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line.find(|c: char| {
        let ends = !escaped && (matches!(c, '=' | ':') || is_space(c));
        escaped = !escaped && c == '\\';
        ends
    });
    let (key, rest) = line.split_at(end.unwrap_or(line.len()));
    let rest = rest.trim_start_matches(is_space);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (key, rest.trim_start_matches(is_space))
}

fn unescape(text: &str) -> Result<String, &'static str> {
    // Java's characters are UTF-16 units, so that two escapes may be halves of one.
    let mut units: Vec<u16> = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let c = match c {
            '\\' => match chars.next() {
                None => break,
                Some('u') => {
                    let digits = chars
                        .as_str()
                        .get(..4)
                        .filter(|digits| digits.bytes().all(|d| d.is_ascii_hexdigit()));
                    let unit = digits.and_then(|digits| u16::from_str_radix(digits, 16).ok());
                    units.push(unit.ok_or("\\u needs four hexadecimal digits")?);
                    chars = chars.as_str().get(4..).unwrap_or_default().chars();
                    continue;
                }
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('f') => '\u{c}',
                Some(other) => other,
            },
            c => c,
        };
        units.extend_from_slice(c.encode_utf16(&mut [0; 2]));
    }
    Ok(String::from_utf16_lossy(&units))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn flat(text: &str) -> Vec<String> {
        let documents = parse(text.as_bytes()).unwrap();
        documents.iter().map(|document| serde_json::to_string(document).unwrap()).collect()
    }

    #[test]
    fn keys_end_where_java_ends_them() {
        assert_eq!(
            flat("a=1\nb : 2\nc 3\n d\\ e = 4 \nf\\=g=h=i\nempty\n# comment\n! comment\n\ne2 ="),
            [r#"{"a":"1","b":"2","c":"3","d e":"4 ","f=g":"h=i","empty":"","e2":""}"#]
        );
    }

    #[test]
    fn escapes_and_continued_lines() {
        assert_eq!(
            flat("a = x\\\n    y\\\r\n z\\\\\nb=\\t\\u0041\\uD83D\\uDE00\\q"),
            [r#"{"a":"xyz\\","b":"\tA😀q"}"#]
        );
        assert_eq!(flat("a=1\\"), [r#"{"a":"1"}"#]);
        let wrong = parse(b"a=1\nsecret=\\u12x4").unwrap_err().to_string();
        assert_eq!(wrong, "line 2: \\u needs four hexadecimal digits");
    }

    #[test]
    fn text_is_latin_1() {
        assert_eq!(parse(b"a=\xe9").unwrap()[0].get("a"), Some(&Value::from("é")));
    }

    #[test]
    fn lists_and_documents() {
        assert_eq!(
            flat("a[]=x, y\n#---\n!---\nspring.config.activate.on-profile=prod\na=2"),
            [r#"{"a[0]":"x","a[1]":"y"}"#, r#"{"spring.config.activate.on-profile":"prod","a":"2"}"#]
        );
        assert_eq!(flat("# nothing\n"), Vec::<String>::new());
    }

    #[test]
    fn the_later_value_wins_in_the_place_of_the_first() {
        assert_eq!(flat("a=1\nb=2\na=3"), [r#"{"a":"3","b":"2"}"#]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn no_near_properties_make_it_panic(text in "([a\\\\u0=: \t#!\\[\\]\n\r,-]|\\\\u[0-9d]{3,4}){0,80}") {
            let _ = parse(text.as_bytes());
        }
    }
}
