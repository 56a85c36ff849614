//! From the start of a process until it is ready, with very many winners of one coupon in the database and with none; and
//! how long it takes to audit them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use issue_service::config::Settings;
use issue_service::ids::CouponId;
use platform::lifecycle::BoxError;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::backlog::Backlog;
use crate::figures::{median, range, whole};
use crate::ground::{Ground, System, bytes};
use crate::report::{Check, Progress, Report, Section};

const WINNERS: u64 = 1_000_000;
const ROUNDS: usize = 5;
const AUDITS: usize = 3;
/// From the process's start until it is ready.
const ASKED_FOR: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(2);
const READY_WITHIN: Duration = Duration::from_secs(60);
const WRITTEN_WITHIN: Duration = Duration::from_secs(120);
/// Longer than the 9.5 s after which a service ends itself.
const ENDED_WITHIN: Duration = Duration::from_secs(12);

/// One start.
struct Started {
    after: Duration,
    /// Bytes, at the moment when it was ready.
    resident: f64,
    /// Bytes, at the highest until then.
    peak: f64,
}

/// An audit of all winners.
struct Audited {
    took: Duration,
    /// Bytes, at the highest.
    peak: f64,
}

/// `auditor` is `couponctl`.
pub(crate) async fn measure(
    ground: &Ground,
    program: &Path,
    auditor: &Path,
    share: u64,
) -> Result<Report, BoxError> {
    let winners = WINNERS / share;
    let mut progress = Progress::new((3 + 2 * ROUNDS + AUDITS) as u64);
    let (none, many) = (ground.system().await?, ground.system().await?);
    progress.step(&format!("writing {} winners", whole(winners as f64)));
    let coupon = fill(ground, &many, winners).await?;
    progress.step("a start that does not count");
    start(&many, program).await?;
    let mut starts: [Vec<Started>; 2] = Default::default();
    for round in 0..ROUNDS {
        for turn in [round % 2, (round + 1) % 2] {
            let (system, what) = if turn == 0 { (&none, 0) } else { (&many, winners) };
            let what = whole(what as f64);
            progress.step(&format!("a start with {what} winners, round {} of {ROUNDS}", round + 1));
            starts[turn].push(start(system, program).await?);
        }
    }
    // Each start has tested the log with records of its own, which an audit waits for.
    let consumer = many.consumer()?;
    progress.step("an audit that does not count");
    audit(&many, coupon, auditor).await?;
    let mut audits = Vec::new();
    for round in 1..=AUDITS {
        progress.step(&format!("an audit of them, round {round} of {AUDITS}"));
        audits.push(audit(&many, coupon, auditor).await?);
    }
    consumer.stop().await;
    ground.remove(none).await?;
    ground.remove(many).await?;
    Ok(report(winners, &starts, &audits))
}

/// By way of the log and the consumer, as all winners come into the database.
async fn fill(ground: &Ground, system: &System, winners: u64) -> Result<CouponId, BoxError> {
    let coupon = ground.new_coupon();
    let backlog = Backlog { coupons: vec![coupon], claims: winners };
    let end: u64 = backlog.write(system).await?.values().sum();
    let consumer = system.consumer()?;
    let mut watch = system.watch().await?;
    let writing = async {
        while watch.written().await? < end {
            tokio::time::sleep(LOOK).await;
        }
        Ok::<_, BoxError>(())
    };
    tokio::time::timeout(WRITTEN_WITHIN, writing)
        .await
        .map_err(|_| "the winners could not be written in time: see the log")??;
    consumer.stop().await;
    let rows = system.rows().await?;
    if rows != winners {
        return Err(format!("{winners} claims in the log came to {rows} rows").into());
    }
    Ok(coupon)
}

/// The log from its start against the rows.
async fn audit(system: &System, coupon: CouponId, auditor: &Path) -> Result<Audited, BoxError> {
    let Settings { mysql, kafka, .. } = &system.settings;
    let mut command = Command::new(auditor);
    command.args(["audit", "--replay", "--partial", "--coupon", &coupon.to_string()]);
    command.args(["--mysql", &format!("mysql://{}@{}:{}", mysql.username, mysql.host, mysql.port)]);
    let password = std::env::var("FIRSTCOME_MYSQL__PASSWORD_FILE")?;
    command.args(["--mysql-password-file", &password, "--database", &mysql.database]);
    command.args(["--kafka", &kafka.bootstrap_servers, "--topic", &kafka.topic]);
    command.args(["--dead-letter-topic", &kafka.dead_letter_topic]);
    // Where no stack's state lies that would add a Redis or a gateway.
    command.env_remove("FIRSTCOME_STATE").current_dir(std::env::temp_dir());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let begun = Instant::now();
    let mut child = command.spawn()?;
    let file = format!("/proc/{}/status", child.id().ok_or("it ended")?);
    let mut peak = 0.0_f64;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        let status = std::fs::read_to_string(&file).unwrap_or_default();
        peak = peak.max(bytes(&status, "VmHWM:").unwrap_or(0.0));
        tokio::time::sleep(LOOK).await;
    };
    let took = begun.elapsed();
    if !status.success() {
        let found = String::from_utf8(child.wait_with_output().await?.stdout)?;
        return Err(
            format!("the audit found something wrong, or could not be made ({status})\n{found}").into()
        );
    }
    Ok(Audited { took, peak })
}

