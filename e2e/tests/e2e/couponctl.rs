//! The operator's tool against the whole: token file, load, audit, the log read again; and an audit that has to fail.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use e2e::client::Client;
use e2e::coupons::{self, OPEN};
use e2e::stack::{Stack, shared};
use e2e::tokens::user_ids;
use e2e::users;
use serde_json::{Value, json};

const USERS: u64 = 300;
const STOCK: u64 = 100;

/// Runs the tool; whether it ended with success, and its JSON.
fn couponctl(stack: &Stack, arguments: &[&str]) -> (bool, Value) {
    let mut command = Command::new(&stack.couponctl);
    command.args(arguments).args(["--json", "--state"]).arg(&stack.folder);
    let done = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let report = serde_json::from_slice(&done.stdout)
        .unwrap_or_else(|_| panic!("{command:?}: {} {}", done.status, String::from_utf8_lossy(&done.stderr)));
    (done.status.success(), report)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of UTF-8")
}

/// The verdicts of an audit, by invariant.
fn verdicts<'a>(report: &'a Value, id: &str) -> Vec<&'a str> {
    let checks = report["checks"].as_array().map(Vec::as_slice).unwrap_or_default();
    checks.iter().filter(|check| check["id"] == id).filter_map(|check| check["verdict"].as_str()).collect()
}

#[tokio::test]
async fn tokens_load_and_audit() {
    let _stack = shared().await;
    let stack = Stack::load();
    let client = Client::gateway(&stack);
    let coupon =
        coupons::create(&client, &users::admin(&stack, &client).await, STOCK, OPEN).await.to_string();
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (tokens, answers) = (folder.path().join("tokens.csv"), folder.path().join("answers.ndjson"));
    let (tokens, answers) = (text(&tokens), text(&answers));

    let (success, made) = couponctl(&stack, &["tokens", "--count", &USERS.to_string(), "--out", tokens]);
    assert!(success && made["count"] == USERS, "{made}");

    let load = ["load", "--coupon", &coupon, "--tokens", tokens, "--ramp", "2s", "--answers", answers];
    let (success, load) = couponctl(&stack, &load);
    assert!(success, "{load}");
    assert_eq!(load["requests"], USERS, "{load}");
    assert_eq!(
        (&load["errors"], &load["unknown"], &load["refused"]),
        (&json!(0), &json!(0), &json!({})),
        "{load}"
    );

    let audit = ["audit", "--coupon", &coupon, "--answers", answers, "--replay", "--wait", "60s"];
    let (success, report) = couponctl(&stack, &audit);
    assert!(success && report["ok"] == true, "{report}");
    assert_eq!((&report["stock"], &report["rows"]), (&json!(STOCK), &json!(STOCK)), "{report}");
    assert_eq!(report["toldIssued"].as_u64(), load["issued"].as_u64(), "{report}");
    for none in ["lost", "duplicates", "overIssued", "unexplained", "unheard", "unknown"] {
        assert_eq!(report[none], 0, "{none}: {report}");
    }
    for id in ["I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8"] {
        let verdicts = verdicts(&report, id);
        assert!(!verdicts.is_empty() && verdicts.iter().all(|verdict| *verdict == "ok"), "{id}: {report}");
    }

    // Somebody was told ISSUED who has no row.
    let user = user_ids(1)[0];
    let mut file = std::fs::File::options().append(true).open(answers).expect("the answers are there");
    for line in [
        json!({"attempt": USERS, "user": user, "at": 1}),
        json!({"answer": USERS, "at": 2, "status": 200, "outcome": "ISSUED", "issueId": uuid::Uuid::new_v4()}),
    ] {
        writeln!(file, "{line}").expect("the answers can be written");
    }
    let (success, report) = couponctl(&stack, &audit);
    assert!(!success && report["ok"] == false, "{report}");
    assert_eq!(report["lost"], 1, "{report}");
    let checks = report["checks"].as_array().map(Vec::as_slice).unwrap_or_default();
    let named = checks.iter().find(|check| check["id"] == "I1").map(|check| &check["offenders"][0]["user"]);
    assert_eq!(named, Some(&json!(user)), "{report}");
}

/// What the services have written, decided again by code that is not theirs.
#[tokio::test]
async fn the_log_gives_the_tables() {
    let _stack = shared().await;
    let stack = Stack::load();
    let (success, report) = couponctl(&stack, &["ledger", "verify"]);
    assert!(success && report["ok"] == true, "{report}");
    let partitions = report["partitions"].as_array().map(Vec::as_slice).unwrap_or_default();
    assert_eq!(partitions.len(), 8, "{report}");
    assert!(partitions.iter().all(|it| it["records"].as_u64() > Some(0)), "probes are in each: {report}");

    let (success, shown) = couponctl(&stack, &["ledger", "show"]);
    assert!(success && shown["partitions"].as_array().map(Vec::len) == Some(8), "{shown}");
    let (success, letters) = couponctl(&stack, &["dlt", "list"]);
    assert!(success && letters["waiting"] == 0, "{letters}");
}
