//! `audit` on real MySQL and Redis: it passes when all adds up, and finds each fault that is put in.

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Executor};
use tempfile::TempDir;

use crate::load::tokens;
use crate::servers::Servers;
use crate::shop::{Shelf, Shop, issue_id};
use crate::{couponctl, text};

const STOCK: u64 = 50;
const USERS: u64 = 120;

/// A coupon that was sold out to the first users, with what the services leave behind.
struct Scene {
    coupon: u64,
    folder: TempDir,
    servers: Servers,
    shop: Shop,
    mysql: MySqlConnection,
    redis: redis::aio::MultiplexedConnection,
    database: String,
    csv: PathBuf,
    answers: PathBuf,
}

impl Scene {
    async fn sold_out(pending: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let servers = Servers::get();
        let coupon = rand::random_range(1..1_u64 << 53);
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
        let mut scene = Self { coupon, folder, servers, shop, mysql, redis, database, csv, answers };
        let winners: Vec<u64> = scene.shop.shelf().issued.keys().copied().collect();
        assert_eq!(winners.len() as u64, STOCK);
        scene
            .sql(&format!(
                "INSERT INTO issue_coupons VALUES ({coupon}, 0, 1, {STOCK}, 0, 9, 0, NULL, {STOCK})"
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

    async fn sql(&mut self, sql: &str) {
        self.mysql.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await.unwrap();
    }

    async fn redis(&mut self, command: &redis::Cmd) {
        command.query_async::<redis::Value>(&mut self.redis).await.unwrap();
    }

    fn key(&self) -> String {
        format!("coupon:{{{}}}:users", self.coupon)
    }

    fn winner(&self) -> u64 {
        *self.shop.shelf().issued.keys().next().unwrap()
    }

    fn run(&self, more: &[&str]) -> Output {
        let (coupon, api) = (self.coupon.to_string(), self.shop.url());
        let folder = self.folder.path();
        let options = [self.servers.mysql_options(folder), self.servers.redis_options(folder)].concat();
        let mut args = vec!["audit", "--coupon", &coupon, "--database", &self.database, "--api", &api];
        args.extend(["--answers", text(&self.answers), "--tokens", text(&self.csv), "--sample", "200"]);
        args.extend(["--wait", "2s", "--rest", "300ms"]);
        args.extend(options.iter().map(String::as_str));
        args.extend(more);
        couponctl(&args)
    }

    /// Runs the audit to its end and removes what the scene left on the servers.
    async fn audit(&mut self, more: &[&str]) -> Value {
        let output = self.run(&[more, &["--json"]].concat());
        let error = String::from_utf8_lossy(&output.stderr);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{error}"));
        assert_eq!(output.status.success(), report["ok"] == true, "{report}");
        self.sql(&format!("DROP DATABASE {}", self.database)).await;
        self.redis(redis::cmd("DEL").arg(self.key())).await;
        report
    }
}

/// The checks that failed, by their invariant, each with the users that it names.
fn failed(report: &Value) -> Vec<(String, Vec<u64>)> {
    let checks = report["checks"].as_array().unwrap().iter().filter(|check| check["verdict"] == "failed");
    let users = |check: &Value| {
        let offenders = check["offenders"].as_array().unwrap();
        offenders.iter().map(|offender| offender["user"].as_u64().unwrap()).collect()
    };
    checks.map(|check| (check["id"].as_str().unwrap().to_owned(), users(check))).collect()
}

fn named(id: &str, users: &[u64]) -> (String, Vec<u64>) {
    (id.to_owned(), users.to_vec())
}

#[tokio::test]
async fn all_adds_up() {
    let mut scene = Scene::sold_out(3).await;
    let output = scene.run(&[]);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{table}{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        table.contains("it adds up") && !table.contains('\u{1b}'),
        "no colours where no terminal is: {table}"
    );
    let report = scene.audit(&[]).await;
    assert_eq!(failed(&report), [], "{report}");
    // Three winners were told PENDING only; their rows are explained by that.
    assert_eq!(
        (&report["toldIssued"], &report["pending"], &report["rows"]),
        (&json!(47), &json!(3), &json!(50))
    );
    assert_eq!(
        (&report["lost"], &report["duplicates"], &report["overIssued"]),
        (&json!(0), &json!(0), &json!(0))
    );
    assert!(report["checks"].as_array().unwrap().iter().all(|check| check["verdict"] == "ok"), "{report}");
}

#[tokio::test]
async fn a_lost_row_is_found() {
    let mut scene = Scene::sold_out(0).await;
    let (user, coupon) = (scene.winner(), scene.coupon);
    scene.sql(&format!("DELETE FROM coupon_issues WHERE coupon_id = {coupon} AND user_id = {user}")).await;
    let report = scene.audit(&[]).await;
    let failed = failed(&report);
    assert_eq!(report["lost"], 1);
    assert!(failed.contains(&named("I1", &[user])), "{failed:?}");
    assert!(failed.contains(&named("I5", &[])) && failed.contains(&named("I5", &[user])), "{failed:?}");
    assert!(failed.contains(&named("I4", &[])), "sold out was said, and a slot is free: {failed:?}");
}

#[tokio::test]
async fn a_duplicate_is_found() {
    let mut scene = Scene::sold_out(0).await;
    let (user, coupon) = (scene.winner(), scene.coupon);
    scene.sql("ALTER TABLE coupon_issues DROP PRIMARY KEY").await;
    scene.sql(&format!("INSERT INTO coupon_issues VALUES ({coupon}, {user}, 51, 51, 5)")).await;
    let report = scene.audit(&[]).await;
    let failed = failed(&report);
    assert_eq!((&report["duplicates"], &report["overIssued"]), (&json!(1), &json!(1)));
    for expected in [named("I1", &[user]), named("I2", &[]), named("I3", &[user])] {
        assert!(failed.contains(&expected), "{expected:?} in {failed:?}");
    }
}

#[tokio::test]
async fn an_over_issue_is_found() {
    let mut scene = Scene::sold_out(0).await;
    let coupon = scene.coupon;
    // A loser who was told sold out, and somebody who never asked; the counts go along with the fault.
    let loser = (1..=USERS).find(|user| !scene.shop.shelf().issued.contains_key(user)).unwrap();
    for (user, place) in [(loser, 51), (999_999, 52)] {
        scene.sql(&format!("INSERT INTO coupon_issues VALUES ({coupon}, {user}, {place}, {place}, 5)")).await;
        scene.redis(redis::cmd("SADD").arg(scene.key()).arg(user)).await;
        scene.shop.shelf().issued.insert(user, issue_id(coupon, user));
    }
    scene.sql("UPDATE issue_coupons SET `count` = 52").await;
    let report = scene.audit(&[]).await;
    assert_eq!((&report["overIssued"], &report["unexplained"]), (&json!(2), &json!(2)));
    assert_eq!(failed(&report), [named("I2", &[]), named("A", &[loser, 999_999])]);
}

#[tokio::test]
async fn an_extra_member_in_redis_is_found_and_may_be_permitted() {
    let mut scene = Scene::sold_out(0).await;
    scene.redis(redis::cmd("SADD").arg(scene.key()).arg(999_999)).await;
    let permitted = scene.run(&["--redis-may-differ"]);
    assert!(permitted.status.success());
    let report = scene.audit(&[]).await;
    assert_eq!(failed(&report), [named("I5", &[999_999])]);
}

#[tokio::test]
async fn a_winner_who_gets_another_receipt_is_found() {
    let mut scene = Scene::sold_out(0).await;
    let user = scene.winner();
    scene.shop.shelf().issued.insert(user, issue_id(scene.coupon, user + 1));
    let report = scene.audit(&[]).await;
    assert_eq!(failed(&report), [named("I7", &[user])]);
}

#[tokio::test]
async fn a_receipt_of_somebody_else_is_found() {
    let mut scene = Scene::sold_out(0).await;
    let user = scene.winner();
    let (right, wrong) = (issue_id(scene.coupon, user), issue_id(scene.coupon, user + 1));
    let record = fs::read_to_string(&scene.answers).unwrap().replace(&right, &wrong);
    fs::write(&scene.answers, record).unwrap();
    let report = scene.audit(&[]).await;
    assert_eq!(failed(&report), [named("I1", &[user])]);
}

#[tokio::test]
async fn a_wrong_count_and_a_gap_in_the_places_are_found() {
    let mut scene = Scene::sold_out(0).await;
    let (user, coupon) = (scene.winner(), scene.coupon);
    scene.sql("UPDATE issue_coupons SET `count` = 49").await;
    scene
        .sql(&format!("UPDATE coupon_issues SET place = 77 WHERE coupon_id = {coupon} AND user_id = {user}"))
        .await;
    let report = scene.audit(&[]).await;
    assert_eq!(failed(&report), [named("P", &[user]), named("I5", &[])]);
}

#[tokio::test]
async fn a_consumer_that_is_behind_the_log_is_found() {
    let mut scene = Scene::sold_out(0).await;
    let topic = format!("ctl-audit-{}", scene.coupon);
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &scene.servers.kafka.bootstrap_servers);
    let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
    let new = NewTopic::new(&topic, 2, TopicReplication::Fixed(1));
    admin.create_topics([&new], &AdminOptions::new()).await.unwrap();
    let producer: FutureProducer = config.create().unwrap();
    for _ in 0..3 {
        let record = FutureRecord::<(), [u8]>::to(&topic).partition(1).payload(b"x".as_slice());
        producer.send(record, std::time::Duration::from_secs(10)).await.unwrap();
    }
    let kafka = scene.servers.kafka.bootstrap_servers.clone();
    let options = ["--kafka", &kafka, "--topic", &topic, "--json"];
    let level = |output: &Output| {
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let check = report["checks"][0].clone();
        (check["verdict"].as_str().unwrap().to_owned(), check["compared"].as_str().unwrap().to_owned())
    };
    scene.sql("INSERT INTO ledger_watermarks VALUES (1, 2, '', '')").await;
    assert_eq!(level(&scene.run(&options)), ("failed".to_owned(), "partition 1 at 2 of 3".to_owned()));
    scene.sql("UPDATE ledger_watermarks SET `next` = 3").await;
    assert_eq!(level(&scene.run(&options)).0, "ok");
    admin.delete_topics(&[&topic], &AdminOptions::new()).await.unwrap();
    scene.audit(&[]).await;
}
