//! `server`: where the gateway listens, and with which certificate.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use platform::config::DoorTlsSettings;
use serde_json::Value;

use super::tree::{at, flag, text, unread};
use crate::routes::suggestion::plain;

/// Cannot be chosen here, and are no weaker than what a file may ask for: TLS 1.2 and 1.3 with the usual suites.
const NOT_CHOSEN: [&str; 3] = ["ciphers", "enabled-protocols", "protocol"];

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Door {
    pub address: Option<IpAddr>,
    pub port: Option<u16>,
    pub tls: Option<DoorTlsSettings>,
}

pub(super) fn read(tree: &Value, problems: &mut Vec<String>, warnings: &mut Vec<String>) -> Door {
    Door {
        address: parsed(tree, "address", "IP address", problems),
        port: parsed(tree, "port", "port, 0 to 65535", problems),
        tls: tls(tree, problems, warnings),
    }
}

fn parsed<T: FromStr>(tree: &Value, name: &str, what: &str, problems: &mut Vec<String>) -> Option<T> {
    let text = text(tree, &["server", name])?;
    let parsed = text.parse().ok();
    if parsed.is_none() {
        problems.push(format!("server.{name}: `{text}` is no {what}"));
    }
    parsed
}

/// Spring's `server.ssl`, or `server.tls` of our own form. Whoever asks for TLS gets it or no gateway.
fn tls(tree: &Value, problems: &mut Vec<String>, warnings: &mut Vec<String>) -> Option<DoorTlsSettings> {
    let own = at(tree, &["server", "tls"]).filter(|section| section.is_object());
    let (section, path, key) = match at(tree, &["server", "ssl"]).filter(|section| !section.is_null()) {
        Some(section) => (section, "server.ssl", "certificate-private-key"),
        None => (own?, "server.tls", "private-key"),
    };
    match flag(section, &["enabled"]) {
        Ok(Some(false)) => return None,
        Ok(_) => {}
        Err(problem) => problems.push(format!("{path}.enabled: {problem}")),
    }
    let known = ["enabled", "certificate", key].map(|name| format!("{path}.{name}"));
    for (unread, hint) in unread(tree, path, &known) {
        let name = plain(unread.rsplit('.').next().unwrap_or_default());
        if name == "clientauth" && text(section, &["client-auth"]).as_deref() == Some("none") {
            continue;
        }
        if NOT_CHOSEN.iter().any(|known| plain(known) == name) {
            warnings.push(format!("{unread} means nothing here: it is TLS 1.2 and 1.3"));
        } else {
            problems.push(format!("{unread}: can't be done, and without it less would be secured{hint}"));
        }
    }
    let mut file = |name: &str| match text(section, &[name]) {
        None => {
            problems.push(format!("{path}.{name}: must name a file in PEM; without it there is no TLS"));
            None
        }
        Some(text) if text.starts_with("classpath:") || text.starts_with("-----BEGIN") => {
            problems.push(format!("{path}.{name}: must name a file in PEM, by its path"));
            None
        }
        Some(text) => {
            let path = text.strip_prefix("file:").unwrap_or(&text);
            Some(PathBuf::from(path.strip_prefix("//").unwrap_or(path)))
        }
    };
    let (certificate, private_key) = (file("certificate"), file(key));
    Some(DoorTlsSettings { certificate: certificate?, private_key: private_key? })
}
