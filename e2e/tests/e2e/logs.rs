//! Nothing secret is in any log of the run.

use std::path::Path;

use e2e::client::Client;
use e2e::coupons::{self, OPEN, claim};
use e2e::stack::{Stack, alone};
use e2e::tokens::{Minter, user_ids};
use e2e::{faults, secrets, users};
use serde_json::json;

/// Shorter ones would be found by chance.
const SHORTEST: usize = 8;

/// Every file below a folder.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = entries.map(|entry| entry.expect("an entry of a folder can be read").path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The contents of the run's secret files, PEM files line by line.
fn of_the_run(stack: &Stack) -> Vec<String> {
    let contents = files(&stack.folder.join("secrets"))
        .into_iter()
        .filter_map(|file| std::fs::read_to_string(file).ok());
    contents
        .flat_map(|text| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>())
        .filter(|line| line.len() >= SHORTEST && !line.starts_with("-----"))
        .collect()
}

/// A JWT anywhere in `text`: "eyJ" begins the base64 of `{"`, in the header and in the claims.
fn has_jwt(text: &str) -> bool {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')))
        .any(|word| word.contains("eyJ") && word.contains(".eyJ"))
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

    let mut sought = of_the_run(&stack);
    assert!(!sought.is_empty(), "the run has secrets");
    sought.extend(secrets::all());
    // A token may be cut: its signature alone is worth hiding, too.
    let signatures: Vec<_> = sought
        .iter()
        .filter(|s| s.starts_with("eyJ"))
        .filter_map(|s| s.rsplit('.').next())
        .map(str::to_owned)
        .collect();
    sought.extend(signatures);
    sought.retain(|secret| secret.len() >= SHORTEST);

    let logs = files(&stack.folder.join("logs"));
    assert!(
        logs.len() >= stack.services.len(),
        "{} log files of {} services",
        logs.len(),
        stack.services.len()
    );
    let mut found = Vec::new();
    for log in logs {
        let text = String::from_utf8_lossy(&std::fs::read(&log).expect("a log can be read")).into_owned();
        let name = log.display();
        // The place, not the secret: this output is a log as well.
        found.extend(
            sought
                .iter()
                .enumerate()
                .filter(|(_, s)| text.contains(s.as_str()))
                .map(|(i, _)| format!("{name}: #{i}")),
        );
        if has_jwt(&text) {
            found.push(format!("{name}: a JWT"));
        }
    }
    assert!(found.is_empty(), "secrets in logs: {found:#?}");
}

#[test]
fn a_token_would_be_found() {
    assert!(has_jwt(r#"{"header":"Bearer eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiIxIn0.c2ln"}"#));
    assert!(!has_jwt("eyJ alone"));
}
