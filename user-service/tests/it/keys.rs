//! The keys rotate while the service runs: nobody is logged out, and nobody ever sees half of a set.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use platform::health::Health;
use serde_json::{Value, json};
use user_service::keys::{KeySet, follow};
use user_service::token::Claims;

use crate::harness::Service;

fn key(number: u8, status: &str) -> Value {
    let seed = [number; 32];
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
    json!({"kty": "OKP", "crv": "Ed25519", "kid": format!("key-{number}"), "d": URL_SAFE_NO_PAD.encode(seed),
        "x": URL_SAFE_NO_PAD.encode(pair.public_key().as_ref()), "status": status, "since": "2026-11-21T10:00:00Z"})
}

/// As it is after so many rotations.
fn store(rotations: u8) -> String {
    let mut keys = vec![key(rotations + 1, "signing"), key(rotations + 2, "next")];
    if rotations > 0 {
        keys.push(key(rotations, "previous"));
    }
    json!({"keys": keys}).to_string()
}

fn replace(path: &Path, content: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, content).unwrap();
    std::fs::rename(beside, path).unwrap();
}

async fn published(service: &Service) -> JwkSet {
    let answer = service.call(Method::GET, "/.well-known/jwks.json", None, None).await;
    assert!(!answer.body.to_string().contains("\"d\""), "a private key was published");
    serde_json::from_value(answer.body).unwrap()
}

/// As a verifier does it: by the key that the token names.
fn verifies(token: &str, keys: &JwkSet) -> bool {
    let kid = jsonwebtoken::decode_header(token).unwrap().kid.unwrap();
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_audience(&["firstcome"]);
    let Some(key) = keys.find(&kid) else { return false };
    jsonwebtoken::decode::<Claims>(token, &DecodingKey::from_jwk(key).unwrap(), &validation).is_ok()
}

#[tokio::test]
async fn tokens_from_before_and_after_a_rotation_verify_and_every_set_is_whole() {
    let service = Service::new("key_rotation").await;
    service.sign_up("kim@example.com", "correct horse").await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    replace(&path, &store(0));
    let path_text = path.to_str().unwrap().to_owned();
    assert!(KeySet::open(&path_text).is_ok());
    let health = Health::new().optional_component("keys");
    let stop = service.lifecycle.background_stop();
    service.lifecycle.spawn("key store", follow(service.state.keys.clone(), path_text, health, stop));

    let (done, reads) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let reader = {
        let (service, done, reads) = (service.clone(), done.clone(), reads.clone());
        async move {
            while !done.load(Ordering::SeqCst) {
                let kids: Vec<_> = published(&service)
                    .await
                    .keys
                    .iter()
                    .filter_map(|key| key.common.key_id.clone())
                    .collect();
                if kids[0].starts_with("key-") {
                    let number: u8 = kids[0]["key-".len()..].parse().unwrap();
                    let mut whole = vec![format!("key-{number}"), format!("key-{}", number + 1)];
                    whole.extend((number > 1).then(|| format!("key-{}", number - 1)));
                    assert_eq!(kids, whole);
                }
                reads.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    };
    let writer = async {
        let mut tokens: Vec<String> = Vec::new();
        for rotations in 0..4 {
            replace(&path, &store(rotations));
            let signing = format!("key-{}", rotations + 1);
            let mut waited = 0;
            while service.state.keys.current().signing.kid != signing {
                tokio::time::sleep(Duration::from_millis(50)).await;
                waited += 1;
                assert!(waited < 200, "not taken up within 10 s");
            }
            tokens.push(service.log_in("kim@example.com", "correct horse").await.access);
            // That of this key and that of the one before.
            let keys = published(&service).await;
            assert!(tokens.iter().rev().take(2).all(|token| verifies(token, &keys)), "after {rotations}");
        }
        let keys = published(&service).await;
        assert!(!verifies(&tokens[0], &keys), "a key that was rotated out long ago counts no more");
        done.store(true, Ordering::SeqCst);
    };
    tokio::join!(reader, writer);
    assert!(reads.load(Ordering::SeqCst) > 20, "{reads:?}");
    service.lifecycle.stop_background(Duration::from_secs(5)).await;
}
