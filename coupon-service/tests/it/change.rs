//! Changes at once, changes beside the ledger.

use std::collections::HashSet;

use http::Method;
use platform::identity::ADMIN;
use serde_json::json;
use tokio::task::JoinSet;

use crate::harness::Service;
use crate::ledger::Ledger;

#[tokio::test]
async fn of_two_changes_at_once_none_is_lost() {
    let service = Service::new("at_once").await;
    for round in 0..10 {
        let id = service.create(100).await;
        let began = service.version(id).await;
        let ends_at = platform::clock::rfc3339(service.clock.now_ms() + 7_200_000);
        let changes = [
            json!({"quantity": 50 + round}),
            json!({"closed": true}),
            json!({"endsAt": ends_at}),
            json!({"startsAt": "2026-01-01T00:00:00Z"}),
        ];
        let mut asked = JoinSet::new();
        for change in changes {
            let service = service.clone();
            asked.spawn(async move { service.patch(id, change).await });
        }
        let statuses: Vec<u16> = asked.join_all().await.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, [200; 4]);
        let shown = service.get(id).await;
        assert_eq!(
            (&shown["quantity"], &shown["state"], &shown["endsAt"], &shown["startsAt"]),
            (&json!(50 + round), &json!("CLOSED"), &json!(ends_at), &json!("2026-01-01T00:00:00.000Z")),
        );
        // The clock stands: four changes, four versions.
        assert_eq!(service.version(id).await, began + 4);
    }
}

#[tokio::test]
async fn every_change_has_a_version_of_its_own() {
    let service = Service::new("versions").await;
    let id = service.create(1).await;
    let mut asked = JoinSet::new();
    for quantity in 2..14 {
        let service = service.clone();
        asked.spawn(async move { service.patch(id, json!({"quantity": quantity})).await.status });
    }
    assert_eq!(asked.join_all().await, [200; 12]);
    assert_eq!(service.version(id).await, service.clock.now_ms() + 12);
}

#[tokio::test]
async fn what_is_in_force_already_makes_no_version() {
    let service = Service::new("same").await;
    let id = service.create(100).await;
    let version = service.version(id).await;
    assert_eq!(service.patch(id, json!({"quantity": 100, "closed": false})).await.status, 200);
    assert_eq!(service.version(id).await, version);
    assert_eq!(service.cached(id).await, None);
}

#[tokio::test]
async fn a_quantity_below_what_is_issued_is_not_what_takes_force() {
    let ledger = Ledger::start().await;
    let service = Service::with("lowered", ledger.client.clone(), |_| {}).await;
    let id = service.create(100).await;
    ledger.says(id, service.clock.now_ms(), &json!({"count": 70, "offset": 7}));
    let answer = service.patch(id, json!({"quantity": 50})).await.body;
    assert_eq!(
        (&answer["quantity"], &answer["issuedQuantity"], &answer["remainingQuantity"], &answer["state"]),
        (&json!(70), &json!(70), &json!(0), &json!("SOLD_OUT")),
    );
    assert_eq!(service.get(id).await, answer);
    assert_eq!(
        service.internal(&format!("/{id}")).await.body["quantity"],
        50,
        "the ledger decides what it means"
    );
    let raised = service.patch(id, json!({"quantity": 80})).await.body;
    assert_eq!((&raised["quantity"], &raised["remainingQuantity"]), (&json!(80), &json!(10)));
}

/// A database that was restored knows less than the log.
#[tokio::test]
async fn a_ledger_that_is_ahead_is_adopted_first() {
    let ledger = Ledger::start().await;
    let service = Service::with("adopt", ledger.client.clone(), |_| {}).await;
    let id = service.create(100).await;
    let ahead = service.clock.now_ms() + 5_000;
    let ledger_says = json!({"version": ahead, "stock": 300, "count": 20, "offset": 9});
    ledger.says(id, service.clock.now_ms(), &ledger_says);

    let closed = service.patch(id, json!({"closed": true})).await.body;
    assert_eq!(
        (&closed["quantity"], &closed["issuedQuantity"], &closed["state"]),
        (&json!(300), &json!(20), &json!("CLOSED")),
    );
    let row = service.row(id).await;
    assert_eq!((row.definition.version, row.definition.quantity), (ahead + 1, 300));
    assert_eq!(row.definition.ends_at, service.clock.now_ms() + 1_800_000);
    assert_eq!(service.cached(id).await.unwrap()["version"], ahead + 1);
}

#[tokio::test]
async fn an_issue_service_that_is_not_caught_up_holds_up_no_change() {
    let ledger = Ledger::start().await;
    let service = Service::with("behind", ledger.client.clone(), |_| {}).await;
    ledger.is_caught_up(false);
    let id = service.create(100).await;
    assert_eq!(service.patch(id, json!({"quantity": 50})).await.status, 200);
    assert_eq!(ledger.questions(), [format!("coupon={id}")]);
}

#[tokio::test]
async fn what_does_not_exist_is_not_changed() {
    let service = Service::new("missing").await;
    let mut codes = HashSet::new();
    for path in ["/coupons/1", "/coupons/18446744073709551615"] {
        let answer = service.call(Method::PATCH, path, ADMIN, Some(&json!({"quantity": 5}))).await;
        codes.insert((answer.status, answer.body["code"].as_str().unwrap().to_owned()));
    }
    assert_eq!(codes, HashSet::from([(404, "COUPON_NOT_FOUND".to_owned())]));
}
