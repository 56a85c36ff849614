//! HTTP as a customer's program would do it, and the shapes that every answer must have.

use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use crate::stack::Stack;

/// Longer than anything the product may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
    pub took: Duration,
    pub request: String,
}

#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
}

impl Client {
    /// Through the gateway.
    pub fn gateway(stack: &Stack) -> Self {
        Self::at(&stack.gateway)
    }

    /// # Panics
    /// When the HTTP client can't be made.
    pub fn at(base: &str) -> Self {
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .no_proxy()
            .tcp_nodelay(true)
            .build()
            .unwrap_or_else(|error| panic!("no HTTP client: {error}"));
        Self { http, base: base.trim_end_matches('/').to_owned() }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    /// Sends and reads. An error is a connection that failed or broke, or a timeout.
    pub async fn try_send(&self, request: RequestBuilder) -> Result<Answer, reqwest::Error> {
        let request = request.build()?;
        let name = format!("{} {}", request.method(), request.url().path());
        let begin = Instant::now();
        let response = self.http.execute(request).await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await?;
        Ok(Answer { status, headers, text, took: begin.elapsed(), request: name })
    }

    /// # Panics
    /// When no answer comes.
    pub async fn send(&self, request: RequestBuilder) -> Answer {
        self.try_send(request).await.unwrap_or_else(|error| panic!("no answer: {error:?}"))
    }

    pub async fn get(&self, path: &str, token: Option<&str>) -> Answer {
        self.send(with_token(self.request(Method::GET, path), token)).await
    }

    pub async fn post(&self, path: &str, token: Option<&str>, body: &Value) -> Answer {
        self.send(with_token(self.request(Method::POST, path), token).json(body)).await
    }

    /// A body that is not necessarily JSON.
    pub async fn post_text(
        &self,
        path: &str,
        token: Option<&str>,
        content_type: &str,
        body: String,
    ) -> Answer {
        let request = with_token(self.request(Method::POST, path), token);
        self.send(request.header(CONTENT_TYPE, content_type).body(body)).await
    }
}

pub fn with_token(request: RequestBuilder, token: Option<&str>) -> RequestBuilder {
    match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    }
}

impl Answer {
    /// # Panics
    /// When the body is no JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{}: {error}: {self:?}", self.request))
    }

    /// Checks the status and gives the JSON.
    ///
    /// # Panics
    /// On another status or type.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}: {}", self.request, self.text);
        assert_eq!(self.content_type(), "application/json", "{}", self.request);
        assert!(self.headers.contains_key("traceparent"), "{} has no traceparent", self.request);
        self.json()
    }

    /// Checks that this is a complete problem with the status and code, and gives it.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}: {}", self.request, self.text);
        assert_eq!(self.content_type(), "application/problem+json", "{}: {}", self.request, self.text);
        let problem = self.json();
        assert_eq!(problem["code"], code, "{}: {problem}", self.request);
        assert_eq!(problem["status"], status, "{problem}");
        for member in ["type", "title", "detail", "instance", "traceId"] {
            assert!(
                problem[member].as_str().is_some_and(|text| !text.is_empty()),
                "no {member} in {problem}"
            );
        }
        let path = self.request.split_once(' ').map_or("", |(_, path)| path);
        assert_eq!(problem["instance"], path, "{problem}");
        let trace = problem["traceId"].as_str().unwrap_or_default();
        assert!(trace.len() == 32 && trace.bytes().all(|b| b.is_ascii_hexdigit()), "{problem}");
        problem
    }

    /// Checks a VALIDATION_FAILED with exactly these fields.
    ///
    /// # Panics
    /// When it is none.
    #[track_caller]
    pub fn invalid(&self, fields: &[&str]) {
        let problem = self.problem(400, "VALIDATION_FAILED");
        let errors = problem["errors"].as_array().cloned().unwrap_or_default();
        let named: Vec<_> = errors.iter().filter_map(|error| error["field"].as_str()).collect();
        assert_eq!(named, fields, "{problem}");
        assert!(
            errors.iter().all(|error| error["message"].as_str().is_some_and(|m| !m.is_empty())),
            "{problem}"
        );
    }

    fn content_type(&self) -> &str {
        let value = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        value.split(';').next().unwrap_or_default()
    }
}

/// The names of an object's members, sorted.
pub fn members(value: &Value) -> Vec<&str> {
    let mut names: Vec<_> =
        value.as_object().map(|object| object.keys().map(String::as_str).collect()).unwrap_or_default();
    names.sort_unstable();
    names
}
