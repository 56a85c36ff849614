//! An administrator changes the coupon in the middle of the sale. Nothing breaks; what is in force must be what was said.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use crate::chaos::site::{Expected, Site};
use crate::first_coupon::{now, rfc3339};

/// A change is in force within 2 s.
const IN_FORCE: Duration = Duration::from_secs(2);
/// For how long nobody can claim when the window is moved: whole seconds.
const LATER: u64 = 4;

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
    nobody_wins(site, Duration::from_secs(2))
}

/// The sale stops, and begins again at its new time.
pub(crate) fn window_moved(site: &mut Site<'_>) -> Result<()> {
    site.change(|| Ok(json!({"startsAt": rfc3339(now()? + LATER)})))?;
    let refused = |site: &Site<'_>| site.live.outcome("COUPON_NOT_STARTED");
    let before = refused(site);
    site.rest(IN_FORCE)?;
    // In whole seconds the start is 3 to 4 s away.
    nobody_wins(site, Duration::from_millis(500))?;
    site.rest(Duration::from_secs(LATER).saturating_sub(IN_FORCE + Duration::from_millis(500 + 300)))?;
    site.lift()?;
    site.sign("claims were refused as too early", |site| refused(site) > before)
}

/// From now on nobody is told ISSUED. What was decided just before may still be on its way to the record.
fn nobody_wins(site: &mut Site<'_>, time: Duration) -> Result<()> {
    const ON_ITS_WAY: Duration = Duration::from_millis(300);
    site.rest(ON_ITS_WAY)?;
    let before = site.live.outcome("ISSUED");
    site.rest(time)?;
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
