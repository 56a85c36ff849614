//! `audit` of a coupon that is just being sold: what is right in between is no fault, and what is wrong is one.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::scene::{Scene, failed, named, report};

/// Nobody has this id.
const STRANGER: u64 = 999_999;
/// Nor these: each is let in, and his slot found to have leaked a sale later.
const LEAKED: u64 = 2_000_000;

/// Sells one after the other until the audit has ended.
async fn audit_while_selling(scene: &mut Scene) -> Value {
    let (coupon, answers) = (scene.coupon.to_string(), scene.answers.to_str().unwrap().to_owned());
    let which = ["--coupon", &coupon, "--answers", &answers, "--partial", "--json"];
    let mut audit = Command::new(env!("CARGO_BIN_EXE_couponctl"))
        .args(scene.arguments(&which, &[]))
        .env_remove("FIRSTCOME_STATE")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let first = 1_000_000 + scene.shop.shelf().issued.len() as u64;
    scene.admit(first).await;
    let mut user = first;
    while audit.try_wait().unwrap().is_none() {
        // At every moment there are two in the set without a row: who wins next, and who never does.
        scene.admit(user + 1).await;
        scene.admit(LEAKED + user + 1).await;
        scene.expel(LEAKED + user).await;
        scene.sell(user).await;
        user += 1;
    }
    scene.sell(user).await;
    scene.expel(LEAKED + user).await;
    assert!(user > first + 5, "it was no sale");
    report(&audit.wait_with_output().unwrap())
}

/// The verdicts on what is shown and on the set, with what was compared.
fn fifth(report: &Value) -> Vec<(&str, &str)> {
    let checks = report["checks"].as_array().unwrap().iter().filter(|check| check["id"] == "I5");
    checks.map(|it| (it["verdict"].as_str().unwrap(), it["compared"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn a_sale_that_goes_on_adds_up() {
    let mut scene = Scene::on_sale().await;
    let during = audit_while_selling(&mut scene).await;
    assert_eq!(failed(&during), [], "{during}");
    let found = fifth(&during);
    assert_eq!([found[0].0, found[1].0], ["ok"; 2], "{during}");
    assert!(found[0].1.ends_with("rows afterwards"), "it has moved: {found:?}");

    let after = scene.audit(&["--partial"]).await;
    assert_eq!(failed(&after), [], "{after}");
    assert!(!fifth(&after)[0].1.contains("afterwards"), "it rests: {after}");
}

#[tokio::test]
async fn what_is_wrong_with_the_set_is_found_during_a_sale() {
    let mut scene = Scene::on_sale().await;
    let winner = scene.winner();
    scene.admit(STRANGER).await;
    scene.expel(winner).await;
    assert_eq!(failed(&audit_while_selling(&mut scene).await), [named("I5", &[winner, STRANGER])]);

    scene.expel(STRANGER).await;
    scene.admit(winner).await;
    assert_eq!(failed(&scene.audit(&["--partial"]).await), []);
}

#[tokio::test]
async fn a_wrong_count_is_found_during_a_sale() {
    let mut scene = Scene::on_sale().await;
    for shown in [3, 1_000_000] {
        scene.shop.shelf().shown = Some(shown);
        let mut during = audit_while_selling(&mut scene).await;
        // On a busy machine the rows may not get level with the log in time, and then too many are not judged.
        for _ in 0..2 {
            if fifth(&during)[0].0 != "notJudged" {
                break;
            }
            during = audit_while_selling(&mut scene).await;
        }
        assert_eq!(failed(&during), [named("I5", &[])], "{shown}: {during}");
    }
    scene.shop.shelf().shown = None;
    assert_eq!(failed(&scene.audit(&["--partial"]).await), []);
}
