//! Refresh tokens: rotation, races, reuse, expiry.

use std::time::Duration;

use insta::assert_snapshot;
use serde_json::json;
use tokio::task::JoinSet;
use user_service::store::{self, Role};

use crate::harness::{Answer, Service};

async fn refresh(service: &Service, token: &str) -> Answer {
    service.post("/users/token/refresh", &json!({"refreshToken": token})).await
}

fn refresh_token(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body["token"]["refreshToken"].as_str().unwrap().to_owned()
}

async fn logged_in(service: &Service) -> String {
    service.sign_up("kim@example.com", "correct horse").await;
    log_in(service).await
}

async fn log_in(service: &Service) -> String {
    let body = json!({"email": "kim@example.com", "password": "correct horse"});
    refresh_token(&service.post("/users/login", &body).await)
}

#[tokio::test]
async fn each_token_works_once_and_brings_the_next() {
    let service = Service::new("rotation").await;
    let mut token = logged_in(&service).await;
    let mut sids = Vec::new();
    for _ in 0..5 {
        let answer = refresh(&service, &token).await;
        let next = refresh_token(&answer);
        assert_ne!(next, token);
        let claims = service.claims(answer.body["token"]["accessToken"].as_str().unwrap());
        sids.push(claims.sid);
        token = next;
    }
    sids.dedup();
    assert_eq!(sids.len(), 1, "all descend from one login");
}

#[tokio::test]
async fn reuse_revokes_the_login_and_no_other() {
    let service = Service::new("reuse").await;
    let first = logged_in(&service).await;
    let elsewhere = log_in(&service).await;
    let second = refresh_token(&refresh(&service, &first).await);

    assert_snapshot!(refresh(&service, &first).await.masked(&[]), @r#"
    401 {
      "code": "UNAUTHENTICATED",
      "detail": "The refresh token is unknown, expired, used or revoked. Log in again.",
      "instance": "/users/token/refresh",
      "status": 401,
      "title": "Unauthorized",
      "traceId": "[traceId]",
      "type": "urn:firstcome:problem:unauthenticated"
    }
    "#);
    let revoked = refresh(&service, &second).await;
    assert_eq!((revoked.status, &revoked.body["code"]), (401, &json!("UNAUTHENTICATED")));
    assert_eq!(refresh(&service, &first).await.status, 401);
    assert_eq!(refresh(&service, &elsewhere).await.status, 200, "another login goes on");
}

#[tokio::test]
async fn of_many_with_one_token_one_gets_the_next_and_the_login_ends() {
    let service = Service::new("race").await;
    let mut token = logged_in(&service).await;
    for _ in 0..5 {
        let mut asked = JoinSet::new();
        for _ in 0..8 {
            let (service, token) = (service.clone(), token.clone());
            asked.spawn(async move { refresh(&service, &token).await });
        }
        let answers = asked.join_all().await;
        let winners: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
        assert_eq!(winners.len(), 1);
        assert_eq!(answers.iter().filter(|answer| answer.status == 401).count(), 7);
        let next = refresh_token(winners[0]);
        assert_eq!(refresh(&service, &next).await.status, 401, "seven of the eight were reuse");
        token = log_in(&service).await;
    }
}

#[tokio::test]
async fn unknown_and_expired_tokens_are_refused_alike() {
    let service = Service::new("expiry").await;
    let token = logged_in(&service).await;
    let unknown = refresh(&service, "fcr_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").await.masked(&[]);
    service.state.clock.advance(Duration::from_secs(14 * 24 * 3600 - 1));
    let token = refresh_token(&refresh(&service, &token).await);
    service.state.clock.advance(Duration::from_secs(14 * 24 * 3600));
    assert_eq!(refresh(&service, &token).await.masked(&[]), unknown);
}

#[tokio::test]
async fn expired_logins_are_swept_and_living_ones_stay() {
    let service = Service::new("sweep").await;
    logged_in(&service).await;
    service.state.clock.advance(Duration::from_secs(14 * 24 * 3600));
    let living = log_in(&service).await;
    let now = service.state.clock.now_ms();
    assert_eq!(
        store::refresh::sweep(&service.state.pool, now, 500).await.unwrap(),
        2,
        "one token, one family"
    );
    assert_eq!(store::refresh::sweep(&service.state.pool, now, 500).await.unwrap(), 0);
    assert_eq!(refresh(&service, &living).await.status, 200);
}

#[tokio::test]
async fn a_role_that_was_granted_comes_with_the_next_token() {
    let service = Service::new("roles").await;
    let token = logged_in(&service).await;
    let email = user_service::email::Email::parse("kim@example.com").unwrap();
    let user = store::credentials(&service.state.pool, &email).await.unwrap().unwrap().user;
    store::grant(&service.state.pool, user, Role::Admin, store::timestamp(0)).await.unwrap();
    let answer = refresh(&service, &token).await;
    let claims = service.claims(answer.body["token"]["accessToken"].as_str().unwrap());
    assert_eq!(claims.roles, [Role::User, Role::Admin]);
    assert_eq!(claims.sub, user.to_string());
}

#[tokio::test]
async fn the_database_holds_no_token() {
    let service = Service::new("at_rest").await;
    let token = logged_in(&service).await;
    let found: Vec<(Vec<u8>,)> =
        sqlx::query_as("SELECT token_hash FROM refresh_tokens").fetch_all(&service.state.pool).await.unwrap();
    assert_eq!(found.len(), 1);
    use sha2::Digest;
    assert_eq!(found[0].0, sha2::Sha256::digest(token.as_bytes()).as_slice());
}
