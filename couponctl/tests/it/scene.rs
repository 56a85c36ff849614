//! A coupon that was sold out to the first users, with what the services leave behind on real servers.

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use serde_json::{Value, json};
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Executor};
use tempfile::TempDir;

use crate::load::tokens;
use crate::log::{
    self, ACCEPTED, ALREADY, Appended, Log, NOOP, SOLD_OUT, TAKEN, WINDOW, claimed, defined, noop,
};
use crate::servers::Servers;
use crate::shop::{Shelf, Shop, rfc3339};
use crate::{couponctl, text};

pub(crate) const STOCK: u64 = 50;
pub(crate) const USERS: u64 = 120;

pub(crate) struct Scene {
    pub(crate) coupon: u64,
    folder: TempDir,
    pub(crate) servers: Servers,
    pub(crate) shop: Shop,
    pub(crate) mysql: MySqlConnection,
    redis: redis::aio::MultiplexedConnection,
    pub(crate) database: String,
    csv: PathBuf,
    pub(crate) answers: PathBuf,
    log: Option<Log>,
}

impl Scene {
    pub(crate) async fn sold_out(pending: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let servers = Servers::get();
        let coupon = log::coupon_in(1);
        let shop = Shop::open(Shelf { coupon, stock: STOCK, pending, ..Shelf::default() });
        let (csv, answers) = (tokens(folder.path(), USERS), folder.path().join("answers.ndjson"));
        let (url, id) = (shop.url(), coupon.to_string());
        let load = ["load", "--gateway", &url, "--coupon", &id, "--tokens", text(&csv), "--connections", "8"];
        let output = couponctl(&[&load, ["--answers", text(&answers)].as_slice()].concat());
        assert!(output.status.success(), "{output:?}");

        let database = format!("test_audit_{coupon}");
        let mysql = servers
            .database(&database, include_str!("../../../issue-service/migrations/0001_ledger.sql"))
            .await;
        let redis = servers.redis().await;
        let mut scene =
            Self { coupon, folder, servers, shop, mysql, redis, database, csv, answers, log: None };
        let winners = scene.shop.shelf().winners();
        assert_eq!(winners.len() as u64, STOCK);
        scene
            .sql(&format!(
                "INSERT INTO issue_coupons VALUES ({coupon}, 1, 1, {STOCK}, {}, {}, 0, NULL, {STOCK})",
                WINDOW[0], WINDOW[1]
            ))
            .await;
        for (place, user) in (1..).zip(&winners) {
            scene
                .sql(&format!("INSERT INTO coupon_issues VALUES ({coupon}, {user}, {place}, {place}, 5)"))
                .await;
        }
        scene.redis(redis::cmd("SADD").arg(scene.key()).arg(winners)).await;
        scene
    }

    /// The same, with the log in which the winners won, before any of them asked.
    pub(crate) async fn with_log(pending: u64) -> Self {
        let mut scene = Self::sold_out(pending).await;
        let (coupon, mut log) = (scene.coupon, Log::create().await);
        let winners = scene.shop.shelf().winners();
        let mut records =
            vec![(defined(coupon, 1, u32::try_from(STOCK).unwrap()), TAKEN, 0), (noop(), NOOP, 0)];
        records.extend((1..).zip(&winners).map(|(place, user)| (claimed(coupon, *user), ACCEPTED, place)));
        records.push((claimed(coupon, winners[0]), ALREADY, 0));
        records.push((claimed(coupon, 999_999), SOLD_OUT, 0));
        records.extend(std::iter::repeat_n((noop(), NOOP, 0), 4_100));
        let appended = log.append(1, &records).await;
        log.append(0, &[(noop(), NOOP, 0)]).await;
        log.write_tables(&mut scene.mysql).await;
        for (user, appended) in winners.iter().zip(&appended[2..]) {
            let Appended { offset, at } = appended;
            let to = format!("SET log_offset = {offset}, issued_at = {at} WHERE user_id = {user}");
            scene.sql(&format!("UPDATE coupon_issues {to}")).await;
            scene.shop.shelf().issued(*user).at = *at;
        }
        scene.change_record(|line| {
            if let Some(place) = line["place"].as_u64() {
                let at = appended[1 + usize::try_from(place).unwrap()].at;
                line["issuedAt"] = rfc3339(at).into();
            }
        });
        scene.begin_record(appended[appended.len() - 1].at + 1);
        scene.log = Some(log);
        scene
    }

    /// With a log, a stock that lasts, and a record in which nobody has asked yet.
    pub(crate) async fn on_sale() -> Self {
        let mut scene = Self::with_log(0).await;
        let raised = (defined(scene.coupon, 2, 1_000_000), TAKEN, 0);
        scene.log().append(1, &[raised]).await;
        scene.sql("UPDATE issue_coupons SET version = 2, stock = 1000000").await;
        scene.write_tables().await;
        let text = fs::read_to_string(&scene.answers).unwrap();
        fs::write(&scene.answers, format!("{}\n", text.lines().next().unwrap())).unwrap();
        scene
    }

    /// The doorman lets somebody in.
    pub(crate) async fn admit(&mut self, user: u64) {
        self.redis(redis::cmd("SADD").arg(self.key()).arg(user)).await;
    }

    pub(crate) async fn expel(&mut self, user: u64) {
        self.redis(redis::cmd("SREM").arg(self.key()).arg(user)).await;
    }

