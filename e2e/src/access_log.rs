//! The gateway's access log: which instance answered what.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::stack::Stack;

#[derive(Clone, Debug, Deserialize)]
pub struct AccessLine {
    /// When the answer had ended, in RFC 3339.
    timestamp: String,
    duration_ms: f64,
    pub trace_id: String,
    #[serde(rename = "route.id", default)]
    pub route: String,
    #[serde(rename = "http.status")]
    pub status: u16,
    /// Empty where the request reached nobody.
    #[serde(rename = "upstream.instance", default)]
    pub instance: String,
    /// Instances that were tried.
    #[serde(rename = "upstream.attempts")]
    pub attempts: u32,
}

impl AccessLine {
    /// Unix milliseconds.
    ///
    /// # Panics
    /// When the line's time is none.
    pub fn ended(&self) -> f64 {
        let time = OffsetDateTime::parse(&self.timestamp, &Rfc3339)
            .unwrap_or_else(|error| panic!("{}: {error}", self.timestamp));
        time.unix_timestamp_nanos() as f64 / 1e6
    }

    /// Unix milliseconds.
    pub fn began(&self) -> f64 {
        self.ended() - self.duration_ms
    }
}

/// What the gateway logs from a moment on.
#[derive(Debug)]
pub struct AccessLog {
    file: PathBuf,
    from: u64,
}

impl AccessLog {
    /// # Panics
    /// When there is no log.
    pub fn from_here(stack: &Stack) -> Self {
        let file = stack.folder.join("logs/gateway.log");
        let from = std::fs::metadata(&file)
            .unwrap_or_else(|error| panic!("{} can't be read: {error}", file.display()))
            .len();
        Self { file, from }
    }

    /// # Panics
    /// When it can't be read.
    pub fn lines(&self) -> Vec<AccessLine> {
        let mut text = String::new();
        let read = File::open(&self.file).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.from))?;
            file.read_to_string(&mut text)
        });
        read.unwrap_or_else(|error| panic!("{} can't be read: {error}", self.file.display()));
        // Others log too, in other shapes.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}
