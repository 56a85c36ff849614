//! Claims and coupons: every answer of the API.

use std::time::{Duration, Instant};

use e2e::client::{Answer, Client, members};
use e2e::coupons::{self, OPEN, Window, check_receipt, claim, claim_until_final};
use e2e::stack::{Stack, shared};
use e2e::tokens::{Minter, user_ids};
use e2e::users;
use serde_json::json;

/// A change is in force within 2 s; the rest is for a busy machine.
const IN_FORCE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn sign_up_log_in_and_claim() {
    let _stack = shared().await;
    let stack = Stack::load();
    let client = Client::gateway(&stack);
    let admin = users::admin(&stack, &client).await;
    let coupon = coupons::create(&client, &admin, 10, OPEN).await;
    let user = users::customer(&client).await;
    let mine = format!("/coupon-issues/{coupon}/me");

    let before = client.get(&mine, Some(&user.access)).await.expect(200);
    assert_eq!(before["status"], "NONE", "{before}");

    let receipt = claim_until_final(&client, &user.access, coupon).await.expect(200);
    check_receipt(&receipt, user.id, coupon);

    let again = claim(&client, Some(&user.access), coupon).await.problem(409, "COUPON_ALREADY_ISSUED");
    assert_eq!(again["receipt"], receipt);

    let status = client.get(&mine, Some(&user.access)).await.expect(200);
    assert_eq!(status, receipt);

    // My coupons come from MySQL, which follows the ledger.
    for round in 0.. {
        let list = client.get("/coupon-issues/me", Some(&user.access)).await.expect(200);
        if let Some([item]) = list["items"].as_array().map(Vec::as_slice) {
            assert_eq!(*item, receipt);
            break;
        }
        assert!(round < 50, "my coupon is not listed after 10 s: {list}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn an_event_id_is_accepted() {
    let _stack = shared().await;
    let stack = Stack::load();
    let client = Client::gateway(&stack);
    let admin = users::admin(&stack, &client).await;
    let coupon = coupons::create(&client, &admin, 1, OPEN).await;
    let user = user_ids(1)[0];
    let token = Minter::of(&stack).token(user);
    let body = json!({"couponId": coupon, "eventId": 7});
    let answer = client.post("/coupon-issues", Some(&token), &body).await;
    let receipt = coupons::settled(&client, &token, answer).await.expect(200);
    check_receipt(&receipt, user, coupon);
}

#[tokio::test]
async fn a_sold_out_coupon_says_so_and_its_winner_keeps_the_receipt() {
    let _stack = shared().await;
    let stack = Stack::load();
    let client = Client::gateway(&stack);
    let admin = users::admin(&stack, &client).await;
    let coupon = coupons::create(&client, &admin, 1, OPEN).await;
    let minter = Minter::of(&stack);
    let [winner, loser] = user_ids(2)[..] else { unreachable!("two were asked for") };
    let receipt = claim_until_final(&client, &minter.token(winner), coupon).await.expect(200);
    assert_eq!(receipt["place"], 1);

    let late = claim_until_final(&client, &minter.token(loser), coupon).await;
    late.problem(409, "COUPON_SOLD_OUT");
    let again =
        claim(&client, Some(&minter.token(winner)), coupon).await.problem(409, "COUPON_ALREADY_ISSUED");
    assert_eq!(again["receipt"], receipt);
    let none =
        client.get(&format!("/coupon-issues/{coupon}/me"), Some(&minter.token(loser))).await.expect(200);
    assert_eq!(none["status"], "NONE");
}

#[tokio::test]
async fn the_window_has_a_begin_and_an_end() {
    let _stack = shared().await;
    let stack = Stack::load();
    let client = Client::gateway(&stack);
    let admin = users::admin(&stack, &client).await;
    let minter = Minter::of(&stack);
    let [early, winner, late] = user_ids(3)[..] else { unreachable!("three were asked for") };

    let later = coupons::create(&client, &admin, 5, Window { starts: 3600, ends: 7200 }).await;
    let answer = claim_until_final(&client, &minter.token(early), later).await;
    answer.problem(409, "COUPON_NOT_STARTED");

    let short = coupons::create(&client, &admin, 5, Window { starts: -5, ends: 5 }).await;
    let receipt = claim_until_final(&client, &minter.token(winner), short).await.expect(200);
    tokio::time::sleep(Duration::from_secs(6)).await;
    let answer = claim_until_final(&client, &minter.token(late), short).await;
    answer.problem(409, "COUPON_ENDED");
    let again =
        claim(&client, Some(&minter.token(winner)), short).await.problem(409, "COUPON_ALREADY_ISSUED");
    assert_eq!(again["receipt"], receipt);
}

/// Asks until the answer has this status, which a change brings about.
async fn soon(status: u16, ask: impl AsyncFn() -> Answer) -> Answer {
    let begin = Instant::now();
    loop {
        let answer = ask().await;
        if answer.status == status {
            println!("in force after {:?}", begin.elapsed());
            return answer;
        }
        assert!(begin.elapsed() < IN_FORCE, "after {IN_FORCE:?} still {}: {}", answer.status, answer.text);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn more_stock_is_for_who_came_too_late() {
    let _stack = shared().await;
    let stack = Stack::load();
    let client = Client::gateway(&stack);
    let admin = users::admin(&stack, &client).await;
    let coupon = coupons::create(&client, &admin, 1, OPEN).await;
    let minter = Minter::of(&stack);
    let [winner, loser] = user_ids(2)[..] else { unreachable!("two were asked for") };
    claim_until_final(&client, &minter.token(winner), coupon).await.expect(200);
    let loser_token = minter.token(loser);
    claim_until_final(&client, &loser_token, coupon).await.problem(409, "COUPON_SOLD_OUT");

    let changed = coupons::change(&client, &admin, coupon, &json!({"quantity": 2})).await;
    assert_eq!(changed["quantity"], 2, "{changed}");
    let answer = soon(200, async || {
        let answer = claim_until_final(&client, &loser_token, coupon).await;
        if answer.status != 200 {
            answer.problem(409, "COUPON_SOLD_OUT");
        }
        answer
    });
    let receipt = answer.await.expect(200);
    check_receipt(&receipt, loser, coupon);
    assert_eq!(receipt["place"], 2);
}

#[tokio::test]
async fn a_closed_coupon_is_issued_to_nobody_else() {
    let _stack = shared().await;
    let stack = Stack::load();
    let client = Client::gateway(&stack);
    let admin = users::admin(&stack, &client).await;
    let coupon = coupons::create(&client, &admin, 1_000, OPEN).await;
    let minter = Minter::of(&stack);
    let winner = minter.token(user_ids(1)[0]);
    let receipt = claim_until_final(&client, &winner, coupon).await.expect(200);

    let changed = coupons::change(&client, &admin, coupon, &json!({"closed": true})).await;
    assert_eq!(changed["state"], "CLOSED", "{changed}");
    // Until then each is somebody else, as a claim may still win.
    let answer = soon(409, async || claim_until_final(&client, &minter.token(user_ids(1)[0]), coupon).await);
    answer.await.problem(409, "COUPON_ENDED");
    let again = claim(&client, Some(&winner), coupon).await.problem(409, "COUPON_ALREADY_ISSUED");
    assert_eq!(again["receipt"], receipt);
}

#[tokio::test]
async fn a_window_can_be_moved() {
    let _stack = shared().await;
    let stack = Stack::load();
    let client = Client::gateway(&stack);
    let admin = users::admin(&stack, &client).await;
    let coupon = coupons::create(&client, &admin, 1_000, Window { starts: 3600, ends: 7200 }).await;
    let minter = Minter::of(&stack);
    let early = minter.token(user_ids(1)[0]);
    claim_until_final(&client, &early, coupon).await.problem(409, "COUPON_NOT_STARTED");

    let now = json!({"startsAt": coupons::in_seconds(-60)});
    assert_eq!(coupons::change(&client, &admin, coupon, &now).await["state"], "OPEN");
    soon(200, async || claim_until_final(&client, &early, coupon).await).await;

    let over = json!({"endsAt": coupons::in_seconds(-1)});
    assert_eq!(coupons::change(&client, &admin, coupon, &over).await["state"], "ENDED");
    let answer = soon(409, async || claim_until_final(&client, &minter.token(user_ids(1)[0]), coupon).await);
    answer.await.problem(409, "COUPON_ENDED");
}

#[tokio::test]
async fn an_unknown_coupon_is_not_found() {
    let _stack = shared().await;
    let stack = Stack::load();
    let client = Client::gateway(&stack);
    let ids = user_ids(2);
    let token = Minter::of(&stack).token(ids[0]);
    let answer = claim_until_final(&client, &token, ids[1]).await;
    answer.problem(404, "COUPON_NOT_FOUND");
    client.get(&format!("/coupons/{}", ids[1]), None).await.problem(404, "COUPON_NOT_FOUND");
}

#[tokio::test]
async fn a_claim_needs_a_token_and_a_coupon() {
    let _stack = shared().await;
    let stack = Stack::load();
    let client = Client::gateway(&stack);
    let token = Minter::of(&stack).token(user_ids(1)[0]);
    let path = "/coupon-issues";
    claim(&client, None, 1).await.problem(401, "UNAUTHENTICATED");
    for wrong in [json!({"couponId": "one"}), json!({"couponId": -1}), json!({"couponId": 1.5}), json!({})] {
        client.post(path, Some(&token), &wrong).await.invalid(&["couponId"]);
    }
    let text = |content_type: &'static str, body: &str| {
        let body = body.to_owned();
        client.post_text(path, Some(&token), content_type, body)
    };
    text("application/json", "{\"couponId\":").await.problem(400, "MALFORMED_JSON");
    text("text/plain", "{\"couponId\":1}").await.problem(415, "UNSUPPORTED_MEDIA_TYPE");
    let large = format!("{{\"couponId\":1,\"x\":\"{}\"}}", "x".repeat(17 * 1024));
    text("application/json", &large).await.problem(413, "PAYLOAD_TOO_LARGE");
}

#[tokio::test]
async fn coupons_are_public() {
    let _stack = shared().await;
    let stack = Stack::load();
    let client = Client::gateway(&stack);
    let admin = users::admin(&stack, &client).await;
    let coupon = coupons::create(&client, &admin, 3, OPEN).await;
    let shown = client.get(&format!("/coupons/{coupon}"), None).await.expect(200);
    assert_eq!(
        members(&shown),
        [
            "couponId",
            "endsAt",
            "issuedQuantity",
            "name",
            "quantity",
            "remainingQuantity",
            "serverTime",
            "startsAt",
            "state"
        ]
    );
    assert_eq!(shown["couponId"], coupon);
    assert_eq!((&shown["quantity"], &shown["issuedQuantity"]), (&json!(3), &json!(0)));
    assert_eq!((&shown["remainingQuantity"], &shown["state"]), (&json!(3), &json!("OPEN")));
    let list = client.get("/coupons?limit=100", None).await.expect(200);
    assert!(list["items"].as_array().is_some_and(|items| !items.is_empty() && items.len() <= 100), "{list}");
}

#[tokio::test]
async fn a_wrong_coupon_is_refused_by_field() {
    let _stack = shared().await;
    let stack = Stack::load();
    let client = Client::gateway(&stack);
    let admin = users::admin(&stack, &client).await;
    let good = json!({
        "name": "x", "quantity": 1, "startsAt": coupons::in_seconds(0), "endsAt": coupons::in_seconds(60),
    });
    for (field, value) in [
        ("quantity", json!(0)),
        ("quantity", json!(10_000_001)),
        ("quantity", json!("many")),
        ("name", json!("")),
        ("startsAt", json!("tomorrow")),
    ] {
        let mut body = good.clone();
        body[field] = value;
        client.post("/coupons", Some(&admin), &body).await.invalid(&[field]);
    }
}
