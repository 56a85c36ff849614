//! Granting and taking the administrator's role.

use http::Method;
use insta::assert_snapshot;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use user_service::config::FirstAdminSettings;
use user_service::first_admin::ensure;

use crate::harness::{Answer, Login, Service};

const PASSWORD: &str = "correct horse";

fn first() -> FirstAdminSettings {
    FirstAdminSettings { email: "admin@example.com".to_owned(), password: PASSWORD.into() }
}

async fn with_admin(name: &str) -> (Service, Login) {
    let service = Service::new(name).await;
    ensure(&service.state, &first()).await.unwrap();
    let admin = service.log_in("admin@example.com", PASSWORD).await;
    (service, admin)
}

async fn user(service: &Service, email: &str) -> Login {
    service.sign_up(email, PASSWORD).await;
    service.log_in(email, PASSWORD).await
}

async fn ask(service: &Service, by: &Login, id: impl std::fmt::Display, body: &Value) -> Answer {
    service.call(Method::POST, &format!("/users/{id}/roles"), Some(by), Some(body)).await
}

async fn change(service: &Service, by: &Login, of: &Login, action: &str) -> Answer {
    ask(service, by, of.user, &json!({"role": "ADMIN", "action": action})).await
}

async fn me(service: &Service, login: &Login) -> u16 {
    service.call(Method::GET, "/users/me", Some(login), None).await.status
}

#[tokio::test]
async fn a_role_comes_with_the_next_token_and_goes_at_once() {
    let (service, admin) = with_admin("roles_change").await;
    let kim = user(&service, "kim@example.com").await;
    let granted = change(&service, &admin, &kim, "GRANT").await;
    assert_snapshot!(granted.masked(&["userId"]), @r#"
    200 {
      "roles": [
        "USER",
        "ADMIN"
      ],
      "userId": "[userId]"
    }
    "#);
    assert_eq!(change(&service, &admin, &kim, "GRANT").await.body, granted.body, "twice is no error");
    assert_eq!(me(&service, &kim).await, 200, "a grant ends nothing");
    assert_eq!(change(&service, &kim, &admin, "TAKE").await.status, 403, "the old token does not know of it");
    let kim = service.logged_in(&service.refresh(&kim.refresh).await);
    assert_eq!(kim.roles, ["USER", "ADMIN"]);

    for _ in 0..2 {
        let taken = change(&service, &admin, &kim, "TAKE").await;
        assert_eq!((taken.status, &taken.body["roles"]), (200, &json!(["USER"])), "{}", taken.body);
    }
    assert_eq!(me(&service, &kim).await, 401);
    assert_eq!(service.refresh(&kim.refresh).await.status, 401);
    assert_eq!(service.log_in("kim@example.com", PASSWORD).await.roles, ["USER"]);
    assert_eq!(me(&service, &admin).await, 200, "nobody else's logins end");
}

#[tokio::test]
async fn who_is_none_changes_no_roles() {
    let (service, admin) = with_admin("roles_forbidden").await;
    let kim = user(&service, "kim@example.com").await;
    assert_eq!(change(&service, &kim, &kim, "GRANT").await.status, 403);
    // Whatever a token says: one without a login of ours, one whose holder's role was taken.
    let forged = Login { sid: "none".to_owned(), roles: vec!["ADMIN".to_owned()], ..kim.clone() };
    assert_eq!(change(&service, &forged, &kim, "GRANT").await.status, 403);
    let without = service.call(Method::POST, "/users/1/roles", None, Some(&json!({}))).await.status;
    assert_eq!(without, 401);

    let unknown = ask(&service, &admin, 1, &json!({"role": "ADMIN", "action": "GRANT"})).await;
    assert_eq!((unknown.status, &unknown.body["code"]), (404, &json!("USER_NOT_FOUND")));
    for (body, field) in [
        (json!({"role": "ADMIN"}), "action"),
        (json!({"role": "USER", "action": "GRANT"}), "role"),
        (json!({"role": "SERVICE", "action": "GRANT"}), "role"),
        (json!({"role": "ADMIN", "action": "grant"}), "action"),
    ] {
        let answer = ask(&service, &admin, kim.user, &body).await;
        assert_eq!((answer.status, &answer.body["errors"][0]["field"]), (400, &json!(field)), "{body}");
    }
    let text = ask(&service, &admin, "kim", &json!({"role": "ADMIN", "action": "GRANT"})).await;
    assert_eq!((text.status, &text.body["errors"][0]["field"]), (400, &json!("id")), "{}", text.body);
}

#[tokio::test]
async fn the_last_administrator_stays_one() {
    let (service, admin) = with_admin("roles_last").await;
    let taken = change(&service, &admin, &admin, "TAKE").await;
    assert_eq!((taken.status, &taken.body["code"]), (409, &json!("LAST_ADMIN")));
    let body = json!({"password": PASSWORD});
    let deleted = service.call(Method::DELETE, "/users/me", Some(&admin), Some(&body)).await;
    assert_eq!((deleted.status, &deleted.body["code"]), (409, &json!("LAST_ADMIN")));
    assert_eq!(me(&service, &admin).await, 200);
}

/// Guard: two who look first and take then each find the other still there.
#[tokio::test]
async fn two_administrators_who_are_taken_at_once_leave_one() {
    let (service, first) = with_admin("roles_race").await;
    let mut second = user(&service, "kim@example.com").await;
    for round in 0..10 {
        assert_eq!(change(&service, &first, &second, "GRANT").await.status, 200);
        second = service.log_in("kim@example.com", PASSWORD).await;
        let mut asked = JoinSet::new();
        for of in [&first, &second] {
            // Each takes himself: both are administrators when they ask.
            let (service, of) = (service.clone(), of.clone());
            asked.spawn(async move { change(&service, &of, &of, "TAKE").await });
        }
        let mut statuses: Vec<_> = asked.join_all().await.iter().map(|answer| answer.status).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409], "round {round}");
        let admins: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM user_roles")
            .fetch_one(&service.state.pool)
            .await
            .unwrap();
        assert_eq!(admins, 1);
        // As at the beginning.
        let by = service.log_in("kim@example.com", PASSWORD).await;
        let other = service.log_in("admin@example.com", PASSWORD).await;
        if by.roles.contains(&"ADMIN".to_owned()) {
            assert_eq!(change(&service, &by, &other, "GRANT").await.status, 200);
            let other = service.log_in("admin@example.com", PASSWORD).await;
            assert_eq!(change(&service, &other, &by, "TAKE").await.status, 200);
            return;
        }
    }
}

#[tokio::test]
async fn a_first_administrator_who_deleted_his_account_does_not_rise_again() {
    let (service, first_admin) = with_admin("roles_risen").await;
    let kim = user(&service, "kim@example.com").await;
    assert_eq!(change(&service, &first_admin, &kim, "GRANT").await.status, 200);
    let body = json!({"password": PASSWORD});
    let deleted = service.call(Method::DELETE, "/users/me", Some(&first_admin), Some(&body)).await;
    assert_eq!(deleted.status, 204);
    ensure(&service.state, &first()).await.unwrap();
    let login =
        service.post("/users/login", &json!({"email": "admin@example.com", "password": PASSWORD})).await;
    assert_eq!(login.status, 401);
}
