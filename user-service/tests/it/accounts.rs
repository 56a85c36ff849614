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
async fn what_everybody_tries_first_is_no_password_and_the_answer_says_why() {
    let service = Service::new("weak").await;
    let body = json!({"email": "kim.park@example.com", "password": "Password123"});
    assert_snapshot!(service.post("/users/sign-up", &body).await.masked(&[]), @r#"
    400 {
      "code": "VALIDATION_FAILED",
      "detail": "password is one of the commonest that have leaked elsewhere; use another, such as a few words in a row.",
      "errors": [
        {
          "field": "password",
          "message": "is one of the commonest that have leaked elsewhere; use another, such as a few words in a row"
        }
      ],
      "instance": "/users/sign-up",
      "status": 400,
      "title": "Bad Request",
      "traceId": "[traceId]",
      "type": "urn:firstcome:problem:validation-failed"
    }
    "#);
    for password in ["kimpark2026", "Firstcome!!"] {
        let body = json!({"email": "kim.park@example.com", "password": password});
        let answer = service.post("/users/sign-up", &body).await;
        assert_eq!(
            (answer.status, &answer.body["errors"][0]["field"]),
            (400, &json!("password")),
            "{password}"
        );
        let message = answer.body["errors"][0]["message"].as_str().unwrap();
        assert!(message.starts_with("is little more than your e-mail address"), "{message}");
    }
}

/// One letter may come as one code point or as two.
#[tokio::test]
async fn a_password_is_the_same_on_every_keyboard() {
    let service = Service::new("unicode").await;
    service.sign_up("kim@example.com", "cafe\u{301} au lait").await;
    for (password, status) in
        [("caf\u{e9} au lait", 200), ("cafe\u{301} au lait", 200), ("cafe au lait", 401)]
    {
        let body = json!({"email": "kim@example.com", "password": password});
        assert_eq!(service.post("/users/login", &body).await.status, status, "{password}");
    }
}

/// Guard: with the address looked up first, several of them find it free.
#[tokio::test]
async fn of_twenty_spellings_of_one_address_at_once_one_is_created() {
    let service = Service::new("spellings").await;
    let spelling = |n: u32| {
        let letters = "kim.park@example.com".chars().enumerate();
        let mixed: String =
            letters.map(|(i, c)| if (n >> (i % 5)) & 1 == 1 { c.to_ascii_uppercase() } else { c }).collect();
        format!("{}{mixed}{}", " ".repeat(n as usize % 3), "\t".repeat(n as usize % 2))
    };
    let mut asked = JoinSet::new();
    for n in 0..20 {
        let (service, email) = (service.clone(), spelling(n));
        asked.spawn(async move {
            service.post("/users/sign-up", &json!({"email": email, "password": "correct horse"})).await
        });
    }
    let answers = asked.join_all().await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
    for answer in answers.iter().filter(|answer| answer.status != 201) {
        assert_eq!((answer.status, &answer.body["code"]), (409, &json!("EMAIL_TAKEN")), "{}", answer.body);
    }
    let count: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM users").fetch_one(&service.state.pool).await.unwrap();
    assert_eq!(count, 1);
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
