//! Slowness as a weapon: ten thousand connections that never finish what they begin.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use e2e::client::Client;
use e2e::coupons::{self, OPEN, check_receipt};
use e2e::faults;
use e2e::raw::authority;
use e2e::stack::{Stack, alone};
use e2e::users;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

/// Half of them slow in the head, half in the body.
const CONNECTIONS: usize = 10_000;
/// Files that this process needs beside them.
const SPARE: u64 = 512;
/// So often comes a byte, well within what the gateway waits for the next one.
const PACE: Duration = Duration::from_secs(2);
/// For all of them to stand at once.
const PATIENCE: Duration = Duration::from_secs(60);
/// Who is meanwhile served.
const REAL: usize = 10;

/// Raises this process's limit of open files to what it may be.
fn allow_many_files() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit of open files");
    assert!(
        hard >= CONNECTIONS as u64 + SPARE,
        "{hard} open files are allowed (ulimit -Hn), too few for this test"
    );
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to the hard limit is allowed");
}

/// One attacker: whenever the gateway has had enough, it comes again.
async fn attack(number: usize, address: String, held: Arc<AtomicUsize>) {
    // From many addresses of this machine: no port runs out, and nothing can be told by the address.
    let from = Ipv4Addr::new(127, 1, 0, u8::try_from(number % 20 + 1).unwrap_or(1));
    let (head, byte) = if number.is_multiple_of(2) {
        ("GET /coupons HTTP/1.1\r\nHost: x\r\n", "X: y\r\n")
    } else {
        (
            "POST /users/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10000\r\n\r\n",
            " ",
        )
    };
    loop {
        let socket = TcpSocket::new_v4().expect("a socket");
        let connected = match socket.bind((from, 0).into()) {
            Ok(()) => socket.connect(address.parse().expect("an address")).await,
            Err(error) => Err(error),
        };
        let Ok(mut stream) = connected else {
            tokio::time::sleep(PACE).await;
            continue;
        };
        held.fetch_add(1, Relaxed);
        let _ = stream.write_all(head.as_bytes()).await;
        let mut answer = [0; 1024];
        loop {
            match tokio::time::timeout(PACE, stream.read(&mut answer)).await {
                Ok(Ok(0) | Err(_)) => break,
                Ok(Ok(_)) => {}
                Err(_quiet) => {
                    if stream.write_all(byte.as_bytes()).await.is_err() {
                        break;
                    }
                }
            }
        }
        held.fetch_sub(1, Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_slow_connections_leave_real_users_unaffected() {
    let _stack = alone().await;
    allow_many_files();
    let stack = Stack::load();
    let client = Client::gateway(&stack);
    let admin = users::admin(&stack, &client).await;
    let coupon = coupons::create(&client, &admin, 10_000, OPEN).await;

    let held = Arc::new(AtomicUsize::new(0));
    let mut attackers = JoinSet::new();
    for number in 0..CONNECTIONS {
        attackers.spawn(attack(number, authority(&stack.gateway).to_owned(), Arc::clone(&held)));
    }
    // Some are just being thrown out at any moment, and come again.
    let mut most = 0;
    let standing = async {
        while most < CONNECTIONS * 99 / 100 {
            most = most.max(held.load(Relaxed));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let stood = tokio::time::timeout(PATIENCE, standing).await;
    assert!(stood.is_ok(), "only {most} of {CONNECTIONS} connections stood at once");

    for _ in 0..REAL {
        // A connection of its own, as a user who comes now has.
        let client = Client::gateway(&stack);
        let user = users::customer(&client).await;
        client.get("/users/me", Some(&user.access)).await.expect(200);
        let receipt = coupons::claim_until_final(&client, &user.access, coupon).await.expect(200);
        check_receipt(&receipt, user.id, coupon);
        let still = held.load(Relaxed);
        assert!(still > CONNECTIONS / 2, "only {still} are held while users are served");
    }
    attackers.shutdown().await;
    // Nothing has died of it.
    faults::wait_until_whole(&stack).await;
}
