//! An administrator changes the coupon in the middle of the sale. Nothing breaks; what is in force must be what was said.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use crate::chaos::site::{Expected, Site};
use crate::first_coupon::{now, rfc3339, unix_ms};

/// A change is in force within 2 s.
const IN_FORCE: Duration = Duration::from_secs(2);
/// For how long nobody can claim when the window is moved: whole seconds.
const LATER: u64 = 5;
/// What was decided may be this long on its way to the record, in milliseconds.
const ON_ITS_WAY: u64 = 300;

pub(crate) fn stock_raised(site: &mut Site<'_>) -> Result<()> {
    let stock = site.stock * 11 / 10;
    site.expected = Expected::Stock(stock);
    site.change(|| Ok(json!({"quantity": stock})))?;
    settle(site, "part of the stock was still to be had")
}

pub(crate) fn stock_lowered(site: &mut Site<'_>) -> Result<()> {
    let stock = site.stock * 9 / 10;
    site.expected = Expected::Stock(stock);
    site.change(|| Ok(json!({"quantity": stock})))?;
    settle(site, "more than the new stock was still to be had")
}

/// Some have it and keep it; nobody else gets one.
pub(crate) fn closed(site: &mut Site<'_>) -> Result<()> {
    site.expected = Expected::Shut;
    site.change(|| Ok(json!({"closed": true})))?;
    settle(site, "part of the stock was still to be had")?;
    nobody_wins(site, unix_ms()? + 2_000)
}

/// The sale stops, and begins again at its new time.
pub(crate) fn window_moved(site: &mut Site<'_>) -> Result<()> {
    let mut starts = 0;
    site.change(|| {
        starts = now()? + LATER;
        Ok(json!({"startsAt": rfc3339(starts)}))
    })?;
    site.rest(IN_FORCE)?;
    let starts = starts * 1_000;
    nobody_wins(site, starts.saturating_sub(ON_ITS_WAY))?;
    site.rest(Duration::from_millis(starts.saturating_sub(unix_ms()?)))?;
    site.lift()?;
    site.counter_sign("issue-service", "firstcome_claims_total{outcome=\"not_started\"}")
}

/// From now on until then, in unix milliseconds, nobody is told ISSUED. With another fault in the same sale the change may
/// be late, and then it is for the log to say who won in time.
fn nobody_wins(site: &mut Site<'_>, until: u64) -> Result<()> {
    if !site.alone {
        return Ok(());
    }
    site.rest(Duration::from_millis(ON_ITS_WAY))?;
    let before = site.live.outcome("ISSUED");
    site.rest(Duration::from_millis(until.saturating_sub(unix_ms()?)))?;
    let more = site.live.outcome("ISSUED") - before;
    if more > 0 {
        site.broken.push(format!("{more} were told ISSUED later than 2 s after the coupon was shut"));
    }
    Ok(())
}

/// The change counts only if it came before the sale was over.
fn settle(site: &mut Site<'_>, what: &str) -> Result<()> {
    let issued = site.live.outcome("ISSUED");
    let limit = match site.expected {
        Expected::Stock(stock) => stock.min(site.stock),
        Expected::All | Expected::Shut => site.stock,
    };
    site.rest(IN_FORCE)?;
    site.lift()?;
    site.sign(&format!("{what}: {issued} of {limit} were gone"), |_| issued < limit)
}
