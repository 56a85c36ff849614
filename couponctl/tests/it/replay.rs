//! `audit --replay` on a real log: it passes when log, tables and answers agree, and finds each fault that is put in.

use serde_json::json;

use crate::log::{MALFORMED, defined, noop};
use crate::scene::{STOCK, Scene, failed, named};
use crate::shop::issue_id;

/// The problems of the check with this id and these words.
fn problems(report: &serde_json::Value, id: &str, what: &str) -> String {
    let checks = report["checks"].as_array().unwrap();
    let check =
        checks.iter().find(|check| check["id"] == id && check["what"].as_str().unwrap().contains(what));
    let check = check.unwrap_or_else(|| panic!("{id} {what}: {report}"));
    let offenders = check["offenders"].as_array().unwrap().iter();
    offenders.map(|offender| offender["problem"].as_str().unwrap()).collect::<Vec<_>>().join("; ")
}

/// The winners of places 1 and 2, sorted.
fn first_two(scene: &Scene) -> Vec<u64> {
    let mut users = scene.shop.shelf().winners();
    users.truncate(2);
    users.sort_unstable();
    users
}

#[tokio::test]
async fn log_and_tables_agree() {
    let mut scene = Scene::with_log(3).await;
    let report = scene.audit(&[]).await;
    let checks = report["checks"].as_array().unwrap();
    assert!(checks.iter().all(|check| check["verdict"] == "ok"), "{report}");
    for id in ["I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8"] {
        assert!(checks.iter().any(|check| check["id"] == id), "{id}: {report}");
    }
    assert_eq!((&report["unheard"], &report["pending"]), (&json!(3), &json!(3)));
}

#[tokio::test]
async fn two_winners_who_changed_places_are_found() {
    let mut scene = Scene::with_log(0).await;
    let users = first_two(&scene);
    scene
        .sql(&format!(
            "UPDATE coupon_issues SET place = 3 - place WHERE user_id IN ({}, {})",
            users[0], users[1]
        ))
        .await;
    let report = scene.audit(&[]).await;
    assert_eq!(failed(&report), [named("I7", &users), named("I7", &users), named("I8", &users)]);
    assert!(problems(&report, "I8", "rows").contains("place is 2, by the log 1"));
    assert!(problems(&report, "I7", "place and time").contains("in its row it is"));
}

#[tokio::test]
async fn a_wrong_offset_and_a_wrong_time_are_found() {
    let mut scene = Scene::with_log(0).await;
    let users = first_two(&scene);
    scene
        .sql(&format!("UPDATE coupon_issues SET log_offset = log_offset + 1 WHERE user_id = {}", users[0]))
        .await;
    scene
        .sql(&format!("UPDATE coupon_issues SET issued_at = issued_at - 1 WHERE user_id = {}", users[1]))
        .await;
    let late = named("I7", &users[1..]);
    assert_eq!(failed(&scene.audit(&[]).await), [late.clone(), late, named("I8", &users)]);
}

/// A winner of the log without a row, who was told so; and a row that the log does not give.
#[tokio::test]
async fn a_missing_row_and_one_too_many_are_found() {
    let mut scene = Scene::with_log(0).await;
    let user = scene.winner();
    scene.sql(&format!("UPDATE coupon_issues SET user_id = 999999 WHERE user_id = {user}")).await;
    scene.redis(redis::cmd("SREM").arg(scene.key()).arg(user)).await;
    scene.redis(redis::cmd("SADD").arg(scene.key()).arg(999_999)).await;
    scene.shop.shelf().issue(999_999, 5);
    let report = scene.audit(&["--sample", "0"]).await;
    let failed = failed(&report);
    for expected in [named("I1", &[user]), named("A", &[999_999]), named("I8", &[user, 999_999])] {
        assert!(failed.contains(&expected), "{expected:?} in {failed:?}");
    }
    assert_eq!(report["lost"], 1);
    assert!(problems(&report, "I8", "rows").contains("and has no row"));
}

