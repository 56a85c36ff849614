//! Ed25519 tokens as the user service signs them: header with `kid`, claims `iss aud sub iat exp jti sid roles`.
//!
//! What all tokens share is encoded once: the header, and the first claims, padded with JSON white space to a
//! multiple of three bytes, so that their Base64 ends at a whole character.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rand::RngCore;
use serde::Serialize;

use crate::keys::{self, Store};
use crate::{clock, state};

/// Allowed for a gateway whose clock is a little behind.
const BACKDATED_SECS: u64 = 1;

pub(crate) struct Signer {
    key: Ed25519KeyPair,
    /// `base64(header).base64(first claims)`
    prefix: String,
}

#[derive(Debug)]
pub(crate) struct Claims<'a> {
    pub(crate) issuer: &'a str,
    pub(crate) audience: &'a str,
    pub(crate) roles: &'a [String],
    pub(crate) ttl: Duration,
}

#[derive(Serialize)]
struct SharedClaims<'a> {
    iss: &'a str,
    aud: &'a str,
    iat: u64,
    exp: u64,
    roles: &'a [String],
}

impl Signer {
    pub(crate) fn open(key: &Path, claims: &Claims<'_>) -> Result<Self> {
        let text = state::read_secret(key)?;
        Self::new(&text, claims, clock::now_ms() / 1_000)
            .with_context(|| format!("{} is no key store and no Ed25519 key in PKCS#8 PEM", key.display()))
    }

    fn new(text: &str, claims: &Claims<'_>, now_secs: u64) -> Result<Self> {
        let (key, kid) = if text.trim_start().starts_with('{') {
            let store = Store::parse(text)?;
            let signing = store.signing()?;
            (signing.pair()?, signing.kid.clone())
        } else {
            let key = of_pem(text)?;
            let kid = keys::kid(&key);
            (key, kid)
        };
        let header = format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":{}}}"#, serde_json::to_string(&kid)?);
        let shared = SharedClaims {
            iss: claims.issuer,
            aud: claims.audience,
            iat: now_secs - BACKDATED_SECS,
            exp: now_secs + claims.ttl.as_secs(),
            roles: claims.roles,
        };
        let mut first = serde_json::to_string(&shared)?;
        first.pop(); // the closing brace: more claims follow
        first.push(',');
        while !first.len().is_multiple_of(3) {
            first.push(' ');
        }
        let prefix = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(first));
        Ok(Self { key, prefix })
    }

    /// Appends `user,token\n`.
    pub(crate) fn line(&self, user: u64, random: &mut impl RngCore, out: &mut Vec<u8>) {
        out.extend_from_slice(user.to_string().as_bytes());
        out.push(b',');
        self.token(user, random, out);
        out.push(b'\n');
    }

    /// Appends a token of this user.
    pub(crate) fn token(&self, user: u64, random: &mut impl RngCore, out: &mut Vec<u8>) {
        let (jti, sid) = (random_uuid(random), random_uuid(random));
        let start = out.len();
        out.extend_from_slice(self.prefix.as_bytes());
        let last = format!(r#""sub":"{user}","jti":"{jti}","sid":"{sid}"}}"#);
        append_base64(last.as_bytes(), out);
        let signature = self.key.sign(&out[start..]);
        out.push(b'.');
        append_base64(signature.as_ref(), out);
    }
}

fn of_pem(pem: &str) -> Result<Ed25519KeyPair> {
    // No cause is passed on from here: it could quote the key.
    let body: String = pem
        .lines()
        .skip_while(|line| !line.starts_with("-----BEGIN PRIVATE KEY-----"))
        .skip(1)
        .take_while(|line| !line.starts_with("-----"))
        .collect();
    let der = STANDARD.decode(body.trim()).map_err(|_| anyhow!("it is not PEM"))?;
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map_err(|_| anyhow!("it is not Ed25519"))
}

