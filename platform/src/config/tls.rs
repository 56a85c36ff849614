//! TLS towards a server: whom to believe, and who we are.

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};

use super::{Problems, Secret};

/// Everything is PEM. Certificates are no secrets, but pages of text where the settings are shown: they are masked too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct TlsSettings {
    pub enabled: bool,
    /// The authorities that are believed, and no others; empty: the system's.
    pub ca: Secret,
    /// Our own certificate with its chain, for servers that ask for one.
    pub cert: Secret,
    pub key: Secret,
}

impl TlsSettings {
    /// `section` is where these settings are, as in `redis.tls`.
    pub fn validate(&self, section: &str, problems: &mut Problems) {
        for (name, certificates) in [("ca", &self.ca), ("cert", &self.cert)] {
            if !certificates.is_empty() && !holds_certificates(certificates) {
                problems.add(&format!("{section}.{name}-file"), "must hold X.509 certificates in PEM");
            }
        }
        if !self.key.is_empty() && PrivateKeyDer::from_pem_slice(self.key.expose().as_bytes()).is_err() {
            problems.add(&format!("{section}.key-file"), "must hold a private key in PEM");
        }
        if self.cert.is_empty() != self.key.is_empty() {
            let missing = if self.cert.is_empty() { "cert" } else { "key" };
            problems.add(
                &format!("{section}.{missing}-file"),
                format_args!("is missing: {section}.cert-file and {section}.key-file go together"),
            );
        }
    }
}

fn holds_certificates(pem: &Secret) -> bool {
    let mut certificates = CertificateDer::pem_slice_iter(pem.expose().as_bytes()).peekable();
    certificates.peek().is_some()
        && certificates.all(|it| it.is_ok_and(|it| RootCertStore::empty().add(it).is_ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_pem_is_named() {
        let problems_of = |settings: TlsSettings| {
            let mut problems = Problems::default();
            settings.validate("redis.tls", &mut problems);
            problems.iter().map(str::to_owned).collect::<Vec<_>>()
        };
        assert!(problems_of(TlsSettings { enabled: true, ..TlsSettings::default() }).is_empty());
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n";
        let settings = TlsSettings { ca: "hunter2".into(), cert: broken.into(), ..TlsSettings::default() };
        assert_eq!(
            problems_of(settings),
            [
                "redis.tls.ca-file: must hold X.509 certificates in PEM",
                "redis.tls.cert-file: must hold X.509 certificates in PEM",
                "redis.tls.key-file: is missing: redis.tls.cert-file and redis.tls.key-file go together",
            ]
        );
        let settings = TlsSettings { key: "hunter2".into(), ..TlsSettings::default() };
        assert_eq!(
            problems_of(settings),
            [
                "redis.tls.key-file: must hold a private key in PEM",
                "redis.tls.cert-file: is missing: redis.tls.cert-file and redis.tls.key-file go together",
            ]
        );
    }
}
