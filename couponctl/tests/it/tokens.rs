//! `tokens` makes a private file of unique users, and prints none of it.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::{couponctl, json, text};

fn key_file(folder: &std::path::Path) -> std::path::PathBuf {
    let pair = Ed25519KeyPair::generate().unwrap();
    let der = pair.to_pkcs8v1().unwrap();
    let file = folder.join("key.pem");
    let body = STANDARD.encode(der.as_ref());
    fs::write(&file, format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n")).unwrap();
    file
}

#[test]
fn many_unique_users_in_a_private_file() {
    let folder = tempfile::tempdir().unwrap();
    let (key, out) = (key_file(folder.path()), folder.path().join("tokens.csv"));
    let keys = ["--key", text(&key), "--issuer", "i", "--audience", "a"];
    let report = json(&[&["tokens", "--count", "5000", "--out", text(&out)], keys.as_slice()].concat());
    assert_eq!((&report["count"], &report["users"]), (&5_000.into(), &"new".into()));
    let csv = fs::read_to_string(&out).unwrap();
    let mut lines = csv.lines();
    assert_eq!(lines.next(), Some("user_id,token"));
    let users: HashSet<&str> = lines.map(|line| line.split_once(',').unwrap().0).collect();
    assert_eq!(users.len(), 5_000);
    assert!(csv.ends_with('\n') && !csv.contains(['\r', '"']));
    assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn no_key_is_one_readable_line() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("tokens.csv");
    let output = couponctl(&["tokens", "--count", "5", "--out", text(&out)]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.contains("no signing key") && error.contains("--key"), "{error}");
    assert!(!out.exists());
}
