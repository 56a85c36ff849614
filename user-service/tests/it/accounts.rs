//! Sign-up, login and who I am.

use insta::assert_snapshot;
use serde_json::json;
use tokio::task::JoinSet;

use crate::harness::Service;

#[tokio::test]
async fn sign_up_log_in_and_look_at_myself() {
    let service = Service::new("accounts").await;
    let body = json!({"email": "  Kim@Example.COM ", "password": "correct horse"});
    let signed_up = service.post("/users/sign-up", &body).await;
    assert_snapshot!(signed_up.masked(&["userId"]), @r#"
    201 {
      "email": "kim@example.com",
      "userId": "[userId]"
    }
    "#);
    let id = signed_up.body["userId"].as_u64().unwrap();
    assert!(id < 1 << 53);

    let again = json!({"email": "KIM@example.com", "password": "another horse"});
    assert_snapshot!(service.post("/users/sign-up", &again).await.masked(&[]), @r#"
    409 {
      "code": "EMAIL_TAKEN",
      "detail": "An account with this e-mail address exists. Log in, or sign up with another address.",
      "instance": "/users/sign-up",
      "status": 409,
      "title": "Conflict",
      "traceId": "[traceId]",
      "type": "urn:firstcome:problem:email-taken"
    }
    "#);

    let login =
        service.post("/users/login", &json!({"email": "kim@EXAMPLE.com", "password": "correct horse"})).await;
    assert_snapshot!(login.masked(&["accessToken", "refreshToken"]), @r#"
    200 {
      "token": {
        "accessToken": "[accessToken]",
        "expiresIn": 900,
        "grantType": "Bearer",
        "refreshToken": "[refreshToken]"
      }
    }
    "#);
    assert_eq!(login.headers["cache-control"], "no-store");

    let me = service.me(id).await;
    assert_snapshot!(me.masked(&["userId", "createdAt"]), @r#"
    200 {
      "createdAt": "[createdAt]",
      "email": "kim@example.com",
      "roles": [
        "USER"
      ],
      "userId": "[userId]"
    }
    "#);
    assert_eq!(me.body["userId"], id);
    assert_snapshot!(service.me(1).await.masked(&[]), @r#"
    404 {
      "code": "NOT_FOUND",
      "detail": "The account of this token does not exist. Log in with another account.",
      "instance": "/users/me",
      "status": 404,
      "title": "Not Found",
      "traceId": "[traceId]",
      "type": "urn:firstcome:problem:not-found"
    }
    "#);
}

#[tokio::test]
async fn wrong_and_unknown_get_the_same_answer() {
    let service = Service::new("same_answer").await;
    service.sign_up("kim@example.com", "correct horse").await;
    let wrong =
        service.post("/users/login", &json!({"email": "kim@example.com", "password": "wrong horse"})).await;
    assert_snapshot!(wrong.masked(&[]), @r#"
    401 {
      "code": "BAD_CREDENTIALS",
      "detail": "The e-mail address or the password is wrong.",
      "instance": "/users/login",
      "status": 401,
      "title": "Unauthorized",
      "traceId": "[traceId]",
      "type": "urn:firstcome:problem:bad-credentials"
    }
    "#);
    for (email, password) in [
        ("lee@example.com", "correct horse"),
        ("no address", "correct horse"),
        ("kim@example.com", "short"),
        ("kim@example.com", ""),
        ("kim@example.com", "Correct horse"),
        ("kim@example.com", "correct horse "),
    ] {
        let answer = service.post("/users/login", &json!({"email": email, "password": password})).await;
        assert_eq!(answer.masked(&[]), wrong.masked(&[]), "{email} {password}");
    }
}

#[tokio::test]
async fn passwords_have_8_to_128_characters_of_any_script() {
    let service = Service::new("lengths").await;
    for (number, (password, status)) in [
        ("비밀번호비밀번".to_owned(), 400),
        ("비밀번호비밀번호".to_owned(), 201),
        ("😀".repeat(128), 201),
        ("x".repeat(129), 400),
        ("        ".to_owned(), 201),
    ]
    .into_iter()
    .enumerate()
    {
        let email = format!("kim-{number}@example.com");
        let body = json!({"email": email, "password": password});
        assert_eq!(service.post("/users/sign-up", &body).await.status, status, "{password}");
        let expected = if status == 201 { 200 } else { 401 };
        assert_eq!(service.post("/users/login", &body).await.status, expected, "{password}");
    }
}

#[tokio::test]
async fn of_many_sign_ups_with_one_address_one_is_created() {
    let service = Service::new("same_address").await;
    for round in 0..3 {
        let email = format!("kim-{round}@example.com");
        let mut asked = JoinSet::new();
        for n in 0..8 {
            let (service, email) = (service.clone(), email.clone());
            asked.spawn(async move {
                let body = json!({"email": email, "password": format!("password {n}")});
                (n, service.post("/users/sign-up", &body).await)
            });
        }
        let answers = asked.join_all().await;
        let created: Vec<_> = answers.iter().filter(|(_, answer)| answer.status == 201).collect();
        assert_eq!(created.len(), 1);
        assert_eq!(
            answers.iter().filter(|(_, a)| a.body["code"] == "EMAIL_TAKEN" && a.status == 409).count(),
            7
        );
        let winner = format!("password {}", created[0].0);
        let login = service.post("/users/login", &json!({"email": email, "password": winner})).await;
        assert_eq!(login.status, 200, "the password that counts is that of the one who was told 201");
    }
}

/// With a clock that stands, ids have only their 12 random bits: some are drawn twice, and nobody notices.
#[tokio::test]
async fn an_id_that_is_taken_is_drawn_again() {
    let service = Service::new("ids").await;
    let hash = service.state.passwords.hash("correct horse".into()).await.unwrap();
    let now = user_service::store::timestamp(0);
    let mut again = 0;
    for n in 0..600 {
        let email = user_service::email::Email::parse(&format!("kim-{n}@example.com")).unwrap();
        let id = service.state.ids.next();
        let inserted =
            user_service::store::insert_user(&service.state.pool, id, &email, &hash, now).await.unwrap();
        again += usize::from(inserted == user_service::store::Inserted::IdTaken);
    }
    assert!(again > 0, "600 draws of 4096 without a repeat");
    for n in 0..10 {
        service.sign_up(&format!("lee-{n}@example.com"), "correct horse").await;
    }
}
