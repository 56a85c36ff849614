//! What brings it to light that a guard is missing. The system with all its guards stands each of these.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::redis::hole;
use super::services::{CONSUMER, ISSUE_SERVICE};
use crate::chaos::control::empty_index;
use crate::chaos::site::{Expected, Site};
use crate::first_coupon::{now, rfc3339};
use crate::proxy::{Effect, Imposed, Source, Way};
use crate::servers::redis::NODES;

/// Less than the second after which claims are no longer sent to a log that says nothing.
const CUT: Duration = Duration::from_millis(800);
/// Each answer of the database: so a transaction takes a tenth of a second.
const LATE: Duration = Duration::from_millis(30);
/// Not every moment of a batch is the one between its two transactions.
const KILLS: u32 = 2;
const SOLD_OUT_WITHIN: Duration = Duration::from_secs(30);
/// For what is in flight when the first user hears that all is gone.
const QUIET: Duration = Duration::from_secs(2);
/// Of the users, in percent, those who come first and win.
const EARLY: std::ops::Range<usize> = 0..20;
/// Seconds from the change until nobody can claim any more.
const ENDS_IN: u64 = 2;
/// The retirement is written a minute after that, as the services are set for it, in a round that begins every 5 s.
const RETIRED: Duration = Duration::from_secs(75);
/// For one instance to hear of a new stock at once; the other would ask within a second.
const ANNOUNCED: Duration = Duration::from_millis(150);

/// Without its doorman each instance lets in as many as are left, so that with the last ones more are sent than win.
pub(crate) fn doorman_away_at_the_end(site: &mut Site<'_>) -> Result<()> {
    site.moment()?;
    let holes = NODES.map(|node| hole(site, node, Source::Everybody));
    let holes = holes.into_iter().collect::<Result<Vec<Imposed>>>()?;
    sold_out(site)?;
    drop(holes);
    site.lift()
}

/// An instance can't reach the log, and dies with what it holds.
pub(crate) fn log_cut_then_kill(site: &mut Site<'_>) -> Result<()> {
    let instance = site.any(ISSUE_SERVICE)?;
    let log = site.stage.stack.proxies.of("kafka")?.clone();
    site.moment()?;
    let cut = log.impose(Source::These(vec![instance.spec.name.clone()]), Way::Both, Effect::Cut);
    site.rest(CUT)?;
    site.kill(&instance)?;
    drop(cut);
    site.back(&instance)?;
    site.lift()
}

/// All is gone, and then more is to be had, of which an instance hears nothing.
pub(crate) fn deaf_to_new_stock(site: &mut Site<'_>) -> Result<()> {
    let instance = site.any(ISSUE_SERVICE)?.spec.name.clone();
    let coupons = site.child("coupon-service")?;
    let token = site.stage.admin_token()?;
    let url = format!("{}/coupons/{}", site.stage.gateway, site.coupon);
    let stock = site.stock * 11 / 10;
    site.expected = Expected::Stock(stock);
    site.moment()?;
    sold_out(site)?;
    site.rest(QUIET)?;
    let log = deaf(site, &instance)?;
    let here = || Source::These(vec![instance.clone()]);
    let announcements = NODES.map(|node| hole(site, node, here()));
    let announcements = announcements.into_iter().collect::<Result<Vec<Imposed>>>()?;
    site.stage.client.patch(&url, &token, &json!({"quantity": stock}))?.expect(200, "change the coupon")?;
    site.rest(ANNOUNCED)?;
    let held = site.kill_and_hold(&coupons)?;
    site.rest(QUIET)?;
    // Those who won what was added are among them.
    site.sale.ask_meanwhile(60..80)?;
    drop((log, announcements, held));
    site.back(&coupons)?;
    site.lift()
}

/// Batches take many times as long as usual, so that the database dies in the middle of one.
pub(crate) fn database_killed_in_a_batch(site: &mut Site<'_>) -> Result<()> {
    let server = site.stage.stack.database()?;
    let link = site.stage.stack.proxies.of("mysql")?.clone();
    site.moment()?;
    for _ in 0..KILLS {
        let more = Duration::from_millis(site.random.below(300));
        let late = link.impose(Source::Everybody, Way::FromServer, Effect::Delay(LATE));
        site.rest(LATE * 5 + more)?;
        site.kill(&server)?;
        drop(late);
        site.back(&server)?;
    }
    site.lift()
}

/// When everything is written and nothing more comes, the database goes back to where nothing was.
pub(crate) fn database_goes_back(site: &mut Site<'_>) -> Result<()> {
    site.moment()?;
    sold_out(site)?;
    site.rest(QUIET)?;
    empty_index(site.stage)?;
    site.lift()
}

/// Nothing breaks.
pub(crate) fn winners_ask_again(site: &mut Site<'_>) -> Result<()> {
    site.moment()?;
    sold_out(site)?;
    site.rest(QUIET)?;
    site.sale.ask_meanwhile(EARLY)?;
    site.lift()
}

/// No winner of the coupon is a row when it is over and retired.
pub(crate) fn retired_while_nobody_writes(site: &mut Site<'_>) -> Result<()> {
    let consumers = site.stage.stack.supervisor.find(CONSUMER)?;
    let held = consumers.iter().map(|consumer| site.kill_and_hold(consumer));
    let held = held.collect::<Result<Vec<_>>>()?;
    site.expected = Expected::Shut;
    site.change(|| Ok(json!({"endsAt": rfc3339(now()? + ENDS_IN)})))?;
    site.rest(RETIRED)?;
    site.sale.ask_meanwhile(EARLY)?;
    drop(held);
    for consumer in &consumers {
        site.back(consumer)?;
    }
    site.lift()
}

fn deaf(site: &Site<'_>, instance: &str) -> Result<Imposed> {
    let log = site.stage.stack.proxies.of("kafka")?;
    Ok(log.impose(Source::These(vec![instance.to_owned()]), Way::FromServer, Effect::BlackHole))
}

fn sold_out(site: &Site<'_>) -> Result<()> {
    site.wait_for("somebody hears that all is gone", SOLD_OUT_WITHIN, |site| {
        (site.live.outcome("SOLD_OUT") > 0).then_some(())
    })
}
