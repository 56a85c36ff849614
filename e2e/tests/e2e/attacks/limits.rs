//! Limits, and who says that he is somebody else to get round them.

use std::net::Ipv4Addr;

use e2e::client::Client;
use e2e::stack::{Stack, alone};
use e2e::{secrets, users};
use reqwest::Method;
use serde_json::json;

/// `login.address-failures` of the user service, and one more for each that is regained meanwhile.
const FAILURES: usize = 110;

/// An address may fail a hundred times at all accounts together. Neither a header nor a second spelling makes it
/// another one.
#[tokio::test]
async fn wrong_logins_are_counted_by_the_connections_address_whatever_the_headers_say() {
    let _stack = alone().await;
    let stack = Stack::load();
    // An address of its own, so that nobody else is locked out.
    let [_, _, a, b, c, ..] = *uuid::Uuid::new_v4().as_bytes();
    let address = Ipv4Addr::new(127, a.max(1), b, c.clamp(2, 250));
    let client = Client::from_address(&stack, address.into());
    let mut refused = 0;
    for number in 0..FAILURES {
        // An account each: only the address can be what is counted.
        let body = json!({"email": users::email(), "password": secrets::password()});
        let spoofed = format!("203.0.113.{}", number % 256);
        let forwarded = format!("for={spoofed}, for=198.51.100.{}", number % 256);
        let mut request = client.request(Method::POST, "/users/login").json(&body);
        for name in [
            "x-forwarded-for",
            "X_Forwarded_For",
            "x-real-ip",
            "x-client-ip",
            "cf-connecting-ip",
            "true-client-ip",
            "x-cluster-client-ip",
            "x-firstcome-client",
        ] {
            request = request.header(name, &spoofed);
        }
        let answer = client.send(request.header("forwarded", forwarded)).await;
        match answer.status {
            401 => drop(answer.problem(401, "BAD_CREDENTIALS")),
            _ => {
                answer.problem(429, "RATE_LIMITED");
                refused += 1;
            }
        }
    }
    assert!(refused > 0, "{FAILURES} failures, and the address may go on");
    // It is that address alone.
    let body = json!({"email": users::email(), "password": secrets::password()});
    Client::gateway(&stack).post("/users/login", None, &body).await.problem(401, "BAD_CREDENTIALS");
}
