//! Wrong passwords are counted, exactly, across instances; who knows his is not kept out by others.

use std::time::Duration;

use platform::identity::ClientAddress;
use serde_json::json;
use tokio::task::JoinSet;
use user_service::store::failures;

use crate::harness::{Answer, Service};

const RIGHT: &str = "correct horse";
const KIM: &str = "kim@example.com";

/// Few are enough, and hashes take time.
async fn service(name: &str) -> Service {
    let service = Service::with(name, |settings| {
        settings.password.parallelism = 1;
        let login = &mut settings.login;
        (login.account_address_failures, login.account_address_regain) = (3, Duration::from_secs(6 * 3600));
        (login.account_failures, login.account_regain) = (8, Duration::from_secs(8 * 3600));
        (login.address_failures, login.address_regain) = (6, Duration::from_secs(3600));
    })
    .await;
    service.sign_up(KIM, RIGHT).await;
    service
}

async fn try_in(service: &Service, email: &str, password: &str) -> Answer {
    service.post("/users/login", &json!({"email": email, "password": password})).await
}

async fn wrong(service: &Service, email: &str) -> u16 {
    try_in(service, email, "wrong horse").await.status
}

async fn right(service: &Service) -> u16 {
    try_in(service, KIM, RIGHT).await.status
}

async fn rows(service: &Service) -> i64 {
    sqlx::query_scalar("SELECT COUNT(*) FROM login_failures").fetch_one(&service.state.pool).await.unwrap()
}

/// Guard: counted before or beside the check and not with it, more than three are told.
#[tokio::test]
async fn of_many_at_once_in_two_instances_exactly_so_many_are_told() {
    let service = service("throttle_exact").await;
    let instances = [service.from("192.0.2.7"), service.beside(service.redis()).from("192.0.2.7")];
    let mut asked = JoinSet::new();
    for n in 0..40 {
        let instance = instances[n % 2].clone();
        asked.spawn(async move { wrong(&instance, KIM).await });
    }
    let statuses = asked.join_all().await;
    let count = |status| statuses.iter().filter(|it| **it == status).count();
    assert_eq!((count(401), count(429)), (3, 37), "{statuses:?}");
}

/// Guard: without a second look after the check, the right one among many is told, whatever failed before it.
#[tokio::test]
async fn a_right_one_that_others_overtook_is_not_told() {
    let service = service("throttle_burst").await.from("192.0.2.7");
    // The one slot for hashes is taken in the order of arrival: the right password waits for all of these.
    let passwords = &service.state.passwords;
    let busy = futures_util::future::join_all((0..40).map(|_| passwords.hash("somebody else's".into())));
    let late = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        right(&service).await
    };
    let overtaking = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let client = ClientAddress(Some("192.0.2.7".parse().unwrap()));
        let attempt = service.state.throttle.attempt(KIM, None, client);
        for _ in 0..3 {
            attempt.failed(&service.state.pool, service.state.clock.now_ms()).await.unwrap();
        }
    };
    let (_, status, ()) = tokio::join!(busy, late, overtaking);
    assert_eq!(status, 429);
}

#[tokio::test]
async fn retry_after_is_kept() {
    let service = service("throttle_retry").await.from("192.0.2.7");
    for _ in 0..3 {
        assert_eq!(wrong(&service, KIM).await, 401);
    }
    let refused = try_in(&service, KIM, RIGHT).await;
    assert_eq!((refused.status, &refused.body["code"]), (429, &json!("RATE_LIMITED")));
    let seconds: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert_eq!(seconds, 2 * 3600);
    assert!(refused.body["detail"].as_str().unwrap().contains("7200 seconds"), "{}", refused.body);
    service.state.clock.advance(Duration::from_secs(seconds - 1));
    assert_eq!(right(&service).await, 429, "and to go on does not lengthen it");
    service.state.clock.advance(Duration::from_secs(1));
    assert_eq!(right(&service).await, 200);
    for _ in 0..3 {
        assert_eq!(wrong(&service, KIM).await, 401, "whoever got in has them all again");
    }
    assert_eq!(wrong(&service, KIM).await, 429);
}

