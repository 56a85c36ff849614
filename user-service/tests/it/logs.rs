//! Whatever is logged, at the finest level, is free of passwords and tokens.

use serde_json::json;

use crate::harness::{Service, logged};

#[tokio::test]
async fn no_log_line_holds_a_password_or_a_token() {
    let service = Service::new("logs").await;
    let right = "the-right-password-7f3a";
    let wrong = "the-wrong-password-9c1e";
    let login = |password: &'static str| json!({"email": "logs@example.com", "password": password});
    service.sign_up("logs@example.com", right).await;
    service.post("/users/sign-up", &login(right)).await;
    service.post("/users/sign-up", &json!({"email": "none", "password": wrong})).await;
    service.post("/users/login", &login(wrong)).await;
    let first = service.post("/users/login", &login(right)).await;
    let token =
        |answer: &crate::harness::Answer, name: &str| answer.body["token"][name].as_str().unwrap().to_owned();
    let refresh = json!({"refreshToken": token(&first, "refreshToken")});
    let second = service.post("/users/token/refresh", &refresh).await;
    service.post("/users/token/refresh", &refresh).await;

    // A database that breaks in the middle: errors carry statements and may carry values.
    sqlx::query("DROP TABLE user_roles").execute(&service.state.pool).await.unwrap();
    assert_eq!(service.post("/users/login", &login(right)).await.status, 500);
    sqlx::query("DROP TABLE refresh_tokens").execute(&service.state.pool).await.unwrap();
    assert_eq!(service.post("/users/token/refresh", &refresh).await.status, 500);
    service.state.pool.close().await;
    assert_eq!(service.post("/users/login", &login(right)).await.status, 503);

    let log = logged();
    assert!(log.contains("used refresh token presented"), "the log was listened to");
    assert!(log.contains("user_roles"), "the cause of a 500 is logged");
    let mut secrets = vec![right.to_owned(), wrong.to_owned()];
    for answer in [&first, &second] {
        secrets.push(token(answer, "refreshToken"));
        let access = token(answer, "accessToken");
        secrets.push(access.rsplit('.').next().unwrap().to_owned());
        secrets.push(access);
    }
    for secret in secrets {
        assert!(!log.contains(&secret), "{secret} was logged");
    }
    assert!(!log.contains("$argon2id$"), "a password hash was logged");
}
