//! What is believed and shown in TLS, read once. Invariant: only the authorities of the settings are believed, or, without
//! any there, the system's.

use ::redis::{
    Client, ClientTlsConfig, ConnectionAddr, IntoConnectionInfo as _, RedisResult, TlsCertificates,
};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use crate::config::{Secret, TlsSettings};

/// What every connection has in common: the address of a server without its host and port.
pub(super) fn prepare(settings: &TlsSettings) -> RedisResult<ConnectionAddr> {
    let pem = |text: &Secret| text.expose().as_bytes().to_vec();
    let certificates = TlsCertificates {
        client_tls: (!settings.cert.is_empty())
            .then(|| ClientTlsConfig { client_cert: pem(&settings.cert), client_key: pem(&settings.key) }),
        root_cert: Some(if settings.ca.is_empty() { system_roots() } else { pem(&settings.ca) }),
    };
    let nowhere = ConnectionAddr::TcpTls { host: String::new(), port: 0, insecure: false, tls_params: None };
    let client = Client::build_with_tls(nowhere.into_connection_info()?, certificates)?;
    Ok(client.get_connection_info().addr().clone())
}

/// In PEM. What can't be read, or is no certificate, is left out: among so many there may be one.
fn system_roots() -> Vec<u8> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "certificates of the system that can't be read");
    }
    let sound = |it: &CertificateDer<'_>| RootCertStore::empty().add(it.clone().into_owned()).is_ok();
    found.certs.iter().filter(|it| sound(it)).map(to_pem).collect::<String>().into_bytes()
}

fn to_pem(certificate: &CertificateDer<'_>) -> String {
    let text = BASE64_STANDARD.encode(certificate);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject as _;

    use super::*;

    #[test]
    fn a_certificate_survives_the_way_through_pem() {
        let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert;
        let pem = to_pem(certificate.der()).repeat(2);
        let read: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().unwrap();
        assert_eq!(read, [certificate.der().clone(), certificate.der().clone()]);
    }
}
