//! Logging out: what ends, what goes on, and that the gateways hear of it.

use std::time::Duration;

use http::Method;
use insta::assert_snapshot;
use platform::config::RedisSettings;
use platform::testing::Servers;
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};
use user_service::store;

use crate::harness::{Answer, Login, Service};

const LOGOUT: &str = "/users/logout";

async fn logout(service: &Service, login: Option<&Login>, body: Option<&Value>) -> Answer {
    service.call(Method::POST, LOGOUT, login, body).await
}

async fn two_logins(service: &Service) -> [Login; 2] {
    service.sign_up("kim@example.com", "correct horse").await;
    let first = service.log_in("kim@example.com", "correct horse").await;
    [first, service.log_in("kim@example.com", "correct horse").await]
}

async fn me(service: &Service, login: &Login) -> u16 {
    service.call(Method::GET, "/users/me", Some(login), None).await.status
}

async fn connected() -> MultiplexedConnection {
    let RedisSettings { address, password, .. } = Servers::get().standalone_redis();
    let client = redis::Client::open(format!("redis://:{}@{address}/", password.expose())).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

/// When Redis may forget the session; `None` if it does not know it.
async fn score(redis: &mut MultiplexedConnection, service: &Service, sid: &str) -> Option<u64> {
    redis::cmd("ZSCORE").arg(&service.revoked).arg(sid).query_async(redis).await.unwrap()
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..200 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what}: not within 10 s");
}

/// Waits until the service has found its Redis.
async fn redis_of(service: &Service) -> MultiplexedConnection {
    let mut redis = connected().await;
    let probe = store::sessions::Revoked { sid: uuid::Uuid::new_v4(), until_ms: 1 };
    let name = probe.sid.simple().to_string();
    until("Redis is connected", async || {
        service.state.revocations.announce(&[probe]).await;
        score(&mut redis.clone(), service, &name).await.is_some()
    })
    .await;
    let () = redis::cmd("DEL").arg(&service.revoked).query_async(&mut redis).await.unwrap();
    redis
}

fn run_revocations(service: &Service) {
    let health = platform::health::Health::new().optional_component("redis");
    let (pool, clock) = (service.state.pool.clone(), service.state.clock.clone());
    let stop = service.lifecycle.background_stop();
    let running = service.state.revocations.clone().run(pool, clock, health, stop);
    service.lifecycle.spawn("revocations", running);
}

#[tokio::test]
async fn a_logout_ends_its_login_and_no_other() {
    let service = Service::new("logout").await;
    let [here, elsewhere] = two_logins(&service).await;
    for _ in 0..2 {
        let answer = logout(&service, Some(&here), None).await;
        assert_eq!((answer.status, &answer.body), (204, &Value::Null), "twice is no error");
    }
    assert_eq!(service.refresh(&here.refresh).await.status, 401);
    assert_eq!(me(&service, &here).await, 401, "from the commit on, whatever gateways know");
    assert_eq!(me(&service, &elsewhere).await, 200);
    assert_eq!(service.refresh(&elsewhere.refresh).await.status, 200);
}

