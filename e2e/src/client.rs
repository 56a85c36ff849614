//! HTTP as a customer's program would do it, and the shapes that every answer must have.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;

use crate::secrets;
use crate::stack::Stack;

/// Longer than anything the product may take.
const TIMEOUT: Duration = Duration::from_secs(15);
/// How long a connection is kept for the next request. The gateway closes those that idle for its `idle-timeout`, 75 s:
/// a claim that is under way at that moment would be broken off, and can't be told from one that was lost.
const IDLE: Duration = Duration::from_secs(30);
/// The only answers with secrets in them, when they are 200.
const GIVE_TOKENS: [&str; 2] = ["POST /users/login", "POST /users/token/refresh"];

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
    pub took: Duration,
    /// Method and path.
    pub request: String,
    /// The gateway was shown a token, and a refusal has to say that it was that.
    token_judged: bool,
}

#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    /// Services do not look at tokens.
    judges_tokens: bool,
}

impl Client {
    /// Through the gateway.
    pub fn gateway(stack: &Stack) -> Self {
        Self { judges_tokens: true, ..Self::at(&stack.gateway) }
    }

    /// Through the gateway, from one of this machine's addresses.
    pub fn from_address(stack: &Stack, address: IpAddr) -> Self {
        Self { judges_tokens: true, ..Self::over(&stack.gateway, Some(address)) }
    }

    pub fn at(base: &str) -> Self {
        Self::over(base, None)
    }

    /// # Panics
    /// When the HTTP client can't be made.
    fn over(base: &str, from: Option<IpAddr>) -> Self {
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .pool_idle_timeout(IDLE)
            .no_proxy()
            .tcp_nodelay(true)
            .local_address(from)
            .build()
            .unwrap_or_else(|error| panic!("no HTTP client: {error}"));
        Self { http, base: base.trim_end_matches('/').to_owned(), judges_tokens: false }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    /// Sends and reads. An error is a connection that failed or broke, or a timeout.
    ///
    /// # Panics
    /// When a secret is in the answer that has no place there.
    pub async fn try_send(&self, request: RequestBuilder) -> Result<Answer, reqwest::Error> {
        let request = request.build()?;
        let name = format!("{} {}", request.method(), request.url().path());
        let token_judged = self.judges_tokens && has_token(request.headers());
        let begin = Instant::now();
        let response = self.http.execute(request).await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await?;
        let answer = Answer { status, headers, text, took: begin.elapsed(), request: name, token_judged };
        if answer.status != 200 || !GIVE_TOKENS.contains(&answer.request.as_str()) {
            let seen = secrets::seen_in(&format!("{:?}\n{}", answer.headers, answer.text));
            assert_eq!(seen, None, "in the answer to {}", answer.request);
        }
        Ok(answer)
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

    pub async fn put(&self, path: &str, token: Option<&str>, body: &Value) -> Answer {
        self.send(with_token(self.request(Method::PUT, path), token).json(body)).await
    }

    pub async fn delete(&self, path: &str, token: Option<&str>, body: &Value) -> Answer {
        self.send(with_token(self.request(Method::DELETE, path), token).json(body)).await
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

/// As RFC 6750, section 2.1, has it.
fn has_token(headers: &HeaderMap) -> bool {
    let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split_once(' ').is_some_and(|(scheme, token)| scheme == "Bearer" && !token.trim().is_empty())
}

/// The members of every problem, sorted.
const PROBLEM: [&str; 7] = ["code", "detail", "instance", "status", "title", "traceId", "type"];

impl Answer {
    /// Empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The id in the answer's `traceparent`.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn trace_id(&self) -> &str {
        let parts: Vec<_> = self.header("traceparent").split('-').collect();
        let hex = |part: &str, length| part.len() == length && part.bytes().all(|b| b.is_ascii_hexdigit());
        match parts[..] {
            ["00", trace, span, flags] if hex(trace, 32) && hex(span, 16) && hex(flags, 2) => trace,
            _ => panic!("{}: traceparent {:?}", self.request, self.header("traceparent")),
        }
    }

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
        self.trace_id();
        self.json()
    }

    /// Checks that it was done, and nothing more is said.
    ///
    /// # Panics
    /// On another status, or with a body.
    #[track_caller]
    pub fn done(&self) {
        assert_eq!((self.status, self.text.as_str()), (204, ""), "{}", self.request);
        self.trace_id();
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
        let mut expected = PROBLEM.to_vec();
        expected.extend(match code {
            "VALIDATION_FAILED" => Some("errors"),
            "COUPON_ALREADY_ISSUED" => Some("receipt"),
            _ => None,
        });
        // The gateway says which; a service that was asked directly does not.
        if problem.get("requiredRoles").is_some() {
            assert_eq!(code, "FORBIDDEN", "{problem}");
            expected.push("requiredRoles");
        }
        expected.sort_unstable();
        assert_eq!(members(&problem), expected, "{}: {problem}", self.request);
        assert_eq!(problem["code"], code, "{}: {problem}", self.request);
        let kebab = code.to_ascii_lowercase().replace('_', "-");
        assert_eq!(problem["type"], format!("urn:firstcome:problem:{kebab}"), "{problem}");
        let title = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        assert_eq!(problem["title"].as_str(), title, "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{problem}");
        let (method, path) = self.request.split_once(' ').unwrap_or_default();
        assert_eq!(problem["instance"], path, "{problem}");
        assert_eq!(problem["traceId"], self.trace_id(), "{}", self.request);
        match status {
            401 => self.challenge(),
            405 => {
                let allow: Vec<_> = self.header("allow").split(", ").collect();
                let sound = |name: &&str| !name.is_empty() && *name != method;
                assert!(allow.iter().all(sound), "{}: Allow {allow:?}", self.request);
            }
            429 | 503 => {
                assert!(
                    self.header("retry-after").parse::<u32>().is_ok(),
                    "{}: no Retry-After",
                    self.request
                );
            }
            _ => {}
        }
        problem
    }

    /// RFC 6750, section 3: what a 401 asks for, and no error where there was nothing to judge.
    #[track_caller]
    fn challenge(&self) {
        let challenge = self.header("www-authenticate");
        let (scheme, error) = challenge.split_once(' ').unwrap_or((challenge, ""));
        assert_eq!(scheme, "Bearer", "{}: {challenge}", self.request);
        let judged = error.split(", ").any(|parameter| parameter == "error=\"invalid_token\"");
        assert_eq!((judged, error.is_empty()), (self.token_judged, !self.token_judged), "{challenge}");
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
        self.header("content-type").split(';').next().unwrap_or_default()
    }
}

/// The names of an object's members, sorted.
pub fn members(value: &Value) -> Vec<&str> {
    let mut names: Vec<_> =
        value.as_object().map(|object| object.keys().map(String::as_str).collect()).unwrap_or_default();
    names.sort_unstable();
    names
}
