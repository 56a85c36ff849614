//! Customers, signed up and logged in over HTTP.

use serde_json::json;
use uuid::Uuid;

use crate::client::Client;
use crate::secrets;
use crate::stack::Stack;

/// A customer who is logged in.
#[derive(Clone, Debug)]
pub struct User {
    pub id: u64,
    pub email: String,
    pub password: String,
    pub access: String,
    pub refresh: String,
}

/// An address that nobody has.
pub fn email() -> String {
    format!("e2e-{}@example.com", Uuid::new_v4().simple())
}

/// Signs up and logs in.
///
/// # Panics
/// When either fails.
pub async fn customer(client: &Client) -> User {
    let (email, password) = (email(), secrets::password());
    let answer = client.post("/users/sign-up", None, &json!({"email": email, "password": password})).await;
    let id = answer.expect(201)["userId"].as_u64().unwrap_or_else(|| panic!("no userId in {}", answer.text));
    let (access, refresh) = login(client, &email, &password).await;
    User { id, email, password, access, refresh }
}

/// The access and the refresh token of a new login.
///
/// # Panics
/// When it fails.
pub async fn login(client: &Client, email: &str, password: &str) -> (String, String) {
    let answer = client.post("/users/login", None, &json!({"email": email, "password": password})).await;
    let token = answer.expect(200)["token"].clone();
    let text = |name: &str| {
        token[name].as_str().map(secrets::met).unwrap_or_else(|| panic!("no {name} in the answer to a login"))
    };
    (text("accessToken"), text("refreshToken"))
}

/// The administrator's access token.
pub async fn admin(stack: &Stack, client: &Client) -> String {
    secrets::met(stack.admin.password.clone());
    login(client, &stack.admin.email, &stack.admin.password).await.0
}
