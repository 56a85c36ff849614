//! Everything in TLS, with passwords everywhere; and what is said when one of these things is wrong.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use platform::config::{RedisSettings, TlsSettings};
use platform::lifecycle::Lifecycle;
use platform::redis::Redis;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::DefaultGuard;

use super::certificates::Certificates;
use super::server::{Cluster, PASSWORD, SENTINEL_PASSWORD, Server};
use super::{SCRIPT, SOON, check, connected, survive_a_failover};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_in_tls_with_certificates_on_both_sides_fails_over() {
    let certificates = Certificates::new();
    let mut cluster = Cluster::start(Some(&certificates)).await;
    let settings = RedisSettings { tls: certificates.settings(), ..cluster.settings() };
    survive_a_failover(&mut cluster, settings).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standalone_redis_in_tls_works_the_same() {
    let certificates = Certificates::new();
    let server = Server::redis(Some(&certificates), "").await;
    check(RedisSettings { tls: certificates.settings(), ..server.settings() }).await;
}

const ADDRESS: &str = "PLATFORM_TEST_REDIS";
const BELIEVED: &str = "the server was believed";

/// Not a test of its own: the process that the next one starts.
#[tokio::test]
async fn process() {
    let Ok(address) = std::env::var(ADDRESS) else { return };
    let tls = TlsSettings { enabled: true, ..TlsSettings::default() };
    let settings = RedisSettings { address, password: PASSWORD.into(), tls, ..RedisSettings::default() };
    let lifecycle = Lifecycle::new();
    connected(&Redis::connect(settings, &lifecycle, &[SCRIPT]), 0).await;
    println!("{BELIEVED}");
}

#[tokio::test]
async fn where_no_authorities_are_named_the_systems_are_believed() {
    let certificates = Certificates::new();
    let server = Server::redis(Some(&certificates), "tls-auth-clients no\n").await;
    let folder = tempfile::tempdir().unwrap();
    let (_, _, ca) = certificates.write(folder.path());
    // The system's authorities are where this variable says.
    let process = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["redis::tls::process", "--exact", "--nocapture"])
        .envs([("SSL_CERT_FILE", ca), (ADDRESS, server.address.clone())])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&process.stdout).contains(BELIEVED), "{process:?}");
}

/// What a test has logged, on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn capture() -> (Self, DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(LevelFilter::DEBUG)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn lines(&self, word: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains(word)).map(str::to_owned).collect()
    }
}

/// What an operator is told when it does not work, after it was tried more than once.
async fn warnings(settings: RedisSettings) -> Vec<String> {
    let (log, _guard) = Log::capture();
    let lifecycle = Lifecycle::new();
    let redis = Redis::connect(settings, &lifecycle, &[SCRIPT]);
    let tried = async {
        while log.lines("no Redis master still").len() < 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, tried).await.unwrap();
    assert!(redis.connection().is_none());
    lifecycle.stop_background(Duration::from_secs(1)).await;
    assert!(log.lines("swordfish").is_empty(), "{:?}", log.lines("swordfish"));
    log.lines("WARN")
}

#[tokio::test]
async fn what_is_wrong_is_said_once_in_plain_words_and_without_the_password() {
    let (certificates, others) = (Certificates::new(), Certificates::new());
    let server = Server::redis(Some(&certificates), "").await;
    let good = RedisSettings { tls: certificates.settings(), ..server.settings() };
    let with = |change: fn(&mut TlsSettings)| {
        let mut settings = good.clone();
        change(&mut settings.tls);
        settings
    };
    let expired = Certificates::expired();
    let expired_server = Server::redis(Some(&expired), "").await;
    let plain = Server::redis(None, "").await;
    let cases = [
        (
            RedisSettings { password: "swordfish-of-nobody".into(), ..good.clone() },
            "refuses user name or password: see redis.username and redis.password",
        ),
        (RedisSettings { password: "".into(), ..good.clone() }, "wants a password: see redis.password"),
        (
            RedisSettings { tls: others.settings(), ..good.clone() },
            "has a certificate of an authority that is not in redis.tls.ca-file",
        ),
        (
            with(|tls| tls.ca = "".into()),
            "has a certificate of an authority that this system does not know: see redis.tls.ca-file",
        ),
        (
            with(|tls| (tls.cert, tls.key) = ("".into(), "".into())),
            "wants a certificate: see redis.tls.cert-file and redis.tls.key-file",
        ),
        (
            with(|tls| tls.enabled = false),
            "has closed the connection, perhaps because it wants TLS (redis.tls.enabled)",
        ),
        (
            RedisSettings { address: good.address.replace("127.0.0.1", "localhost"), ..good.clone() },
            "has a certificate that is for another name or address",
        ),
        (
            RedisSettings { tls: expired.settings(), ..expired_server.settings() },
            "has a certificate that has expired",
        ),
        (
            RedisSettings { tls: certificates.settings(), ..plain.settings() },
            "does not answer in TLS (redis.tls.enabled) within 1 s",
        ),
    ];
    for (settings, expected) in cases {
        let expected = format!("Redis {} {expected}", settings.address);
        let warnings = warnings(settings).await;
        assert!(warnings.len() == 1 && warnings[0].contains(&expected), "{expected}\n{warnings:#?}");
    }
    // The same settings, right.
    let lifecycle = Lifecycle::new();
    connected(&Redis::connect(good, &lifecycle, &[SCRIPT]), 0).await;
    lifecycle.stop_background(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn what_is_wrong_with_a_sentinel_is_said_in_plain_words_and_without_the_password() {
    let certificates = Certificates::new();
    let sentinel = Server::sentinel(Some(&certificates), "").await;
    let good = RedisSettings {
        sentinels: vec![sentinel.address.clone()],
        master: "unknown".to_owned(),
        sentinel_password: SENTINEL_PASSWORD.into(),
        tls: certificates.settings(),
        ..RedisSettings::default()
    };
    let cases = [
        (
            RedisSettings { sentinel_password: "swordfish-of-nobody".into(), ..good.clone() },
            "refuses user name or password: see redis.sentinel-username and redis.sentinel-password",
        ),
        (
            RedisSettings { tls: Certificates::new().settings(), ..good.clone() },
            "has a certificate of an authority that is not in redis.tls.ca-file",
        ),
        (good, "watches no master of the name in redis.master"),
    ];
    for (settings, expected) in cases {
        let expected = format!("Sentinel {} {expected}", sentinel.address);
        let warnings = warnings(settings).await;
        let both = warnings.len() == 2
            && warnings.iter().any(|line| line.contains(&expected))
            && warnings.iter().any(|line| {
                line.contains("no Redis master; looking on problem=no Sentinel names one that answers")
            });
        assert!(both, "{expected}\n{warnings:#?}");
    }
}
