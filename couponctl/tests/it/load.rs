//! `load` against a real server: counts are exact, the record is complete, a cut connection is unknown.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::shop::{Shelf, Shop};
use crate::{couponctl, json, text};

const COUPON: u64 = 244_019_838_763_171;

pub(crate) fn tokens(folder: &std::path::Path, count: u64) -> PathBuf {
    let lines: String = (1..=count).map(|user| format!("{user},t.{user}.t\n")).collect();
    let file = folder.join("tokens.csv");
    fs::write(&file, format!("user_id,token\n{lines}")).unwrap();
    file
}

fn records(file: &std::path::Path) -> Vec<Value> {
    fs::read_to_string(file).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_ramp_with_repeats_counts_exactly_and_records_everything() {
    let folder = tempfile::tempdir().unwrap();
    let csv = tokens(folder.path(), 300);
    let (jtl, answers) = (folder.path().join("out.jtl"), folder.path().join("out.ndjson"));
    let shop = Shop::open(Shelf { coupon: COUPON, stock: 100, ..Shelf::default() });
    let (url, coupon) = (shop.url(), COUPON.to_string());
    let report = json(&[
        "load",
        "--gateway",
        &url,
        "--coupon",
        &coupon,
        "--tokens",
        text(&csv),
        "--ramp",
        "500ms",
        "--repeat",
        "2",
        "--out",
        text(&jtl),
        "--answers",
        text(&answers),
    ]);
    assert_eq!(report["requests"], 600);
    assert_eq!(report["issued"], 100);
    assert_eq!(report["alreadyIssued"], 100);
    assert_eq!(report["soldOut"], 400);
    assert_eq!(
        (&report["errors"], &report["unknown"], &report["pending"]),
        (&0.into(), &0.into(), &0.into())
    );
    assert!(report["seconds"].as_f64().unwrap() >= 0.45, "{report}");
    assert_eq!(shop.shelf().claims, 600);

    let records = records(&answers);
    assert_eq!(records[0]["coupon"], COUPON);
    let told: Vec<&Value> = records.iter().filter(|record| record["outcome"] == "ISSUED").collect();
    assert_eq!(told.len(), 100);
    assert!(told.iter().all(|told| told["issuedAt"] == "1970-01-01T00:00:00.005Z"), "as the shop says");
    let mut places: Vec<u64> = told.iter().map(|told| told["place"].as_u64().unwrap()).collect();
    places.sort_unstable();
    assert_eq!(places, (1..=100).collect::<Vec<_>>());
    for attempt in 0..600 {
        let asked = records.iter().position(|record| record["attempt"] == attempt).unwrap();
        let answered = records.iter().position(|record| record["answer"] == attempt).unwrap();
        assert!(asked < answered);
        assert_eq!(records[asked]["user"], attempt / 2 + 1);
    }

    let jtl = fs::read_to_string(&jtl).unwrap();
    assert_eq!(jtl.lines().count(), 601);
    assert_eq!(jtl.lines().filter(|line| line.contains(",claim: sold out,409,Conflict,")).count(), 400);
    assert!(jtl.lines().skip(1).all(|line| line.contains(",text,true,,")), "sold out is no error");
}

#[test]
fn a_closed_loop_uses_each_token_once_and_noop_reuses_them() {
    let folder = tempfile::tempdir().unwrap();
    let csv = tokens(folder.path(), 1_000);
    let shop = Shop::open(Shelf { coupon: COUPON, stock: 10_000, ..Shelf::default() });
    let (url, coupon) = (shop.url(), COUPON.to_string());
    let base = ["load", "--gateway", &url, "--tokens", text(&csv), "--connections", "16"];
    let report = json(&[&base, ["--coupon", &coupon].as_slice()].concat());
    assert_eq!((&report["requests"], &report["issued"]), (&1_000.into(), &1_000.into()));
    assert!(report["inFlightMax"].as_u64().unwrap() <= 16);

    let report =
        json(&[&base, ["--path", "/noop", "--requests", "2500", "--reuse-tokens"].as_slice()].concat());
    assert_eq!((&report["requests"], &report["ok"]), (&2_500.into(), &2_500.into()));

    let output = couponctl(&[&base, ["--coupon", &coupon, "--requests", "1001"].as_slice()].concat());
    assert!(String::from_utf8_lossy(&output.stderr).contains("used once"), "{output:?}");
}

#[test]
fn a_load_that_was_refused_as_a_whole_is_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let csv = tokens(folder.path(), 10);
    let shop = Shop::open(Shelf { coupon: COUPON, stock: 1, ..Shelf::default() });
    let (url, coupon) = (shop.url(), COUPON.to_string());
    let base = ["load", "--gateway", &url, "--tokens", text(&csv), "--json", "--requests", "5"];
    let output = couponctl(&[&base, ["--path", "/nowhere"].as_slice()].concat());
    assert!(!output.status.success());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["refused"]["HTTP_404"], 5);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("every claim was refused with HTTP_404: look at --coupon"), "{told}");
    // Sold out is no refusal.
    let output = couponctl(&[&base, ["--coupon", &coupon].as_slice()].concat());
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn pending_is_followed_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let csv = tokens(folder.path(), 20);
    let answers = folder.path().join("out.ndjson");
    let shop = Shop::open(Shelf { coupon: COUPON, stock: 100, pending: 5, ..Shelf::default() });
    let (url, coupon) = (shop.url(), COUPON.to_string());
    let report = json(&[
        "load",
        "--gateway",
        &url,
        "--coupon",
        &coupon,
        "--tokens",
        text(&csv),
        "--rate",
        "100",
        "--duration",
        "200ms",
        "--follow-pending",
        "5s",
        "--answers",
        text(&answers),
    ]);
    assert_eq!((&report["issued"], &report["pending"]), (&15.into(), &5.into()));
    assert_eq!(report["pendingFollowed"]["issued"], 5);
    let followed = records(&answers).into_iter().filter(|record| record["followed"] == true);
    assert!(followed.clone().all(|record| record["outcome"] == "ISSUED" && record["issueId"].is_string()));
    assert_eq!(followed.count(), 5);
}

