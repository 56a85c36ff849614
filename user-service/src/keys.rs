//! The Ed25519 keys behind the access tokens. Invariant: a token is signed only with the current key, and every key
//! that is configured is published, so a key is known to verifiers before its first use.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::EncodingKey;
use platform::config::Secret;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use crate::config::TokenSettings;

/// A key that can't be used. Says nothing of its content.
#[derive(Debug, thiserror::Error)]
#[error(
    "is not the PKCS#8 PEM of an Ed25519 private key (make one with `openssl genpkey -algorithm ED25519`)"
)]
pub struct KeyError;

/// A private key and the name by which tokens refer to it.
#[derive(Clone, Debug)]
pub struct SigningKey {
    pub kid: String,
    pub encoding: EncodingKey,
    public: [u8; 32],
}

impl SigningKey {
    pub fn from_pem(pem: &Secret) -> Result<Self, KeyError> {
        let encoding = EncodingKey::from_ed_pem(pem.expose().as_bytes()).map_err(|_| KeyError)?;
        let pair = Ed25519KeyPair::from_pkcs8(encoding.as_bytes()).map_err(|_| KeyError)?;
        let public: [u8; 32] = pair.public_key().as_ref().try_into().map_err(|_| KeyError)?;
        Ok(Self { kid: kid(&public), encoding, public })
    }

    fn jwk(&self) -> Jwk {
        Jwk {
            kty: "OKP".to_owned(),
            crv: "Ed25519".to_owned(),
            alg: "EdDSA".to_owned(),
            usage: "sig".to_owned(),
            kid: self.kid.clone(),
            x: URL_SAFE_NO_PAD.encode(self.public),
        }
    }
}

/// The name of a public key: the first 16 hex digits of its SHA-256, so nobody has to invent or configure one.
fn kid(public: &[u8; 32]) -> String {
    hex::encode(&Sha256::digest(public)[..8])
}

/// The key that signs, and all that are published.
#[derive(Clone, Debug)]
pub struct Keys {
    pub current: SigningKey,
    published: JwkSet,
}

impl Keys {
    /// Both keys must have been validated with the settings; an error here is a second line.
    pub fn new(settings: &TokenSettings) -> Result<Self, KeyError> {
        let current = SigningKey::from_pem(&settings.signing_key)?;
        let mut keys = vec![current.jwk()];
        if !settings.next_key.is_empty() {
            let next = SigningKey::from_pem(&settings.next_key)?;
            if next.kid != current.kid {
                keys.push(next.jwk());
            }
        }
        Ok(Self { current, published: JwkSet { keys } })
    }

    #[must_use]
    pub fn published(&self) -> &JwkSet {
        &self.published
    }
}

/// A JSON Web Key Set (RFC 7517).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct JwkSet {
    pub keys: Vec<Jwk>,
}

/// A public Ed25519 key (RFC 8037).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Jwk {
    #[schema(example = "OKP")]
    pub kty: String,
    #[schema(example = "Ed25519")]
    pub crv: String,
    #[schema(example = "EdDSA")]
    pub alg: String,
    #[serde(rename = "use")]
    #[schema(example = "sig")]
    pub usage: String,
    /// The key's name in a token's header.
    #[schema(example = "21fe31dfa154a261")]
    pub kid: String,
    /// The public key, base64url.
    #[schema(example = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")]
    pub x: String,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The key pair of RFC 8037, appendix A, as OpenSSL writes it (PKCS#8 v1, without the public half).
    pub(crate) const RFC_8037_KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
        -----END PRIVATE KEY-----\n";
    pub(crate) const OTHER_KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIPOOaJQFHzvZuWi6YwHwR4boGmNh/2A9EjkgLPYuTR84\n\
        -----END PRIVATE KEY-----\n";

    fn settings(signing_key: &str, next_key: &str) -> TokenSettings {
        TokenSettings {
            signing_key: Secret::from(signing_key),
            next_key: Secret::from(next_key),
            ..TokenSettings::default()
        }
    }

    #[test]
    fn the_published_key_is_that_of_the_rfc() {
        let keys = Keys::new(&settings(RFC_8037_KEY, "")).unwrap();
        let [key] = keys.published().keys.as_slice() else { panic!("one key") };
        assert_eq!(key.x, "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        assert_eq!(key.kid, "21fe31dfa154a261");
        assert_eq!(key.kid, keys.current.kid);
    }

    #[test]
    fn the_next_key_is_published_and_not_used() {
        let keys = Keys::new(&settings(RFC_8037_KEY, OTHER_KEY)).unwrap();
        let kids: Vec<_> = keys.published().keys.iter().map(|key| key.kid.as_str()).collect();
        assert_eq!(kids.len(), 2);
        assert_eq!(kids[0], keys.current.kid);
        assert_eq!(Keys::new(&settings(RFC_8037_KEY, RFC_8037_KEY)).unwrap().published().keys.len(), 1);
    }

    #[test]
    fn a_key_that_is_none_is_refused_without_showing_it() {
        for text in ["", "c2VjcmV0", "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"] {
            let error = SigningKey::from_pem(&Secret::from(text)).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("c2VjcmV0"));
        }
        let key = SigningKey::from_pem(&Secret::from(RFC_8037_KEY)).unwrap();
        assert!(!format!("{key:?}").contains("J1hsZ3v"));
    }
}
