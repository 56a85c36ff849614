//! Sizes in bytes as text: `#[serde(with = "platform::config::size")]` on a field of any unsigned type reads and shows
//! "512B", "16KiB", "1MiB", "1GiB"; a bare number is bytes.

use serde::{Deserialize, Deserializer, Serializer};

const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// # Errors
/// Those of the serializer.
pub fn serialize<T: Copy + TryInto<u64>, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    let bytes: u64 = (*value).try_into().unwrap_or(u64::MAX);
    let (unit, factor) = UNITS
        .into_iter()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor))
        .unwrap_or(("B", 1));
    serializer.collect_str(&format_args!("{}{unit}", bytes / factor))
}

/// # Errors
/// When the text is no size, or one that the type can't hold.
pub fn deserialize<'de, T: TryFrom<u64>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).and_then(|bytes| T::try_from(bytes).ok()).ok_or_else(|| {
        serde::de::Error::custom(format_args!("\"{text}\" is no size such as 512B, 16KiB or 1MiB"))
    })
}

fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let (number, factor) = UNITS
        .into_iter()
        .find_map(|(unit, factor)| text.strip_suffix(unit).map(|number| (number.trim_end(), factor)))
        .unwrap_or((text, 1));
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_by_their_unit() {
        assert_eq!(parse("16KiB"), Some(16_384));
        assert_eq!(parse("2 MiB"), Some(2 << 20));
        assert_eq!(parse("512B"), Some(512));
        assert_eq!(parse("7"), Some(7));
        for wrong in ["", "KiB", "1.5KiB", "16kb", "-1", "99999999999GiB"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
