//! Changing the password, and deleting the account.

use http::Method;
use insta::assert_snapshot;
use serde_json::json;
use tokio::task::JoinSet;
use user_service::store;

use crate::harness::{Answer, Login, Service};

const KIM: &str = "kim@example.com";
const OLD: &str = "correct horse";
const NEW: &str = "battery staple";

async fn signed_up(name: &str) -> (Service, Login) {
    let service = Service::new(name).await;
    service.sign_up(KIM, OLD).await;
    let login = service.log_in(KIM, OLD).await;
    (service, login)
}

async fn change(service: &Service, login: &Login, current: &str, new: &str) -> Answer {
    let body = json!({"currentPassword": current, "newPassword": new});
    service.call(Method::PUT, "/users/me/password", Some(login), Some(&body)).await
}

async fn delete(service: &Service, login: &Login, password: &str) -> Answer {
    service.call(Method::DELETE, "/users/me", Some(login), Some(&json!({"password": password}))).await
}

async fn status_of_login(service: &Service, password: &str) -> u16 {
    service.post("/users/login", &json!({"email": KIM, "password": password})).await.status
}

async fn me(service: &Service, login: &Login) -> u16 {
    service.call(Method::GET, "/users/me", Some(login), None).await.status
}

#[tokio::test]
async fn a_new_password_ends_all_logins() {
    let (service, here) = signed_up("password").await;
    let elsewhere = service.log_in(KIM, OLD).await;
    let changed = change(&service, &here, OLD, NEW).await;
    assert_eq!((changed.status, changed.body.is_null()), (204, true), "{}", changed.body);
    for login in [&here, &elsewhere] {
        assert_eq!(me(&service, login).await, 401);
        assert_eq!(service.refresh(&login.refresh).await.status, 401);
    }
    assert_eq!(status_of_login(&service, OLD).await, 401);
    assert_eq!(status_of_login(&service, NEW).await, 200);
}

#[tokio::test]
async fn a_wrong_password_changes_nothing_and_is_no_401() {
    let (service, login) = signed_up("password_wrong").await;
    assert_snapshot!(change(&service, &login, "wrong horse", NEW).await.masked(&[]), @r#"
    403 {
      "code": "BAD_CREDENTIALS",
      "detail": "The password is wrong.",
      "instance": "/users/me/password",
      "status": 403,
      "title": "Forbidden",
      "traceId": "[traceId]",
      "type": "urn:firstcome:problem:bad-credentials"
    }
    "#);
    let deleted = delete(&service, &login, "wrong horse").await;
    assert_eq!((deleted.status, &deleted.body["code"]), (403, &json!("BAD_CREDENTIALS")));
    assert_eq!(me(&service, &login).await, 200, "the login goes on");
    assert_eq!(status_of_login(&service, OLD).await, 200);
    let without = service.call(Method::PUT, "/users/me/password", None, Some(&json!({}))).await;
    assert_eq!((without.status, &without.body["code"]), (401, &json!("UNAUTHENTICATED")));
}

#[tokio::test]
async fn a_new_password_has_to_pass_the_rules() {
    let (service, login) = signed_up("password_rules").await;
    for new in ["short", "Password123", "kim.2026.kim"] {
        let answer = change(&service, &login, OLD, new).await;
        assert_eq!((answer.status, &answer.body["code"]), (400, &json!("VALIDATION_FAILED")), "{new}");
        assert_eq!(answer.body["errors"][0]["field"], "newPassword");
    }
    assert_eq!(status_of_login(&service, OLD).await, 200);
}

/// Guard: by another way the throttle of logins would be none.
#[tokio::test]
async fn wrong_passwords_are_counted_with_those_of_logins() {
    let service =
        Service::with("password_throttle", |settings| settings.login.account_address_failures = 4).await;
    let service = service.from("192.0.2.7");
    service.sign_up(KIM, OLD).await;
    let login = service.log_in(KIM, OLD).await;
    assert_eq!(change(&service, &login, "wrong horse", NEW).await.status, 403);
    assert_eq!(delete(&service, &login, "wrong horse").await.status, 403);
    assert_eq!(status_of_login(&service, "wrong horse").await, 401);
    assert_eq!(change(&service, &login, "wrong horse", NEW).await.status, 403);
    for answer in [change(&service, &login, OLD, NEW).await, delete(&service, &login, OLD).await] {
        assert_eq!((answer.status, &answer.body["code"]), (429, &json!("RATE_LIMITED")));
        assert!(answer.headers.contains_key("retry-after"));
    }
    assert_eq!(status_of_login(&service, OLD).await, 429);
}

/// Guard: a login that had checked the old password when it was changed would go on with it.
#[tokio::test]
async fn no_login_with_the_old_password_outlives_its_change() {
    let (service, login) = signed_up("password_race").await;
    let mut asked = JoinSet::new();
    for _ in 0..12 {
        let service = service.clone();
        asked.spawn(
            async move { service.post("/users/login", &json!({"email": KIM, "password": OLD})).await },
        );
    }
    assert_eq!(change(&service, &login, OLD, NEW).await.status, 204);
    for answer in asked.join_all().await {
        if answer.status == 200 {
            let login = service.logged_in(&answer);
            assert_eq!(me(&service, &login).await, 401, "it ended with all others");
            assert_eq!(service.refresh(&login.refresh).await.status, 401);
        } else {
            assert_eq!(answer.body["code"], "BAD_CREDENTIALS", "{}", answer.body);
        }
    }
}

#[tokio::test]
async fn of_many_changes_at_once_one_counts() {
    let (service, login) = signed_up("password_twice").await;
    let mut asked = JoinSet::new();
    for n in 0..6 {
        let (service, login) = (service.clone(), login.clone());
        asked.spawn(async move {
            (n, change(&service, &login, OLD, &format!("battery staple {n}")).await.status)
        });
    }
    let statuses = asked.join_all().await;
    let changed: Vec<_> = statuses.iter().filter(|(_, status)| *status == 204).collect();
    assert_eq!(changed.len(), 1, "{statuses:?}");
    assert_eq!(status_of_login(&service, &format!("battery staple {}", changed[0].0)).await, 200);
}

#[tokio::test]
async fn of_a_deleted_account_the_id_stays_and_nothing_else() {
    let (service, here) = signed_up("delete").await;
    let elsewhere = service.log_in(KIM, OLD).await;
    assert_eq!(delete(&service, &here, OLD).await.status, 204);
    for login in [&here, &elsewhere] {
        assert_eq!(me(&service, login).await, 401);
        assert_eq!(service.refresh(&login.refresh).await.status, 401);
    }
    assert_eq!(service.me(here.user).await.status, 404, "a token without a login of ours");
    assert_eq!(status_of_login(&service, OLD).await, 401);
    let row: (u64, Option<String>, Option<String>, bool) = sqlx::query_as(
        "SELECT user_id, email, password_hash, deleted_at IS NOT NULL FROM users WHERE user_id = ?",
    )
    .bind(here.user)
    .fetch_one(&service.state.pool)
    .await
    .unwrap();
    assert_eq!(row, (here.user, None, None, true));

    service.sign_up(KIM, NEW).await;
    let again = service.log_in(KIM, NEW).await;
    assert_ne!(again.user, here.user, "somebody new");
    let lee = user_service::email::Email::parse("lee@example.com").unwrap();
    let taken = store::insert_user(&service.state.pool, here.user, &lee, "x", store::timestamp(0));
    assert_eq!(taken.await.unwrap(), store::Inserted::IdTaken, "the id is never used again");
    assert_eq!(delete(&service, &again, NEW).await.status, 204, "and a second one can be deleted as well");
}
