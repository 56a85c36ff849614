//! Access tokens for any number of users, signed with the run's own key, and forged ones.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::stack::Stack;

/// 2025-01-01T00:00:00Z in unix milliseconds: where ids begin.
const EPOCH_MS: u64 = 1_735_689_600_000;

/// Signs tokens.
#[derive(Clone, Debug)]
pub struct Minter {
    key: EncodingKey,
    kid: String,
    public: Vec<u8>,
    issuer: String,
    audience: String,
}

impl Minter {
    /// With the key of the run that signs.
    ///
    /// # Panics
    /// When there is none.
    pub fn of(stack: &Stack) -> Self {
        let store: Value = serde_json::from_str(&Stack::secret(&stack.key_store))
            .unwrap_or_else(|_| panic!("the run's key store is no JSON"));
        let keys = store["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
        let signing = keys.iter().find(|key| key["status"] == "signing");
        let seed = signing.and_then(|key| URL_SAFE_NO_PAD.decode(key["d"].as_str()?).ok());
        let pair = seed.and_then(|seed| Ed25519KeyPair::from_seed_unchecked(&seed).ok());
        let document = pair.and_then(|pair| pair.to_pkcs8v1().ok());
        let document = document.unwrap_or_else(|| panic!("no Ed25519 key signs in the run's key store"));
        Self::new(EncodingKey::from_ed_der(document.as_ref()), stack)
    }

    /// With a key that nobody knows.
    ///
    /// # Panics
    /// Without randomness.
    pub fn stranger(stack: &Stack) -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new())
            .unwrap_or_else(|_| panic!("no key could be made"));
        Self::new(EncodingKey::from_ed_der(document.as_ref()), stack)
    }

    fn new(key: EncodingKey, stack: &Stack) -> Self {
        let pair =
            Ed25519KeyPair::from_pkcs8(key.as_bytes()).unwrap_or_else(|_| panic!("no PKCS#8 of Ed25519"));
        let public = pair.public_key().as_ref().to_vec();
        let kid = hex::encode(&Sha256::digest(&public)[..8]);
        Self { key, kid, public, issuer: stack.jwt.issuer.clone(), audience: stack.jwt.audience.clone() }
    }

    /// The claims of a good token for `user`.
    pub fn claims(&self, user: u64) -> Value {
        let now = unix_ms() / 1000;
        json!({
            "iss": self.issuer, "aud": self.audience, "sub": user.to_string(), "iat": now, "exp": now + 900,
            "jti": Uuid::new_v4().simple().to_string(), "sid": Uuid::new_v4().simple().to_string(), "roles": ["USER"],
        })
    }

    pub fn token(&self, user: u64) -> String {
        self.sign(&self.claims(user))
    }

    /// # Panics
    /// When signing fails.
    pub fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, claims, &self.key).unwrap_or_else(|error| panic!("not signed: {error}"))
    }

    /// The same claims under the name of another key.
    pub fn sign_as(&self, kid: &str, claims: &Value) -> String {
        self.sign_under(&json!({"alg": "EdDSA", "typ": "JWT", "kid": kid}), claims)
    }

    /// The same claims under any header, by the signature of this key.
    ///
    /// # Panics
    /// When signing fails.
    pub fn sign_under(&self, header: &Value, claims: &Value) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(header), encode(claims));
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &self.key, Algorithm::EdDSA);
        format!("{signed}.{}", signature.unwrap_or_else(|error| panic!("not signed: {error}")))
    }

    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// As a token might bring it along (RFC 7515, 4.1.3).
    pub fn public_jwk(&self) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "kid": self.kid, "x": URL_SAFE_NO_PAD.encode(&self.public)})
    }

    /// Tokens "signed" by HS256 with the public key as the secret, in every form in which one might have it.
    ///
    /// # Panics
    /// When signing fails.
    pub fn confused(&self, claims: &Value) -> Vec<String> {
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::HS256) };
        // SubjectPublicKeyInfo of Ed25519 (RFC 8410): a fixed prefix and the key.
        let mut spki = vec![0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        spki.extend_from_slice(&self.public);
        let pem =
            format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(&spki));
        [self.public.clone(), URL_SAFE_NO_PAD.encode(&self.public).into_bytes(), spki, pem.into_bytes()]
            .iter()
            .map(|secret| {
                jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(secret))
                    .unwrap_or_else(|error| panic!("not signed: {error}"))
            })
            .collect()
    }

    /// Tokens that claim to need no signature.
    pub fn unsigned(&self, claims: &Value) -> Vec<String> {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        ["none", "None", "NONE"]
            .iter()
            .map(|alg| {
                format!("{}.{}.", encode(&json!({"alg": alg, "typ": "JWT", "kid": self.kid})), encode(claims))
            })
            .collect()
    }
}

/// `count` ids that no user has had: made as the services make them.
pub fn user_ids(count: usize) -> Vec<u64> {
    // Each call takes milliseconds of its own, so that parallel tests share none.
    static TAKEN: AtomicU64 = AtomicU64::new(0);
    let milliseconds = (count as u64).div_ceil(4096);
    let first = unix_ms() - EPOCH_MS + TAKEN.fetch_add(milliseconds, Ordering::Relaxed);
    (0..count as u64).map(|n| (first << 12) + n).collect()
}

/// # Panics
/// When the clock is before 1970.
#[expect(clippy::disallowed_methods, reason = "tests of a running stack live in its time")]
pub fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
