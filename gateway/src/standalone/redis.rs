//! `spring.data.redis`: where limits are counted.

use platform::config::{RedisSettings, TlsSettings};
use serde_json::Value;

use super::document::authority;
use super::tree::{at, child, flag, list, text};

const PORT: u16 = 6379;
/// Ways to name a Redis that are not read; without it each gateway would count for itself.
const NOT_READ: [&str; 2] = ["cluster", "url"];

pub(super) fn read(tree: &Value, problems: &mut Vec<String>) -> Option<RedisSettings> {
    let (path, section) = match at(tree, &["spring", "data", "redis"]) {
        Some(section) => ("spring.data.redis", section),
        None => ("spring.redis", at(tree, &["spring", "redis"])?),
    };
    for name in NOT_READ {
        if child(section, name).is_some() {
            problems.push(format!("{path}.{name}: is not read here; give `host` and `port`, or `sentinel`"));
        }
    }
    let (sentinels, master) = (list(section, &["sentinel", "nodes"]), text(section, &["sentinel", "master"]));
    let address = authority(section, path, PORT, problems).filter(|_| sentinels.is_empty());
    if address.is_none() && sentinels.is_empty() {
        return None;
    }
    if master.is_none() && !sentinels.is_empty() {
        problems.push(format!("{path}.sentinel.master: is missing"));
    }
    let word = |path: &[&str]| text(section, path).unwrap_or_default();
    Some(RedisSettings {
        sentinels,
        master: master.unwrap_or_default(),
        address: address.unwrap_or_default(),
        username: word(&["username"]),
        password: word(&["password"]).into(),
        sentinel_username: word(&["sentinel", "username"]),
        sentinel_password: word(&["sentinel", "password"]).into(),
        tls: TlsSettings { enabled: tls(section, path, problems), ..TlsSettings::default() },
    })
}

/// `ssl: true` of before, or `ssl.enabled`.
fn tls(section: &Value, path: &str, problems: &mut Vec<String>) -> bool {
    if at(section, &["ssl", "bundle"]).is_some() {
        problems.push(format!(
            "{path}.ssl.bundle: can't be done; the system's certificate authorities are believed"
        ));
    }
    let inner = if text(section, &["ssl"]).is_some() { &["ssl"][..] } else { &["ssl", "enabled"] };
    flag(section, inner)
        .unwrap_or_else(|problem| {
            problems.push(format!("{path}.ssl: {problem}"));
            None
        })
        .unwrap_or_default()
}
