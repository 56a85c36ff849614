//! The database.

use std::time::Duration;

use anyhow::Result;

use crate::chaos::site::Site;
use crate::proxy::{Effect, Source, Way};

const CONSUMER: &str = "issue-consumer";
const ROWS: &str = "firstcome_sink_rows_total";
const ERRORS: &str = "firstcome_sink_database_errors_total";
/// Answers of the server are held back for so long that every writing consumer is in the middle of a transaction.
const CAUGHT: Duration = Duration::from_millis(200);
const FROZEN: Duration = Duration::from_secs(10);
/// Of the frozen time, that in which rows are watched.
const WATCHED: Duration = Duration::from_secs(3);

pub(crate) fn kill(site: &mut Site<'_>) -> Result<()> {
    let server = site.stage.stack.database()?;
    site.moment()?;
    let held =
        site.stage.stack.proxies.of("mysql")?.impose(Source::Everybody, Way::FromServer, Effect::BlackHole);
    site.rest(CAUGHT)?;
    site.kill(&server)?;
    drop(held);
    site.back(&server)?;
    site.lift()?;
    site.counter_sign(CONSUMER, ERRORS)
}

pub(crate) fn stop(site: &mut Site<'_>) -> Result<()> {
    let server = site.stage.stack.database()?;
    site.moment()?;
    let frozen = site.freeze(&server)?;
    // What was on its way is counted before.
    site.rest(Duration::from_secs(1))?;
    let before = (site.grown(CONSUMER, ROWS), site.live.outcome("ISSUED"));
    site.rest(WATCHED)?;
    let after = (site.grown(CONSUMER, ROWS), site.live.outcome("ISSUED"));
    site.rest(FROZEN.saturating_sub(WATCHED + Duration::from_secs(1)))?;
    drop(frozen);
    site.lift()?;
    let (rows, issued) = (after.0 - before.0, after.1.saturating_sub(before.1));
    site.sign(&format!("{issued} were told ISSUED while {rows} rows were written"), |_| {
        rows == 0 && issued > 0
    })
}
