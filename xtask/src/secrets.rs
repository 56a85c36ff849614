//! The secrets of a folder, made once and kept with its data. Only the owner may read them.

use std::fs;
use std::io::Read as _;
use std::process::Command;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::build::Binaries;
use crate::interrupt::Interrupt;
use crate::state::{Folder, write_atomically};

/// The keys that sign tokens, as `couponctl keys` keeps them.
pub(crate) const KEY_STORE: &str = "token-keys.json";
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
    Ok(())
}

/// Makes the key store, if it is missing. It takes more than randomness, so the operator's tool makes it.
pub(crate) fn create_key_store(folder: &Folder, binaries: &Binaries, interrupt: &Interrupt) -> Result<()> {
    let store = folder.secret(KEY_STORE);
    if !store.exists() {
        let mut command = Command::new(binaries.path("couponctl")?);
        command.args(["keys", "new", "--store"]).arg(store);
        interrupt.run(&command).context("make the key store")?;
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
        let before: Vec<String> = [REDIS, MYSQL].iter().map(|name| read(&folder, name).unwrap()).collect();
        create(&folder).unwrap();
        let after: Vec<String> = [REDIS, MYSQL].iter().map(|name| read(&folder, name).unwrap()).collect();
        assert_eq!(before, after);
        assert_ne!(before[0], before[1]);
        assert_eq!(before[1].len(), 44);
    }
}
