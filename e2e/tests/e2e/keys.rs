//! The keys rotate under the running whole: nobody is logged out, and new tokens are taken by every process.

use std::process::Command;
use std::time::Duration;

use e2e::client::Client;
use e2e::secrets;
use e2e::stack::{Stack, alone};
use e2e::tokens::{Minter, user_ids};
use e2e::users;
use serde_json::Value;

const JWKS: &str = "/.well-known/jwks.json";

fn keys(stack: &Stack, arguments: &[&str]) -> Value {
    let mut command = Command::new(&stack.couponctl);
    command.arg("keys").args(arguments).args(["--json", "--state"]).arg(&stack.folder);
    let done = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    serde_json::from_slice(&done.stdout)
        .unwrap_or_else(|_| panic!("{command:?}: {} {}", done.status, String::from_utf8_lossy(&done.stderr)))
}

async fn published(client: &Client) -> Vec<String> {
    let set = client.get(JWKS, None).await.expect(200);
    let keys = set["keys"].as_array().cloned().unwrap_or_default();
    assert!(keys.iter().all(|key| key.get("d").is_none()), "a private key is published");
    keys.iter().filter_map(|key| key["kid"].as_str().map(str::to_owned)).collect()
}

#[tokio::test]
async fn a_rotation_logs_nobody_out() {
    // Others' tokens would be of a key that is gone, if this runs twice within a token's life.
    let _stack = alone().await;
    let stack = Stack::load();
    let client = Client::gateway(&stack);
    let user = users::customer(&client).await;
    let minted = secrets::met(Minter::of(&stack).token(user_ids(1)[0]));
    let next = published(&client).await[1].clone();

    // A run is younger than the time after which this needs no force.
    let rotated = keys(&stack, &["rotate", "--force"]);
    assert_eq!(rotated["keys"][0]["kid"], next, "{rotated}");
    assert_eq!(rotated["keys"][0]["status"], "signing", "{rotated}");
    for _ in 0..100 {
        if published(&client).await.first() == Some(&next) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let now = published(&client).await;
    assert_eq!(now.first(), Some(&next), "not taken up within 10 s");
    assert_eq!(now.len(), 3, "{now:?}");

    // From before it, of a login and of the operator's tool; from after it, of both.
    client.get("/users/me", Some(&user.access)).await.expect(200);
    client.get("/coupon-issues/me", Some(&minted)).await.expect(200);
    let (access, _) = users::login(&client, &user.email, &user.password).await;
    client.get("/coupon-issues/me", Some(&access)).await.expect(200);
    let minted = secrets::met(Minter::of(&stack).token(user_ids(1)[0]));
    client.get("/coupon-issues/me", Some(&minted)).await.expect(200);
}
