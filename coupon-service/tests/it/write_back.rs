//! Counts on their way to the rows.

use std::time::Duration;

use coupon_service::config::WriteBackSettings;
use coupon_service::ledger::LedgerClient;
use coupon_service::store;
use serde_json::json;

use crate::harness::{AWAY, QUICK, Service, some_rounds, until};
use crate::ledger::Ledger;

/// Asks the ledger in every round.
const ASKING: WriteBackSettings = WriteBackSettings { authoritative_interval: QUICK.interval, ..QUICK };

#[tokio::test]
async fn published_counts_reach_the_row() {
    let service = Service::new("counts").await;
    let (sold, quiet) = (service.create(100).await, service.create(100).await);
    let job = service.write_back(QUICK);
    service.publish_count(sold, "17:40").await;
    service.shows_issued(sold, 40).await;
    let shown = service.get(sold).await;
    assert_eq!((&shown["issuedQuantity"], &shown["remainingQuantity"]), (&json!(40), &json!(60)));
    assert_eq!(service.row(sold).await.issued.offset, Some(17));
    service.publish_count(sold, "18:100").await;
    service.shows_issued(sold, 100).await;
    assert_eq!(service.get(sold).await["state"], "SOLD_OUT");
    assert_eq!(service.get(quiet).await["issuedQuantity"], 0);
    job.stop().await;
}

#[tokio::test]
async fn what_is_older_or_impossible_is_not_believed() {
    let service = Service::new("lies").await;
    let id = service.create(100).await;
    let job = service.write_back(QUICK);
    service.publish_count(id, "17:40").await;
    service.shows_issued(id, 40).await;
    for lie in ["16:50", "17:50", "18:39", "18:101", "18:4294967295", "18:-1", "rubbish", "99:"] {
        service.publish_count(id, lie).await;
        some_rounds().await;
        assert_eq!(service.row(id).await.issued.count, 40, "{lie}");
    }
    service.publish_count(id, "18:41").await;
    service.shows_issued(id, 41).await;
    job.stop().await;
}

/// The update itself refuses older news, whatever was judged before it.
#[tokio::test]
async fn a_row_that_moved_on_meanwhile_is_not_moved_back() {
    use coupon_service::coupon::count::Published;
    let service = Service::new("meanwhile").await;
    let id = service.create(100).await;
    store::advance(&service.state.pool, id, Published { offset: 9, count: 9 }).await.unwrap();
    store::advance(&service.state.pool, id, Published { offset: 8, count: 8 }).await.unwrap();
    assert_eq!(service.row(id).await.issued.count, 9);
}

#[tokio::test]
async fn the_ledgers_word_wins_over_what_redis_shows() {
    let ledger = Ledger::start().await;
    let service = Service::with("word", ledger.client.clone(), |_| {}).await;
    let id = service.create(100).await;
    let now = service.clock.now_ms();
    // Possible, so believed until the ledger is asked.
    service.publish_count(id, "999999:90").await;
    ledger.is_caught_up(false);
    let job = service.write_back(ASKING);
    service.shows_issued(id, 90).await;
    ledger.says(id, now, &json!({"count": 30, "offset": 12}));
    ledger.is_caught_up(true);
    service.shows_issued(id, 30).await;
    assert_eq!(service.row(id).await.issued.offset, Some(12));
    // The lie is still there, and honest counts go on.
    ledger.says(id, now, &json!({"count": 31, "offset": 13}));
    service.shows_issued(id, 31).await;
    job.stop().await;
    assert_eq!(service.row(id).await.issued.count, 31);
}

#[tokio::test]
async fn a_lie_that_was_found_out_is_not_believed_again() {
    let ledger = Ledger::start().await;
    let service = Service::with("found_out", ledger.client.clone(), |_| {}).await;
    let id = service.create(100).await;
    ledger.says(id, service.clock.now_ms(), &json!({"count": 30, "offset": 12}));
    service.publish_count(id, "999999:90").await;
    // Asks about everything once, at its start.
    let job = service.write_back(QUICK);
    service.shows_issued(id, 30).await;
    for _ in 0..20 {
        tokio::time::sleep(QUICK.interval / 2).await;
        assert_eq!(service.row(id).await.issued.count, 30);
    }
    service.publish_count(id, "13:31").await;
    service.shows_issued(id, 31).await;
    job.stop().await;
}

