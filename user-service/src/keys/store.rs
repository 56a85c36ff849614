//! The file that holds the keys: a private JWK Set (RFC 7517) of Ed25519 keys (RFC 8037) with two members of ours,
//! `status` and `since`, as `couponctl keys` writes it. Invariant: a set is taken as a whole or not at all, and an error
//! says nothing of a key but its name.

use std::fs::File;
use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use platform::config::Secret;
use serde::Deserialize;

use super::{JwkSet, KeySet, SigningKey};

/// A key takes about 250 bytes, and few are kept; what is longer is some other file.
const MAX_BYTES: u64 = 64 * 1024;
/// Of a key's name, which goes into every token.
const MAX_KID_BYTES: usize = 64;

/// Why there is no set.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{path} can't be read: {cause}")]
    Unreadable { path: String, cause: std::io::Error },
    #[error("{0} is larger than {MAX_BYTES} bytes; it is no key store")]
    TooLarge(String),
    /// Serde's own words could quote a key.
    #[error(
        "is no private JWK Set of Ed25519 keys with status and since (line {line}, column {column}); make one by \
         `couponctl keys new --store PATH`"
    )]
    Malformed { line: usize, column: usize },
    #[error("key {0:?}: {1}")]
    Key(String, &'static str),
    #[error("has {0} keys of status signing; exactly one must sign")]
    Signing(usize),
    #[error("has {0} keys of status next; one at most can be next")]
    Next(usize),
}

#[derive(Deserialize)]
struct Store {
    keys: Vec<Entry>,
}

/// Members that we don't know are left alone, as RFC 7517 has it.
#[derive(Deserialize)]
struct Entry {
    kty: String,
    crv: String,
    kid: String,
    /// The public key, base64url.
    x: String,
    /// The private key, base64url.
    d: Secret,
    status: Status,
    /// When it came to its status; RFC 3339.
    since: String,
}

/// In the order in which they are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Signing,
    /// Published before its first use.
    Next,
    /// Published while tokens that it signed may be in use.
    Previous,
}

pub(super) fn read(path: &str) -> Result<Vec<u8>, StoreError> {
    let mut content = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut content))
        .map_err(|cause| StoreError::Unreadable { path: path.to_owned(), cause })?;
    if content.len() as u64 > MAX_BYTES {
        return Err(StoreError::TooLarge(path.to_owned()));
    }
    Ok(content)
}

pub(super) fn parse(content: &[u8]) -> Result<KeySet, StoreError> {
    let store: Store = serde_json::from_slice(content)
        .map_err(|error| StoreError::Malformed { line: error.line(), column: error.column() })?;
    let mut keys = Vec::with_capacity(store.keys.len());
    for entry in store.keys {
        let (status, since_ms, key) = entry.check()?;
        if keys.iter().any(|(_, _, other): &(Status, u64, SigningKey)| other.kid == key.kid) {
            return Err(StoreError::Key(key.kid, "is there twice"));
        }
        keys.push((status, since_ms, key));
    }
    let count = |status| keys.iter().filter(|(of, ..)| *of == status).count();
    if count(Status::Signing) != 1 {
        return Err(StoreError::Signing(count(Status::Signing)));
    }
    if count(Status::Next) > 1 {
        return Err(StoreError::Next(count(Status::Next)));
    }
    keys.sort_by_key(|(status, ..)| *status);
    let published = JwkSet { keys: keys.iter().map(|(_, _, key)| key.jwk()).collect() };
    // There is one, and it sorts first.
    let (_, since_ms, signing) = keys.swap_remove(0);
    Ok(KeySet { signing, since_ms, published })
}

impl Entry {
    fn check(self) -> Result<(Status, u64, SigningKey), StoreError> {
        let Self { kty, crv, kid, x, d, status, since } = self;
        let wrong = |what| Err(StoreError::Key(kid.chars().take(MAX_KID_BYTES).collect(), what));
        if kid.is_empty() || kid.len() > MAX_KID_BYTES || !kid.bytes().all(|byte| byte.is_ascii_graphic()) {
            return wrong("its kid must have 1 to 64 characters of printable ASCII");
        }
        if (kty.as_str(), crv.as_str()) != ("OKP", "Ed25519") {
            return wrong("must have kty OKP and crv Ed25519");
        }
        let Some(since_ms) = platform::clock::parse_rfc3339(&since) else {
            return wrong("its since must be a time such as 2026-11-21T10:00:00Z");
        };
        let bytes =
            |text: &str| URL_SAFE_NO_PAD.decode(text).ok().and_then(|it| <[u8; 32]>::try_from(it).ok());
        let (Some(public), Some(seed)) = (bytes(&x), bytes(d.expose())) else {
            return wrong("its x and d must be 32 bytes each in base64url without padding");
        };
        match SigningKey::new(kid.clone(), &seed, public) {
            Some(key) => Ok((status, since_ms, key)),
            None => wrong("its x is not the public key of its d"),
        }
    }
}
