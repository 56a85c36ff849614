//! Compact HS256 JWTs (RFC 7519) among our own processes. Invariant: what [`Key::open`] gives was sealed with the same
//! secret; a MAC is compared in constant time; a secret of fewer than 32 bytes seals what nobody believes.
//!
//! Opening is written out because it is on the path of every claim, where each user's token is seen once and a cache of
//! verified tokens would only cost: parse, MAC and decode take about a microsecond together.

use std::borrow::Cow;
use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use serde::{Deserialize, Serialize};

use super::MIN_SECRET_BYTES;
use crate::config::IdentitySettings;

/// `{"alg":"HS256","typ":"JWT"}`
const HEADER_SEGMENT: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";
/// Longer than any token that is minted here; what is longer is not looked at.
const MAX_TOKEN_BYTES: usize = 4096;
const MAC_BYTES: usize = 32;

#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
}

#[derive(Clone)]
pub(super) struct Key(Option<Arc<hmac::Key>>);

impl Key {
    pub(super) fn new(settings: &IdentitySettings) -> Self {
        let secret = settings.secret.expose().as_bytes();
        let usable = secret.len() >= MIN_SECRET_BYTES;
        Self(usable.then(|| Arc::new(hmac::Key::new(hmac::HMAC_SHA256, secret))))
    }

    pub(super) fn seal(&self, claims: &impl Serialize) -> HeaderValue {
        let claims = serde_json::to_vec(claims).unwrap_or_default();
        let mut token = String::with_capacity(HEADER_SEGMENT.len() + claims.len() * 4 / 3 + 50);
        token.push_str(HEADER_SEGMENT);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(&claims, &mut token);
        if let Some(key) = &self.0 {
            let mac = hmac::sign(key, token.as_bytes());
            token.push('.');
            URL_SAFE_NO_PAD.encode_string(mac.as_ref(), &mut token);
        }
        let mut value = HeaderValue::from_str(&token).unwrap_or_else(|_| HeaderValue::from_static(""));
        value.set_sensitive(true);
        value
    }

    /// The claims' JSON. Audience and time are the caller's to check.
    pub(super) fn open(&self, token: &[u8]) -> Option<Vec<u8>> {
        let key = self.0.as_deref()?;
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let token = std::str::from_utf8(token).ok()?;
        let (signed, mac) = token.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        let mut decoded = [0_u8; MAC_BYTES + 4];
        let length = URL_SAFE_NO_PAD.decode_slice(mac, &mut decoded).ok()?;
        hmac::verify(key, signed.as_bytes(), &decoded[..length]).ok()?;
        if header != HEADER_SEGMENT {
            let header = URL_SAFE_NO_PAD.decode(header).ok()?;
            let header: Header<'_> = serde_json::from_slice(&header).ok()?;
            if header.alg != "HS256" {
                return None;
            }
        }
        URL_SAFE_NO_PAD.decode(payload).ok()
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(******)")
    }
}
