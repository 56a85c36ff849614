//! What an operator does and sees: the lines to copy, a setting changed by a commit, the trace of one claim.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use e2e::client::{Client, with_token};
use e2e::configuration;
use e2e::coupons::{self, OPEN, check_receipt};
use e2e::stack::{Stack, alone, shared};
use e2e::{faults, secrets, users};
use reqwest::Method;
use serde_json::{Value, json};

/// What a command prints.
fn output(command: &mut Command) -> String {
    let done = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (text, errors) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{command:?}: {} {text} {errors}", done.status);
    text.into_owned()
}

#[tokio::test]
async fn the_lines_to_copy_sign_up_log_in_and_claim() {
    let _stack = shared().await;
    let stack = Stack::load();
    // Where nobody is to copy them the coupon that they name was not made.
    let first_coupon = stack.folder.join("first-coupon");
    if !first_coupon.exists() {
        let client = Client::gateway(&stack);
        let coupon = coupons::create(&client, &users::admin(&stack, &client).await, 5, OPEN).await;
        std::fs::write(&first_coupon, coupon.to_string()).expect("the coupon's id can be written");
    }
    // The stack's own tool, wherever it was built.
    let xtask = format!("/proc/{}/exe", stack.supervisor.pid);
    let shown = output(Command::new(xtask).args(["status", "--dir"]).arg(&stack.folder));
    let lines: Vec<_> = shown.lines().skip_while(|line| !line.starts_with("curl ")).take(3).collect();
    assert_eq!(lines.len(), 3, "{shown}");

    secrets::met("first come, first served");
    let answers = output(Command::new("sh").arg("-c").arg(lines.join("\n")));
    assert_eq!(secrets::seen_in(&answers), None);
    let answers: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(&answers).into_iter().collect();
    let [signed_up, claimed] = &answers.expect("curl prints JSON")[..] else { panic!("not two answers") };
    let coupon = std::fs::read_to_string(&first_coupon).expect("the coupon's id is there");
    // In a stack that has seen these lines before, both say so.
    let receipt = if claimed["status"] == 409 { &claimed["receipt"] } else { claimed };
    let user = signed_up["userId"].as_u64().or(receipt["userId"].as_u64()).unwrap_or_default();
    assert!(
        signed_up["email"] == "ada@firstcome.example" || signed_up["code"] == "EMAIL_TAKEN",
        "{signed_up}"
    );
    check_receipt(receipt, user, coupon.trim().parse().expect("an id"));
}

/// What a login says of its token's life, and the commit that the service shows.
async fn in_force(stack: &Stack) -> (Value, Value) {
    let client = Client::gateway(stack);
    let account = json!({"email": stack.admin.email, "password": stack.admin.password});
    let login = client.post("/users/login", None, &account).await.expect(200);
    let admin = stack.one("user-service").admin_url.clone().unwrap_or_default();
    let info = client.send(Client::at(&admin).request(Method::GET, "/actuator/info")).await.expect(200);
    (login["token"]["expiresIn"].clone(), info["config"]["commit"].clone())
}

#[tokio::test]
async fn a_commit_to_the_configuration_is_taken_up_at_the_next_start() {
    let _stack = alone().await;
    let stack = Stack::load();
    let repository = configuration::Clone::of(&stack);
    let (before, first) = in_force(&stack).await;
    assert_eq!(before, 900);

    let commit = repository.change("user-service.yml", "access-ttl: 15m", "access-ttl: 14m");
    assert_eq!(in_force(&stack).await, (before, first), "a running service keeps what it started with");
    faults::terminate(stack.one("user-service").pid);
    let changed = in_force(&faults::wait_until_restarted(&stack, "user-service").await).await;

    let back = repository.change("user-service.yml", "access-ttl: 14m", "access-ttl: 15m");
    let stack = Stack::load();
    faults::terminate(stack.one("user-service").pid);
    let restored = in_force(&faults::wait_until_restarted(&stack, "user-service").await).await;
    assert_eq!(changed, (json!(840), json!(commit)));
    assert_eq!(restored, (json!(900), json!(back)));
}

/// From the click to the row: gateway, issue service (doorman, append) and consumer in one trace.
#[tokio::test]
async fn a_claim_is_one_trace_from_the_gateway_to_the_consumer() {
    let _stack = shared().await;
    let stack = Stack::load();
    let client = Client::gateway(&stack);
    let coupon = coupons::create(&client, &users::admin(&stack, &client).await, 5, OPEN).await;
    let user = users::customer(&client).await;
    let trace = uuid::Uuid::new_v4().simple().to_string();
    let claim = with_token(client.request(Method::POST, "/coupon-issues"), Some(&user.access));
    let claim = claim.header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"));
    let answer = client.send(claim.json(&json!({"couponId": coupon}))).await;
    let own = answer.header("traceparent").to_owned();
    coupons::settled(&client, &user.access, answer).await.expect(200);

    let zipkin = Client::at(stack.zipkin());
    let begin = Instant::now();
    loop {
        let spans: Vec<Value> = zipkin
            .try_send(zipkin.request(Method::GET, &format!("/api/v2/trace/{trace}")))
            .await
            .ok()
            .and_then(|answer| serde_json::from_str(&answer.text).ok())
            .unwrap_or_default();
        let seen: BTreeSet<(&str, &str)> = spans
            .iter()
            .filter_map(|span| {
                Some((
                    span["localEndpoint"]["serviceName"].as_str()?,
                    span["kind"].as_str().unwrap_or_default(),
                ))
            })
            .collect();
        let all = [
            ("gateway", "SERVER"),
            ("issue-service", "SERVER"),
            ("issue-service", "CLIENT"),
            ("issue-service", "PRODUCER"),
            ("issue-consumer", "CONSUMER"),
        ];
        if all.iter().all(|one| seen.contains(one)) {
            assert!(spans.iter().all(|span| span["traceId"] == trace.as_str()));
            let of_gateway = spans.iter().find(|span| span["localEndpoint"]["serviceName"] == "gateway");
            let id = of_gateway.and_then(|span| span["id"].as_str()).unwrap_or_default();
            assert_eq!(own, format!("00-{trace}-{id}-01"), "the answer names the gateway's own span");
            return;
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "of trace {trace} only {seen:?} came");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}
