//! The database fails over to its replica, which lacks what was committed last. The roles swap: what was the primary
//! begins again as the replica of what is one now.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::chaos::site::Site;
use crate::proxy::{Effect, Imposed, Source, Way};
use crate::stack::DATABASE;
use crate::supervisor::Child;

const CONSUMER: &str = "issue-consumer";
/// Partitions that were begun again at a watermark which was not where it had been left.
const RELOADS: &str = "firstcome_sink_reloads_total";
/// Into the sale, before the replica is cut off.
const BEFORE: Duration = Duration::from_millis(1_500);
/// For so long, at least, commits don't get to the replica.
const BEHIND: Duration = Duration::from_secs(1);
/// Answers are held back for so long that every writing consumer is in the middle of a transaction.
const CAUGHT: Duration = Duration::from_millis(200);
/// Longer than any claim waits for the next one while the load is on.
const QUIET: Duration = Duration::from_secs(3);
const SALE_OVER_WITHIN: Duration = Duration::from_secs(90);
/// For consumers to find the database again, to notice that it went back, and to write.
const WRITTEN_AGAIN_WITHIN: Duration = Duration::from_secs(30);

/// In the middle of the consumers' transactions.
pub(crate) fn busy(site: &mut Site<'_>) -> Result<()> {
    site.stage.stack.wait_in_step()?;
    site.rest(BEFORE)?;
    let cut = cut_off(site)?;
    site.rest(BEHIND)?;
    let committed = rows(site, &*site.stage.stack.database()?)?;
    site.moment()?;
    fail_over(site, committed, cut)
}

/// When nobody writes any more.
pub(crate) fn idle(site: &mut Site<'_>) -> Result<()> {
    site.stage.stack.wait_in_step()?;
    site.moment()?;
    let cut = cut_off(site)?;
    let mut busy = Instant::now();
    site.wait_for("the sale is over", SALE_OVER_WITHIN, |site| {
        if site.live.in_flight() > 0 {
            busy = Instant::now();
        }
        (busy.elapsed() > QUIET).then_some(())
    })?;
    let committed = rows(site, &*site.stage.stack.database()?)?;
    fail_over(site, committed, cut)
}

/// The replica is connected and hears nothing.
fn cut_off(site: &Site<'_>) -> Result<Imposed> {
    let stack = &site.stage.stack;
    let replica = Source::These(vec![stack.replica()?.spec.name.clone()]);
    Ok(stack.proxies.of(DATABASE)?.impose(replica, Way::Both, Effect::BlackHole))
}

fn fail_over(site: &mut Site<'_>, committed: u64, cut: Imposed) -> Result<()> {
    let stack = site.stage.stack.clone();
    let (old, new) = (stack.database()?, stack.replica()?);
    let silence = silence(site)?;
    let killed = site.kill_and_hold(&old)?;
    stack.promote_replica()?;
    let there = rows(site, &new)?;
    drop((silence, cut));
    site.lift()?;
    went_back(site, committed, there)?;
    written_again(site, &new, committed)?;
    stack.renew_replica(killed)?;
    site.back(&old)?;
    stack.wait_in_step()
}

/// From now on nobody hears of the database: neither of the old one, nor of what comes in its place.
pub(super) fn silence(site: &Site<'_>) -> Result<Imposed> {
    let proxy = site.stage.stack.proxies.of(DATABASE)?;
    let silence = proxy.impose(Source::Everybody, Way::FromServer, Effect::BlackHole);
    site.rest(CAUGHT)?;
    Ok(silence)
}

/// The coupon's rows, as this server has them.
pub(super) fn rows(site: &Site<'_>, server: &Child) -> Result<u64> {
    rows_of(site, server, site.coupon)
}

pub(super) fn rows_of(site: &Site<'_>, server: &Child, coupon: u64) -> Result<u64> {
    let question = format!("SELECT COUNT(*) FROM firstcome_issues.coupon_issues WHERE coupon_id = {coupon}");
    Ok(site.stage.stack.ask_database(server, &question)?.parse()?)
}

/// The signs of it.
pub(super) fn went_back(site: &mut Site<'_>, committed: u64, there: u64) -> Result<()> {
    let what = format!("{there} rows were there of {committed} that had been committed");
    site.sign(&what, |_| there < committed)?;
    site.counter_sign(CONSUMER, RELOADS)
}

/// Without anybody's asking, and before everybody asks once more.
pub(super) fn written_again(site: &mut Site<'_>, server: &Child, committed: u64) -> Result<()> {
    let what = format!("the {committed} rows that had been committed are there again");
    let again = |site: &Site<'_>| rows(site, server).ok().filter(|rows| *rows >= committed);
    site.promise(&what, WRITTEN_AGAIN_WITHIN, again).map(drop)
}
