//! `ledger` on a real log with its tables: what it shows, and every difference that it has to find.

use serde_json::{Value, json};
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Executor};
use tempfile::TempDir;

use crate::log::{self, ACCEPTED, ALREADY, Log, MALFORMED, NOOP, SOLD_OUT, TAKEN, claimed, defined, noop};
use crate::servers::Servers;
use crate::{couponctl, json};

struct Books {
    log: Log,
    mysql: MySqlConnection,
    database: String,
    coupon: u64,
    servers: Servers,
    folder: TempDir,
}

impl Books {
    /// A coupon of two in partition 1, after some noops; rubbish at the end.
    async fn kept() -> Self {
        Self::of(Log::create().await).await
    }

    async fn of(mut log: Log) -> Self {
        let servers = Servers::get();
        let coupon = log::coupon_in(1);
        log.append(0, &[(noop(), NOOP, 0)]).await;
        log.append(1, &vec![(noop(), NOOP, 0); 4_094]).await;
        let records = [
            (defined(coupon, 7, 2), TAKEN, 0),
            (claimed(coupon, 11), ACCEPTED, 1),
            (claimed(coupon, 11), ALREADY, 0),
            (claimed(coupon, 12), ACCEPTED, 2),
            (claimed(coupon, 13), SOLD_OUT, 0),
            (b"rubbish".to_vec(), MALFORMED, 0),
        ];
        log.append(1, &records).await;
        let database = format!("test_ledger_{coupon}");
        let tables = include_str!("../../../issue-service/migrations/0001_ledger.sql");
        let mut mysql = servers.database(&database, tables).await;
        log.write_tables(&mut mysql).await;
        let row = format!("({coupon}, 1, 7, 2, {}, {}, 0, NULL, 2)", log::WINDOW[0], log::WINDOW[1]);
        let mut books = Self { log, mysql, database, coupon, servers, folder: tempfile::tempdir().unwrap() };
        books.sql(&format!("INSERT INTO issue_coupons VALUES {row}")).await;
        books
    }

    async fn sql(&mut self, sql: &str) {
        self.mysql.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await.unwrap();
    }

    fn args(&self, command: &[&str]) -> Vec<String> {
        let mut args: Vec<String> = ["ledger"].iter().chain(command).map(|arg| (*arg).to_owned()).collect();
        args.extend(self.log.options());
        if command[0] != "tail" {
            args.extend(self.servers.mysql_options(self.folder.path()));
            args.extend(["--database".to_owned(), self.database.clone()]);
        }
        args
    }

