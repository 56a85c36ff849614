//! The secrets of a folder, made once and kept with its data. Only the owner may read them.

use std::fs;
use std::io::Read as _;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::state::{Folder, write_atomically};

/// RFC 8410: everything of a PKCS#8 Ed25519 private key before its 32 bytes.
const ED25519_PKCS8: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

pub(crate) const SIGNING_KEY: &str = "jwt-ed25519.pem";
pub(crate) const IDENTITY: &str = "identity";
pub(crate) const ADMIN_TOKEN: &str = "admin-token";
pub(crate) const MAC: &str = "mac";
pub(crate) const MYSQL: &str = "mysql";
pub(crate) const REDIS: &str = "redis";
pub(crate) const ADMIN_PASSWORD: &str = "admin-password";

/// Makes what is missing.
pub(crate) fn create(folder: &Folder) -> Result<()> {
    for name in [IDENTITY, ADMIN_TOKEN, MAC, MYSQL, REDIS, ADMIN_PASSWORD] {
        if !folder.secret(name).exists() {
            let bytes = random::<33>()?;
            let length = if name == ADMIN_PASSWORD { 16 } else { 44 };
            let text = URL_SAFE_NO_PAD.encode(bytes);
            write_atomically(&folder.secret(name), &text.as_bytes()[..length])?;
        }
    }
    if !folder.secret(SIGNING_KEY).exists() {
        let mut key = ED25519_PKCS8.to_vec();
        key.extend(random::<32>()?);
        let pem =
            format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(key));
        write_atomically(&folder.secret(SIGNING_KEY), pem.as_bytes())?;
    }
    Ok(())
}

pub(crate) fn read(folder: &Folder, name: &str) -> Result<String> {
    let path = folder.secret(name);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(text.trim().to_owned())
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_once() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::new(temporary.path()).unwrap();
        folder.create().unwrap();
        create(&folder).unwrap();
        let before: Vec<String> =
            [SIGNING_KEY, MYSQL].iter().map(|name| read(&folder, name).unwrap()).collect();
        create(&folder).unwrap();
        let after: Vec<String> =
            [SIGNING_KEY, MYSQL].iter().map(|name| read(&folder, name).unwrap()).collect();
        assert_eq!(before, after);
        assert!(before[0].starts_with("-----BEGIN PRIVATE KEY-----"));
        assert_eq!(before[1].len(), 44);
    }
}
