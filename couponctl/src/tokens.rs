//! `tokens`: signs valid access tokens for many users into one file.
//!
//! One thread a core signs, this thread writes; nothing of a token is ever printed.

mod signer;
mod users;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use self::signer::{Claims, Signer};
use crate::csv::Writer;
use crate::state::{State, StateArgs};
use crate::terminal;

/// Users that a thread takes at once: some ten milliseconds of signing.
const CHUNK: usize = 1_000;
/// More is surely a slip of the finger; the file would be past 40 GB.
const MOST: u64 = 100_000_000;

const EXAMPLES: &str = "\
Examples:
  # 15,000 new users (ids without an account, as any customer's), signed with the running stack's key
  couponctl tokens --count 15000 --out tokens.csv
  # everybody who has an account
  couponctl tokens --existing --out tokens.csv
  # without a running stack
  couponctl tokens --count 1000000 --key token-keys.json --issuer firstcome \\
      --audience firstcome --out tokens.csv";

/// Sign access tokens for many users into a CSV that every load tool reads
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// How many; with --existing all users, if not given
    #[arg(long, required_unless_present = "existing")]
    count: Option<u64>,
    /// The CSV to write (`user_id,token`; mode 0600, as it holds credentials)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// For newly made user ids that have no account (the default)
    #[arg(long, conflicts_with = "existing")]
    new: bool,
    /// For users that have an account, oldest first, read from MySQL
    #[arg(long)]
    existing: bool,
    /// Roles in the tokens
    #[arg(long = "role", value_name = "ROLE", default_value = "USER")]
    roles: Vec<String>,
    /// How long the tokens are good; gateways take none above their `jwt.max-lifetime`, 24h
    #[arg(long, default_value = "1h", value_parser = crate::clock::duration)]
    ttl: Duration,
    #[command(flatten)]
    state: StateArgs,
    /// Key store, or a single Ed25519 key in PKCS#8 PEM, instead of the stack's own
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Who signs, as the gateway knows it: its `jwt.issuer`; with --key
    #[arg(long, value_name = "ISS")]
    issuer: Option<String>,
    /// For whom, as the gateway knows it: its `jwt.audience`; with --key
    #[arg(long, value_name = "AUD")]
    audience: Option<String>,
    #[command(flatten)]
    mysql: crate::servers::MysqlArgs,
    /// Database of the user service
    #[arg(long, value_name = "NAME", default_value = "firstcome_users")]
    database: String,
    /// Signing threads [default: one a core]
    #[arg(long)]
    threads: Option<usize>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    count: usize,
    users: &'static str,
    out: &'a PathBuf,
    seconds: f64,
    per_second: u64,
    ttl_seconds: u64,
}

pub(crate) fn run(args: &Args, json: bool) -> Result<ExitCode> {
    if args.count.is_some_and(|count| count == 0 || count > MOST) {
        bail!("--count must be 1 to {MOST}");
    }
    if args.ttl < Duration::from_secs(1) {
        bail!("--ttl must be at least 1s");
    }
    let state = args.state.find()?;
    let signer = signer(args, &state)?;
    let (users, kind) = if args.existing {
        (users::existing(&args.mysql.resolve(&state)?, &args.database, args.count)?, "existing")
    } else {
        (users::new(args.count.unwrap_or_default()), "new")
    };
    let started = Instant::now();
    write(&signer, &users, args)?;
    let took = started.elapsed();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rounded rate for people")]
    let per_second = (users.len() as f64 / took.as_secs_f64().max(1e-6)) as u64;
    if json {
        let report = Report {
            count: users.len(),
            users: kind,
            out: &args.out,
            seconds: took.as_secs_f64(),
            per_second,
            ttl_seconds: args.ttl.as_secs(),
        };
        println!("{}", serde_json::to_string(&report)?);
    } else {
        let whose = if args.existing { "existing users" } else { "new users (ids without an account)" };
        println!(
            "{} tokens for {whose} in {} ({} a second), good for {}: {}",
            terminal::grouped(users.len() as u64),
            terminal::seconds(took),
            terminal::grouped(per_second),
            humantime::format_duration(args.ttl),
            args.out.display()
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// The signer of a key file, or of the running stack.
fn signer(args: &Args, state: &State) -> Result<Signer> {
    let jwt = state.jwt.as_ref();
    let key = args.key.as_ref().or(state.key_store.as_ref());
    let key = key.context("no signing key: give --key, or --state with a running stack's folder")?;
    let issuer = args.issuer.as_ref().or(jwt.map(|jwt| &jwt.issuer)).context("--key needs --issuer")?;
    let audience =
        args.audience.as_ref().or(jwt.map(|jwt| &jwt.audience)).context("--key needs --audience")?;
    Signer::open(key, &Claims { issuer, audience, roles: &args.roles, ttl: args.ttl })
}

/// A signer of short-lived tokens with the running stack's key, for the audit's own questions.
pub(crate) fn stack_signer(state: &State, ttl: Duration) -> Result<Option<Signer>> {
    let (Some(key), Some(jwt)) = (&state.key_store, &state.jwt) else { return Ok(None) };
    let roles = ["USER".to_owned()];
    Signer::open(key, &Claims { issuer: &jwt.issuer, audience: &jwt.audience, roles: &roles, ttl }).map(Some)
}

fn write(signer: &Signer, users: &[u64], args: &Args) -> Result<()> {
    let mut file = Writer::create(&args.out)?;
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = args.threads.unwrap_or(cores).clamp(1, 256);
    let bar = terminal::bar(
        users.len() as u64,
        "signing {wide_bar} {human_pos}/{human_len} {per_sec} {eta}",
        false,
    );
    let next = AtomicUsize::new(0);
    let chunks: Vec<&[u64]> = users.chunks(CHUNK).collect();
    thread::scope(|scope| {
        // Bounded: when the disk is slow the signers wait.
        let (sender, receiver) = mpsc::sync_channel::<(usize, Vec<u8>)>(threads * 4);
        for _ in 0..threads {
            let (sender, next, chunks) = (sender.clone(), &next, &chunks);
            scope.spawn(move || {
                let mut random = rand::rng();
                while let Some(chunk) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut lines = Vec::with_capacity(chunk.len() * 448);
                    for &user in *chunk {
                        signer.line(user, &mut random, &mut lines);
                    }
                    if sender.send((chunk.len(), lines)).is_err() {
                        return; // the writer gave up
                    }
                }
            });
        }
        drop(sender);
        for (count, lines) in receiver {
            file.write(&lines)?;
            bar.inc(count as u64);
        }
        Ok::<_, anyhow::Error>(())
    })?;
    bar.finish_and_clear();
    file.finish()
}