#[test]
fn a_cut_connection_is_unknown_and_a_slow_answer_too() {
    // Reads a request; the first one is cut in the middle of its answer, the second never answered.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let mut kept = Vec::new();
        let mut cut = false;
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            if stream.read(&mut [0; 4_096]).unwrap_or(0) == 0 {
                continue; // the look whether anybody is there
            }
            if cut {
                kept.push(stream);
            } else {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"status\"").unwrap();
                cut = true;
            }
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let csv = tokens(folder.path(), 2);
    let answers = folder.path().join("out.ndjson");
    let output = couponctl(&[
        "load",
        "--gateway",
        &url,
        "--coupon",
        "7",
        "--tokens",
        text(&csv),
        "--ramp",
        "100ms",
        "--timeout",
        "300ms",
        "--answers",
        text(&answers),
        "--json",
    ]);
    assert_eq!(output.status.code(), Some(1), "nobody answered");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&report["requests"], &report["unknown"], &report["errors"]),
        (&2.into(), &2.into(), &0.into())
    );
    let unknown: Vec<Value> =
        records(&answers).into_iter().filter(|record| record["outcome"] == "UNKNOWN").collect();
    assert_eq!(unknown.len(), 2);
    assert!(
        unknown.iter().any(|record| record["error"].as_str().unwrap().contains("closed before the answer"))
    );
    assert!(unknown.iter().any(|record| record["error"].as_str().unwrap().contains("no answer in 300ms")));
}

#[test]
fn a_kill_leaves_every_attempt_in_the_record() {
    // Never answers.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let mut arrived = 0;
        let kept: Vec<_> = listener
            .incoming()
            .take_while(|_| {
                arrived += 1;
                arrived < 1_000
            })
            .collect();
        drop(kept);
    });
    let folder = tempfile::tempdir().unwrap();
    let csv = tokens(folder.path(), 50);
    let answers = folder.path().join("out.ndjson");
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_couponctl"))
        .args(["load", "--gateway", &url, "--coupon", "7", "--tokens", text(&csv), "--connections", "8"])
        .args(["--answers", text(&answers), "--quiet"])
        .spawn()
        .unwrap();
    let attempts = || {
        let text = fs::read_to_string(&answers).unwrap_or_default();
        text.lines().filter(|line| line.starts_with("{\"attempt\"")).count()
    };
    for _ in 0..100 {
        if attempts() == 8 {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    // Nobody else reads or writes the record meanwhile.
    let locked =
        || matches!(fs::File::open(&answers).unwrap().try_lock_shared(), Err(fs::TryLockError::WouldBlock));
    assert!(locked());
    let second =
        ["load", "--gateway", &url, "--coupon", "7", "--tokens", text(&csv), "--answers", text(&answers)];
    let error = String::from_utf8(couponctl(&second).stderr).unwrap();
    assert!(error.contains("another load still writes there") && error.lines().count() == 1, "{error}");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!locked());
    assert_eq!(attempts(), 8);
}

#[test]
fn nothing_is_sent_to_another_machine() {
    let folder = tempfile::tempdir().unwrap();
    let csv = tokens(folder.path(), 1);
    let output =
        couponctl(&["load", "--gateway", "http://192.0.2.1:80", "--coupon", "7", "--tokens", text(&csv)]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("--allow-remote"), "{error}");
    assert_eq!(error.lines().count(), 1);
}
