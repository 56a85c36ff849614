//! Log levels by logger, which can change while the process runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::{EnvFilter, reload};

const ROOT: &str = "ROOT";

/// The filter for directives such as `info,issue_service=debug`.
pub(super) fn filter(directives: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    EnvFilter::builder().parse(directives)
}

/// The levels in force. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Levels {
    directives: Arc<Mutex<BTreeMap<String, String>>>,
    handle: reload::Handle<EnvFilter, Registry>,
}

impl Levels {
    pub(crate) fn new(directives: &str, handle: reload::Handle<EnvFilter, Registry>) -> Self {
        let parsed =
            directives.split(',').filter(|directive| !directive.trim().is_empty()).map(|directive| {
                let (logger, level) = directive.split_once('=').unwrap_or((ROOT, directive));
                (logger.trim().to_owned(), level.trim().to_ascii_uppercase())
            });
        Self { directives: Arc::new(Mutex::new(parsed.collect())), handle }
    }

    pub(crate) fn configured(&self) -> BTreeMap<String, String> {
        self.directives.lock().clone()
    }

    /// None takes a logger's own level away; `ROOT` then is silent but for errors.
    pub(crate) fn set(&self, logger: &str, level: Option<&str>) -> Result<(), String> {
        let mut next = self.configured();
        match level {
            Some(level) => {
                if level.parse::<tracing_subscriber::filter::LevelFilter>().is_err() {
                    return Err("must be one of OFF, ERROR, WARN, INFO, DEBUG, TRACE".to_owned());
                }
                next.insert(logger.to_owned(), level.to_ascii_uppercase());
            }
            None => drop(next.remove(logger)),
        }
        let text: Vec<String> = next
            .iter()
            .map(|(logger, level)| if logger == ROOT { level.clone() } else { format!("{logger}={level}") })
            .collect();
        let filter = filter(&text.join(",")).map_err(|error| error.to_string())?;
        self.handle.reload(filter).map_err(|error| error.to_string())?;
        *self.directives.lock() = next;
        Ok(())
    }
}