/// After the quantity was lowered, a count above it is right; only the ledger can say so.
#[tokio::test]
async fn a_count_above_the_quantity_is_asked_about_at_once() {
    let ledger = Ledger::start().await;
    let service = Service::with("above", ledger.client.clone(), |_| {}).await;
    let id = service.create(10).await;
    let job = service.write_back(QUICK);
    some_rounds().await;
    ledger.says(id, service.clock.now_ms(), &json!({"count": 70, "offset": 20, "stock": 70}));
    service.publish_count(id, "20:70").await;
    service.shows_issued(id, 70).await;
    assert_eq!(service.get(id).await["quantity"], 70);
    job.stop().await;
}

#[tokio::test]
async fn the_last_word_comes_after_the_end_and_settles() {
    let ledger = Ledger::start().await;
    let service = Service::with("settle", ledger.client.clone(), |_| {}).await;
    let id = service.create(100).await;
    let version = service.version(id).await;
    let ends_at = service.row(id).await.definition.ends_at;
    ledger.says(
        id,
        service.clock.now_ms(),
        &json!({"count": 8, "offset": 3, "version": version, "endsAt": ends_at}),
    );
    let job = service.write_back(QUICK);
    service.shows_issued(id, 8).await;
    assert!(!settled(&service, id).await);

    ledger.says(
        id,
        service.clock.now_ms(),
        &json!({"count": 9, "offset": 4, "version": version, "endsAt": ends_at}),
    );
    service.clock.set(ends_at + 10_000);
    until("the count is settled", async || settled(&service, id).await).await;
    assert_eq!(service.row(id).await.issued.count, 9);
    nothing_is_asked(&ledger).await;

    // A later end opens it again.
    let later = platform::clock::rfc3339(ends_at + 3_600_000);
    assert_eq!(service.patch(id, json!({"endsAt": later})).await.status, 200);
    service.publish_count(id, "5:10").await;
    service.shows_issued(id, 10).await;
    job.stop().await;
}

/// Of coupons that can't change, from now on.
async fn nothing_is_asked(ledger: &Ledger) {
    let asked = ledger.questions().len();
    some_rounds().await;
    assert_eq!(ledger.questions().len(), asked);
}

async fn settled(service: &Service, id: coupon_service::coupon::CouponId) -> bool {
    sqlx::query_scalar("SELECT settled FROM coupons WHERE coupon_id = ?")
        .bind(i64::try_from(id.0).unwrap())
        .fetch_one(&service.state.pool)
        .await
        .unwrap()
}

/// What is asked of Redis and of the ledger goes in pieces, and the last piece counts like the first.
#[tokio::test]
async fn there_may_be_more_coupons_than_one_question_holds() {
    let ledger = Ledger::start().await;
    let service = Service::with("many", ledger.client.clone(), |_| {}).await;
    let mut coupons = Vec::new();
    for _ in 0..530 {
        coupons.push(service.create(100).await);
    }
    coupons.sort_unstable();
    let [.., by_redis, by_ledger] = coupons[..] else { unreachable!() };
    ledger.says(by_ledger, service.clock.now_ms(), &json!({"count": 8, "offset": 3}));
    service.publish_count(by_redis, "3:7").await;
    let job = service.write_back(QUICK);
    service.shows_issued(by_ledger, 8).await;
    service.shows_issued(by_redis, 7).await;
    job.stop().await;
}

