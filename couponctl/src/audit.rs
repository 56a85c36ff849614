//! `audit`: does it add up? What was told is compared with what was written, kept and shown.
//!
//! Everything is read by this tool itself: rows from MySQL, the set from Redis, counts from the public API, and
//! promises from the load's own record. It fails when anything differs, and names whom it concerns.

mod again;
mod api;
mod checks;
mod doorman;
mod level;
mod record;
mod rows;
mod verdict;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use self::checks::Promises;
use self::doorman::{Redis, RedisArgs};
use self::record::Answers;
use self::rows::Rows;
use self::verdict::{Check, Report, Verdict};
use crate::load::target::Target;
use crate::servers::{Mysql, MysqlArgs};
use crate::state::{Kafka, State, StateArgs};
use crate::terminal;

const POLL: Duration = Duration::from_millis(250);

const EXAMPLES: &str = "\
Examples:
  # after a load, everything of the running stack
  couponctl audit --coupon 244019838763171 --answers claims.ndjson
  # claims came from elsewhere too, and the doorman lost an instance's claims
  couponctl audit --coupon 244019838763171 --answers claims.ndjson --partial \\
      --redis-may-differ --json
  # without a running stack's state
  couponctl audit --coupon 244019838763171 --mysql mysql://firstcome@127.0.0.1:3306 \\
      --mysql-password-file f --redis 127.0.0.1:6379 --api http://127.0.0.1:8080

It ends with 0 if everything that could be judged is right, else with 1.";

/// Check that every promise was kept: rows, ledger, Redis, API and the load's record against each other
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[arg(long, value_name = "ID")]
    coupon: u64,
    /// Records of answers that `load` wrote
    #[arg(long, value_name = "FILE", num_args = 1..)]
    answers: Vec<PathBuf>,
    #[command(flatten)]
    state: StateArgs,
    #[command(flatten)]
    mysql: MysqlArgs,
    /// Database of the issue service
    #[arg(long, value_name = "NAME", default_value = "firstcome_issues")]
    database: String,
    #[command(flatten)]
    redis: RedisArgs,
    /// The gateway instead of the stack's own: http://HOST:PORT
    #[arg(long, value_name = "URL")]
    api: Option<String>,
    /// Kafka instead of the stack's own, to know the log's end: HOST:PORT
    #[arg(long, value_name = "SERVERS")]
    kafka: Option<String>,
    /// The ledger's topic
    #[arg(long, value_name = "NAME")]
    topic: Option<String>,
    /// How long to wait for consumers, write-back and Redis to be level
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    wait: Duration,
    /// Without Kafka: rows that rested so long are taken as all
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = humantime::parse_duration)]
    rest: Duration,
    /// Token file of winners who ask again [default: short tokens signed with the stack's key]
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// How many winners ask again
    #[arg(long, value_name = "N", default_value_t = 100)]
    sample: usize,
    /// The record does not hold all claims: rows of users who are not in it are no fault
    #[arg(long)]
    partial: bool,
    /// The stock was changed since the first claim
    #[arg(long)]
    stock_changed: bool,
    /// A Redis set that differs is reported, not faulted
    #[arg(long)]
    redis_may_differ: bool,
    /// Permit a gateway that is not on this machine
    #[arg(long)]
    allow_remote: bool,
}

/// Where everything is.
struct Sources {
    mysql: Mysql,
    redis: Option<Redis>,
    api: Option<Target>,
    kafka: Option<Kafka>,
}

