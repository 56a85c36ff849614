//! `tokens` makes a private file of unique users, and prints none of it.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use sqlx::{AssertSqlSafe, Executor};

use crate::servers::Servers;
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

#[tokio::test]
async fn those_who_have_an_account_oldest_first() {
    let folder = tempfile::tempdir().unwrap();
    let (key, out) = (key_file(folder.path()), folder.path().join("tokens.csv"));
    let servers = Servers::get();
    let database = format!("test_tokens_{}", rand::random::<u64>());
    let tables = include_str!("../../../user-service/migrations/0001_users.sql");
    let mut mysql = servers.database(&database, tables).await;
    for user in [30, 10, 20] {
        let sql = format!("INSERT INTO users VALUES ({user}, 'u{user}@example.org', 'x', NOW())");
        mysql.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
    }
    let options = servers.mysql_options(folder.path());
    let mut args = vec!["tokens", "--existing", "--out", text(&out), "--database", &database];
    args.extend(["--key", text(&key), "--issuer", "i", "--audience", "a"]);
    args.extend(options.iter().map(String::as_str));
    let users = || -> Vec<String> {
        let csv = fs::read_to_string(&out).unwrap();
        csv.lines().skip(1).map(|line| line.split_once(',').unwrap().0.to_owned()).collect()
    };
    assert_eq!(json(&args)["users"], "existing");
    assert_eq!(users(), ["10", "20", "30"]);
    json(&[args.as_slice(), &["--count", "2"]].concat());
    assert_eq!(users(), ["10", "20"]);
    let output = couponctl(&[args.as_slice(), &["--count", "4"]].concat());
    assert!(String::from_utf8_lossy(&output.stderr).contains("there are 3 accounts"), "{output:?}");
    mysql.execute(sqlx::raw_sql(AssertSqlSafe(format!("DROP DATABASE {database}")))).await.unwrap();
}
