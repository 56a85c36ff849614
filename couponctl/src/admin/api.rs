//! The public API as an administrator uses it: log in, change a role, log out. Nothing of a token or a password is ever in
//! an error.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use serde_json::json;

use crate::load::client::{Connection, Failure};
use crate::load::target::Target;

/// A login costs a password hash, and others may wait for theirs.
const TIMEOUT: Duration = Duration::from_secs(20);

pub(super) struct Api<'a> {
    target: &'a Target,
    connection: Connection,
    token: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Roles {
    pub(super) user_id: u64,
    pub(super) roles: Vec<String>,
}

#[derive(Deserialize)]
struct LoggedIn {
    token: Token,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Token {
    access_token: String,
}

/// What an answer other than the expected one says of itself.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Problem {
    code: String,
    detail: String,
}

impl<'a> Api<'a> {
    pub(super) async fn log_in(target: &'a Target, email: &str, password: &str) -> Result<Self> {
        let mut connection = Connection::default();
        let body = json!({"email": email, "password": password}).to_string();
        let request = target.request("POST", "/users/login", Some(&body));
        let answer = send(target, &mut connection, request.anonymous(), 200).await;
        let answer = answer.with_context(|| format!("cannot log in as {email}"))?;
        // No cause: it could quote a token.
        let LoggedIn { token } =
            serde_json::from_slice(&answer).map_err(|_| anyhow!("the answer to a login has no token"))?;
        Ok(Self { target, connection, token: token.access_token })
    }

    pub(super) async fn change_role(&mut self, user: u64, action: &str) -> Result<Roles> {
        let body = json!({"role": "ADMIN", "action": action}).to_string();
        let answer = self.post(&format!("/users/{user}/roles"), Some(&body), 200).await?;
        serde_json::from_slice(&answer).context("the answer names no roles")
    }

    pub(super) async fn log_out(&mut self) {
        // The token dies by itself soon.
        let _ = self.post("/users/logout", None, 204).await;
    }

    async fn post(&mut self, path: &str, body: Option<&str>, expected: u16) -> Result<Vec<u8>> {
        let mut request = Vec::new();
        self.target.request("POST", path, body).write(self.token.as_bytes(), &mut request);
        send(self.target, &mut self.connection, &request, expected).await
    }
}

async fn send(
    target: &Target,
    connection: &mut Connection,
    request: &[u8],
    expected: u16,
) -> Result<Vec<u8>> {
    let response = match connection.exchange(target, request, TIMEOUT).await {
        Ok(exchange) => exchange.response,
        Err(Failure::NotSent(reason) | Failure::Cut(reason)) => {
            bail!("the gateway at {} does not answer: {reason}", target.authority)
        }
    };
    if response.status == expected {
        return Ok(response.body);
    }
    let Problem { code, detail } = serde_json::from_slice(&response.body).unwrap_or_default();
    bail!("{} {code}: {detail}", response.status)
}