#[tokio::test]
async fn a_user_with_two_rows_is_found() {
    let mut scene = Scene::with_log(0).await;
    let (user, coupon) = (scene.winner(), scene.coupon);
    scene.sql("ALTER TABLE coupon_issues DROP PRIMARY KEY").await;
    scene.sql(&format!("INSERT INTO coupon_issues VALUES ({coupon}, {user}, 51, 51, 5)")).await;
    let failed = failed(&scene.audit(&[]).await);
    for expected in [named("I1", &[user]), named("I2", &[]), named("I3", &[user]), named("I8", &[user])] {
        assert!(failed.contains(&expected), "{expected:?} in {failed:?}");
    }
}

#[tokio::test]
async fn a_count_and_a_definition_that_are_not_the_logs_are_found() {
    let mut scene = Scene::with_log(0).await;
    scene.sql("UPDATE issue_coupons SET `count` = 49, ends_at = 5").await;
    let report = scene.audit(&[]).await;
    assert_eq!(failed(&report), [named("I8", &[]), named("I5", &[])]);
    let problems = problems(&report, "I8", "digests");
    assert!(problems.contains("ends_at is 5, by the log") && problems.contains("count is 49"), "{problems}");
}

#[tokio::test]
async fn a_digest_that_differs_is_found_and_narrowed() {
    let mut scene = Scene::with_log(0).await;
    scene.sql("UPDATE ledger_watermarks SET digest = X'00' WHERE log_partition = 1").await;
    let report = scene.audit(&[]).await;
    assert_eq!(failed(&report), [named("I8", &[])]);
    let problems = problems(&report, "I8", "digests");
    assert!(
        problems.contains("partition 1: the digests differ from offset 4154 on")
            && problems.contains("4096 to 4153"),
        "{problems}"
    );
}

#[tokio::test]
async fn a_stored_digest_that_was_changed_is_found() {
    let mut scene = Scene::with_log(0).await;
    scene.sql("UPDATE ledger_digests SET digest = X'00'").await;
    let report = scene.audit(&[]).await;
    assert_eq!(failed(&report), [named("I8", &[])]);
    assert!(problems(&report, "I8", "digests").contains("4096 differs, and a later one agrees"));
}

#[tokio::test]
async fn a_dead_letter_is_a_fault_unless_it_is_expected() {
    let mut scene = Scene::with_log(0).await;
    let rubbish = (b"rubbish".to_vec(), MALFORMED, 0);
    let offset = scene.log().append(1, &[rubbish]).await[0].offset;
    scene.write_tables().await;
    let report = scene.report(&[]);
    assert_eq!(failed(&report), [named("I6", &[])]);
    let missing = problems(&report, "I6", "are the log's");
    assert!(missing.contains(&format!("1/{offset} can't be read, and was not set aside")), "{missing}");

    for _ in 0..2 {
        scene.log().set_aside(1, offset, b"rubbish").await;
    }
    let report = scene.report(&[]);
    assert_eq!(failed(&report), [named("I6", &[])]);
    assert!(problems(&report, "I6", "waits").contains(&format!("letter 1/{offset}: malformed: a test")));
    assert_eq!(failed(&scene.audit(&["--dead-letters-expected", "1"]).await), []);
}

/// The winner whose claim was answered PENDING, so that the log alone tells of it.
fn unheard(scene: &Scene) -> u64 {
    let told = std::fs::read_to_string(&scene.answers).unwrap();
    let users = scene.shop.shelf().winners();
    users.into_iter().find(|user| !told.contains(&issue_id(scene.coupon, *user))).unwrap()
}

#[tokio::test]
async fn a_winner_who_is_refused_an_hour_later_is_found_by_the_log_alone() {
    let mut scene = Scene::with_log(1).await;
    let user = unheard(&scene);
    scene.tell(user, &json!({"status": 409, "outcome": "SOLD_OUT"}));
    assert_eq!(failed(&scene.audit(&[]).await), [named("I7", &[user])]);
}

