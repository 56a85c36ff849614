//! What a customer may do with an account, and an administrator with others'.

use e2e::client::Client;
use e2e::secrets;
use e2e::stack::{Stack, alone, shared};
use e2e::users;
use serde_json::json;

const LOGIN: &str = "/users/login";
const REFRESH: &str = "/users/token/refresh";
const LOGOUT: &str = "/users/logout";

#[tokio::test]
async fn a_logout_ends_its_login_and_no_other() {
    let _stack = shared().await;
    let client = Client::gateway(&Stack::load());
    let user = users::customer(&client).await;
    let (other_access, other_refresh) = users::login(&client, &user.email, &user.password).await;

    client.send(client.request(reqwest::Method::POST, LOGOUT).bearer_auth(&user.access)).await.done();
    client.post(REFRESH, None, &json!({"refreshToken": user.refresh})).await.problem(401, "UNAUTHENTICATED");
    // The account's own service knows at once; the gateways a moment later.
    client.get("/users/me", Some(&user.access)).await.problem(401, "UNAUTHENTICATED");
    client.get("/users/me", Some(&other_access)).await.expect(200);

    // With an expired access token, the refresh token alone is enough.
    client.post(LOGOUT, None, &json!({"refreshToken": other_refresh})).await.done();
    client.post(REFRESH, None, &json!({"refreshToken": other_refresh})).await.problem(401, "UNAUTHENTICATED");
    client.get("/users/me", Some(&other_access)).await.problem(401, "UNAUTHENTICATED");
    client.send(client.request(reqwest::Method::POST, LOGOUT)).await.problem(401, "UNAUTHENTICATED");
}

#[tokio::test]
async fn all_logins_can_end_at_once() {
    let _stack = shared().await;
    let client = Client::gateway(&Stack::load());
    let user = users::customer(&client).await;
    let (other, _) = users::login(&client, &user.email, &user.password).await;
    client.send(client.request(reqwest::Method::POST, "/users/logout/all").bearer_auth(&other)).await.done();
    for access in [&user.access, &other] {
        client.get("/users/me", Some(access)).await.problem(401, "UNAUTHENTICATED");
    }
    users::login(&client, &user.email, &user.password).await;
}

#[tokio::test]
async fn a_password_is_changed_by_who_knows_it() {
    let _stack = shared().await;
    let client = Client::gateway(&Stack::load());
    let user = users::customer(&client).await;
    let path = "/users/me/password";
    let new = secrets::password();
    let wrong = json!({"currentPassword": secrets::password(), "newPassword": new});
    client.put(path, Some(&user.access), &wrong).await.problem(403, "BAD_CREDENTIALS");
    let weak = json!({"currentPassword": user.password, "newPassword": "Password123"});
    client.put(path, Some(&user.access), &weak).await.invalid(&["newPassword"]);
    client.put(path, None, &wrong).await.problem(401, "UNAUTHENTICATED");

    client
        .put(path, Some(&user.access), &json!({"currentPassword": user.password, "newPassword": new}))
        .await
        .done();
    client.get("/users/me", Some(&user.access)).await.problem(401, "UNAUTHENTICATED");
    let old = json!({"email": user.email, "password": user.password});
    client.post(LOGIN, None, &old).await.problem(401, "BAD_CREDENTIALS");
    users::login(&client, &user.email, &new).await;
}

#[tokio::test]
async fn an_account_is_deleted_and_its_address_signs_up_anew() {
    let _stack = shared().await;
    let client = Client::gateway(&Stack::load());
    let user = users::customer(&client).await;
    let wrong = json!({"password": secrets::password()});
    client.delete("/users/me", Some(&user.access), &wrong).await.problem(403, "BAD_CREDENTIALS");
    client.delete("/users/me", Some(&user.access), &json!({"password": user.password})).await.done();
    client.get("/users/me", Some(&user.access)).await.problem(401, "UNAUTHENTICATED");
    let again = json!({"email": user.email, "password": user.password});
    client.post(LOGIN, None, &again).await.problem(401, "BAD_CREDENTIALS");
    let id = client.post("/users/sign-up", None, &again).await.expect(201)["userId"].as_u64();
    assert_ne!(id, Some(user.id));
}

#[tokio::test]
async fn wrong_passwords_are_throttled() {
    // Nobody else fails meanwhile: an address may do so a hundred times in an hour.
    let _stack = alone().await;
    let client = Client::gateway(&Stack::load());
    let user = users::customer(&client).await;
    let wrong = json!({"email": user.email, "password": secrets::password()});
    for _ in 0..10 {
        client.post(LOGIN, None, &wrong).await.problem(401, "BAD_CREDENTIALS");
    }
    client.post(LOGIN, None, &wrong).await.problem(429, "RATE_LIMITED");
    let right = json!({"email": user.email, "password": user.password});
    client.post(LOGIN, None, &right).await.problem(429, "RATE_LIMITED");
    users::customer(&client).await;
}

#[tokio::test]
async fn an_administrator_makes_another_and_takes_it_back() {
    let _stack = shared().await;
    let stack = Stack::load();
    let client = Client::gateway(&stack);
    let admin = users::admin(&stack, &client).await;
    let user = users::customer(&client).await;
    let path = format!("/users/{}/roles", user.id);
    let grant = json!({"role": "ADMIN", "action": "GRANT"});
    client.post(&path, Some(&user.access), &grant).await.problem(403, "FORBIDDEN");
    client.post(&path, None, &grant).await.problem(401, "UNAUTHENTICATED");
    client.post("/users/1/roles", Some(&admin), &grant).await.problem(404, "USER_NOT_FOUND");

    let roles = client.post(&path, Some(&admin), &grant).await.expect(200);
    assert_eq!(roles, json!({"userId": user.id, "roles": ["USER", "ADMIN"]}));
    let (access, _) = users::login(&client, &user.email, &user.password).await;
    assert_eq!(client.get("/users/me", Some(&access)).await.expect(200)["roles"], json!(["USER", "ADMIN"]));
    let taken =
        client.post(&path, Some(&admin), &json!({"role": "ADMIN", "action": "TAKE"})).await.expect(200);
    assert_eq!(taken["roles"], json!(["USER"]));
    client.get("/users/me", Some(&access)).await.problem(401, "UNAUTHENTICATED");
}
