//! Where a key set is, and how it is asked for.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jsonwebtoken::Algorithm;
use platform::lifecycle::BoxError;
use serde::Deserialize;
use tokio::time::timeout;

use super::key::{self, Keys};
use crate::discovery::Discovery;
use crate::proxy::Proxy;
use crate::routes::uri::TargetUri;

/// Two keys are some 300 bytes; a dozen with their certificates some 40 KB.
const MAX_BYTES: usize = 128 * 1024;
/// For one question, from the first instance that discovery names to the answer's last byte: milliseconds, unless who is
/// asked hangs.
const LIMIT: Duration = Duration::from_secs(2);
/// OpenID Connect Discovery 1.0, 4.
const METADATA: &str = "/.well-known/openid-configuration";

#[derive(Debug)]
pub struct Source {
    pub place: Place,
    pub accepted: Vec<Algorithm>,
    pub discovery: Arc<Discovery>,
    pub proxy: Arc<Proxy>,
}

#[derive(Debug)]
pub enum Place {
    /// The set itself.
    KeySet(String),
    /// The issuer, whose metadata name the set.
    Issuer(String),
}

impl Source {
    pub async fn fetch(&self) -> Result<Keys, BoxError> {
        let body = match &self.place {
            Place::KeySet(uri) => self.ask(uri).await?,
            Place::Issuer(issuer) => {
                let metadata = self.ask(&format!("{}{METADATA}", issuer.trim_end_matches('/'))).await?;
                self.ask(&key_set_of(issuer, &metadata)?).await?
            }
        };
        let keys = key::parse(&body, &self.accepted)?;
        if keys.is_empty() {
            return Err("no key for the accepted algorithms in the set".into());
        }
        Ok(keys)
    }

    async fn ask(&self, uri: &str) -> Result<Bytes, BoxError> {
        timeout(LIMIT, self.get(uri)).await.map_err(|_| format!("{uri}: no answer in time"))?
    }

    async fn get(&self, uri: &str) -> Result<Bytes, BoxError> {
        let (target, path) = TargetUri::parse(uri)?;
        let balancer = self.discovery.balancer(&target).ok_or("the key set's uri names no service")?;
        let body = self.proxy.get(&balancer, if path.is_empty() { "/" } else { path }, MAX_BYTES).await;
        body.map_err(|error| format!("{uri}: {error}").into())
    }
}

/// Metadata of another issuer say nothing about this one's keys; nor do keys that come by a less secure way than the word
/// of where they are.
fn key_set_of(issuer: &str, metadata: &[u8]) -> Result<String, BoxError> {
    #[derive(Deserialize)]
    struct Metadata {
        issuer: String,
        jwks_uri: String,
    }
    let Metadata { issuer: named, jwks_uri } = serde_json::from_slice(metadata)?;
    if named != issuer {
        return Err(format!("the metadata are of the issuer `{named}`, not of `{issuer}`").into());
    }
    let is_secure = jwks_uri.starts_with("https://");
    if !is_secure && (issuer.starts_with("https://") || !jwks_uri.starts_with("http://")) {
        return Err(format!("`{jwks_uri}` is no place for the keys of `{issuer}`").into());
    }
    Ok(jwks_uri)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_issuers_own_metadata_name_its_keys() {
        let of = |issuer: &str, named: &str, keys: &str| {
            key_set_of(issuer, json!({"issuer": named, "jwks_uri": keys, "x": 1}).to_string().as_bytes()).ok()
        };
        let keys = "https://keys.example/jwks";
        assert_eq!(of("https://a.example", "https://a.example", keys).as_deref(), Some(keys));
        assert_eq!(of("http://a", "http://a", "http://a/jwks").as_deref(), Some("http://a/jwks"));
        assert_eq!(of("https://a.example", "https://b.example", keys), None);
        assert_eq!(of("https://a.example", "https://a.example/", keys), None);
        assert_eq!(of("https://a.example", "https://a.example", "http://a.example/jwks"), None);
        assert_eq!(of("http://a", "http://a", "lb://user-service/jwks"), None);
        assert!(key_set_of("http://a", b"{}").is_err());
    }
}