#[tokio::test]
async fn a_stranger_at_one_address_keeps_nobody_out_at_another() {
    let service = service("throttle_stranger").await;
    let (stranger, owner) = (service.from("192.0.2.7"), service.from("198.51.100.1"));
    // A whole day at the greatest pace.
    for _ in 0..(24 * 60 / 5) {
        wrong(&stranger, KIM).await;
        service.state.clock.advance(Duration::from_secs(5 * 60));
    }
    wrong(&stranger, KIM).await;
    assert_eq!(right(&stranger).await, 429);
    assert_eq!(right(&owner).await, 200);
}

#[tokio::test]
async fn an_account_that_many_try_is_open_where_its_owner_was_before() {
    let service = service("throttle_account").await;
    let home = service.from("198.51.100.1");
    assert_eq!(right(&home).await, 200);
    for n in 0..8 {
        assert_eq!(wrong(&service.from(&format!("192.0.2.{n}")), KIM).await, 401);
    }
    let new = service.from("203.0.113.1");
    assert_eq!(right(&new).await, 429, "nobody knows who that is");
    assert_eq!(right(&home).await, 200);
    assert_eq!(wrong(&home, KIM).await, 401);
    service.state.clock.advance(Duration::from_secs(3600));
    assert_eq!(right(&new).await, 200, "and never for long");
}

#[tokio::test]
async fn an_address_that_tries_many_accounts_is_throttled() {
    let service = service("throttle_address").await;
    let (here, there) = (service.from("2001:db8:1:2::7"), service.from("2001:db8:1:3::7"));
    for n in 0..6 {
        assert_eq!(wrong(&here, &format!("lee-{n}@example.com")).await, 401);
    }
    assert_eq!(right(&here).await, 429);
    assert_eq!(right(&service.from("2001:db8:1:2:ffff::1")).await, 429, "the same subscriber");
    assert_eq!(right(&there).await, 200);
}

#[tokio::test]
async fn whether_an_account_exists_makes_no_difference() {
    let service = service("throttle_unknown").await;
    for email in ["lee@example.com", "no address at all", KIM] {
        let here = service.from(if email == KIM { "192.0.2.1" } else { "192.0.2.2" });
        let mut said = Vec::new();
        for _ in 0..4 {
            let answer = try_in(&here, email, "wrong horse").await;
            said.push((answer.status, answer.headers.get("retry-after").cloned()));
        }
        service.state.clock.advance(Duration::from_secs(3600));
        let statuses: Vec<_> = said.iter().map(|(status, _)| *status).collect();
        assert_eq!(statuses, [401, 401, 401, 429], "{email}");
        assert_eq!(said[3].1.as_ref().unwrap(), "7200", "{email}");
    }
    // One account, however it is written.
    assert_eq!(wrong(&service.from("192.0.2.1"), "  KIM@Example.com").await, 429);
}

#[tokio::test]
async fn only_failures_are_written_and_nothing_of_them_can_be_read() {
    let service = service("throttle_rows").await.from("192.0.2.7");
    assert_eq!(right(&service.from("198.51.100.1")).await, 200);
    assert_eq!(rows(&service).await, 0);
    assert_eq!(wrong(&service, KIM).await, 401);
    assert_eq!(rows(&service).await, 3, "the account here, the account, the address");
    assert_eq!(right(&service).await, 200);
    assert_eq!(rows(&service).await, 2, "the account here is forgotten");
    let (pool, day) = (&service.state.pool, Duration::from_secs(24 * 3600));
    assert_eq!(failures::sweep(pool, service.state.clock.now_ms(), 500).await.unwrap(), 0);
    service.state.clock.advance(day);
    assert_eq!(failures::sweep(pool, service.state.clock.now_ms(), 500).await.unwrap(), 2);
}

#[tokio::test]
async fn a_forged_address_is_refused() {
    let service = service("throttle_forged").await;
    let body = json!({"email": KIM, "password": RIGHT}).to_string();
    let request = http::Request::post("/users/login")
        .header("content-type", "application/json")
        .header("x-firstcome-client", "192.0.2.7");
    let answer = service.send(request.body(axum::body::Body::from(body)).unwrap()).await;
    assert_eq!((answer.status, &answer.body["code"]), (401, &json!("UNAUTHENTICATED")));
}
