//! Durations as text: `#[serde(with = "platform::config::duration")]` on a field reads and shows "250ms", "1m 30s".

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*value))
}

/// # Errors
/// When the text is no duration with a unit.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(|_| {
        serde::de::Error::custom(format_args!("\"{text}\" is no duration such as 250ms, 5s or 15m"))
    })
}
