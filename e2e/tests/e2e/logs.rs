//! Nothing secret is in any log of the run, and a request is found in one by its trace.

use std::path::Path;
use std::time::Duration;

use e2e::access_log::AccessLog;
use e2e::client::Client;
use e2e::coupons::{self, OPEN, claim};
use e2e::stack::{Stack, alone, shared};
use e2e::tokens::{Minter, user_ids};
use e2e::{faults, secrets, users};
use serde_json::{Value, json};

/// In place of a secret in the settings that a service logs when it starts.
const MASK: &str = "\"******\"";

/// Every file below a folder.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = entries.map(|entry| entry.expect("an entry of a folder can be read").path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Notes the contents of the run's secret files, of the key store the private halves.
fn meet_those_of_the_run(stack: &Stack) {
    let files = files(&stack.folder.join("secrets"));
    assert!(!files.is_empty(), "the run has secrets");
    for text in files.into_iter().filter_map(|file| std::fs::read_to_string(file).ok()) {
        match serde_json::from_str::<Value>(&text).ok().and_then(|store| store["keys"].as_array().cloned()) {
            Some(keys) => {
                for key in keys {
                    secrets::met(key["d"].as_str().unwrap_or_else(|| panic!("a key without a private half")));
                }
            }
            None => {
                secrets::met(text.trim());
            }
        }
    }
}

/// The settings of each start of a service.
fn settings(log: &str) -> Vec<Value> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["message"] == "starting").map(|line| line["settings"].clone()).collect()
}

#[tokio::test]
async fn no_log_holds_a_password_a_token_or_a_key() {
    let _stack = alone().await;
    let stack = faults::wait_until_whole(&Stack::load()).await;
    let client = Client::gateway(&stack);
    let minter = Minter::of(&stack);

    // Everything that might tempt a log, good and bad.
    let admin = users::admin(&stack, &client).await;
    let user = users::customer(&client).await;
    let wrong = secrets::password();
    client.post("/users/login", None, &json!({"email": user.email, "password": wrong})).await;
    client.post("/users/sign-up", None, &json!({"email": "none", "password": secrets::password()})).await;
    let broken = format!("{{\"email\":\"a@b.c\",\"password\":\"{}\",", secrets::password());
    client.post_text("/users/sign-up", None, "application/json", broken).await;
    for _ in 0..2 {
        client.post("/users/token/refresh", None, &json!({"refreshToken": user.refresh})).await;
    }
    let forged = secrets::met(Minter::stranger(&stack).token(user.id));
    client.get("/users/me", Some(&forged)).await;
    let coupon = coupons::create(&client, &admin, 1, OPEN).await;
    for id in user_ids(2) {
        claim(&client, Some(&secrets::met(minter.token(id))), coupon).await;
    }

    meet_those_of_the_run(&stack);
    let mut found = Vec::new();
    for log in files(&stack.folder.join("logs")) {
        let text = String::from_utf8_lossy(&std::fs::read(&log).expect("a log can be read")).into_owned();
        found.extend(secrets::seen_in(&text).map(|seen| format!("{}: {seen}", log.display())));
    }
    assert!(found.is_empty(), "secrets in logs: {found:#?}");

    // These are the logs in which a secret would be: each service has shown its settings there, with masks.
    for service in &stack.services {
        let settings = settings(&stack.log(&service.instance));
        assert!(!settings.is_empty(), "the start of {} is not in its log", service.instance);
        for settings in settings {
            assert!(
                settings.is_object() && settings.to_string().contains(MASK),
                "{}: {settings}",
                service.instance
            );
        }
    }
}

#[tokio::test]
async fn an_answer_is_found_in_the_access_log_by_its_trace() {
    let _stack = shared().await;
    let stack = Stack::load();
    let log = AccessLog::from_here(&stack);
    let answer = Client::gateway(&stack).get("/coupons?limit=1", None).await;
    answer.expect(200);
    for _ in 0..50 {
        let lines = log.lines();
        if let Some(line) = lines.iter().find(|line| line.trace_id == answer.trace_id()) {
            assert_eq!((&*line.route, line.status, &*line.instance), ("coupons-read", 200, "coupon-service"));
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("no line of trace {} after 5 s", answer.trace_id());
}