pub(crate) fn run(args: &Args, json: bool) -> Result<ExitCode> {
    let state = args.state.find()?;
    let api = args.api.as_ref().or(state.gateway.as_ref());
    let kafka = args.kafka.clone().map(|bootstrap_servers| Kafka { bootstrap_servers, topic: None });
    let mut kafka = kafka.or_else(|| state.kafka.clone());
    if let (Some(kafka), Some(topic)) = (&mut kafka, &args.topic) {
        kafka.topic = Some(topic.clone());
    }
    let sources = Sources {
        mysql: args.mysql.resolve(&state)?,
        redis: args.redis.resolve(&state)?,
        api: api.map(|url| Target::parse(url, args.allow_remote)).transpose()?,
        kafka,
    };
    let answers = Answers::read(&args.answers, args.coupon)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let report = runtime.block_on(audit(args, &state, &sources, &answers))?;
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        report.print();
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn audit(args: &Args, state: &State, sources: &Sources, answers: &Answers) -> Result<Report> {
    let until = Instant::now() + args.wait;
    let spinner = terminal::bar(0, "{elapsed} {msg}", false);
    spinner.set_message("waiting for the consumers");
    spinner.enable_steady_tick(POLL);
    let mut connection = sources.mysql.connect(&args.database).await?;
    let level = match &sources.kafka {
        Some(kafka) => level::by_log(kafka, &mut connection, until).await?,
        None => level::by_rest(&mut connection, args.coupon, args.rest, until).await?,
    };
    spinner.set_message("reading the rows");
    let rows = rows::read(&mut connection, args.coupon).await?;
    spinner.set_message("asking the coupon service");
    let shown = shown(sources.api.as_ref(), args.coupon, rows.rows.len() as u64, until).await;
    spinner.set_message("comparing with Redis");
    let set = set(sources.redis.as_ref(), args.coupon, &rows, until).await;
    spinner.set_message("winners ask again");
    let again = again::ask(args, state, sources.api.as_ref(), &rows.rows, answers).await?;
    spinner.finish_and_clear();

    let (compared, is_level) = match level {
        Ok(text) => (text, true),
        Err(text) => (text, false),
    };
    let mut list = vec![Check::new("L", "consumers are level with the log", compared, is_level)];
    let promises = Promises::new(args.coupon, answers, &rows.rows);
    if !args.answers.is_empty() {
        list.push(promises.told_have_rows());
        list.push(promises.receipts_are_right());
    }
    list.push(checks::within_stock(&rows));
    list.push(checks::once_each(&rows.rows));
    list.push(checks::places_in_line(&rows.rows));
    list.push(checks::counts_agree(&rows, shown.as_ref()));
    list.push(checks::doorman_agrees(&rows.rows, set.as_ref(), args.redis_may_differ));
    if !args.answers.is_empty() {
        list.push(promises.sold_out_means_empty(rows.definition, args.stock_changed));
        list.push(promises.rows_are_explained(args.partial));
        list.push(promises.answers_agree());
    }
    list.push(again);
    Ok(report(args.coupon, &rows, &promises, list))
}

fn report(coupon: u64, rows: &Rows, promises: &Promises<'_>, checks: Vec<Check>) -> Report {
    let answers = promises.answers;
    let unexplained =
        checks.iter().find(|check| check.id == "A").map_or(0, |check| check.offenders.len() as u64);
    let count = rows.rows.len() as u64;
    let stock = rows.definition.map(|definition| definition.stock);
    Report {
        coupon,
        ok: checks.iter().all(|check| check.verdict != Verdict::Failed),
        stock,
        rows: count,
        told_issued: answers.winners().count() as u64,
        lost: answers.winners().filter(|(user, _)| !promises.users.contains_key(user)).count() as u64,
        duplicates: count - promises.users.len() as u64,
        over_issued: count.saturating_sub(stock.unwrap_or(0)),
        unexplained,
        attempts: answers.attempts,
        pending: answers.pending,
        unknown: answers.unknown,
        checks,
    }
}

/// What the coupon service shows; the write-back may be a little behind.
async fn shown(
    target: Option<&Target>,
    coupon: u64,
    rows: u64,
    until: Instant,
) -> Option<Result<api::Coupon, String>> {
    let target = target?;
    loop {
        let coupon = api::coupon(target, coupon).await.map_err(|error| format!("{error:#}"));
        let level = coupon.as_ref().is_ok_and(|coupon| coupon.issued_quantity == rows);
        if level || Instant::now() >= until {
            return Some(coupon);
        }
        tokio::time::sleep(POLL).await;
    }
}

type Members = std::collections::HashSet<u64>;

/// The doorman's set; whoever brings it level may need a moment.
async fn set(
    redis: Option<&Redis>,
    coupon: u64,
    rows: &Rows,
    until: Instant,
) -> Option<Result<Option<Members>, String>> {
    let redis = redis?;
    loop {
        let set = redis.users(coupon).await.context("Redis").map_err(|error| format!("{error:#}"));
        let level = match &set {
            Ok(Some(set)) => {
                set.len() == rows.rows.len() && rows.rows.iter().all(|row| set.contains(&row.user))
            }
            Ok(None) => true,
            Err(_) => false,
        };
        if level || Instant::now() >= until {
            return Some(set);
        }
        tokio::time::sleep(POLL).await;
    }
}
