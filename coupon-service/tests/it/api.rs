//! What the API answers when everything is there.

use coupon_service::coupon::CouponId;
use coupon_service::store;
use http::Method;
use insta::assert_snapshot;
use platform::identity::ADMIN;
use serde_json::{Value, json};

use crate::harness::{Answer, Service};

const T: u64 = 1_795_000_000_000;

async fn service(name: &str) -> Service {
    let service = Service::new(name).await;
    service.clock.set(T);
    service
}

fn shown(answer: &Answer) -> String {
    let mut body = answer.body.clone();
    mask(&mut body);
    format!("{}\n{}", answer.status, serde_json::to_string_pretty(&body).unwrap())
}

fn mask(body: &mut Value) {
    match body {
        Value::Object(map) => {
            for (key, value) in map {
                if matches!(key.as_str(), "couponId" | "traceId" | "instance" | "nextCursor") {
                    *value = json!(format!("[{key}]"));
                } else {
                    mask(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(mask),
        _ => {}
    }
}

fn draft() -> Value {
    json!({
        "name": "첫 쿠폰",
        "quantity": 10_000_000,
        "startsAt": platform::clock::rfc3339(T),
        "endsAt": platform::clock::rfc3339(T + 60_000),
        "eventId": 9,
        "color": "a field that is not known",
    })
}

#[tokio::test]
async fn a_coupon_is_created_seen_and_changed() {
    let service = service("api").await;
    let created = service.call(Method::POST, "/coupons", ADMIN, Some(&draft())).await;
    let id = CouponId(created.body["couponId"].as_u64().unwrap());
    assert_eq!(created.headers["location"], format!("/coupons/{id}"));
    assert!(id.0 < 1 << 53);
    assert_snapshot!(shown(&created), @r#"
    201
    {
      "couponId": "[couponId]",
      "endsAt": "2026-11-18T11:07:40.000Z",
      "eventId": 9,
      "issuedQuantity": 0,
      "name": "첫 쿠폰",
      "quantity": 10000000,
      "remainingQuantity": 10000000,
      "serverTime": "2026-11-18T11:06:40.000Z",
      "startsAt": "2026-11-18T11:06:40.000Z",
      "state": "OPEN"
    }
    "#);

    assert_eq!(service.get(id).await, created.body);
    let changed = service
        .patch(id, json!({"quantity": 5, "startsAt": "2026-11-18T16:26:40+09:00", "closed": null}))
        .await;
    assert_snapshot!(shown(&changed), @r#"
    200
    {
      "couponId": "[couponId]",
      "endsAt": "2026-11-18T11:07:40.000Z",
      "eventId": 9,
      "issuedQuantity": 0,
      "name": "첫 쿠폰",
      "quantity": 5,
      "remainingQuantity": 5,
      "serverTime": "2026-11-18T11:06:40.000Z",
      "startsAt": "2026-11-18T07:26:40.000Z",
      "state": "OPEN"
    }
    "#);
    assert_eq!(service.get(id).await, changed.body);
    let closed = service.patch(id, json!({"closed": true})).await;
    assert_eq!((closed.status, &closed.body["state"]), (200, &json!("CLOSED")));

    let wrong = service.patch(id, json!({"endsAt": "2020-01-01T00:00:00Z"})).await;
    assert_snapshot!(shown(&wrong), @r#"
    400
    {
      "code": "VALIDATION_FAILED",
      "detail": "endsAt must be after startsAt; move endsAt, or send an earlier startsAt too.",
      "errors": [
        {
          "field": "endsAt",
          "message": "must be after startsAt; move endsAt, or send an earlier startsAt too"
        }
      ],
      "instance": "[instance]",
      "status": 400,
      "title": "Bad Request",
      "traceId": "[traceId]",
      "type": "urn:firstcome:problem:validation-failed"
    }
    "#);
    assert_snapshot!(shown(&service.patch(CouponId(1), json!({"quantity": 5})).await), @r#"
    404
    {
      "code": "COUPON_NOT_FOUND",
      "detail": "There is no coupon with this id. Look it up in GET /coupons.",
      "instance": "[instance]",
      "status": 404,
      "title": "Not Found",
      "traceId": "[traceId]",
      "type": "urn:firstcome:problem:coupon-not-found"
    }
    "#);
    assert_eq!(service.call(Method::GET, "/coupons/9223372036854775808", ADMIN, None).await.status, 404);
}

#[tokio::test]
async fn the_state_moves_with_the_clock() {
    let service = service("states").await;
    let created = service.call(Method::POST, "/coupons", ADMIN, Some(&draft())).await;
    let id = CouponId(created.body["couponId"].as_u64().unwrap());
    for (at, state) in [(T - 1, "SCHEDULED"), (T, "OPEN"), (T + 59_999, "OPEN"), (T + 60_000, "ENDED")] {
        service.clock.set(at);
        let shown = service.get(id).await;
        assert_eq!(shown["state"], state);
        assert_eq!(shown["serverTime"], platform::clock::rfc3339(at));
    }
}

#[tokio::test]
async fn pages_follow_each_other_newest_first() {
    let service = service("pages").await;
    let mut ids = Vec::new();
    for n in 0..7 {
        service.clock.set(T + n);
        ids.push(service.create(1).await.0);
    }
    ids.reverse();
    let (mut seen, mut pages, mut path) = (Vec::new(), 0, "/coupons?limit=3".to_owned());
    loop {
        let page = service.call(Method::GET, &path, "USER", None).await;
        assert_eq!(page.status, 200);
        seen.extend(
            page.body["items"].as_array().unwrap().iter().map(|item| item["couponId"].as_u64().unwrap()),
        );
        pages += 1;
        let Some(cursor) = page.body["nextCursor"].as_str() else { break };
        path = format!("/coupons?limit=3&cursor={cursor}");
    }
    assert_eq!((seen, pages), (ids, 3));
    assert_snapshot!(shown(&service.call(Method::GET, "/coupons?limit=1", "USER", None).await), @r#"
    200
    {
      "items": [
        {
          "couponId": "[couponId]",
          "endsAt": "2026-11-18T12:06:40.006Z",
          "issuedQuantity": 0,
          "name": "쿠폰",
          "quantity": 1,
          "remainingQuantity": 1,
          "serverTime": "2026-11-18T11:06:40.006Z",
          "startsAt": "2026-11-18T11:06:40.006Z",
          "state": "OPEN"
        }
      ],
      "nextCursor": "[nextCursor]"
    }
    "#);
}

#[tokio::test]
async fn the_issue_service_asks_for_what_has_changed() {
    let service = service("internal").await;
    let first = service.create(1).await;
    service.clock.set(T + 1_000);
    let second = service.create(2).await;
    let one = service.internal(&format!("/{first}")).await;
    assert_snapshot!(shown(&one), @r#"
    200
    {
      "closed": false,
      "couponId": "[couponId]",
      "endsAt": 1795003600000,
      "quantity": 1,
      "startsAt": 1795000000000,
      "version": 1795000000000
    }
    "#);
    assert_eq!(service.internal("/1").await.status, 404);

    let ids = |answer: &Answer| -> Vec<u64> {
        answer.body["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["couponId"].as_u64().unwrap())
            .collect()
    };
    let all = service.internal("?changedSince=0").await;
    assert_eq!((ids(&all), &all.body["version"]), (vec![first.0, second.0], &json!(T + 1_000)));
    let later = service.internal(&format!("?changedSince={T}")).await;
    assert_eq!((ids(&later), &later.body["version"]), (vec![second.0], &json!(T + 1_000)));
    let none = service.internal(&format!("?changedSince={}", T + 1_000)).await;
    assert_eq!((ids(&none), &none.body["version"]), (vec![], &json!(T + 1_000)));

    // What has ended is told when it changed, not when somebody begins to ask; unless the ledger may not know of the
    // end. Else a coupon whose end was moved while nobody listened would go on being won.
    service.clock.set(T + 10_000_000);
    assert_eq!(ids(&service.internal("?changedSince=0").await), [first.0, second.0]);
    for id in [first, second] {
        store::settle(&service.state.pool, &service.row(id).await.definition).await.unwrap();
    }
    assert_eq!(ids(&service.internal("?changedSince=0").await), Vec::<u64>::new());
    assert_eq!(ids(&service.internal("?changedSince=1").await), [first.0, second.0]);
}

/// A version may be ahead of the clock; the next question must not pass over changes that come before it.
#[tokio::test]
async fn the_next_question_is_never_ahead_of_the_clock() {
    let service = service("ahead").await;
    let id = service.create(1).await;
    service.clock.set(T - 5_000);
    service.patch(id, json!({"quantity": 2})).await;
    assert_eq!(service.version(id).await, T + 1);
    let answer = service.internal(&format!("?changedSince={}", T - 60_000)).await;
    assert_eq!(answer.body["version"], T - 5_000);
}

/// With a clock that stands, ids have only their 12 random bits: some are drawn twice, and nobody notices.
#[tokio::test]
async fn an_id_that_is_taken_is_drawn_again() {
    let service = service("ids").await;
    let mut ids = std::collections::HashSet::new();
    for _ in 0..400 {
        assert!(ids.insert(service.create(1).await));
    }
}