/// A record is stamped a moment before it can be read: a refusal in between is true.
#[tokio::test]
async fn a_refusal_right_after_the_append_is_a_fault_only_without_tolerance() {
    let mut scene = Scene::with_log(1).await;
    let user = unheard(&scene);
    let won = scene.shop.shelf().issued(user).at;
    scene.tell(user, &json!({"status": 409, "outcome": "REFUSED", "code": "COUPON_ENDED"}));
    let ask = |sent: u64| {
        scene.change_record(|line| {
            if line["attempt"] == 777_777 || line["answer"] == 777_777 {
                line["at"] = json!(sent);
            }
        });
    };
    // The coupon had not ended, whoever asked.
    let untrue = || named("I4", &[user]);
    ask(won + 50);
    assert_eq!(failed(&scene.report(&[])), [untrue()]);
    assert_eq!(failed(&scene.report(&["--clock-tolerance", "0s"])), [untrue(), named("I7", &[user])]);
    ask(won + 51);
    assert_eq!(failed(&scene.audit(&[]).await), [untrue(), named("I7", &[user])]);
}

#[tokio::test]
async fn a_lost_issued_and_a_premature_sold_out_are_found() {
    let mut scene = Scene::with_log(0).await;
    let user = 888_888;
    scene.tell(user, &json!({"status": 200, "outcome": "ISSUED", "issueId": issue_id(scene.coupon, user)}));
    let report = scene.report(&["--sample", "0"]);
    assert_eq!(failed(&report), [named("I1", &[user])]);
    assert_eq!(report["lost"], 1);

    // The whole record as if it had been before the first claim was appended.
    scene.begin_record(1_000);
    let report = scene.audit(&["--sample", "0"]).await;
    let failed = failed(&report);
    let early = failed.iter().find(|(id, _)| id == "I4").unwrap();
    assert_eq!(early.1.len() as u64, crate::scene::USERS - STOCK, "{failed:?}");
}

#[tokio::test]
async fn a_log_without_its_beginning_is_no_proof() {
    let mut scene = Scene::with_log(0).await;
    scene.log().cut(1, 1).await;
    let report = scene.audit(&[]).await;
    assert_eq!(failed(&report), [named("I8", &[]), named("I8", &[])]);
    assert!(problems(&report, "I8", "digests").contains("the log begins at offset 1"));
}

#[tokio::test]
async fn all_coupons_are_looked_at_those_of_the_log_alone_too() {
    let mut scene = Scene::with_log(0).await;
    let report = scene.report_on_all();
    assert_eq!(report["ok"], true, "{report}");
    assert_eq!(report["coupons"][0]["coupon"], scene.coupon);

    let other = crate::log::coupon_in(0);
    scene
        .log()
        .append(0, &[(defined(other, 1, 5), crate::log::TAKEN, 0), (noop(), crate::log::NOOP, 0)])
        .await;
    scene.write_tables().await;
    let user = scene.winner();
    scene.sql(&format!("UPDATE coupon_issues SET place = 77 WHERE user_id = {user}")).await;
    let report = scene.report_on_all();
    assert_eq!(report["ok"], false);
    assert_eq!(failed(&report), [named("I8", &[])]);
    assert!(
        problems(&report, "I8", "digests")
            .contains(&format!("coupon {other}: defined in the log and not in the tables"))
    );
    let alone = scene.run_without_record(&["--coupon", &other.to_string()], &["--json"]);
    let alone: serde_json::Value = serde_json::from_slice(&alone.stdout).unwrap();
    assert_eq!((&alone["coupon"], &alone["ok"]), (&json!(other), &json!(false)), "the log knows it: {alone}");
    let mut coupons: Vec<u64> =
        report["coupons"].as_array().unwrap().iter().map(|it| it["coupon"].as_u64().unwrap()).collect();
    coupons.sort_unstable();
    let mut expected = [scene.coupon, other];
    expected.sort_unstable();
    assert_eq!(coupons, expected);
    let faulty =
        report["coupons"].as_array().unwrap().iter().find(|it| it["coupon"] == scene.coupon).unwrap();
    assert_eq!(
        failed(faulty),
        [named("P", &[user]), named("I7", &[user]), named("I7", &[user]), named("I8", &[user])]
    );
    let table = String::from_utf8(scene.run_on(&["--all"], &[]).stdout).unwrap();
    assert!(
        table.contains("IT DOES NOT ADD UP") && table.contains(&format!("user {user}: has place 77")),
        "{table}"
    );
    scene.audit(&[]).await;
}
