//! Signing up: every answer of the API.

use e2e::client::{Client, members};
use e2e::stack::{Stack, shared};
use e2e::{secrets, users};
use serde_json::json;

const PATH: &str = "/users/sign-up";

#[tokio::test]
async fn an_account_is_made_once_per_address() {
    let _stack = shared().await;
    let client = Client::gateway(&Stack::load());
    let (email, password) = (users::email(), secrets::password());

    let body = client.post(PATH, None, &json!({"email": email, "password": password})).await.expect(201);
    assert_eq!(members(&body), ["email", "userId"]);
    assert_eq!(body["email"], email);
    assert!(body["userId"].as_u64().is_some_and(|id| id < 1 << 53), "{body}");

    let again = json!({"email": format!(" {} ", email.to_uppercase()), "password": secrets::password()});
    client.post(PATH, None, &again).await.problem(409, "EMAIL_TAKEN");
}

#[tokio::test]
async fn of_many_at_once_with_one_address_one_gets_it() {
    let _stack = shared().await;
    let client = Client::gateway(&Stack::load());
    let body = json!({"email": users::email(), "password": secrets::password()});
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (client, body) = (client.clone(), body.clone());
        asked.spawn(async move { client.post(PATH, None, &body).await });
    }
    let answers = asked.join_all().await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
    for answer in answers.iter().filter(|answer| answer.status != 201) {
        answer.problem(409, "EMAIL_TAKEN");
    }
}

#[tokio::test]
async fn a_wrong_field_is_named() {
    let _stack = shared().await;
    let client = Client::gateway(&Stack::load());
    let good = secrets::password();
    for (body, fields) in [
        (json!({"email": "no-address", "password": good}), vec!["email"]),
        (json!({"email": users::email(), "password": "12345"}), vec!["password"]),
        (json!({"email": users::email(), "password": "x".repeat(129)}), vec!["password"]),
        (json!({"email": "no-address", "password": "12345"}), vec!["email", "password"]),
        (json!({"email": 7, "password": good}), vec!["email"]),
        (json!({"email": users::email(), "password": 1_234_567_890}), vec!["password"]),
        (json!({"email": users::email(), "password": null}), vec!["password"]),
    ] {
        let answer = client.post(PATH, None, &body).await;
        answer.invalid(&fields);
        assert!(!answer.text.contains(&good) && !answer.text.contains("1234567890"), "{}", answer.text);
    }
}

#[tokio::test]
async fn an_unknown_field_does_no_harm() {
    let _stack = shared().await;
    let client = Client::gateway(&Stack::load());
    let body =
        json!({"email": users::email(), "password": secrets::password(), "roles": ["ADMIN"], "userId": 1});
    let body = client.post(PATH, None, &body).await.expect(201);
    assert_ne!(body["userId"], 1);
}

#[tokio::test]
async fn what_is_no_acceptable_body_is_refused() {
    let _stack = shared().await;
    let client = Client::gateway(&Stack::load());
    let json = "application/json";
    for broken in ["{\"email\":", "", "{\"email\": \"a@b.c\" \"password\"}", "\u{0}"] {
        let answer = client.post_text(PATH, None, json, broken.to_owned()).await;
        answer.problem(400, "MALFORMED_JSON");
    }
    let good = format!("{{\"email\":\"{}\",\"password\":\"{}\"}}", users::email(), secrets::password());
    for wrong in ["text/plain", "application/x-www-form-urlencoded"] {
        let answer = client.post_text(PATH, None, wrong, good.clone()).await;
        answer.problem(415, "UNSUPPORTED_MEDIA_TYPE");
    }
    let large = format!("{{\"email\":\"{}\",\"password\":\"{}\"}}", users::email(), "x".repeat(17 * 1024));
    client.post_text(PATH, None, json, large).await.problem(413, "PAYLOAD_TOO_LARGE");
}

#[tokio::test]
async fn details_come_in_korean_when_asked() {
    let _stack = shared().await;
    let client = Client::gateway(&Stack::load());
    let request =
        client.request(reqwest::Method::POST, PATH).header("accept-language", "ko-KR,ko;q=0.9,en;q=0.5");
    let answer = client.send(request.json(&json!({"email": "no-address", "password": "12345"}))).await;
    let problem = answer.problem(400, "VALIDATION_FAILED");
    let korean = |c: char| ('\u{ac00}'..='\u{d7a3}').contains(&c);
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.chars().any(korean)), "{problem}");
}
