//! The first administrator.

use serde_json::json;
use tokio::task::JoinSet;
use user_service::config::FirstAdminSettings;
use user_service::email::Email;
use user_service::first_admin::ensure;
use user_service::store::{self, Role};

use crate::harness::Service;

fn settings(password: &str) -> FirstAdminSettings {
    FirstAdminSettings { email: "Admin@Example.com".to_owned(), password: password.into() }
}

async fn roles(service: &Service) -> Vec<Role> {
    let email = Email::parse("admin@example.com").unwrap();
    let account = store::credentials(&service.state.pool, &email).await.unwrap().unwrap();
    store::roles(&service.state.pool, account.user).await.unwrap()
}

async fn login(service: &Service, password: &str) -> u16 {
    service.post("/users/login", &json!({"email": "admin@example.com", "password": password})).await.status
}

#[tokio::test]
async fn many_instances_that_start_at_once_make_one() {
    let service = Service::new("first_admin").await;
    let mut starts = JoinSet::new();
    for _ in 0..6 {
        let service = service.clone();
        starts.spawn(async move { ensure(&service.state, &settings("the admin's password")).await.unwrap() });
    }
    starts.join_all().await;
    let (users,): (i64,) =
        sqlx::query_as("SELECT COUNT(*) FROM users").fetch_one(&service.state.pool).await.unwrap();
    assert_eq!(users, 1);
    assert_eq!(roles(&service).await, [Role::User, Role::Admin]);
    assert_eq!(login(&service, "the admin's password").await, 200);
}

#[tokio::test]
async fn a_later_start_changes_nothing() {
    let service = Service::new("later_start").await;
    ensure(&service.state, &settings("the first password")).await.unwrap();
    ensure(&service.state, &settings("another password")).await.unwrap();
    assert_eq!(login(&service, "the first password").await, 200);
    assert_eq!(login(&service, "another password").await, 401);
}

/// Guard: granting the role to whoever has the address would hand the system to him.
#[tokio::test]
async fn whoever_took_the_address_before_is_no_administrator() {
    let service = Service::new("squatter").await;
    service.sign_up("admin@example.com", "the squatter's password").await;
    ensure(&service.state, &settings("the admin's password")).await.unwrap();
    assert_eq!(roles(&service).await, [Role::User]);
}

#[tokio::test]
async fn without_an_address_there_is_none() {
    let service = Service::new("none").await;
    ensure(&service.state, &FirstAdminSettings::default()).await.unwrap();
    let (users,): (i64,) =
        sqlx::query_as("SELECT COUNT(*) FROM users").fetch_one(&service.state.pool).await.unwrap();
    assert_eq!(users, 0);
}
