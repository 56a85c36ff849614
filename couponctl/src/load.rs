//! `load`: users from a token file claim a coupon; every attempt is written down before it is sent.
//!
//! Bounded in count and in time, and only against this machine unless told otherwise.

pub(crate) mod answers;
pub(crate) mod client;
mod display;
mod engine;
mod follow;
mod jtl;
pub(crate) mod outcome;
mod report;
mod response;
mod run;
mod shape;
mod tally;
pub(crate) mod target;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::sync::oneshot;

use self::display::Display;
use self::report::Report;
use self::run::{Run, Setup};
use self::shape::{Plan, Shape};
use self::tally::Tally;
use self::target::Target;
use crate::csv::Tokens;
use crate::state::StateArgs;

/// The route of a claim; answers of any other route are only good or bad.
const CLAIM_PATH: &str = "/coupon-issues";
const CLOSED_CONNECTIONS: usize = 64;
const OPEN_CONNECTIONS: usize = 512;

const EXAMPLES: &str = "\
Examples:
  # the reference shape: every user of the file claims once, arriving over 20 s
  couponctl load --gateway http://127.0.0.1:8080 --coupon 244019838763171 --tokens tokens.csv \\
      --ramp 20s --out claims.jtl --answers claims.ndjson
  # 750 arrivals a second, each user asking twice in parallel
  couponctl load --coupon 244019838763171 --tokens tokens.csv --rate 750 --duration 20s --repeat 2
  # the same rate, but a hundred of them at the same moment
  couponctl load --coupon 244019838763171 --tokens tokens.csv --rate 750 --duration 20s --burst 100
  # as fast as 256 connections go; each user's token used once
  couponctl load --coupon 244019838763171 --tokens tokens.csv --connections 256 --json
  # the same client on another route
  couponctl load --tokens tokens.csv --path /noop --requests 100000 --reuse-tokens

Latencies count from the moment at which a request was due, so a slow server cannot hide its queue.
`jmeter -g claims.jtl -o report` draws the dashboard.";

/// Let users claim a coupon, and record every answer
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The gateway, http://HOST:PORT; may be repeated for some side by side [default: the running stack's]
    #[arg(long = "gateway", value_name = "URL")]
    gateways: Vec<String>,
    #[command(flatten)]
    state: StateArgs,
    /// The coupon to claim
    #[arg(long, value_name = "ID", required_unless_present = "path")]
    coupon: Option<u64>,
    /// Token file (`user_id,token`)
    #[arg(long, value_name = "FILE")]
    tokens: PathBuf,
    /// Open arrivals: all users, evenly over this time
    #[arg(long, value_name = "TIME", value_parser = crate::clock::duration, conflicts_with = "rate")]
    ramp: Option<Duration>,
    /// How many users of the file [default: all]
    #[arg(long, value_name = "N", conflicts_with_all = ["rate", "requests"])]
    users: Option<u64>,
    /// Open arrivals: users a second, for --duration
    #[arg(long, value_name = "N", requires = "duration")]
    rate: Option<f64>,
    /// Open arrivals: this many at a time, at the same rate
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    burst: u64,
    /// How long to send (--rate, or the closed loop)
    #[arg(long, value_name = "TIME", value_parser = crate::clock::duration, conflicts_with = "ramp")]
    duration: Option<Duration>,
    /// Connections: of the closed loop [64], or at most with open arrivals [512]
    #[arg(long, value_name = "N")]
    connections: Option<usize>,
    /// Closed loop: users to ask for [default: all]
    #[arg(long, value_name = "N", conflicts_with_all = ["ramp", "rate"])]
    requests: Option<u64>,
    /// Each user asks this often in parallel
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100))]
    repeat: u64,
    /// Another route than that of claims; its answers are not judged
    #[arg(long, value_name = "PATH", value_parser = target::parse_path)]
    path: Option<String>,
    #[arg(long, default_value = "POST", value_parser = ["GET", "POST"])]
    method: String,
    /// Begin the file again when its users are used up
    #[arg(long)]
    reuse_tokens: bool,
    /// A connection of its own for every request, as that many browsers have
    #[arg(long)]
    new_connections: bool,
    /// JMeter result file (JTL, CSV) to write
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Record of attempts and answers (NDJSON) to write; `audit` reads it
    #[arg(long, value_name = "FILE", requires = "coupon")]
    answers: Option<PathBuf>,
    /// Ask the status API for up to this long what became of claims answered PENDING
    #[arg(long, value_name = "TIME", value_parser = crate::clock::duration, requires = "coupon")]
    follow_pending: Option<Duration>,
    /// An answer that takes longer counts as unknown
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = crate::clock::duration)]
    timeout: Duration,
    /// The run ends after this long in any case
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = crate::clock::duration)]
    max_time: Duration,
    /// Sending threads
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,
    /// Permit a gateway that is not on this machine
    #[arg(long)]
    allow_remote: bool,
    /// No live line
    #[arg(long, short)]
    quiet: bool,
}