    /// A claim wins; it is shown, and then written.
    pub(crate) async fn sell(&mut self, user: u64) {
        let (coupon, place) = (self.coupon, self.shop.shelf().issued.len() as u64 + 1);
        let record = (claimed(coupon, user), ACCEPTED, u32::try_from(place).unwrap());
        let Appended { offset, at } = self.log().append(1, &[record]).await[0];
        self.shop.shelf().issue(user, at);
        self.sql("START TRANSACTION").await;
        self.sql(&format!("INSERT INTO coupon_issues VALUES ({coupon}, {user}, {place}, {offset}, {at})"))
            .await;
        self.sql("UPDATE issue_coupons SET `count` = `count` + 1").await;
        self.write_tables().await;
        self.sql("COMMIT").await;
    }

    /// Moves the load's record in time, so that it begins then.
    pub(crate) fn begin_record(&self, at: u64) {
        let mut first = None;
        self.change_record(|line| {
            let was = line["at"].as_u64().unwrap();
            line["at"] = (was - *first.get_or_insert(was) + at).into();
        });
    }

    pub(crate) fn change_record(&self, mut each: impl FnMut(&mut Value)) {
        let text = fs::read_to_string(&self.answers).unwrap();
        let changed = text.lines().map(|line| {
            let mut line = serde_json::from_str(line).unwrap();
            each(&mut line);
            format!("{line}\n")
        });
        fs::write(&self.answers, changed.collect::<String>()).unwrap();
    }

    /// Adds an attempt of a user and its answer to the record, an hour later.
    pub(crate) fn tell(&self, user: u64, answer: &Value) {
        let text = fs::read_to_string(&self.answers).unwrap();
        let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        let at = last["at"].as_u64().unwrap() + 3_600_000;
        let mut answer = answer.clone();
        (answer["answer"], answer["at"]) = (json!(777_777), json!(at + 1));
        let attempt = json!({"attempt": 777_777, "user": user, "at": at});
        fs::write(&self.answers, format!("{text}{attempt}\n{answer}\n")).unwrap();
    }

    pub(crate) fn log(&mut self) -> &mut Log {
        self.log.as_mut().unwrap()
    }

    pub(crate) async fn sql(&mut self, sql: &str) {
        self.mysql.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await.unwrap();
    }

    pub(crate) async fn redis(&mut self, command: &redis::Cmd) {
        command.query_async::<redis::Value>(&mut self.redis).await.unwrap();
    }

    pub(crate) fn key(&self) -> String {
        format!("coupon:{{{}}}:users", self.coupon)
    }

    pub(crate) fn winner(&self) -> u64 {
        *self.shop.shelf().issued.keys().next().unwrap()
    }

    pub(crate) fn run(&self, more: &[&str]) -> Output {
        self.run_on(&["--coupon", &self.coupon.to_string()], more)
    }

    pub(crate) fn run_on(&self, which: &[&str], more: &[&str]) -> Output {
        self.run_without_record(&[which, &["--answers", text(&self.answers)]].concat(), more)
    }

    pub(crate) fn run_without_record(&self, which: &[&str], more: &[&str]) -> Output {
        let args = self.arguments(which, more);
        couponctl(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Of an audit.
    pub(crate) fn arguments(&self, which: &[&str], more: &[&str]) -> Vec<String> {
        let (api, folder) = (self.shop.url(), self.folder.path());
        let options = [self.servers.mysql_options(folder), self.servers.redis_options(folder)].concat();
        let log = self.log.as_ref().map(Log::options).unwrap_or_default();
        let mut args = [&["audit"], which].concat();
        args.extend(["--database", &self.database, "--api", &api, "--tokens", text(&self.csv)]);
        args.extend(["--wait", "2s", "--rest", "300ms"]);
        args.extend(options.iter().chain(&log).map(String::as_str));
        if self.log.is_some() {
            args.push("--replay");
        }
        if !more.contains(&"--sample") {
            args.extend(["--sample", "200"]);
        }
        args.extend(more);
        args.into_iter().map(str::to_owned).collect()
    }

    /// Runs the audit to its end.
    pub(crate) fn report(&self, more: &[&str]) -> Value {
        report(&self.run(&[more, &["--json"]].concat()))
    }

    /// The same of all coupons there are.
    pub(crate) fn report_on_all(&self) -> Value {
        report(&self.run_on(&["--all"], &["--json"]))
    }

    /// Runs the audit a last time, and removes what the scene left on the servers.
    pub(crate) async fn audit(&mut self, more: &[&str]) -> Value {
        let report = self.report(more);
        self.sql(&format!("DROP DATABASE {}", self.database)).await;
        self.redis(redis::cmd("DEL").arg(self.key())).await;
        if let Some(log) = &self.log {
            log.remove().await;
        }
        report
    }

    /// The consumers have read what was appended since.
    pub(crate) async fn write_tables(&mut self) {
        self.log.as_ref().unwrap().write_tables(&mut self.mysql).await;
    }
}

pub(crate) fn report(output: &Output) -> Value {
    let error = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{error}"));
    assert_eq!(output.status.success(), report["ok"] == true, "{report}");
    report
}

/// The checks that failed, by their invariant, each with the users that it names.
pub(crate) fn failed(report: &Value) -> Vec<(String, Vec<u64>)> {
    let checks = report["checks"].as_array().unwrap().iter().filter(|check| check["verdict"] == "failed");
    let users = |check: &Value| {
        let offenders = check["offenders"].as_array().unwrap();
        offenders.iter().filter_map(|offender| offender["user"].as_u64()).collect()
    };
    checks.map(|check| (check["id"].as_str().unwrap().to_owned(), users(check))).collect()
}

pub(crate) fn named(id: &str, users: &[u64]) -> (String, Vec<u64>) {
    (id.to_owned(), users.to_vec())
}
