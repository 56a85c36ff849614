//! Logging in, who I am, and the next pair of tokens.

use std::time::Duration;

use e2e::client::{Answer, Client, members};
use e2e::stack::{Stack, alone, shared};
use e2e::{secrets, users};
use serde_json::json;

const LOGIN: &str = "/users/login";
const REFRESH: &str = "/users/token/refresh";

#[tokio::test]
async fn a_login_gives_tokens_that_say_who_i_am() {
    let _stack = shared().await;
    let client = Client::gateway(&Stack::load());
    let user = users::customer(&client).await;

    let body = json!({"email": format!("  {}\n", user.email.to_uppercase()), "password": user.password});
    let body = client.post(LOGIN, None, &body).await.expect(200);
    assert_eq!(members(&body), ["token"]);
    assert_eq!(members(&body["token"]), ["accessToken", "expiresIn", "grantType", "refreshToken"]);
    assert_eq!(body["token"]["grantType"], "Bearer");
    assert_eq!(body["token"]["expiresIn"], 900);

    let me = client.get("/users/me", Some(&user.access)).await.expect(200);
    assert_eq!(me["userId"], user.id);
    assert_eq!(me["email"], user.email);
    assert_eq!(me["roles"], json!(["USER"]));
}

#[tokio::test]
async fn the_first_administrator_is_one() {
    let _stack = shared().await;
    let stack = Stack::load();
    let client = Client::gateway(&stack);
    let admin = users::admin(&stack, &client).await;
    let me = client.get("/users/me", Some(&admin)).await.expect(200);
    assert_eq!(me["roles"], json!(["USER", "ADMIN"]));
}

#[tokio::test]
async fn wrong_and_unknown_get_the_same_answer_after_the_same_time() {
    let _stack = alone().await;
    let client = Client::gateway(&Stack::load());
    // The shortest of several: a busy machine makes times longer, never shorter, so they draw near in the end.
    let mut shortest = [Duration::MAX; 2];
    let mut problems = Vec::new();
    let (mut wrong, mut unknown) = (json!(null), json!(null));
    for round in 0..40 {
        // An account may fail ten times, and an address a hundred times.
        if round % 8 == 0 {
            let user = users::customer(&client).await;
            wrong = json!({"email": user.email, "password": secrets::password()});
            unknown = json!({"email": users::email(), "password": secrets::password()});
        }
        for (index, body) in [&wrong, &unknown].into_iter().enumerate() {
            let answer = client.post(LOGIN, None, body).await;
            let mut problem = answer.problem(401, "BAD_CREDENTIALS");
            problem["traceId"] = json!(null);
            problems.push(problem);
            shortest[index] = shortest[index].min(answer.took);
        }
        let [wrong, unknown] = shortest;
        if round >= 5 && unknown * 3 > wrong * 2 && wrong * 3 > unknown * 2 {
            problems.dedup();
            assert_eq!(problems.len(), 1, "{problems:?}");
            return;
        }
    }
    panic!("wrong and unknown take {shortest:?}");
}

#[tokio::test]
async fn a_login_with_wrong_types_names_the_field() {
    let _stack = shared().await;
    let client = Client::gateway(&Stack::load());
    client.post(LOGIN, None, &json!({"email": [], "password": "12345678"})).await.invalid(&["email"]);
    client.post_text(LOGIN, None, "application/json", "{".to_owned()).await.problem(400, "MALFORMED_JSON");
}

fn pair(answer: &Answer) -> (String, String) {
    let token = answer.expect(200)["token"].clone();
    let text = |name: &str| secrets::met(token[name].as_str().unwrap_or_default());
    (text("accessToken"), text("refreshToken"))
}

#[tokio::test]
async fn a_refresh_token_works_once_and_its_reuse_ends_the_login() {
    let _stack = shared().await;
    let client = Client::gateway(&Stack::load());
    let user = users::customer(&client).await;
    let (_, other_login) = users::login(&client, &user.email, &user.password).await;

    let (access, second) = pair(&client.post(REFRESH, None, &json!({"refreshToken": user.refresh})).await);
    assert_ne!(second, user.refresh);
    assert_eq!(client.get("/users/me", Some(&access)).await.expect(200)["userId"], user.id);

    let reused = client.post(REFRESH, None, &json!({"refreshToken": user.refresh})).await;
    reused.problem(401, "UNAUTHENTICATED");
    let family = client.post(REFRESH, None, &json!({"refreshToken": second})).await;
    family.problem(401, "UNAUTHENTICATED");
    pair(&client.post(REFRESH, None, &json!({"refreshToken": other_login})).await);

    let unknown = client.post(REFRESH, None, &json!({"refreshToken": secrets::password()})).await;
    unknown.problem(401, "UNAUTHENTICATED");
}
