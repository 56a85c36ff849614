//! Negative controls: a sale without any fault is found right, and with one promise broken by hand it is found broken. A
//! check that never fails proves nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::crowd::Shape;
use super::record::Heard;
use super::sale::Sale;
use super::site::Expected;
use super::stage::Stage;
use crate::progress::Step;

/// What has to be found.
const LOST: &str = "told ISSUED and without a row: 1";
const SECONDS: u64 = 3;
/// Nobody is behind; a check that fails waits for all of it.
const PATIENCE: &str = "5s";
const RESTART: Duration = Duration::from_secs(10);
const ROWS: &str = "firstcome_issues.coupon_issues";
/// Where the deleted row is kept.
const KEPT: &str = "firstcome_issues.chaos_control";

/// A fault that was put in by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Control {
    pub(crate) what: String,
    pub(crate) found: bool,
}

/// Breaks a promise in two ways, each alone, and leaves everything as it was.
pub(crate) fn run(stage: &Stage, step: &Step) -> Result<Vec<Control>> {
    let folder = stage.rounds.join("control");
    step.say("a sale without a fault");
    let mut sale = Sale::open(stage, Shape { rate: stage.rate, seconds: SECONDS }, &folder, "control")?;
    sale.claim(|_| Ok(()))?;
    let settled = sale.ask_again()?;
    right(&sale, settled.err()).context("a sale without a fault does not add up")?;

    step.say("a user is told ISSUED without a row");
    let forged = forge(&folder, sale.coupon)?;
    let receipt = found(&sale, &[forged])?;

    step.say("a row is deleted");
    let winner = sale.record()?.attempts.into_iter().find(|it| it.heard == Heard::Issued);
    let winner = winner.context("nobody was told ISSUED")?.user;
    let row = format!("coupon_id = {} AND user_id = {winner}", sale.coupon);
    at_restart(
        stage,
        &[
            format!("CREATE TABLE {KEPT} LIKE {ROWS};"),
            format!("INSERT INTO {KEPT} SELECT * FROM {ROWS} WHERE {row};"),
            format!("DELETE FROM {ROWS} WHERE {row};"),
        ],
    )?;
    let deleted = found(&sale, &[]);
    // Whatever was found: without the row nothing could start any more.
    at_restart(stage, &[format!("INSERT INTO {ROWS} SELECT * FROM {KEPT};"), format!("DROP TABLE {KEPT};")])?;
    // A consumer that happened to load its partition meanwhile has found that a row is missing, and stopped.
    for consumer in stage.stack.supervisor.find("issue-consumer")? {
        stage.stack.supervisor.restart(&consumer, RESTART, &stage.stack.interrupt)?;
    }
    let deleted = deleted?;
    right(&sale, None).context("the row was not put back")?;
    fs::remove_dir_all(&folder)?;
    let control = |what: &str, found| Control { what: what.to_owned(), found };
    Ok(vec![control("a user is told ISSUED without a row", receipt), control("a row is deleted", deleted)])
}

fn right(sale: &Sale<'_>, unsettled: Option<String>) -> Result<()> {
    let broken = sale.judge(Expected::All, &[], "60s", &[])?.broken;
    match broken.into_iter().chain(unsettled).next() {
        Some(what) => bail!("{what}"),
        None => Ok(()),
    }
}

fn found(sale: &Sale<'_>, more: &[PathBuf]) -> Result<bool> {
    Ok(sale.judge(Expected::All, more, PATIENCE, &[])?.broken.iter().any(|what| what == LOST))
}

/// The record of somebody who never asked and was told ISSUED.
fn forge(folder: &Path, coupon: u64) -> Result<PathBuf> {
    let path = folder.join("forged.ndjson");
    let record = format!(
        "{{\"run\":\"forged\",\"coupon\":{coupon},\"target\":\"\",\"at\":1}}\n\
         {{\"attempt\":0,\"user\":1,\"at\":1}}\n\
         {{\"answer\":0,\"at\":2,\"status\":200,\"outcome\":\"ISSUED\",\"issueId\":\"forged\"}}\n"
    );
    fs::write(&path, record)?;
    Ok(path)
}

/// Lets the database go back to where nothing of the log had been written: consumers write it all again.
pub(crate) fn empty_index(stage: &Stage) -> Result<()> {
    let tables = ["coupon_issues", "issue_coupons", "ledger_digests", "ledger_watermarks"];
    at_restart(stage, &tables.map(|table| format!("TRUNCATE TABLE firstcome_issues.{table};")))
}

/// Has the database execute statements, by way of a restart: so it takes no client of it.
fn at_restart(stage: &Stage, statements: &[String]) -> Result<()> {
    let stack = &stage.stack;
    stack.at_database_start(statements)?;
    let restarted = stack.supervisor.restart(&stack.database()?, RESTART, &stack.interrupt);
    // Once only.
    stack.at_database_start(&[])?;
    restarted
}