/// One partition of the log that can't be asked is not all of it.
#[tokio::test]
async fn what_part_of_the_ledger_can_not_say_holds_up_no_other() {
    let ledger = Ledger::start().await;
    let service = Service::with("partly", ledger.client.clone(), |_| {}).await;
    let (sound, stopped) = (service.create(100).await, service.create(100).await);
    for id in [sound, stopped] {
        let word = json!({"count": 9, "offset": 3, "version": service.version(id).await});
        ledger.says(id, service.clock.now_ms(), &word);
    }
    ledger.stops(stopped);
    let job = service.write_back(ASKING);
    service.shows_issued(sound, 9).await;
    // Much later: who was not answered is not taken for unknown.
    service.clock.set(service.row(stopped).await.definition.ends_at + 7_200_000);
    until("the other is settled", async || settled(&service, sound).await).await;
    some_rounds().await;
    assert!(!settled(&service, stopped).await);
    assert_eq!(service.row(stopped).await.issued.count, 0);
    job.stop().await;
}

/// Nothing was expected of them any more, or not yet; the ledger knows better than a database that went back.
#[tokio::test]
async fn coupons_of_which_nothing_was_expected_catch_up_when_the_database_went_back() {
    let ledger = Ledger::start().await;
    let service = Service::with("at_rest", ledger.client.clone(), |_| {}).await;
    let now = service.clock.now_ms();
    let (closed, later) = (service.create(100).await, service.create(100).await);
    let (soon, ends_at) = (now + 1_000_000, now + 3_600_000);
    for (id, change) in
        [(closed, json!({"closed": true})), (later, json!({"startsAt": platform::clock::rfc3339(soon)}))]
    {
        assert_eq!(service.patch(id, change).await.status, 200);
        let version = service.version(id).await + 5;
        ledger.says(id, now, &json!({"count": 7, "offset": 3, "version": version, "endsAt": ends_at}));
    }
    // More than one question, of which the ledger can't answer one at first.
    let mut others = Vec::new();
    for _ in 0..150 {
        others.push(service.create(1).await);
    }
    for id in others.iter().chain([&closed]) {
        store::settle(&service.state.pool, &service.row(*id).await.definition).await.unwrap();
    }
    ledger.stops(closed);
    let job = service.write_back(WriteBackSettings { authoritative_interval: QUICK.interval * 20, ..QUICK });
    service.shows_issued(later, 7).await;
    assert_eq!(service.row(closed).await.issued.count, 0);
    ledger.goes_on(closed);
    for id in [closed, later] {
        service.shows_issued(id, 7).await;
        assert_eq!(service.get(id).await["state"], "OPEN");
    }
    job.stop().await;
    // Once is enough.
    for id in [closed, later] {
        store::settle(&service.state.pool, &service.row(id).await.definition).await.unwrap();
    }
    let job = service.write_back(QUICK);
    some_rounds().await;
    nothing_is_asked(&ledger).await;
    job.stop().await;
}

/// A later end that came too late: the row says what is true, and nobody asks about it any more.
#[tokio::test]
async fn what_is_retired_is_over_whatever_the_row_says() {
    let ledger = Ledger::start().await;
    let service = Service::with("retired", ledger.client.clone(), |_| {}).await;
    let id = service.create(100).await;
    let ended = service.clock.now_ms() - 1_000;
    let word = json!({"count": 7, "offset": 3, "version": 1, "endsAt": ended, "retired": true});
    ledger.says(id, service.clock.now_ms(), &word);
    let answer = service.patch(id, json!({"quantity": 200})).await;
    assert_eq!((answer.status, answer.body["code"].as_str()), (409, Some("COUPON_ENDED")));

    let job = service.write_back(QUICK);
    until("the count is settled", async || settled(&service, id).await).await;
    let shown = service.get(id).await;
    assert_eq!((&shown["state"], &shown["issuedQuantity"]), (&json!("ENDED"), &json!(7)));
    assert_eq!(service.row(id).await.definition.ends_at, ended);
    some_rounds().await;
    nothing_is_asked(&ledger).await;
    job.stop().await;
}

