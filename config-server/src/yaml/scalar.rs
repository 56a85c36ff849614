//! The implicit types of YAML 1.1 (yaml.org/type), as SnakeYAML's resolver has them: `010` is 8, `12:34` is 754, `on`
//! is true, `1e3` is 1000.0. Dates stay text, as in Spring Boot.

use serde_json::{Number, Value};
use yaml_rust2::parser::Tag;

pub(super) const CORE_TAGS: &str = "tag:yaml.org,2002:";

/// # Errors
/// When the value isn't what its tag says, or the tag is unknown.
pub(super) fn resolve(text: String, plain: bool, tag: Option<&Tag>) -> Result<Value, &'static str> {
    let Some(tag) = tag else {
        return Ok(if plain { implicit(text) } else { Value::String(text) });
    };
    let wrong = Err("a value is not what its tag says");
    let suffix = match (tag.handle.as_str(), tag.suffix.as_str()) {
        // `!` alone: not to be interpreted.
        ("", "!") | ("!", "") => "str",
        (CORE_TAGS, suffix) => suffix,
        _ => return Err("has a tag that is not supported"),
    };
    match suffix {
        "str" | "timestamp" => Ok(Value::String(text)),
        "null" => Ok(Value::Null),
        "bool" => boolean(&text).map_or(wrong, |value| Ok(Value::Bool(value))),
        "int" => integer(&text).map_or(wrong, Ok),
        "float" => float(&text).or_else(|| integer(&text)).map_or(wrong, Ok),
        _ => Err("has a tag that is not supported"),
    }
}

fn implicit(text: String) -> Value {
    if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL") {
        return Value::Null;
    }
    if let Some(value) = boolean(&text) {
        return Value::Bool(value);
    }
    integer(&text).or_else(|| float(&text)).unwrap_or(Value::String(text))
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Some(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

fn integer(text: &str) -> Option<Value> {
    let (negative, digits) = signed(text);
    let (radix, digits) = if let Some(digits) = digits.strip_prefix("0b") {
        (2, digits)
    } else if let Some(digits) = digits.strip_prefix("0x") {
        (16, digits)
    } else if let Some(digits) = digits.strip_prefix('0').filter(|digits| !digits.is_empty()) {
        (8, digits)
    } else if digits.contains(':') {
        return sixties(digits.split(':'), negative);
    } else {
        (10, digits)
    };
    // An underscore may be anywhere but at the beginning of a decimal number.
    if radix == 10 && digits.starts_with('_')
        || !digits.bytes().all(|byte| byte == b'_' || char::from(byte).is_digit(radix))
    {
        return None;
    }
    let digits = digits.replace('_', "");
    if digits.is_empty() {
        return None;
    }
    let magnitude = i128::from_str_radix(&digits, radix);
    Some(
        magnitude
            .map_or_else(|_| Value::String(text.to_owned()), |magnitude| number(magnitude, negative, text)),
    )
}

/// Base 60, of which hours, minutes and seconds are made.
fn sixties<'a>(mut parts: impl Iterator<Item = &'a str>, negative: bool) -> Option<Value> {
    let first = parts.next().filter(|first| first.starts_with(|c: char| matches!(c, '1'..='9')))?;
    let mut total = decimal(first)?;
    for part in parts {
        total = total.checked_mul(60)?.checked_add(below_sixty(part)?)?;
    }
    Some(number(total, negative, ""))
}

fn decimal(text: &str) -> Option<i128> {
    let allowed = text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b == b'_' || b.is_ascii_digit());
    allowed.then(|| text.replace('_', "").parse().ok())?
}

fn below_sixty(text: &str) -> Option<i128> {
    let digits = matches!(text.len(), 1 | 2) && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| digits && *number < 60)
}

/// Beyond 64 bits a number stays as it was written: JSON readers would round it.
fn number(magnitude: i128, negative: bool, text: &str) -> Value {
    let signed = if negative { -magnitude } else { magnitude };
    if let Ok(number) = i64::try_from(signed) {
        Value::from(number)
    } else if let Ok(number) = u64::try_from(signed) {
        Value::from(number)
    } else if text.is_empty() {
        Value::String(signed.to_string())
    } else {
        Value::String(text.to_owned())
    }
}

fn float(text: &str) -> Option<Value> {
    let (negative, magnitude) = signed(text);
    match magnitude {
        ".inf" | ".Inf" | ".INF" => {
            return Some(Value::from(if negative { "-Infinity" } else { "Infinity" }));
        }
        ".nan" | ".NaN" | ".NAN" if magnitude == text => return Some(Value::from("NaN")),
        _ => {}
    }
    if magnitude.contains(':') {
        return sixties_with_fraction(magnitude, negative);
    }
    let (mantissa, exponent) = match magnitude.find(['e', 'E']) {
        Some(at) => (&magnitude[..at], Some(&magnitude[at + 1..])),
        None => (magnitude, None),
    };
    if let Some(exponent) = exponent {
        let (_, digits) = signed(exponent);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
    }
    let mut halves = mantissa.splitn(2, '.');
    let (whole, fraction) = (halves.next().unwrap_or_default(), halves.next());
    let is_digits = |text: &str| text.bytes().all(|byte| byte == b'_' || byte.is_ascii_digit());
    let begins = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    let allowed = match fraction {
        // `.5`, which has no sign.
        Some(fraction) if whole.is_empty() => begins(fraction) && is_digits(fraction) && magnitude == text,
        Some(fraction) => begins(whole) && is_digits(whole) && is_digits(fraction),
        None => exponent.is_some() && begins(whole) && is_digits(whole),
    };
    let parsed: f64 = allowed.then(|| magnitude.replace('_', "").parse().ok())??;
    Some(finite(if negative { -parsed } else { parsed }))
}

fn sixties_with_fraction(text: &str, negative: bool) -> Option<Value> {
    let (whole, fraction) = text.split_once('.')?;
    let mut parts = whole.split(':');
    let mut total = decimal(parts.next()?)?;
    for part in parts {
        total = total.checked_mul(60)?.checked_add(below_sixty(part)?)?;
    }
    if !fraction.bytes().all(|byte| byte == b'_' || byte.is_ascii_digit()) {
        return None;
    }
    let value: f64 = format!("{total}.{}", fraction.replace('_', "")).parse().ok()?;
    Some(finite(if negative { -value } else { value }))
}

/// JSON has no infinity; Java's text is used, as for those that are written out.
fn finite(value: f64) -> Value {
    Number::from_f64(value)
        .map_or_else(|| Value::from(if value < 0.0 { "-Infinity" } else { "Infinity" }), Value::Number)
}

fn signed(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}
