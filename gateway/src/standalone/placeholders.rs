//! `${name}` and `${name:default}` in a file, as Spring resolves them: from the file itself and from the environment.
//!
//! Invariant: what nobody has a value for stays as it is written, so that the groups of a RewritePath survive.

use std::collections::BTreeMap;

use serde_json::Value;

/// Deeper nesting than that is a circle.
const MOST_NESTED: usize = 16;

/// Resolves every text below `value`.
pub(super) fn resolve(
    value: &mut Value,
    properties: &BTreeMap<String, String>,
    variable: &dyn Fn(&str) -> Option<String>,
) {
    match value {
        Value::String(text) if text.contains("${") => {
            *text = resolved(text, properties, variable, MOST_NESTED);
        }
        Value::Array(list) => list.iter_mut().for_each(|value| resolve(value, properties, variable)),
        Value::Object(map) => map.values_mut().for_each(|value| resolve(value, properties, variable)),
        _ => {}
    }
}

fn resolved(
    text: &str,
    properties: &BTreeMap<String, String>,
    variable: &dyn Fn(&str) -> Option<String>,
    depth: usize,
) -> String {
    let Some((before, inside, after)) = (depth > 0).then(|| placeholder(text)).flatten() else {
        return text.to_owned();
    };
    let inside = resolved(inside, properties, variable, depth - 1);
    let (name, default) = match inside.split_once(':') {
        Some((name, default)) => (name.trim(), Some(default)),
        None => (inside.trim(), None),
    };
    let found = variable(name)
        .or_else(|| variable(&as_variable(name)))
        .or_else(|| properties.get(name).cloned())
        .or_else(|| default.map(str::to_owned));
    let value = match found {
        Some(value) => resolved(&value, properties, variable, depth - 1),
        None => format!("${{{inside}}}"),
    };
    format!("{before}{value}{}", resolved(after, properties, variable, depth))
}

/// `user.base-url` is `USER_BASEURL` in the environment.
fn as_variable(name: &str) -> String {
    name.chars()
        .filter(|c| *c != '-')
        .map(|c| if matches!(c, '.' | '[' | ']') { '_' } else { c.to_ascii_uppercase() })
        .collect()
}

/// What is before, in and behind the first placeholder; braces within it count.
fn placeholder(text: &str) -> Option<(&str, &str, &str)> {
    let start = text.find("${")?;
    let mut depth = 0_usize;
    for (at, byte) in text.bytes().enumerate().skip(start + 1) {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return Some((&text[..start], &text[start + 2..at], &text[at + 1..]));
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> String {
        let properties = BTreeMap::from([
            ("shop.url".to_owned(), "http://${shop.host}:81".to_owned()),
            ("shop.host".to_owned(), "shop".to_owned()),
            ("loop".to_owned(), "${loop}".to_owned()),
        ]);
        let variable = |name: &str| match name {
            "USER_URL" => Some("http://users".to_owned()),
            "SHOP_PORT" => Some("82".to_owned()),
            _ => None,
        };
        let mut value = Value::String(text.to_owned());
        resolve(&mut value, &properties, &variable);
        value.as_str().unwrap().to_owned()
    }

    #[test]
    fn values_come_from_the_environment_the_file_and_the_default() {
        assert_eq!(of("${USER_URL:http://localhost:8081}"), "http://users");
        assert_eq!(of("${user.url}"), "http://users");
        assert_eq!(of("${NOBODY:http://localhost:8081}/x"), "http://localhost:8081/x");
        assert_eq!(of("${shop.url}"), "http://shop:81");
        assert_eq!(of("a${shop.host}b${shop-port:x}c${shop.port}"), "ashopbxc82");
        assert_eq!(of("${NOBODY:${shop.host}}"), "shop");
        assert_eq!(of("${NOBODY:}"), "");
    }

    #[test]
    fn what_nobody_knows_stays() {
        assert_eq!(of("/${segment}/${shop.host}"), "/${segment}/shop");
        assert_eq!(of(r"/$\{shop.host}"), r"/$\{shop.host}");
        assert_eq!(of("${open"), "${open");
        assert_eq!(of("${loop}"), "${loop}");
    }
}
