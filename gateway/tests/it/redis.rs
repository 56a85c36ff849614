//! Rate limits and ended logins, with a real Redis.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway::auth::revocations::Revocations;
use gateway::limits::rate::{KeyBy, RateLimiter, RateSettings, SCRIPT};
use http::StatusCode;
use platform::clock::{self, Clock};
use platform::health::Health;
use platform::lifecycle::Lifecycle;
use platform::redis::Redis;
use platform::testing::{Servers, unique_name};

const CONNECTED_WITHIN: Duration = Duration::from_secs(10);

async fn connected(lifecycle: &Lifecycle, scripts: &[&'static str]) -> Redis {
    let redis = Redis::connect(Servers::get().standalone_redis(), lifecycle, scripts);
    let deadline = Instant::now() + CONNECTED_WITHIN;
    while redis.connection().is_none() {
        assert!(Instant::now() < deadline, "no connection to Redis");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    redis
}

fn settings(rate: u32, capacity: u32, requested: u32) -> RateSettings {
    RateSettings {
        rate,
        capacity,
        requested,
        key: KeyBy::Principal,
        deny_empty_key: true,
        empty_key_status: StatusCode::FORBIDDEN,
        status: StatusCode::TOO_MANY_REQUESTS,
    }
}

/// Waits for the beginning of a second by Redis's clock, at which buckets are filled.
async fn next_second(redis: &Redis) {
    let (_, micros): (u64, u64) =
        redis::cmd("TIME").query_async(&mut redis.connection().unwrap().conn).await.unwrap();
    tokio::time::sleep(Duration::from_micros(1_005_000 - micros)).await;
}

#[tokio::test]
async fn two_gateways_share_a_bucket_that_fills_at_whole_seconds() {
    let lifecycle = Lifecycle::new();
    let redis = connected(&lifecycle, &[SCRIPT]).await;
    let gateways = [
        RateLimiter::new(Some(redis.clone()), &lifecycle),
        RateLimiter::new(Some(redis.clone()), &lifecycle),
    ];
    let (route, limit) = (unique_name("limit"), settings(3, 8, 2));
    next_second(&redis).await;
    let mut decided = Vec::new();
    for gateway in gateways.iter().cycle().take(6) {
        let decision = gateway.decide(&route, "kim", &limit).await;
        decided.push((decision.allowed, decision.remaining));
    }
    assert_eq!(decided, [(true, 6), (true, 4), (true, 2), (true, 0), (false, 0), (false, 0)]);
    assert!(gateways[0].decide(&route, "lee", &limit).await.allowed, "another caller");
    next_second(&redis).await;
    let decision = gateways[1].decide(&route, "kim", &limit).await;
    assert_eq!((decision.allowed, decision.remaining), (true, 1), "three came back");
    assert!(!gateways[0].decide(&route, "kim", &settings(3, 0, 1)).await.allowed, "a capacity of 0");

    // Many at once share calls, and no bucket gives more than it has.
    next_second(&redis).await;
    let route = unique_name("limit");
    let many = settings(100, 100, 1);
    let asked =
        futures_util::future::join_all((0..500).map(|n| gateways[n % 2].decide(&route, "kim", &many))).await;
    let allowed = asked.iter().filter(|decision| decision.allowed).count();
    assert!(
        (100..=200).contains(&allowed),
        "{allowed}: the burst, and a second's filling if one began meanwhile"
    );
    assert!(asked.iter().all(|decision| decision.remaining >= 0), "Redis was asked for all");
    lifecycle.stop_background(Duration::from_secs(2)).await;
}

#[tokio::test]
async fn an_ended_login_is_heard_of_by_message_and_by_the_set_and_never_forgotten_early() {
    let lifecycle = Lifecycle::new();
    let redis = connected(&lifecycle, &[]).await;
    let name: &'static str = unique_name("revoked").leak();
    let mut conn = redis.connection().unwrap().conn;
    let until = clock::now_ms() + 60_000;
    let () = redis::cmd("ZADD")
        .arg(name)
        .arg(until)
        .arg("early")
        .arg(1)
        .arg("over")
        .query_async(&mut conn)
        .await
        .unwrap();

    let revocations = Arc::new(Revocations::default());
    let health = Health::new();
    let component = health.optional_component("revocations");
    let stop = lifecycle.background_stop();
    let follow =
        Arc::clone(&revocations).follow(redis.clone(), name, Clock::system(), component.clone(), stop);
    lifecycle.spawn("revocations", follow);
    heard(&revocations, "early").await;
    assert!(!revocations.is_revoked("over"));
    assert!(component.is_up());

    let began = Instant::now();
    let () = redis::cmd("ZADD").arg(name).arg(until).arg("told").query_async(&mut conn).await.unwrap();
    let () =
        redis::cmd("PUBLISH").arg(name).arg(format!("told {until}")).query_async(&mut conn).await.unwrap();
    heard(&revocations, "told").await;
    assert!(began.elapsed() < Duration::from_secs(2), "at once, not at the next look");
    // One whose message was lost, at the next look.
    let () = redis::cmd("ZADD").arg(name).arg(until).arg("untold").query_async(&mut conn).await.unwrap();
    heard(&revocations, "untold").await;
    // What Redis loses stays.
    let () = redis::cmd("DEL").arg(name).query_async(&mut conn).await.unwrap();
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(["early", "told", "untold"].iter().all(|session| revocations.is_revoked(session)));
    lifecycle.stop_background(Duration::from_secs(2)).await;
}

async fn heard(revocations: &Revocations, session: &str) {
    let deadline = Instant::now() + CONNECTED_WITHIN;
    while !revocations.is_revoked(session) {
        assert!(Instant::now() < deadline, "{session} was not heard of");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