#[tokio::test]
async fn a_refresh_token_is_enough() {
    let service = Service::new("logout_refresh").await;
    let [first, elsewhere] = two_logins(&service).await;
    let second = service.logged_in(&service.refresh(&first.refresh).await);
    // The old one: whoever has it ends the login, as its reuse would.
    assert_eq!(logout(&service, None, Some(&json!({"refreshToken": first.refresh}))).await.status, 204);
    assert_eq!(service.refresh(&second.refresh).await.status, 401);
    assert_eq!(me(&service, &second).await, 401);
    assert_eq!(me(&service, &elsewhere).await, 200);

    let unknown = json!({"refreshToken": "fcr_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"});
    assert_eq!(logout(&service, None, Some(&unknown)).await.status, 204);
    assert_snapshot!(logout(&service, None, None).await.masked(&[]), @r#"
    401 {
      "code": "UNAUTHENTICATED",
      "detail": "Nothing says which login is to end. Send its access token, or its refresh token in the body.",
      "instance": "/users/logout",
      "status": 401,
      "title": "Unauthorized",
      "traceId": "[traceId]",
      "type": "urn:firstcome:problem:unauthenticated"
    }
    "#);
    assert_eq!(logout(&service, None, Some(&json!({}))).await.status, 401);
}

#[tokio::test]
async fn all_logins_of_an_account_can_end_and_nobody_elses() {
    let service = Service::new("logout_all").await;
    let [here, elsewhere] = two_logins(&service).await;
    service.sign_up("lee@example.com", "correct horse").await;
    let lee = service.log_in("lee@example.com", "correct horse").await;
    for _ in 0..2 {
        let answer = service.call(Method::POST, "/users/logout/all", Some(&here), None).await;
        assert_eq!(answer.status, 204);
    }
    for login in [&here, &elsewhere] {
        assert_eq!(service.refresh(&login.refresh).await.status, 401);
        assert_eq!(me(&service, login).await, 401);
    }
    assert_eq!(me(&service, &lee).await, 200);
    assert_eq!(service.call(Method::POST, "/users/logout/all", None, None).await.status, 401);
    let again = service.log_in("kim@example.com", "correct horse").await;
    assert_eq!(me(&service, &again).await, 200, "a new login is one");
}

#[tokio::test]
async fn gateways_hear_of_it_at_once_and_for_as_long_as_a_token_lives() {
    let service = Service::new("logout_redis").await;
    let mut redis = redis_of(&service).await;
    let client = redis::Client::open({
        let RedisSettings { address, password, .. } = Servers::get().standalone_redis();
        format!("redis://:{}@{address}/", password.expose())
    });
    let mut heard = client.unwrap().get_async_pubsub().await.unwrap();
    heard.subscribe(&service.revoked).await.unwrap();

    let [here, elsewhere] = two_logins(&service).await;
    service.state.clock.advance(Duration::from_secs(60));
    let second = service.logged_in(&service.refresh(&here.refresh).await);
    assert_eq!(logout(&service, Some(&here), None).await.status, 204);
    let score_now = score(&mut redis, &service, &here.sid).await;
    // The last token's end, and a minute for clocks that differ.
    let last_token_ends = service.claims(&second.access).exp * 1000;
    assert_eq!(score_now, Some(last_token_ends + 60_000));
    assert_eq!(score(&mut redis, &service, &elsewhere.sid).await, None);
    let message = tokio::time::timeout(Duration::from_secs(5), async {
        use futures_util::StreamExt as _;
        heard.on_message().next().await.unwrap().get_payload::<String>().unwrap()
    })
    .await
    .unwrap();
    assert_eq!(message, format!("{} {}", here.sid, last_token_ends + 60_000));

    // A thief's second use of a refresh token.
    let fresh = service.logged_in(&service.refresh(&elsewhere.refresh).await);
    assert_eq!(service.refresh(&elsewhere.refresh).await.status, 401);
    assert!(score(&mut redis, &service, &fresh.sid).await.is_some(), "reuse ends the login everywhere, too");
}

/// Guard: without the repetition a Redis that lost its memory lets every token live to its end.
#[tokio::test]
async fn a_redis_that_forgot_everything_is_told_again() {
    let service = Service::new("logout_wiped").await;
    let mut redis = redis_of(&service).await;
    let [here, elsewhere] = two_logins(&service).await;
    logout(&service, Some(&here), None).await;
    logout(&service, Some(&elsewhere), None).await;
    let () = redis::cmd("DEL").arg(&service.revoked).query_async(&mut redis).await.unwrap();
    run_revocations(&service);
    until("both are there again", async || {
        let mut redis = redis.clone();
        score(&mut redis, &service, &here.sid).await.is_some()
            && score(&mut redis, &service, &elsewhere.sid).await.is_some()
    })
    .await;

    service.state.clock.advance(Duration::from_secs(15 * 60 + 61));
    until("what is over is forgotten", async || {
        let count: u64 =
            redis::cmd("ZCARD").arg(&service.revoked).query_async(&mut redis.clone()).await.unwrap();
        count == 0
    })
    .await;
    let (pool, now) = (&service.state.pool, service.state.clock.now_ms());
    assert_eq!(store::sessions::sweep(pool, now, 500).await.unwrap(), 2);
    service.lifecycle.stop_background(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_logout_without_redis_is_one_and_another_instance_tells_of_it() {
    let service = Service::new("logout_away").await;
    let mut redis = redis_of(&service).await;
    let away =
        service.beside(RedisSettings { address: "127.0.0.1:1".to_owned(), ..RedisSettings::default() });
    let [here, _] = two_logins(&service).await;
    let began = std::time::Instant::now();
    assert_eq!(logout(&away, Some(&here), None).await.status, 204);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(me(&service, &here).await, 401);
    assert_eq!(score(&mut redis, &service, &here.sid).await, None);
    run_revocations(&service);
    until("it is told", async || score(&mut redis.clone(), &service, &here.sid).await.is_some()).await;
    service.lifecycle.stop_background(Duration::from_secs(5)).await;
}

/// A token that no login of ours made, as the operator's tool signs them, can be ended as well.
#[tokio::test]
async fn a_token_without_a_login_can_be_logged_out() {
    let service = Service::new("logout_foreign").await;
    let mut redis = redis_of(&service).await;
    let sid = uuid::Uuid::new_v4().simple().to_string();
    let login = Login { user: 77, sid, roles: Vec::new(), access: String::new(), refresh: String::new() };
    assert_eq!(logout(&service, Some(&login), None).await.status, 204);
    let until = score(&mut redis, &service, &login.sid).await.unwrap();
    assert!(until >= service.state.clock.now_ms() + 24 * 3600 * 1000, "nobody knows when it ends");
}
