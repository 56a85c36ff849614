//! `admin`: who it asks, as whom, and what it says of a refusal. The service's rules are tested with the service.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::extract::{Path as PathParameter, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor};

use crate::servers::Servers;
use crate::{couponctl, json, text};

type Heard = Arc<Mutex<Vec<String>>>;

async fn login(State(heard): State<Heard>, Json(body): Json<Value>) -> (StatusCode, Json<Value>) {
    heard.lock().unwrap().push(format!("login {}", body["email"].as_str().unwrap()));
    if body["password"] == "the right one" {
        (StatusCode::OK, Json(json!({"token": {"accessToken": "a.b.c"}})))
    } else {
        (StatusCode::UNAUTHORIZED, Json(json!({"code": "BAD_CREDENTIALS", "detail": "It is wrong."})))
    }
}

async fn roles(
    State(heard): State<Heard>,
    PathParameter(user): PathParameter<u64>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> (StatusCode, Json<Value>) {
    assert_eq!(headers["authorization"], "Bearer a.b.c");
    heard.lock().unwrap().push(format!("{} {} of {user}", body["action"], body["role"]));
    if user == 1 {
        return (StatusCode::CONFLICT, Json(json!({"code": "LAST_ADMIN", "detail": "Nobody else is one."})));
    }
    (StatusCode::OK, Json(json!({"userId": user, "roles": ["USER", "ADMIN"]})))
}

async fn logout(State(heard): State<Heard>) -> StatusCode {
    heard.lock().unwrap().push("logout".to_owned());
    StatusCode::NO_CONTENT
}

/// A gateway on a port of its own; it lives as long as the test's process.
fn gateway() -> (SocketAddr, Heard) {
    let heard = Heard::default();
    let router = Router::new()
        .route("/users/login", post(login))
        .route("/users/{id}/roles", post(roles))
        .route("/users/logout", post(logout))
        .with_state(heard.clone());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, router).await.unwrap();
        });
    });
    (address, heard)
}

/// A running stack's folder.
fn stack(folder: &Path, gateway: SocketAddr, password: &str) {
    let state = json!({"gateway": format!("http://{gateway}"), "admin": {"email": "admin@x.example", "password": password}});
    fs::write(folder.join("state.json"), state.to_string()).unwrap();
}

fn heard(heard: &Heard) -> Vec<String> {
    std::mem::take(&mut heard.lock().unwrap())
}

#[test]
fn the_running_stacks_administrator_asks_and_leaves_no_login_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (gateway, said) = gateway();
    stack(folder.path(), gateway, "the right one");
    let place = ["--state", text(folder.path())];
    let report = json(&[&["admin", "grant", "--user", "7"], place.as_slice()].concat());
    assert_eq!(report, json!({"userId": 7, "roles": ["USER", "ADMIN"]}));
    assert_eq!(heard(&said), ["login admin@x.example", "\"GRANT\" \"ADMIN\" of 7", "logout"]);

    let output = couponctl(&[&["admin", "take", "--user", "1"], place.as_slice()].concat());
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("409 LAST_ADMIN: Nobody else is one."), "{error}");
    assert_eq!(heard(&said), ["login admin@x.example", "\"TAKE\" \"ADMIN\" of 1", "logout"]);
}

#[test]
fn another_administrator_asks_by_a_password_file() {
    let folder = tempfile::tempdir().unwrap();
    let (gateway, said) = gateway();
    let file = folder.path().join("password");
    let url = format!("http://{gateway}");
    let arguments = ["admin", "grant", "--user", "7", "--gateway", &url, "--as", "lee@x.example"];
    let arguments = [arguments.as_slice(), &["--password-file", text(&file)]].concat();
    fs::write(&file, "the right one\n").unwrap();
    assert_eq!(json(&arguments)["userId"], 7);
    assert_eq!(heard(&said)[0], "login lee@x.example");

    fs::write(&file, "hunter2hunter2").unwrap();
    let output = couponctl(&arguments);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("cannot log in as lee@x.example: 401 BAD_CREDENTIALS"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
    let without = couponctl(&["admin", "grant", "--user", "7", "--gateway", &url]);
    assert!(String::from_utf8_lossy(&without.stderr).contains("no administrator: give --as"));
}

#[tokio::test]
async fn an_address_is_looked_up() {
    let folder = tempfile::tempdir().unwrap();
    let (gateway, said) = gateway();
    stack(folder.path(), gateway, "the right one");
    let servers = Servers::get();
    let database = format!("test_admin_{}", rand::random::<u64>());
    let mut mysql =
        servers.database(&database, include_str!("../../../user-service/migrations/0001_users.sql")).await;
    mysql.execute("INSERT INTO users VALUES (77, 'kim@example.org', 'x', NOW())").await.unwrap();
    let options = servers.mysql_options(folder.path());
    let run = |email: &'static str| {
        let mut args = vec!["admin", "grant", "--email", email, "--state", text(folder.path())];
        args.extend(["--database", &database]);
        args.extend(options.iter().map(String::as_str));
        couponctl(&args)
    };
    assert!(run(" Kim@Example.org ").status.success());
    assert_eq!(heard(&said)[1], "\"GRANT\" \"ADMIN\" of 77");
    let nobody = run("lee@example.org");
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("nobody has signed up as lee@example.org"));
    assert_eq!(heard(&said), [""; 0], "and nothing was asked");
    mysql.execute(sqlx::raw_sql(AssertSqlSafe(format!("DROP DATABASE {database}")))).await.unwrap();
}
