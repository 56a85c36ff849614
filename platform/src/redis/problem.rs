//! What is wrong with a Redis or a Sentinel, in an operator's words. Invariant: no password is in them.

use std::error::Error;
use std::io;
use std::sync::Arc;

use ::redis::{ErrorKind, RedisError, ServerErrorKind};
use rustls::{AlertDescription, CertificateError};

use super::link::{OPEN_TIMEOUT, Peer};
use crate::config::TlsSettings;

/// Why nothing came of a connection, as in "Redis 10.0.0.1:6379 is still loading its data".
pub(super) fn problem(peer: Peer, address: &str, error: &RedisError, tls: &TlsSettings) -> String {
    format!("{peer:?} {address} {}", reason(peer, error, tls))
}

fn reason(peer: Peer, error: &RedisError, tls: &TlsSettings) -> String {
    let prefix = if peer == Peer::Sentinel { "sentinel-" } else { "" };
    if let Some(error) = tls_error(error) {
        return tls_reason(error, tls);
    }
    match error.kind() {
        ErrorKind::MasterNameNotFoundBySentinel => {
            return "watches no master of the name in redis.master".to_owned();
        }
        ErrorKind::Server(ServerErrorKind::BusyLoading) => return "is still loading its data".to_owned(),
        ErrorKind::Server(ServerErrorKind::ReadOnly) => return "is no master".to_owned(),
        ErrorKind::Server(ServerErrorKind::NoPerm) => {
            let detail = error.detail().unwrap_or_default();
            return format!("lets the user of redis.{prefix}username do too little: {detail}");
        }
        _ => {}
    }
    match error.code() {
        Some("WRONGPASS") => {
            format!("refuses user name or password: see redis.{prefix}username and redis.{prefix}password")
        }
        Some("NOAUTH") => format!("wants a password: see redis.{prefix}password"),
        _ if error.is_timeout() => {
            let how = if tls.enabled { " in TLS (redis.tls.enabled)" } else { "" };
            format!("does not answer{how} within {} s", OPEN_TIMEOUT.as_secs())
        }
        _ if error.is_connection_refusal() => "refuses connections".to_owned(),
        _ if error.is_connection_dropped() && !tls.enabled => {
            format!("has closed the connection, perhaps because it wants TLS (redis.tls.enabled): {error}")
        }
        _ => format!("does not work: {error}"),
    }
}

/// TLS errors lie deep: in an I/O error in an error of the client.
fn tls_error(error: &RedisError) -> Option<&rustls::Error> {
    let cause = error.source()?.downcast_ref::<Arc<dyn Error + Send + Sync>>()?;
    cause.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref()
}

fn tls_reason(error: &rustls::Error, tls: &TlsSettings) -> String {
    use AlertDescription as Alert;
    use CertificateError as Certificate;
    use rustls::Error as E;
    match error {
        E::InvalidCertificate(Certificate::UnknownIssuer) if tls.ca.is_empty() => {
            "has a certificate of an authority that this system does not know: see redis.tls.ca-file"
                .to_owned()
        }
        E::InvalidCertificate(Certificate::UnknownIssuer) => {
            "has a certificate of an authority that is not in redis.tls.ca-file".to_owned()
        }
        E::InvalidCertificate(Certificate::Expired | Certificate::ExpiredContext { .. }) => {
            "has a certificate that has expired".to_owned()
        }
        E::InvalidCertificate(Certificate::NotValidForName | Certificate::NotValidForNameContext { .. }) => {
            "has a certificate that is for another name or address".to_owned()
        }
        E::InvalidCertificate(other) => format!("has a certificate that is not accepted: {other}"),
        E::AlertReceived(Alert::CertificateRequired) => {
            "wants a certificate: see redis.tls.cert-file and redis.tls.key-file".to_owned()
        }
        E::AlertReceived(alert) if !tls.cert.is_empty() => {
            format!("refuses TLS, perhaps for the certificate in redis.tls.cert-file: {alert:?}")
        }
        other => format!("does not get TLS to work: {other}"),
    }
}
