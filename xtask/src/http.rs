//! Blocking HTTP to servers and services of the run.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// An answer with its body as JSON (`Null` when it is not).
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Answer {
    /// The body of an answer that has this status; anything else is an error that quotes it.
    pub(crate) fn expect(self, status: u16, what: &str) -> Result<Value> {
        if self.status != status {
            bail!("{what}: answered {} instead of {status}: {}", self.status, self.body);
        }
        Ok(self.body)
    }
}

/// Keeps its connections; cheap to clone.
#[derive(Clone)]
pub(crate) struct Client {
    agent: ureq::Agent,
}

impl Client {
    pub(crate) fn new(timeout: Duration) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .proxy(None)
            .build();
        Self { agent: ureq::Agent::new_with_config(config) }
    }

    pub(crate) fn get(&self, url: &str) -> Result<Answer> {
        let mut response = self.agent.get(url).call().with_context(|| format!("GET {url}"))?;
        let body = response.body_mut().read_to_string()?;
        Ok(Answer { status: response.status().as_u16(), body: parse(body) })
    }

    pub(crate) fn get_as(&self, url: &str, token: &str) -> Result<Answer> {
        let request = self.agent.get(url).header("authorization", format!("Bearer {token}"));
        let mut response = request.call().with_context(|| format!("GET {url}"))?;
        let body = response.body_mut().read_to_string()?;
        Ok(Answer { status: response.status().as_u16(), body: parse(body) })
    }

    /// A header of the answer to a GET, where it has it.
    pub(crate) fn header(&self, url: &str, name: &str) -> Result<Option<String>> {
        let response = self.agent.get(url).call().with_context(|| format!("GET {url}"))?;
        Ok(response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned))
    }

    pub(crate) fn put(&self, url: &str, body: &Value) -> Result<Answer> {
        send(self.agent.put(url), None, body).with_context(|| format!("PUT {url}"))
    }

    pub(crate) fn post(&self, url: &str, token: Option<&str>, body: &Value) -> Result<Answer> {
        send(self.agent.post(url), token, body).with_context(|| format!("POST {url}"))
    }

    pub(crate) fn patch(&self, url: &str, token: &str, body: &Value) -> Result<Answer> {
        send(self.agent.patch(url), Some(token), body).with_context(|| format!("PATCH {url}"))
    }
}

fn send(
    request: ureq::RequestBuilder<ureq::typestate::WithBody>,
    token: Option<&str>,
    body: &Value,
) -> Result<Answer> {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let request = bearer.into_iter().fold(request, |request, bearer| request.header("authorization", bearer));
    let mut response = request.send_json(body)?;
    let body = response.body_mut().read_to_string()?;
    Ok(Answer { status: response.status().as_u16(), body: parse(body) })
}

fn parse(text: String) -> Value {
    serde_json::from_str(&text).unwrap_or(if text.is_empty() { Value::Null } else { Value::String(text) })
}

/// The text of a 2xx answer, for readiness.
pub(crate) fn get_text(url: &str) -> Result<String> {
    let agent = ureq::Agent::new_with_config(
        ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(1))).proxy(None).build(),
    );
    let mut response = agent.get(url).call().map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(response.body_mut().read_to_string()?)
}
