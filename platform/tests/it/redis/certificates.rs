//! An authority and the certificate of a server, made for one test.

use std::path::Path;

use platform::config::{Secret, TlsSettings};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};

/// The servers' certificate serves the clients too.
pub(super) struct Certificates {
    ca: String,
    cert: String,
    key: String,
}

impl Certificates {
    pub(super) fn new() -> Self {
        Self::until_year(4096)
    }

    pub(super) fn expired() -> Self {
        Self::until_year(2001)
    }

    fn until_year(year: i32) -> Self {
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(DnType::CommonName, platform::testing::unique_name("authority"));
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let mut server = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        server.distinguished_name.push(DnType::CommonName, "a server of this test");
        (server.not_before, server.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(year, 1, 1));
        let key = KeyPair::generate().unwrap();
        let cert = server.signed_by(&key, &authority).unwrap();
        Self { ca: authority.pem(), cert: cert.pem(), key: key.serialize_pem() }
    }

    /// As files for a server: certificate, key, authority.
    pub(super) fn write(&self, folder: &Path) -> (String, String, String) {
        let write = |name: &str, text: &str| {
            let file = folder.join(name);
            std::fs::write(&file, text).unwrap();
            file.display().to_string()
        };
        (write("cert.pem", &self.cert), write("key.pem", &self.key), write("ca.pem", &self.ca))
    }

    pub(super) fn settings(&self) -> TlsSettings {
        TlsSettings {
            enabled: true,
            ca: Secret::new(self.ca.as_str()),
            cert: Secret::new(self.cert.as_str()),
            key: Secret::new(self.key.as_str()),
        }
    }
}
