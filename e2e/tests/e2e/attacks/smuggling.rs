//! Requests within requests: whatever two parties could cut in different places reaches no service as two.
//!
//! Each message hides a sign-up behind what another reader would take for its end. The account must not exist
//! afterwards, and the user service, which alone is asked, must have counted at most the one request around it.

use e2e::client::Client;
use e2e::counters::requests;
use e2e::raw::{Heard, Raw, http2};
use e2e::stack::{Stack, alone};
use e2e::{secrets, users};
use serde_json::json;

const SERVICE: &str = "user-service";

/// The account that must not come to be.
struct Hidden {
    email: String,
    password: String,
}

impl Hidden {
    fn new() -> Self {
        Self { email: users::email(), password: secrets::password() }
    }

    fn body(&self) -> String {
        json!({"email": self.email, "password": self.password}).to_string()
    }

    fn request(&self) -> String {
        let body = self.body();
        format!(
            "POST /users/sign-up HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    /// Whether nobody has the address: then this one gets it, so that it can be asked once.
    async fn does_not_exist(&self, client: &Client) -> bool {
        let body = json!({"email": self.email, "password": self.password});
        client.post("/users/sign-up", None, &body).await.status == 201
    }
}

/// Sends the message and checks what the services saw of it. The connection has to be closed: what stands behind the
/// message is read by nobody.
async fn sent(stack: &Stack, name: &str, hidden: &Hidden, message: &str) -> Vec<Heard> {
    let client = Client::gateway(stack);
    let before = requests(stack, SERVICE, "POST").await;
    let answers = Raw::connect(&stack.gateway).await.until_closed(message.as_bytes()).await;
    let seen = requests(stack, SERVICE, "POST").await - before;
    assert!(answers.len() <= 1, "{name}: {answers:?}");
    assert!(seen <= 1, "{name}: the service saw {seen} requests: {answers:?}");
    assert!(answers.iter().all(|answer| answer.status >= 400), "{name}: {answers:?}");
    assert!(hidden.does_not_exist(&client).await, "{name}: the hidden request came through");
    answers
}

/// A login with these headers, and what stands behind its head.
fn login(headers: &str, rest: &str) -> String {
    format!(
        "POST /users/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{headers}\r\n\r\n{rest}"
    )
}

/// What reads its end by `Transfer-Encoding` and is followed by a request, and the reverse. RFC 9112, 6.1: the coding
/// counts, and the connection is closed behind the answer.
#[tokio::test]
async fn two_lengths_of_different_kinds_end_the_connection() {
    let _stack = alone().await;
    let stack = Stack::load();
    for order in ["CL.TE", "TE.CL"] {
        let hidden = Hidden::new();
        let request = hidden.request();
        let behind = format!("0\r\n\r\n{request}");
        let length = format!("Content-Length: {}", behind.len());
        let both = match order {
            "CL.TE" => format!("{length}\r\nTransfer-Encoding: chunked"),
            _ => format!("Transfer-Encoding: chunked\r\n{length}"),
        };
        sent(&stack, &format!("{order}, behind the last chunk"), &hidden, &login(&both, &behind)).await;

        let hidden = Hidden::new();
        let request = hidden.request();
        let within = format!("{:x}\r\n{request}\r\n0\r\n\r\n", request.len());
        let both = both.replace(&length, "Content-Length: 4");
        sent(&stack, &format!("{order}, within a chunk"), &hidden, &login(&both, &within)).await;
    }
}

#[tokio::test]
async fn a_transfer_encoding_in_disguise_is_refused() {
    let _stack = alone().await;
    let stack = Stack::load();
    for disguise in [
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
        "Transfer-Encoding: chunked;a=b",
        "Transfer-Encoding:",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        " Transfer-Encoding: chunked",
        "X: x\r\n Transfer-Encoding: chunked",
        "X: x\r\n\tTransfer-Encoding: chunked",
        "X: x\rTransfer-Encoding: chunked",
        "Transfer-Encoding: \x0bchunked",
        "Transfer-Encoding: chun\0ked",
        "\x0bTransfer-Encoding: chunked",
        "Transfer-Encoding\0: chunked",
        "Transfer-Encoding: ch\u{212a}unked",
    ] {
        let hidden = Hidden::new();
        let behind = format!("0\r\n\r\n{}", hidden.request());
        let headers = format!("Content-Length: {}\r\n{disguise}", behind.len());
        let answers = sent(&stack, disguise, &hidden, &login(&headers, &behind)).await;
        assert!(answers.iter().all(|answer| answer.status == 400), "{disguise:?}: {answers:?}");
    }
    // HTTP/1.0 knows no transfer codings.
    let hidden = Hidden::new();
    let behind = format!("0\r\n\r\n{}", hidden.request());
    let message = login("Transfer-Encoding: chunked", &behind).replacen("HTTP/1.1", "HTTP/1.0", 1);
    sent(&stack, "HTTP/1.0", &hidden, &message).await;
}

#[tokio::test]
async fn lengths_that_are_none_or_differ_are_refused() {
    let _stack = alone().await;
    let stack = Stack::load();
    for lengths in [
        "Content-Length: 2\r\nContent-Length: 200",
        "Content-Length: 200\r\nContent-Length: 2",
        "Content-Length: 2, 200",
        "Content-Length: 2, 2",
        "Content-Length: +2",
        "Content-Length: -2",
        "Content-Length: 0x2",
        "Content-Length: 2e0",
        "Content-Length: 2 2",
        "Content-Length: 2;",
        "Content-Length:",
        "Content-Length: 2\0",
        "Content-Length : 2",
        "Content-Length: 99999999999999999999999",
        "Content-Length: \u{ff12}",
    ] {
        let hidden = Hidden::new();
        let message = login(lengths, &format!("{{}}{}", hidden.request()));
        let answers = sent(&stack, lengths, &hidden, &message).await;
        assert!(answers.iter().all(|answer| answer.status == 400), "{lengths:?}: {answers:?}");
    }
}

#[tokio::test]
async fn chunks_that_are_none_end_the_connection() {
    let _stack = alone().await;
    let stack = Stack::load();
    for chunks in [
        "0x0\r\n\r\n",
        "-1\r\n\r\n",
        "+0\r\n\r\n",
        "\r\n0\r\n\r\n",
        "g\r\n\r\n",
        "fffffffffffffffff\r\n",
        "ffffffffffffffff\r\n",
        "2\r\n{}0\r\n\r\n",
        "2\r\n{}\n0\r\n\r\n",
        "2\n{}\n0\n\n",
        "0;a\nb\r\n\r\n",
        "2;\n{}\r\n0\r\n\r\n",
        "0\n\n",
    ] {
        let hidden = Hidden::new();
        let message = login("Transfer-Encoding: chunked", &format!("{chunks}{}", hidden.request()));
        sent(&stack, &format!("{chunks:?}"), &hidden, &message).await;
    }
}

/// Folded lines and names that are none, before a body whose length they would hide.
#[tokio::test]
async fn folded_headers_and_names_that_are_none_are_refused() {
    let _stack = alone().await;
    let stack = Stack::load();
    for header in
        ["X: a\r\n b", "X: a\r\n\tb", "X Y: a", "X\u{e9}: a", ": a", "X", "(X): a", "X: a\0b", "X: a\rb"]
    {
        let hidden = Hidden::new();
        let body = format!("{{}}{}", hidden.request());
        let message = login(&format!("{header}\r\nContent-Length: 2"), &body);
        let answers = sent(&stack, header, &hidden, &message).await;
        assert!(answers.iter().all(|answer| answer.status == 400), "{header:?}: {answers:?}");
    }
    for line in [
        "POST  /users/login HTTP/1.1",
        "POST /users/login  HTTP/1.1",
        "POST /users/login x HTTP/1.1",
        "POST /users/login HTTP/1.2",
        "POST /users/login HTTP/0.9",
        "POST /users/login HTTP/2.0",
        "POST /users/login http/1.1",
        "POST /users/login",
        " POST /users/login HTTP/1.1",
        "P\0ST /users/login HTTP/1.1",
        "POST /users/login HTTP/1.1 ",
    ] {
        let hidden = Hidden::new();
        let head = format!("{line}\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}");
        let answers = sent(&stack, line, &hidden, &(head + &hidden.request())).await;
        assert!(answers.iter().all(|answer| answer.status == 400), "{line:?}: {answers:?}");
    }
}

/// A line that ends in a bare LF is a line (RFC 9112, 2.2). What it says counts for the gateway as for nobody behind
/// it: heads are written anew, so a service never sees such a line.
#[tokio::test]
async fn bare_line_feeds_hide_nothing() {
    let _stack = alone().await;
    let stack = Stack::load();
    let hidden = Hidden::new();
    let behind = format!("0\r\n\r\n{}", hidden.request());
    // For who reads on to the CRLF, `X` has a long value and the length counts; here the coding does.
    let headers = format!("Content-Length: {}\r\nX: x\nTransfer-Encoding: chunked", behind.len());
    sent(&stack, "a coding behind LF", &hidden, &login(&headers, &behind)).await;
    let hidden = Hidden::new();
    let behind = format!("0\r\n\r\n{}", hidden.request());
    let headers = format!("Transfer-Encoding: chunked\r\nX: x\nContent-Length: {}", behind.len());
    sent(&stack, "a length behind LF", &hidden, &login(&headers, &behind)).await;
    let hidden = Hidden::new();
    // A head that ends for the one and goes on for the other: what follows is no request's beginning.
    let head =
        format!("POST /users/login HTTP/1.1\nHost: x\nContent-Length: 0\n\nX: x\r\n\r\n{}", hidden.request());
    let client = Client::gateway(&stack);
    let answers = Raw::connect(&stack.gateway).await.until_closed(head.as_bytes()).await;
    assert!(answers.iter().all(|answer| answer.status >= 400), "{answers:?}");
    assert!(hidden.does_not_exist(&client).await, "the hidden request came through");
}

/// Only one upgrade is known, and without an agreement nothing passes unread.
#[tokio::test]
async fn an_upgrade_opens_no_tunnel_that_nobody_agreed_to() {
    let _stack = alone().await;
    let stack = Stack::load();
    for upgrade in ["h2c", "websocket", "HTTP/2.0", "TLS/1.0", "websocket, h2c"] {
        let head = format!(
            "GET /.well-known/jwks.json HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\n\
             HTTP2-Settings: AAMAAABkAAQAAP__\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        // Through a tunnel, the service would read this; here it is the next request, for a path that leads nowhere.
        let inner = "GET /internal/counts HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let answers =
            Raw::connect(&stack.gateway).await.until_closed(format!("{head}{inner}").as_bytes()).await;
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        assert!(!statuses.contains(&101), "{upgrade}: {answers:?}");
        assert_eq!(statuses.get(1).copied().unwrap_or(404), 404, "{upgrade}: {answers:?}");
    }
}

/// Method, path and headers.
type Head<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);

/// What is data in HTTP/2 would be a line's end in HTTP/1, in which the services are asked.
#[tokio::test]
async fn http2_brings_no_line_ends_lengths_or_codings_of_its_own() {
    let _stack = alone().await;
    let stack = Stack::load();
    let client = Client::gateway(&stack);
    for case in 0..10 {
        let hidden = Hidden::new();
        let (body, end) = (hidden.request(), "Content-Length: 0\r\n\r\n");
        let injected = format!("x\r\n{end}{body}");
        let split_line = format!("/users/login HTTP/1.1\r\nHost: x\r\n{end}{body}");
        let cases: [Head<'_>; 10] = [
            ("POST", "/users/login", &[("x", &injected)]),
            ("POST", "/users/login", &[(&injected, "x")]),
            ("POST", &split_line, &[]),
            ("POST\r\nX: x", "/users/login", &[]),
            ("POST", "/users/login", &[("transfer-encoding", "chunked")]),
            ("POST", "/users/login", &[("connection", "keep-alive")]),
            ("POST", "/users/login", &[("content-length", "0")]),
            ("POST", "/users/login", &[("content-length", "1"), ("content-length", "200")]),
            ("POST", "/users/login", &[(":path", "/internal/counts")]),
            ("POST", "/users/login", &[("Content-Length", "0")]),
        ];
        let (method, path, headers) = cases[case];
        let before = requests(&stack, SERVICE, "POST").await;
        let mut raw = Raw::connect(&stack.gateway).await;
        let block = http2::request(method, path, headers);
        let message = [
            http2::preface(),
            http2::frame(http2::HEADERS, http2::END_HEADERS, 1, &block),
            http2::frame(http2::DATA, http2::END_STREAM, 1, body.as_bytes()),
        ];
        raw.send(&message.concat()).await;
        raw.stream_ends(1).await;
        let seen = requests(&stack, SERVICE, "POST").await - before;
        assert!(seen <= 1, "{headers:?}: the service saw {seen} requests");
        assert!(hidden.does_not_exist(&client).await, "{method:?} {path:?} {headers:?}");
    }
}