/// A database that was restored catches up with the ledger without anybody's change.
#[tokio::test]
async fn a_definition_that_the_row_lost_comes_back() {
    let ledger = Ledger::start().await;
    let service = Service::with("restored", ledger.client.clone(), |_| {}).await;
    let id = service.create(100).await;
    let version = service.version(id).await + 5;
    let word = json!({"count": 150, "offset": 3, "version": version, "stock": 200});
    ledger.says(id, service.clock.now_ms(), &word);
    let job = service.write_back(QUICK);
    service.shows_issued(id, 150).await;
    let shown = service.get(id).await;
    assert_eq!((&shown["quantity"], &shown["remainingQuantity"]), (&json!(200), &json!(50)));
    assert_eq!(service.version(id).await, version);
    job.stop().await;
}

#[tokio::test]
async fn with_redis_away_the_ledgers_word_is_written() {
    let ledger = Ledger::start().await;
    let service = Service::with("redis_away", ledger.client.clone(), |settings| {
        settings.redis.sentinels.clear();
        settings.redis.address = AWAY.to_owned();
    })
    .await;
    let id = service.create(100).await;
    ledger.says(id, service.clock.now_ms(), &json!({"count": 30, "offset": 12}));
    let job = service.write_back(ASKING);
    service.shows_issued(id, 30).await;
    job.stop().await;
}

/// Two instances; only the one that holds the lock looks at Redis, and the other takes over when it stops.
#[tokio::test]
async fn one_instance_at_a_time_writes_back() {
    let ledgers = [Ledger::start().await, Ledger::start().await];
    let first = Service::with("leader", ledgers[0].client.clone(), |_| {}).await;
    let mut second = first.another().await;
    second.state.ledger = ledgers[1].client.clone();
    let id = first.create(100).await;
    // Each instance hears another count: who leads shows in the row, and who does not has asked nothing.
    ledgers[0].says(id, first.clock.now_ms(), &json!({"count": 1, "offset": 1}));
    ledgers[1].says(id, first.clock.now_ms(), &json!({"count": 2, "offset": 2}));

    let job = first.write_back(ASKING);
    first.shows_issued(id, 1).await;
    let other = second.write_back(ASKING);
    for _ in 0..20 {
        tokio::time::sleep(ASKING.interval / 2).await;
        assert_eq!(first.row(id).await.issued.count, 1);
    }
    assert_eq!(ledgers[1].questions(), Vec::<String>::new());

    job.stop().await;
    first.shows_issued(id, 2).await;
    let asked = ledgers[0].questions().len();
    some_rounds().await;
    assert_eq!(ledgers[0].questions().len(), asked);
    other.stop().await;
}

/// The server ends the holder's session: the lock is free, and the holder notices before it writes.
#[tokio::test]
async fn a_leader_whose_connection_is_killed_leads_again_or_another_does() {
    let service = Service::new("killed").await;
    let id = service.create(100).await;
    let job = service.write_back(QUICK);
    service.publish_count(id, "1:1").await;
    service.shows_issued(id, 1).await;
    let holder: Option<i64> = sqlx::query_scalar(
        "SELECT CAST(IS_USED_LOCK(RIGHT(CONCAT(DATABASE(), '.write-back'), 64)) AS SIGNED)",
    )
    .fetch_one(&service.state.pool)
    .await
    .unwrap();
    let kill = sqlx::AssertSqlSafe(format!("KILL {}", holder.unwrap()));
    sqlx::raw_sql(kill).execute(&service.state.pool).await.unwrap();
    service.publish_count(id, "2:2").await;
    service.shows_issued(id, 2).await;
    job.stop().await;
}

#[tokio::test]
async fn a_last_run_at_shutdown_writes_what_came_last() {
    let rare = WriteBackSettings { interval: Duration::from_secs(60), ..QUICK };
    let service = Service::with("last", LedgerClient::new(None, "issue-service"), |_| {}).await;
    let id = service.create(100).await;
    service.publish_count(id, "1:1").await;
    let job = service.write_back(rare);
    service.shows_issued(id, 1).await;
    service.publish_count(id, "2:77").await;
    some_rounds().await;
    assert_eq!(service.row(id).await.issued.count, 1, "the next look is a minute away");
    job.stop().await;
    assert_eq!(service.row(id).await.issued.count, 77);
}
