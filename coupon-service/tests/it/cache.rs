//! Write-around: what a change leaves in Redis, and who may fill it.

use std::time::{Duration, Instant};

use coupon_service::cache::{CHANGED, info_key};
use coupon_service::coupon::{Coupon, CouponId, Definition};
use platform::redis::Redis;
use serde_json::json;

use crate::harness::{AWAY, Service, until};
use coupon_service::ledger::LedgerClient;

fn at_version(coupon: &Coupon, version: u64) -> Coupon {
    Coupon { definition: Definition { version, ..coupon.definition }, ..coupon.clone() }
}

async fn time_to_live(service: &Service, id: CouponId) -> i64 {
    redis::cmd("PTTL").arg(info_key(id)).query_async(&mut service.redis.clone()).await.unwrap()
}

#[tokio::test]
async fn creating_caches_nothing_and_asking_caches_with_a_mac() {
    let service = Service::new("fill").await;
    let id = service.create(100).await;
    assert_eq!(service.cached(id).await, None);
    let told = service.internal(&format!("/{id}")).await.body;
    until("the cache is filled", async || service.cached(id).await.is_some()).await;
    let mut cached = service.cached(id).await.unwrap();
    let mac = cached.as_object_mut().unwrap().remove("mac").unwrap();
    assert_eq!(mac.as_str().map(str::len), Some(64));
    assert_eq!(cached.as_object_mut().unwrap().remove("name"), Some(json!("쿠폰")));
    assert_eq!(cached, told);
    assert!((50_000..=60_000).contains(&time_to_live(&service, id).await));
}

#[tokio::test]
async fn a_tombstone_is_filled_only_by_its_version_or_a_higher_one() {
    let service = Service::new("tombstone").await;
    let id = service.create(100).await;
    let before = service.row(id).await;
    service.state.cache.fill(&before).await;
    assert_eq!(service.cached(id).await.unwrap()["quantity"], 100);

    assert_eq!(service.patch(id, json!({"quantity": 50})).await.status, 200);
    let after = service.row(id).await;
    assert!(after.definition.version > before.definition.version);
    let tombstone = json!({"couponId": id, "version": after.definition.version, "tombstone": true});
    assert_eq!(service.cached(id).await, Some(tombstone.clone()));
    assert!((50_000..=60_000).contains(&time_to_live(&service, id).await));

    // A reader that had read the row before the change comes late.
    service.state.cache.fill(&before).await;
    assert_eq!(service.cached(id).await, Some(tombstone));
    service.state.cache.fill(&after).await;
    assert_eq!(service.cached(id).await.unwrap()["quantity"], 50);
    service.state.cache.fill(&before).await;
    assert_eq!(service.cached(id).await.unwrap()["quantity"], 50);
}

#[tokio::test]
async fn an_eviction_that_comes_late_does_not_bury_a_newer_one() {
    let service = Service::new("late").await;
    let id = service.create(100).await;
    let row = service.row(id).await;
    let version = row.definition.version;
    service.state.cache.evict(id, version + 2).await;
    service.state.cache.evict(id, version + 1).await;
    assert_eq!(service.cached(id).await.unwrap()["version"], version + 2);
    service.state.cache.fill(&at_version(&row, version + 1)).await;
    assert_eq!(service.cached(id).await.unwrap()["tombstone"], true);
    service.state.cache.fill(&at_version(&row, version + 3)).await;
    assert_eq!(service.cached(id).await.unwrap()["version"], version + 3);
    service.state.cache.evict(id, version + 3).await;
    assert_eq!(service.cached(id).await.unwrap()["quantity"], 100, "it is this version's own definition");
}

#[tokio::test]
async fn rubbish_in_the_cache_is_replaced() {
    let service = Service::new("rubbish").await;
    let id = service.create(100).await;
    let row = service.row(id).await;
    for rubbish in ["", "{", "[]", "7", "{\"version\":\"9999999999999\"}", "null"] {
        let mut redis = service.redis.clone();
        let () = redis::cmd("SET").arg(info_key(id)).arg(rubbish).query_async(&mut redis).await.unwrap();
        service.state.cache.fill(&row).await;
        assert_eq!(service.cached(id).await.unwrap()["quantity"], 100, "{rubbish}");
        let () = redis::cmd("SET").arg(info_key(id)).arg(rubbish).query_async(&mut redis).await.unwrap();
        service.state.cache.evict(id, row.definition.version + 1).await;
        assert_eq!(service.cached(id).await.unwrap()["tombstone"], true, "{rubbish}");
    }
}

#[tokio::test]
async fn creations_and_changes_are_announced() {
    let service = Service::new("announce").await;
    let lifecycle = service.state.lifecycle.clone();
    let redis = Redis::connect(service.settings.redis.clone(), &lifecycle, &[]);
    let mut changes = redis.subscribe(CHANGED);
    until("the subscription stands", async || {
        let subscribers: Vec<(String, u64)> = redis::cmd("PUBSUB")
            .arg("NUMSUB")
            .arg(CHANGED)
            .query_async(&mut service.redis.clone())
            .await
            .unwrap();
        subscribers[0].1 > 0
    })
    .await;
    let mut heard = async |id: CouponId| {
        // Other tests announce on the same channel.
        let mine = async { while changes.recv().await.unwrap() != id.to_string() {} };
        tokio::time::timeout(Duration::from_secs(5), mine).await.unwrap();
    };
    let id = service.create(1).await;
    heard(id).await;
    service.patch(id, json!({"quantity": 2})).await;
    heard(id).await;
}

#[tokio::test]
async fn with_redis_away_everything_is_answered() {
    let ledger = LedgerClient::new(None, "issue-service");
    let service = Service::with("away", ledger, |settings| {
        settings.redis.sentinels.clear();
        settings.redis.address = AWAY.to_owned();
    })
    .await;
    let began = Instant::now();
    let id = service.create(5).await;
    let changed = service.patch(id, json!({"quantity": 6})).await;
    assert_eq!((changed.status, &changed.body["quantity"]), (200, &json!(6)));
    assert_eq!(service.internal(&format!("/{id}")).await.body["quantity"], 6);
    assert_eq!(service.get(id).await["quantity"], 6);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}
