//! The gateway's access log: which instance answered what.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use serde::Deserialize;

use crate::stack::Stack;

#[derive(Clone, Debug, Deserialize)]
pub struct AccessLine {
    #[serde(rename = "route.id", default)]
    pub route: String,
    #[serde(rename = "http.status")]
    pub status: u16,
    /// Empty where the request reached nobody.
    #[serde(rename = "upstream.instance", default)]
    pub instance: String,
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
