//! `audit` on real MySQL and Redis: it passes when all adds up, and finds each fault that is put in.

use std::fs;
use std::process::Output;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};

use crate::scene::{STOCK, Scene, USERS, failed, named};
use crate::shop::issue_id;

#[tokio::test]
async fn all_adds_up() {
    let mut scene = Scene::sold_out(3).await;
    scene.shop.shelf().undecided = 2;
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
    let others = report["checks"].as_array().unwrap().iter().filter(|check| check["verdict"] != "ok");
    let others: Vec<_> = others.map(|check| (&check["id"], &check["verdict"])).collect();
    let not_judged = json!("notJudged");
    let expected = ["L", "I6", "I4", "I8"].map(|id| json!(id));
    let expected: Vec<_> = expected.iter().map(|id| (id, &not_judged)).collect();
    assert_eq!(others, expected, "without Kafka: {report}");
}

#[tokio::test]
async fn a_lost_row_is_found() {
    let mut scene = Scene::sold_out(0).await;
    let (user, coupon) = (scene.winner(), scene.coupon);
    scene.sql(&format!("DELETE FROM coupon_issues WHERE coupon_id = {coupon} AND user_id = {user}")).await;
    let claims = scene.shop.shelf().claims;
    let report = scene.audit(&[]).await;
    assert_eq!(scene.shop.shelf().claims, claims + STOCK - 1, "who has no row does not claim");
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
        // Issued after the loser's refusal, which was true then.
        let values = format!("({coupon}, {user}, {place}, {place}, 4000000000000)");
        scene.sql(&format!("INSERT INTO coupon_issues VALUES {values}")).await;
        scene.redis(redis::cmd("SADD").arg(scene.key()).arg(user)).await;
        scene.shop.shelf().issue(user, 4_000_000_000_000);
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
    let [one, other, third] = scene.shop.shelf().winners()[..3].try_into().unwrap();
    scene.shop.shelf().issued(one).id = issue_id(scene.coupon, one + 1);
    scene.shop.shelf().issued(other).place = 77;
    scene.shop.shelf().issued(third).at = 6;
    let mut expected = [one, other, third];
    expected.sort_unstable();
    assert_eq!(failed(&scene.audit(&[]).await), [named("I7", &expected)]);
}

/// A receipt as the load heard it, of another place or time than the winner's.
#[tokio::test]
async fn a_recorded_receipt_of_another_place_or_time_is_found() {
    let mut scene = Scene::sold_out(0).await;
    let winners = scene.shop.shelf().winners();
    let text = fs::read_to_string(&scene.answers).unwrap();
    scene.change_record(|line| match line["place"].as_u64() {
        Some(1) => line["place"] = json!(2),
        Some(2) => line["issuedAt"] = json!("1970-01-01T00:00:00.006Z"),
        _ => {}
    });
    let report = scene.report(&[]);
    let mut expected = [winners[0], winners[1]];
    expected.sort_unstable();
    assert_eq!(failed(&report), [named("I7", &expected)], "{report}");

    // A record of before the load wrote them down.
    fs::write(&scene.answers, text).unwrap();
    scene.change_record(|line| {
        for field in ["place", "issuedAt"] {
            line.as_object_mut().unwrap().remove(field);
        }
    });
    let report = scene.audit(&[]).await;
    assert_eq!(failed(&report), []);
    let what = "each receipt has the winner's place and time";
    let check = report["checks"].as_array().unwrap().iter().find(|check| check["what"] == what).unwrap();
    assert_eq!(check["verdict"], "notJudged");
}

/// Whoever was told ISSUED and has no row does not get one by being asked about.
#[tokio::test]
async fn asking_again_issues_nothing() {
    let mut scene = Scene::sold_out(0).await;
    let loser = (1..=USERS).find(|user| !scene.shop.shelf().issued.contains_key(user)).unwrap();
    let id = issue_id(scene.coupon, loser);
    scene.tell(loser, &json!({"status": 200, "outcome": "ISSUED", "issueId": id}));
    scene.shop.shelf().stock += 1;
    let claims = scene.shop.shelf().claims;
    let report = scene.audit(&[]).await;
    assert!(!scene.shop.shelf().issued.contains_key(&loser), "it was issued by the audit");
    assert_eq!(scene.shop.shelf().claims, claims + STOCK, "each winner with a row claims again");
    let failed = failed(&report);
    assert!(failed.contains(&named("I1", &[loser])) && failed.contains(&named("I7", &[loser])), "{failed:?}");
}

#[tokio::test]
async fn a_coupon_that_nobody_knows_is_refused() {
    let mut scene = Scene::sold_out(0).await;
    let output = scene.run_without_record(&["--coupon", "7"], &[]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    assert!(error.contains("--coupon 7: nobody knows it") && error.lines().count() == 1, "{error}");

    // One that is only shown, as before its first claim.
    scene.sql("DELETE FROM coupon_issues").await;
    scene.sql("DELETE FROM issue_coupons").await;
    scene.redis(redis::cmd("DEL").arg(scene.key())).await;
    scene.shop.shelf().issued.clear();
    let output = scene.run_without_record(&["--coupon", &scene.coupon.to_string()], &[]);
    assert!(output.status.success(), "{output:?}");
    scene.audit(&[]).await;
}

#[tokio::test]
async fn a_record_that_is_still_written_is_refused() {
    let mut scene = Scene::sold_out(0).await;
    let load = fs::File::open(&scene.answers).unwrap();
    load.lock().unwrap();
    let output = scene.run(&[]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("still runs") && error.lines().count() == 1, "{error}");
    drop(load);
    assert_eq!(failed(&scene.audit(&[]).await), []);
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
    assert_eq!(
        failed(&report),
        [named("P", &[user]), named("I5", &[]), named("I7", &[user]), named("I7", &[user])]
    );
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

#[tokio::test]
async fn a_member_that_redis_lacks_is_found() {
    let mut scene = Scene::sold_out(0).await;
    let user = scene.winner();
    scene.redis(redis::cmd("SREM").arg(scene.key()).arg(user)).await;
    let report = scene.audit(&[]).await;
    assert_eq!(failed(&report), [named("I5", &[user])]);
}

#[tokio::test]
async fn a_record_of_another_coupon_is_refused() {
    let mut scene = Scene::sold_out(0).await;
    let text = fs::read_to_string(&scene.answers).unwrap();
    fs::write(&scene.answers, text.replace(&format!("\"coupon\":{}", scene.coupon), "\"coupon\":7")).unwrap();
    let output = scene.run(&[]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("the answers are of claims on coupon 7") && error.lines().count() == 1, "{error}");
    fs::write(&scene.answers, text).unwrap();
    scene.audit(&[]).await;
}