    fn text(&self, command: &[&str]) -> String {
        let args = self.args(command);
        let output = couponctl(&args.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, command: &[&str]) -> Value {
        let args = self.args(command);
        json(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// What `verify` finds, by partition; it must fail exactly if it finds something.
    fn problems(&self) -> Vec<(u64, String)> {
        let args = self.args(&["verify", "--json"]);
        let output = couponctl(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        let mut problems = Vec::new();
        for partition in report["partitions"].as_array().unwrap() {
            let number = partition["partition"].as_u64().unwrap();
            let found = partition["problems"].as_array().unwrap().iter();
            problems.extend(found.map(|problem| (number, problem.as_str().unwrap().to_owned())));
        }
        assert_eq!(report["ok"], problems.is_empty(), "{report}");
        assert_eq!(output.status.success(), problems.is_empty(), "{report}");
        problems
    }

    async fn remove(&mut self) {
        self.sql(&format!("DROP DATABASE {}", self.database)).await;
        self.log.remove().await;
    }
}

#[tokio::test]
async fn show_tells_log_watermarks_and_coupons() {
    let mut books = Books::kept().await;
    books.sql("UPDATE ledger_watermarks SET `next` = 4090 WHERE log_partition = 1").await;
    let shown = books.json(&["show"]);
    let one = &shown["partitions"][1];
    let numbers = ["logStart", "logEnd", "watermark", "lag"].map(|name| one[name].as_u64().unwrap());
    assert_eq!(numbers, [0, 4_100, 4_090, 10], "{shown}");
    assert_eq!(one["digest"].as_str().unwrap().len(), 64);
    let coupon = json!({"coupon": books.coupon, "partition": 1, "version": 7, "stock": 2, "startsAt": log::WINDOW[0],
        "endsAt": log::WINDOW[1], "closed": false, "retiredAt": null, "count": 2});
    assert_eq!(shown["coupons"], json!([coupon]));
    let only = books.json(&["show", "--coupon", &books.coupon.to_string()]);
    assert_eq!((&only["coupons"], only["partitions"].as_array().unwrap().len()), (&shown["coupons"], 1));
    let table = books.text(&["show"]);
    assert!(table.contains("4,090") && table.contains(&books.coupon.to_string()), "{table}");
    assert!(!couponctl(&["ledger", "show"]).status.success(), "no Kafka");
    books.remove().await;
}

#[tokio::test]
async fn tail_shows_records_with_their_decisions() {
    let books = &mut Books::kept().await;
    let coupon = books.coupon;
    let text = books.text(&["tail", "--partition", "1", "--from", "-6", "--decide"]);
    let lines: Vec<&str> = text.lines().collect();
    let endings = [
        "version 7, stock 2, 1970-01-01T00:00:00.000Z to 2096-10-02T07:06:40.000Z  -> in force".to_owned(),
        format!("claim       coupon {coupon}  user 11  -> accepted, place 1"),
        format!("claim       coupon {coupon}  user 11  -> already"),
        format!("claim       coupon {coupon}  user 12  -> accepted, place 2"),
        format!("claim       coupon {coupon}  user 13  -> sold out"),
        "malformed   it is shorter than an envelope  -> malformed".to_owned(),
    ];
    assert_eq!(lines.len(), endings.len(), "{text}");
    for ((line, ending), offset) in lines.iter().zip(&endings).zip(4_094..) {
        assert!(line.starts_with(&format!("1/{offset} ")) && line.ends_with(ending), "{line}\n{ending}");
    }
    // Without --decide, all partitions, ten of each at most.
    let text = books.text(&["tail"]);
    assert_eq!(text.lines().count(), 11, "{text}");
    assert!(!text.contains("->") && text.starts_with("0/0 "), "{text}");

    let text = books.text(&["tail", "--partition", "1", "--from", "4097", "--json"]);
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[0]["user"], &lines[0]["offset"]), (3, &json!(12), &json!(4_097)));
    let wrong = books.args(&["tail", "--partition", "2"]);
    let output = couponctl(&wrong.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(String::from_utf8_lossy(&output.stderr).contains("counted from 0"), "{output:?}");
    books.remove().await;
}

#[tokio::test]
async fn tail_follows_what_is_appended() {
    use std::io::{BufRead, BufReader};
    let books = &mut Books::kept().await;
    let args = books.args(&["tail", "--partition", "1", "--from", "-1", "--decide", "-f"]);
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_couponctl"))
        .args(args)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("1/4099 "));
    books.log.append(1, &[(claimed(books.coupon, 12), ALREADY, 0)]).await;
    let line = lines.next().unwrap().unwrap();
    assert!(line.starts_with("1/4100 ") && line.ends_with("-> already"), "{line}");
    child.kill().unwrap();
    child.wait().unwrap();
    books.remove().await;
}

#[tokio::test]
async fn verify_finds_every_difference() {
    let mut books = Books::kept().await;
    assert_eq!(books.problems(), []);
    let table = books.text(&["verify"]);
    assert!(table.contains("log and tables agree") && table.contains("4,101 records"), "{table}");
    let coupon = books.coupon;
    let digest =
        |sql: &str, restore: &str, problem: &str| (sql.to_owned(), restore.to_owned(), problem.to_owned());
    let faults = [
        digest(
            "UPDATE issue_coupons SET `count` = 1",
            "UPDATE issue_coupons SET `count` = 2",
            &format!("coupon {coupon}: count is 1, by the log 2"),
        ),
        digest(
            "UPDATE issue_coupons SET version = 8, stock = 3",
            "UPDATE issue_coupons SET version = 7, stock = 2",
            &format!("coupon {coupon}: version is 8, by the log 7, stock is 3, by the log 2"),
        ),
        digest(
            "UPDATE issue_coupons SET retire_offset = 5",
            "UPDATE issue_coupons SET retire_offset = NULL",
            &format!("coupon {coupon}: the offset after the retirement is 6, by the log 0"),
        ),
        digest(
            "CREATE TABLE kept AS SELECT * FROM ledger_digests; DELETE FROM ledger_digests",
            "INSERT INTO ledger_digests SELECT * FROM kept; DROP TABLE kept",
            "no digest is stored for offset 4096",
        ),
    ];
    for (fault, restore, problem) in faults {
        books.sql(&fault).await;
        assert_eq!(books.problems(), [(1, problem)]);
        books.sql(&restore).await;
    }
    books.sql("UPDATE ledger_watermarks SET last_record_hash = X'01' WHERE log_partition = 1").await;
    assert_eq!(books.problems(), [(1, "the hash of the last record, at offset 4099, differs".to_owned())]);
    books.sql("UPDATE ledger_digests SET digest = X'01'; UPDATE ledger_watermarks SET digest = X'02' WHERE log_partition = 1").await;
    let problems = books.problems();
    assert!(problems[0].1.ends_with("the first record that differs is at offset 0 to 4095"), "{problems:?}");
    books.sql("UPDATE ledger_watermarks SET `next` = 9000 WHERE log_partition = 1").await;
    let problems = books.problems();
    assert!(problems[0].1.contains("the log ends at offset 4100, and 9000 was read once"), "{problems:?}");
    books.remove().await;
}

/// A record that a newer service has written: nothing after it can be derived here.
#[tokio::test]
async fn a_record_of_the_future_ends_what_can_be_decided() {
    let mut books = Books::kept().await;
    books.log.append(0, &[(log::envelope(9, &[]), NOOP, 0), (noop(), NOOP, 0)]).await;
    books.log.write_tables(&mut books.mysql).await;
    let problems = books.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].1.contains("offset 1 is of kind 9, version 1"), "{problems:?}");
    let args = books.args(&["tail", "--partition", "0", "--decide"]);
    let output = couponctl(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 2, "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("nothing after it can be decided"),
        "{output:?}"
    );
    books.remove().await;
}

/// The window is judged by the broker's clock, so records with other times decide nothing.
#[tokio::test]
async fn records_that_the_broker_did_not_stamp_are_no_proof() {
    let mut books = Books::of(Log::stamped_by("CreateTime").await).await;
    let problems = books.problems();
    assert_eq!(problems.len(), 2, "{problems:?}");
    let both =
        problems.iter().all(|(_, problem)| problem == "the record at offset 0 is not stamped by the broker");
    assert!(both, "{problems:?}");
    books.remove().await;
}
