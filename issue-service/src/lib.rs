//! The issue service: hands a limited number of coupons to the users who ask first.
//!
//! The log decides: a Kafka topic is the ledger, and its order says who has won. Redis is the doorman, the
//! database an index. `ledger` holds the rules, `claim` one request's way through them, `sink` the way into the
//! database.

pub mod app;
pub mod claim;
pub mod config;
mod control;
pub mod counts;
pub mod definition;
pub mod doorman;
pub mod error;
pub mod failpoint;
pub mod http;
pub mod ids;
pub mod ledger;
pub mod log;
#[cfg(test)]
mod model;
pub mod outside;
pub mod reconciler;
pub mod refusal;
pub mod retirement;
pub mod sink;
pub mod store;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    fn read_all(folder: &Path, into: &mut String) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                read_all(&path, into);
            } else {
                into.push_str(&fs::read_to_string(&path).unwrap());
            }
        }
    }

    /// An alert about a metric that nobody has would never fire, and a metric that nobody explains says nothing.
    #[test]
    fn alerts_and_documents_name_the_metrics_that_there_are() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (mut source, mut alerts) = (String::new(), String::new());
        read_all(&here.join("src"), &mut source);
        read_all(&here.join("../compose/config/prometheus"), &mut alerts);
        let document = fs::read_to_string(here.join("../docs/issuance.md")).unwrap();
        let name = |it: &&str| {
            let rest = it.strip_prefix("firstcome_").unwrap_or_default();
            !rest.is_empty() && rest.chars().all(|it| it.is_ascii_lowercase() || it == '_')
        };
        let measured: Vec<&str> = source.split('"').filter(name).collect();
        let alarmed: Vec<&str> =
            alerts.split(|it: char| !(it.is_ascii_lowercase() || it == '_')).filter(name).collect();
        assert!(measured.len() > 10 && alarmed.len() >= 5, "{measured:?}, {alarmed:?}");
        for name in alarmed {
            assert!(measured.contains(&name), "nobody has {name}");
        }
        for name in measured {
            assert!(document.contains(&format!("`{name}")), "{name} is not explained");
        }
    }
}
