//! `server`: where the gateway listens, and with which certificate.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use platform::config::{DoorTlsSettings, TlsVersion};
use serde_json::Value;

use super::tree::{at, flag, list, text, unread};
use crate::routes::suggestion::plain;

/// Java's names of versions that nobody speaks any more.
const OLD: [&str; 5] = ["SSLv2", "SSLv2Hello", "SSLv3", "TLSv1", "TLSv1.1"];

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
    // What is no section is told where all of them are looked at.
    let of = |name: &str| at(tree, &["server", name]).filter(|section| section.is_object());
    if of("ssl").is_some() && of("tls").is_some() {
        problems.push("server.tls: stands beside server.ssl; keep one of them".to_owned());
    }
    let (section, path, key, protocols) = match of("ssl") {
        Some(section) => (section, "server.ssl", "certificate-private-key", "enabled-protocols"),
        None => (of("tls")?, "server.tls", "private-key", "versions"),
    };
    match flag(section, &["enabled"]) {
        Ok(Some(false)) => return None,
        Ok(_) => {}
        Err(problem) => problems.push(format!("{path}.enabled: {problem}")),
    }
    let known = ["enabled", "certificate", key, protocols].map(|name| format!("{path}.{name}"));
    for (unread, hint) in unread(tree, path, &known) {
        match plain(unread.rsplit('.').next().unwrap_or_default()).as_str() {
            "clientauth" if text(section, &["client-auth"]).as_deref() == Some("none") => {}
            "protocol" => {
                warnings.push(format!("{unread} means nothing here: `{protocols}` says what is spoken"));
            }
            "ciphers" => problems.push(format!(
                "{unread}: can't be chosen; leave it out: nothing is spoken but the suites of TLS 1.3, and of TLS 1.2 \
                 those of ECDHE with AES-GCM or ChaCha20-Poly1305"
            )),
            _ => problems.push(format!("{unread}: can't be done, and without it less would be secured{hint}")),
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
    let versions = versions(section, path, protocols, problems, warnings);
    Some(DoorTlsSettings { certificate: certificate?, private_key: private_key?, versions })
}

/// Those that are named; both where the setting is not there.
fn versions(
    section: &Value,
    path: &str,
    name: &str,
    problems: &mut Vec<String>,
    warnings: &mut Vec<String>,
) -> Vec<TlsVersion> {
    if at(section, &[name]).is_none() {
        return TlsVersion::all();
    }
    let mut versions = Vec::new();
    for named in list(section, &[name]) {
        match TlsVersion::named(&named) {
            Some(version) => versions.push(version),
            None if OLD.iter().any(|old| old.eq_ignore_ascii_case(&named)) => {
                warnings.push(format!("{path}.{name}: {named} is never spoken"));
            }
            None => {
                problems.push(format!("{path}.{name}: `{named}` is no version of TLS that is known here"));
            }
        }
    }
    if versions.is_empty() {
        problems.push(format!("{path}.{name}: must name TLSv1.2, TLSv1.3 or both; nothing else is spoken"));
    }
    versions
}
