//! The dead-letter topic, read whole: one letter for each record that could not be read, and what became of it.
//!
//! A letter is known by its key, `PARTITION/OFFSET` of its origin; whatever comes again under a key is a repeat. It
//! waits until a resolution is there, which is a record of the same key with the header [`RESOLUTION`]. A record
//! without a key goes by its own place in this topic.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use anyhow::Result;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use serde::Serialize;

use crate::kafka::Topic;

/// `redriven` or `discarded`; the headers below belong to it.
pub(crate) const RESOLUTION: &str = "firstcome-resolution";
pub(crate) const BY: &str = "firstcome-resolved-by";
/// RFC 3339, UTC.
pub(crate) const AT: &str = "firstcome-resolved-at";
pub(crate) const REASON: &str = "firstcome-resolution-reason";
/// `PARTITION/OFFSET` of the record that was appended.
pub(crate) const REDRIVEN_TO: &str = "firstcome-redriven-to";

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Letter {
    pub(crate) id: String,
    pub(crate) state: &'static str,
    /// As the consumer that set it aside says.
    pub(crate) topic: Option<String>,
    pub(crate) partition: Option<u32>,
    pub(crate) offset: Option<u64>,
    /// Append time of the original record, unix milliseconds.
    pub(crate) appended_at: Option<u64>,
    pub(crate) reason: String,
    pub(crate) repeats: u64,
    #[serde(rename = "valueHex", serialize_with = "as_hex")]
    pub(crate) value: Vec<u8>,
    pub(crate) headers: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) resolution: Option<Resolution>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Resolution {
    pub(crate) action: String,
    pub(crate) by: String,
    pub(crate) at: String,
    pub(crate) reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) redriven_to: Option<String>,
}

const WAITING: &str = "waiting";
const RESOLVED: &str = "resolved";

fn as_hex<S: serde::Serializer>(value: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex::encode(value))
}

impl Letter {
    pub(crate) fn waits(&self) -> bool {
        self.resolution.is_none()
    }
}

/// A record of the dead-letter topic.
struct Line {
    id: String,
    headers: BTreeMap<String, String>,
    value: Vec<u8>,
}

/// Every letter, in the order in which they came.
pub(crate) fn read(topic: &Topic) -> Result<Vec<Letter>> {
    let mut letters = Letters::default();
    for partition in 0..topic.partitions {
        topic.read(partition, topic.bounds(partition)?, |message| {
            letters.add(line(message));
            Ok(ControlFlow::Continue(()))
        })?;
    }
    Ok(letters.complete())
}

fn line(message: &BorrowedMessage<'_>) -> Line {
    let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
    let headers = message
        .headers()
        .map(|headers| headers.iter().map(|header| (header.key.to_owned(), text(header.value))).collect());
    let id = match message.key() {
        Some(key) => text(Some(key)),
        None => format!("#{}/{}", message.partition(), message.offset()),
    };
    let value = message.payload().unwrap_or_default().to_vec();
    Line { id, headers: headers.unwrap_or_default(), value }
}

#[derive(Default)]
struct Letters {
    letters: Vec<Letter>,
    places: HashMap<String, usize>,
    resolutions: HashMap<String, Resolution>,
}

impl Letters {
    fn add(&mut self, line: Line) {
        let Line { id, mut headers, value } = line;
        if let Some(action) = headers.remove(RESOLUTION) {
            let mut take = |name: &str| headers.remove(name);
            let resolution = Resolution {
                action,
                by: take(BY).unwrap_or_default(),
                at: take(AT).unwrap_or_default(),
                reason: take(REASON).unwrap_or_default(),
                redriven_to: take(REDRIVEN_TO),
            };
            // The first one counts.
            self.resolutions.entry(id).or_insert(resolution);
            return;
        }
        if let Some(&place) = self.places.get(&id) {
            self.letters[place].repeats += 1;
            return;
        }
        let header = |name: &str| headers.get(&format!("kafka_dlt-{name}"));
        let letter = Letter {
            state: WAITING,
            topic: header("original-topic").cloned(),
            partition: header("original-partition").and_then(|text| text.parse().ok()),
            offset: header("original-offset").and_then(|text| text.parse().ok()),
            appended_at: header("original-timestamp").and_then(|text| text.parse().ok()),
            reason: header("exception-message").cloned().unwrap_or_default(),
            repeats: 0,
            resolution: None,
            id: id.clone(),
            headers,
            value,
        };
        self.places.insert(id, self.letters.len());
        self.letters.push(letter);
    }

    fn complete(mut self) -> Vec<Letter> {
        for letter in &mut self.letters {
            letter.resolution = self.resolutions.remove(&letter.id);
            letter.state = if letter.waits() { WAITING } else { RESOLVED };
        }
        self.letters
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A letter from a place of the log.
    pub(crate) fn letter(partition: u32, offset: u64) -> Letter {
        let (partition, offset) = (partition.to_string(), offset.to_string());
        let origin = [("kafka_dlt-original-partition", &*partition), ("kafka_dlt-original-offset", &*offset)];
        let mut letters = Letters::default();
        letters.add(line(&format!("{partition}/{offset}"), &origin, b"rubbish"));
        letters.complete().remove(0)
    }

    pub(crate) fn resolution() -> Resolution {
        let text = || "x".to_owned();
        Resolution {
            action: "discarded".to_owned(),
            by: text(),
            at: text(),
            reason: text(),
            redriven_to: None,
        }
    }

    fn line(id: &str, headers: &[(&str, &str)], value: &[u8]) -> Line {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Line { id: id.to_owned(), headers: headers.collect(), value: value.to_vec() }
    }

    #[test]
    fn repeats_are_dropped_and_a_resolved_letter_stays_resolved() {
        let mut letters = Letters::default();
        let origin = [
            ("kafka_dlt-original-topic", "coupon.issued"),
            ("kafka_dlt-original-partition", "3"),
            ("kafka_dlt-original-offset", "17"),
            ("kafka_dlt-original-timestamp", "1800000000000"),
            ("kafka_dlt-exception-message", "malformed"),
        ];
        letters.add(line("3/17", &origin, b"rubbish"));
        letters.add(line("3/18", &[], b"more"));
        let resolution = [(RESOLUTION, "discarded"), (BY, "ada"), (AT, "t"), (REASON, "a test")];
        letters.add(line("3/17", &resolution, b""));
        letters.add(line("3/17", &[(RESOLUTION, "redriven")], b""));
        letters.add(line("3/17", &origin, b"rubbish"));
        let letters = letters.complete();
        assert_eq!(letters.len(), 2);
        let first = &letters[0];
        assert_eq!(
            (first.partition, first.offset, first.appended_at),
            (Some(3), Some(17), Some(1_800_000_000_000))
        );
        assert_eq!(
            (first.repeats, first.reason.as_str(), first.value.as_slice()),
            (1, "malformed", &b"rubbish"[..])
        );
        let resolution = first.resolution.as_ref().unwrap();
        assert_eq!((resolution.action.as_str(), resolution.by.as_str()), ("discarded", "ada"));
        assert_eq!(letters.iter().map(Letter::waits).collect::<Vec<_>>(), [false, true]);
    }
}