pub(crate) fn run(args: &Args, json: bool) -> Result<ExitCode> {
    let state = args.state.find()?;
    let gateways = match (args.gateways.as_slice(), &state.gateway) {
        ([], Some(running)) => std::slice::from_ref(running),
        ([], None) => bail!("no gateway: give --gateway, or --state with a running stack's folder"),
        (given, _) => given,
    };
    let target = Target::parse_all(gateways, args.allow_remote)?;
    for gateway in &target.gateways {
        std::net::TcpStream::connect_timeout(gateway, Duration::from_secs(3))
            .with_context(|| format!("cannot reach the gateway at {gateway}"))?;
    }
    let run = Arc::new(set_up(args, target)?);
    let display = Display::start(&run, args.quiet);
    let result = drive(&run, args);
    display.finish();
    let (tally, stopped) = result?;
    let report = Report::new(&run.live, tally, run.elapsed(), args.follow_pending.is_some(), stopped);
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{}", report.table());
    }
    if let Some(code) = report.refused_alike() {
        eprintln!("error: every claim was refused with {code}: look at --coupon and at the token file");
        return Ok(ExitCode::FAILURE);
    }
    Ok(if report.answered() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn set_up(args: &Args, target: Target) -> Result<Run> {
    let (shape, users) = shape(args)?;
    let tokens = Tokens::read(&args.tokens, users)?;
    let users = users.unwrap_or(tokens.len());
    if tokens.len() == 0 {
        bail!("{} holds no tokens", args.tokens.display());
    }
    if users > tokens.len() && !args.reuse_tokens {
        let (file, there) = (args.tokens.display(), tokens.len());
        bail!(
            "{users} users are needed, {file} has {there}; a user's token is used once (or --reuse-tokens)"
        );
    }
    let claim = args.path.is_none() || args.path.as_deref() == Some(CLAIM_PATH);
    let path = args.path.as_deref().unwrap_or(CLAIM_PATH);
    let coupon = args.coupon.unwrap_or_default();
    let body = format!(r#"{{"couponId":{coupon}}}"#);
    let request = target.request(&args.method, path, (args.method == "POST").then_some(&body));
    let me = format!("{CLAIM_PATH}/{coupon}/me");
    let follow = args.follow_pending.map(|within| (within, target.request("GET", &me, None)));
    Run::new(Setup {
        target,
        request,
        path,
        claim,
        plan: Plan::new(shape, users, args.repeat, tokens.len()),
        tokens,
        timeout: args.timeout,
        fresh_connections: args.new_connections,
        answers: args.answers.as_deref().map(|file| (file, coupon)),
        out: args.out.as_deref(),
        follow,
    })
}

/// The shape and the number of users, `None` for all of the file.
fn shape(args: &Args) -> Result<(Shape, Option<u64>)> {
    let burst = args.burst;
    if let Some(over) = args.ramp {
        return Ok((Shape::Open { over, burst }, args.users));
    }
    if let (Some(rate), Some(over)) = (args.rate, args.duration) {
        let users = (rate * over.as_secs_f64()).round();
        if !(1.0..=1e9).contains(&users) {
            bail!("--rate {rate} for {} are no requests", humantime::format_duration(over));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the range was checked"
        )]
        return Ok((Shape::Open { over, burst }, Some(users as u64)));
    }
    if burst > 1 {
        bail!("--burst {burst} is for open arrivals: give --ramp, or --rate and --duration");
    }
    Ok((Shape::Closed { until: args.duration }, args.requests.or(args.users)))
}

/// Runs the load until its plan, a signal or the time ends it; true if not the plan did.
fn drive(run: &Arc<Run>, args: &Args) -> Result<(Tally, bool)> {
    let open = args.ramp.is_some() || args.rate.is_some();
    let most = if open { OPEN_CONNECTIONS } else { CLOSED_CONNECTIONS };
    let connections = args.connections.unwrap_or(most).clamp(1, 100_000);
    let threads = usize::from(args.threads);
    let (sender, mut result) = oneshot::channel();
    let load = {
        let run = Arc::clone(run);
        std::thread::Builder::new().name("load".to_owned()).spawn(move || {
            let _ = sender.send(engine::run(&run, threads, connections));
        })?
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = |result: Result<_, _>| result.unwrap_or_else(|_| Err(anyhow!("the load thread panicked")));
    let result = runtime.block_on(async {
        tokio::select! {
            result = &mut result => return ended(result).map(|tally| (tally, false)),
            _ = tokio::signal::ctrl_c() => {}
            () = tokio::time::sleep(args.max_time) => {}
        }
        // What is in flight may still be answered; a second signal does not wait for it.
        run.stop.cancel();
        tokio::select! {
            result = &mut result => ended(result).map(|tally| (tally, true)),
            _ = tokio::signal::ctrl_c() => bail!("interrupted; what was in flight is unknown"),
        }
    })?;
    let _ = load.join();
    Ok(result)
}