fn random_uuid(random: &mut impl RngCore) -> uuid::fmt::Simple {
    let mut bytes = [0; 16];
    random.fill_bytes(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid().simple()
}

fn append_base64(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    // The room is ample, so this cannot fail.
    let written = URL_SAFE_NO_PAD.encode_slice(bytes, &mut out[start..]).unwrap_or_default();
    out.truncate(start + written);
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use aws_lc_rs::digest;
    use aws_lc_rs::signature::{ED25519, KeyPair as _, UnparsedPublicKey};
    use serde_json::Value;

    use super::*;

    fn key() -> (String, Ed25519KeyPair) {
        let pair = Ed25519KeyPair::generate().unwrap();
        let der = pair.to_pkcs8v1().unwrap();
        let pem = format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            STANDARD.encode(der.as_ref())
        );
        (pem, pair)
    }

    #[test]
    fn a_token_holds_its_claims_and_its_signature_is_good() {
        let (pem, pair) = key();
        // Issuers of three lengths meet all three paddings.
        for issuer in ["firstcome", "firstcome1", "firstcome12"] {
            let roles = ["USER".to_owned(), "ADMIN".to_owned()];
            let claims =
                Claims { issuer, audience: "aud\"ience", roles: &roles, ttl: Duration::from_secs(3_600) };
            let signer = Signer::new(&pem, &claims, 1_800_000_000).unwrap();
            let mut line = Vec::new();
            signer.line(7_033_511, &mut rand::rng(), &mut line);
            let line = String::from_utf8(line).unwrap();
            let token = line.strip_prefix("7033511,").unwrap().strip_suffix('\n').unwrap();
            let parts: Vec<&str> = token.split('.').collect();
            let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap();
            let header: Value = serde_json::from_slice(&decode(parts[0])).unwrap();
            let kid = hex::encode(digest::digest(&digest::SHA256, pair.public_key().as_ref()));
            assert_eq!(header, serde_json::json!({"alg": "EdDSA", "typ": "at+jwt", "kid": kid[..16]}));
            let claims: Value = serde_json::from_slice(&decode(parts[1])).unwrap();
            assert_eq!(claims["iss"], issuer);
            assert_eq!(claims["aud"], "aud\"ience");
            assert_eq!(claims["sub"], "7033511");
            assert_eq!(claims["iat"], 1_799_999_999_u64);
            assert_eq!(claims["exp"], 1_800_003_600_u64);
            assert_eq!(claims["roles"], serde_json::json!(["USER", "ADMIN"]));
            assert_ne!(claims["jti"], claims["sid"]);
            let signed = format!("{}.{}", parts[0], parts[1]);
            let public = UnparsedPublicKey::new(&ED25519, pair.public_key().as_ref());
            public.verify(signed.as_bytes(), &decode(parts[2])).unwrap();
        }
    }

    #[test]
    fn the_key_of_a_store_that_signs_is_the_one() {
        use crate::keys::{Key, Status};
        let keys = [Status::Next, Status::Signing, Status::Previous];
        let store = Store { keys: keys.map(|status| Key::make(status, 0).unwrap()).into() };
        let claims = Claims { issuer: "i", audience: "a", roles: &[], ttl: Duration::from_secs(1) };
        let signer = Signer::new(&serde_json::to_string(&store).unwrap(), &claims, 1_800_000_000).unwrap();
        let mut token = Vec::new();
        signer.token(1, &mut rand::rng(), &mut token);
        let token = String::from_utf8(token).unwrap();
        let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
        let header: Value = serde_json::from_slice(&header).unwrap();
        assert_eq!(header["kid"], store.keys[1].kid);
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let pair = store.keys[1].pair().unwrap();
        let public = UnparsedPublicKey::new(&ED25519, pair.public_key().as_ref());
        public.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
    }

    #[test]
    fn no_two_tokens_share_an_id() {
        let (pem, _) = key();
        let claims = Claims { issuer: "i", audience: "a", roles: &[], ttl: Duration::from_secs(1) };
        let signer = Signer::new(&pem, &claims, 1_800_000_000).unwrap();
        let mut random = rand::rng();
        let tokens: HashSet<Vec<u8>> = (0..50)
            .map(|_| {
                let mut token = Vec::new();
                signer.token(1, &mut random, &mut token);
                token
            })
            .collect();
        assert_eq!(tokens.len(), 50);
    }

    #[test]
    fn a_wrong_key_is_refused_without_quoting_it() {
        let claims = Claims { issuer: "i", audience: "a", roles: &[], ttl: Duration::from_secs(1) };
        for pem in ["", "secret", "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----"] {
            let Err(error) = Signer::new(pem, &claims, 1) else { panic!("{pem:?} was taken") };
            let text = format!("{error:#}");
            assert!(!text.contains("secret") && !text.contains("c2Vj"), "{text}");
        }
    }
}
