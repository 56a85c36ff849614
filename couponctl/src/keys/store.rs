//! The file: a private JWK Set (RFC 7517) of Ed25519 keys (RFC 8037), in which each key has two members of ours, `status`
//! and `since`. Invariants: only the owner may read it; it is replaced in one step, so a reader sees one set or the
//! other; members that we don't know stay.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use aws_lc_rs::digest;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::terminal;

const MODE: u32 = 0o600;

#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Store {
    pub(crate) keys: Vec<Key>,
}

#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Key {
    kty: String,
    crv: String,
    pub(crate) kid: String,
    x: String,
    d: String,
    pub(crate) status: Status,
    /// When it came to its status; RFC 3339.
    pub(crate) since: String,
    #[serde(flatten)]
    more: Map<String, Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// Signs every token that is made.
    Signing,
    /// Published, so that every verifier knows it when it begins to sign.
    Next,
    /// Published, because tokens that it signed may be in use.
    Previous,
}

impl Status {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Signing => "signing",
            Self::Next => "next",
            Self::Previous => "previous",
        }
    }
}

impl Key {
    /// A key that nobody has had, named by the first 16 hex digits of its public half's SHA-256.
    pub(crate) fn make(status: Status, now_ms: u64) -> Result<Self> {
        let mut seed = [0; 32];
        aws_lc_rs::rand::fill(&mut seed).map_err(|_| anyhow!("no randomness for a key"))?;
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| anyhow!("no key could be made"))?;
        Ok(Self {
            kty: "OKP".to_owned(),
            crv: "Ed25519".to_owned(),
            kid: kid(&pair),
            x: URL_SAFE_NO_PAD.encode(pair.public_key().as_ref()),
            d: URL_SAFE_NO_PAD.encode(seed),
            status,
            since: terminal::time(now_ms),
            more: Map::new(),
        })
    }

    /// The same key, of another status from now on.
    pub(crate) fn turned(&self, status: Status, now_ms: u64) -> Self {
        Self { status, since: terminal::time(now_ms), ..self.clone() }
    }

    pub(crate) fn pair(&self) -> Result<Ed25519KeyPair> {
        // No cause is passed on from here: it could quote the key.
        let wrong = || anyhow!("the key {:?} is no Ed25519 key pair", self.kid);
        if (self.kty.as_str(), self.crv.as_str()) != ("OKP", "Ed25519") {
            return Err(wrong());
        }
        let seed = URL_SAFE_NO_PAD.decode(&self.d).map_err(|_| wrong())?;
        let public = URL_SAFE_NO_PAD.decode(&self.x).map_err(|_| wrong())?;
        if seed.len() != 32 {
            return Err(wrong());
        }
        Ed25519KeyPair::from_seed_and_public_key(&seed, &public).map_err(|_| wrong())
    }
}

pub(crate) fn kid(pair: &Ed25519KeyPair) -> String {
    hex::encode(&digest::digest(&digest::SHA256, pair.public_key().as_ref()).as_ref()[..8])
}

impl Store {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the key store {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is no key store", path.display()))
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        // Serde's own words could quote a key.
        let store: Self = serde_json::from_str(text).map_err(|error| {
            anyhow!("it is no JWK Set (line {}, column {})", error.line(), error.column())
        })?;
        store.signing()?;
        for key in &store.keys {
            key.pair()?;
        }
        Ok(store)
    }

    /// The key that signs; exactly one does.
    pub(crate) fn signing(&self) -> Result<&Key> {
        let mut signing = self.keys.iter().filter(|key| key.status == Status::Signing);
        match (signing.next(), signing.next()) {
            (Some(key), None) => Ok(key),
            _ => bail!("exactly one key must have the status signing"),
        }
    }

    /// Writes it where nothing is.
    pub(crate) fn create(&self, path: &Path) -> Result<()> {
        let temporary = self.write_beside(path)?;
        // A rename would go over a store that somebody else has made meanwhile; a link does not.
        let linked = fs::hard_link(&temporary, path);
        let removed = fs::remove_file(&temporary);
        linked.with_context(|| {
            format!("cannot make {}; a store that is there is rotated, not made anew", path.display())
        })?;
        Ok(removed?)
    }

    /// Puts it in the place of the one that is there. Two who rotate at the same moment let the same key sign; the next
    /// key is that of the later one.
    pub(crate) fn replace(&self, path: &Path) -> Result<()> {
        let temporary = self.write_beside(path)?;
        fs::rename(&temporary, path).with_context(|| format!("cannot replace {}", path.display()))
    }

    fn write_beside(&self, path: &Path) -> Result<PathBuf> {
        let mut name = path.file_name().context("the key store's path names no file")?.to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let temporary = path.with_file_name(name);
        // What a killed run left behind, perhaps with another mode.
        let _ = fs::remove_file(&temporary);
        let write = || -> Result<()> {
            let mut file = File::options().write(true).create_new(true).mode(MODE).open(&temporary)?;
            file.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
            file.write_all(b"\n")?;
            // Before it takes the place of the old one: an empty file after a power cut would be the end of all tokens.
            Ok(file.sync_all()?)
        };
        write().with_context(|| format!("cannot write {}", temporary.display()))?;
        Ok(temporary)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn store() -> Store {
        Store { keys: vec![Key::make(Status::Signing, 0).unwrap(), Key::make(Status::Next, 0).unwrap()] }
    }

    #[test]
    fn what_was_written_is_read_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        let made = store();
        made.create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Store::open(&path).unwrap().signing().unwrap().kid, made.keys[0].kid);
        let error = store().create(&path).unwrap_err();
        assert!(format!("{error:#}").contains("rotated, not made anew"), "{error:#}");
        assert_eq!(Store::open(&path).unwrap().signing().unwrap().kid, made.keys[0].kid, "it was left alone");

        let other = store();
        other.replace(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Store::open(&path).unwrap().signing().unwrap().kid, other.keys[0].kid);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn members_of_others_stay() {
        let mut text = serde_json::to_value(store()).unwrap();
        text["keys"][0]["use"] = "sig".into();
        let again = serde_json::to_value(Store::parse(&text.to_string()).unwrap()).unwrap();
        assert_eq!(again, text);
    }

    #[test]
    fn what_is_no_store_is_refused_without_quoting_it() {
        let changed = |name: &str| {
            let mut text = serde_json::to_value(store()).unwrap();
            text["keys"][0][name] = "hunter2".into();
            text.to_string()
        };
        let none = r#"{"keys": []}"#.to_owned();
        let cut = r#"{"keys": [{"d": "hunter2""#.to_owned();
        for text in
            [changed("d"), changed("x"), changed("kty"), changed("status"), none, cut, "hunter2".to_owned()]
        {
            let Err(error) = Store::parse(&text) else { panic!("{text} was taken") };
            assert!(!format!("{error:#}").contains("hunter2"), "{error:#}");
        }
    }
}