/// A process of the service as it runs everywhere, with the environment of this one.
async fn start(system: &System, program: &Path) -> Result<Started, BoxError> {
    let admin = free_port()?;
    let name = &system.settings.kafka.topic;
    let mut command = Command::new(program);
    command.args(["serve", "--instance", name]).stdin(Stdio::null()).kill_on_drop(true);
    command.env("FIRSTCOME_KAFKA__TOPIC", name);
    command.env("FIRSTCOME_KAFKA__DEAD_LETTER_TOPIC", &system.settings.kafka.dead_letter_topic);
    command.env("FIRSTCOME_MYSQL__DATABASE", &system.settings.mysql.database);
    command.env("FIRSTCOME_ADMIN__PORT", admin.to_string());
    // Unlike the benchmark itself, it is found by others.
    command.env("FIRSTCOME_CONSUL__ENABLED", "true");
    let begun = Instant::now();
    let mut child = command.spawn()?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, admin));
    while !is_ready(address).await {
        if let Some(status) = child.try_wait()? {
            return Err(format!("the service ended before it was ready ({status}): see its log").into());
        }
        if begun.elapsed() > READY_WITHIN {
            return Err("the service was not ready in time: see its log".into());
        }
        tokio::time::sleep(LOOK).await;
    }
    let after = begun.elapsed();
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id().ok_or("it ended")?))?;
    let of = |field| bytes(&status, field).ok_or_else(|| format!("no {field} in /proc/PID/status"));
    let (resident, peak) = (of("VmRSS:")?, of("VmHWM:")?);
    stop(&mut child).await?;
    Ok(Started { after, resident, peak })
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Whether its readiness says so, as Consul asks.
async fn is_ready(admin: SocketAddr) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(admin).await?;
        let question =
            "GET /actuator/health/readiness HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        stream.write_all(question.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer.starts_with(b"HTTP/1.1 200 "))
    };
    ask.await.unwrap_or(false)
}

async fn stop(child: &mut Child) -> Result<(), BoxError> {
    if let Some(pid) = child.id() {
        // The shell's own: a bare machine has no program of that name.
        Command::new("sh").args(["-c", &format!("kill -TERM {pid}")]).status().await?;
    }
    let ended = tokio::time::timeout(ENDED_WITHIN, child.wait()).await;
    ended.map_err(|_| "the service did not end when told")??;
    Ok(())
}

fn report(winners: u64, starts: &[Vec<Started>; 2], audits: &[Audited]) -> Report {
    let of =
        |index: usize, what: fn(&Started) -> f64| -> Vec<f64> { starts[index].iter().map(what).collect() };
    let seconds = |started: &Started| started.after.as_secs_f64();
    let megabytes = |bytes: f64| format!("{:.1}", bytes / 1e6);
    let second = |seconds: f64| format!("{seconds:.2} s");
    let row = |index: usize, title: String| {
        let after = of(index, seconds);
        vec![
            title,
            second(median(&after)),
            range(&after, second),
            megabytes(median(&of(index, |started| started.resident))),
            megabytes(median(&of(index, |started| started.peak))),
        ]
    };
    let resident = [0, 1].map(|index| median(&of(index, |started| started.resident)));
    let each = (resident[1] - resident[0]) / winners as f64;
    let [none, many] = [0, 1].map(|index| median(&of(index, seconds)));
    let section = Section {
        heading: "From the start of a process until it is ready",
        about: format!(
            "`issue-service serve` with {} winners of one coupon in the database, and with none, {ROUNDS} times in turn; \
             medians. From the start of the process until its readiness says yes; memory at that moment, in MB of \
             1,000,000 bytes. The database has just been written, so it reads from memory.",
            whole(winners as f64)
        ),
        columns: vec!["winners", "ready after", "over the rounds", "resident MB", "highest MB"],
        rows: vec![row(0, "none".into()), row(1, whole(winners as f64))],
    };
    let costs = Section {
        heading: "What a winner costs",
        about: "What the start with winners takes more, by their number.".into(),
        columns: vec!["bytes of memory a winner", "winners read a second"],
        rows: vec![vec![format!("{each:.1}"), whole(winners as f64 / (many - none))]],
    };
    let took: Vec<f64> = audits.iter().map(|audit| audit.took.as_secs_f64()).collect();
    let peaks: Vec<f64> = audits.iter().map(|audit| audit.peak).collect();
    let auditing = Section {
        heading: "Auditing them",
        about: format!(
            "`couponctl audit --replay` of that coupon: the log is read from its start, every record decided again and \
             compared with its row; {AUDITS} times, medians. No record of answers, no Redis and no API."
        ),
        columns: vec!["rows", "takes", "over the rounds", "highest MB"],
        rows: vec![vec![
            whole(winners as f64),
            second(median(&took)),
            range(&took, second),
            megabytes(median(&peaks)),
        ]],
    };
    let check = Check {
        what: format!("ready with {} winners", whole(winners as f64)),
        is: second(many),
        must: format!("within {} s", ASKED_FOR.as_secs()),
        ok: many <= ASKED_FOR.as_secs_f64(),
    };
    let shown = |index: usize| {
        json!({"readyAfterSeconds": of(index, seconds), "residentBytes": of(index, |started| started.resident),
            "peakBytes": of(index, |started| started.peak)})
    };
    Report {
        title: "Starting with very many winners",
        about: "An instance holds every winner in memory, and reads them from the database when it starts."
            .into(),
        sections: vec![section, costs, auditing],
        checks: vec![check],
        figures: json!({"winners": winners, "none": shown(0), "many": shown(1), "bytesAWinner": each,
            "auditSeconds": took, "auditPeakBytes": peaks}),
    }
}
