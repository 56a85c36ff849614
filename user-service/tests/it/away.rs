//! A database that goes away in the middle of a request: 503, and nothing of the cause in the answer.

#![expect(clippy::disallowed_methods, reason = "a test's tasks end with its runtime")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::StatusCode;
use platform::http::problem::Problem;
use serde_json::json;
use sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions, MySqlSslMode};
use sqlx::{Executor, MySqlPool};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use user_service::error::ApiError;

use crate::harness::{Answer, Service};

/// Passes everything on, but cuts the connection before the answer to a COMMIT.
async fn cutter(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(server).await.unwrap();
            let committing = Arc::<AtomicBool>::default();
            let ((from_client, to_client), (from_server, to_server)) =
                (client.into_split(), server.into_split());
            let seen = committing.clone();
            tokio::spawn(pass(from_client, to_server, move |sent| {
                seen.fetch_or(sent.windows(6).any(|word| word == b"COMMIT"), Ordering::SeqCst);
                true
            }));
            tokio::spawn(pass(from_server, to_client, move |_| !committing.load(Ordering::SeqCst)));
        }
    });
    address
}

/// Until one side ends or `go_on` says so; both halves are closed then.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, go_on: impl Fn(&[u8]) -> bool) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if !go_on(&buffer[..count]) || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

async fn cut_at_commit(service: &Service) -> MySqlPool {
    let mysql = service.mysql();
    let server = tokio::net::lookup_host((mysql.host.as_str(), mysql.port)).await.unwrap().next().unwrap();
    let cutter = cutter(server).await;
    let options = MySqlConnectOptions::new()
        .host(&cutter.ip().to_string())
        .port(cutter.port())
        .username(&mysql.username)
        .password(mysql.password.expose())
        .database(&mysql.database)
        .timezone(Some("+00:00".to_owned()))
        // What is encrypted can't be cut at a word.
        .ssl_mode(MySqlSslMode::Disabled);
    MySqlPoolOptions::new().max_connections(2).connect_lazy_with(options)
}

fn is_unavailable(answer: &Answer) {
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert_eq!(answer.body["code"], "OVERLOADED");
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(answer.body["detail"], "Too much is going on; please try again soon.");
    assert_eq!(answer.body.as_object().unwrap().len(), 7, "{}", answer.body);
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_503() {
    let service = Service::new("away").await;
    service.sign_up("away@example.com", "correct horse").await;
    let login = json!({"email": "away@example.com", "password": "correct horse"});
    let before = service.post("/users/login", &login).await;
    let cut = service.by_way_of(cut_at_commit(&service).await);

    is_unavailable(&cut.post("/users/login", &login).await);
    let families: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM refresh_families")
        .fetch_one(&service.state.pool)
        .await
        .unwrap();
    assert_eq!(families, 2, "it was committed");

    let refresh = json!({"refreshToken": before.body["token"]["refreshToken"]});
    is_unavailable(&cut.post("/users/token/refresh", &refresh).await);
}

#[tokio::test]
async fn a_state_that_passes_is_503_and_a_wrong_statement_is_500() {
    let service = Service::new("states").await;
    for (number, expected) in
        [(1040, 503), (1053, 503), (1205, 503), (1213, 503), (1290, 503), (1927, 503), (1146, 500)]
    {
        let signal = format!("SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = {number}");
        let error = service.state.pool.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(signal))).await.unwrap_err();
        let problem = Problem::from(ApiError::from(error));
        assert_eq!(problem.status(), StatusCode::from_u16(expected).unwrap(), "{number}");
    }
}
