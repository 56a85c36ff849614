//! `keys`: a store is made once, rotated by and by, and never shown.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::{couponctl, json, text};

fn keys(report: &Value) -> Vec<(String, String)> {
    let keys = report["keys"].as_array().unwrap().iter();
    keys.map(|key| (key["kid"].as_str().unwrap().to_owned(), key["status"].as_str().unwrap().to_owned()))
        .collect()
}

#[test]
fn a_store_is_made_shown_and_rotated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    let store = ["--store", text(&path)];
    let run = |command: &[&str]| couponctl(&[&["keys"], command, store.as_slice()].concat());

    let made = keys(&json(&[&["keys", "new"], store.as_slice()].concat()));
    let statuses: Vec<&str> = made.iter().map(|(_, status)| status.as_str()).collect();
    assert_eq!(statuses, ["signing", "next"]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!run(&["new"]).status.success(), "a store that is there is left alone");

    // Made a moment ago, its next key is not known everywhere.
    let refused = run(&["rotate"]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(said.contains("not rotated") && said.contains(&made[1].0) && said.contains("--force"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert_eq!(keys(&json(&[&["keys", "show"], store.as_slice()].concat())), made);

    let rotated = keys(&json(&[&["keys", "rotate", "--force"], store.as_slice()].concat()));
    assert_eq!(rotated[0], (made[1].0.clone(), "signing".to_owned()));
    assert_eq!(rotated[2], (made[0].0.clone(), "previous".to_owned()));
    let said = String::from_utf8(run(&["rotate"]).stderr).unwrap();
    assert!(said.contains("would be refused from now on"), "{said}");

    let shown = run(&["show"]);
    let table = String::from_utf8(shown.stdout).unwrap();
    for (kid, status) in &rotated {
        assert!(
            table.lines().any(|line| line.contains(kid.as_str()) && line.contains(status.as_str())),
            "{table}"
        );
    }
    let secret: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    for key in secret["keys"].as_array().unwrap() {
        assert!(!table.contains(key["d"].as_str().unwrap()), "a private key was shown");
    }
}

#[test]
fn tokens_are_signed_from_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("keys.json"), folder.path().join("tokens.csv"));
    json(&["keys", "new", "--store", text(&path)]);
    let made = ["tokens", "--count", "3", "--out", text(&out), "--key", text(&path)];
    assert_eq!(json(&[made.as_slice(), &["--issuer", "i", "--audience", "a"]].concat())["count"], 3);
    assert_eq!(fs::read_to_string(&out).unwrap().lines().count(), 4);
}
