//! Our own processes.

use std::time::Duration;

use anyhow::Result;

use super::redis::forget_definition;
use crate::chaos::site::Site;
use crate::supervisor::Child;

pub(super) const CONSUMER: &str = "issue-consumer";
pub(super) const ISSUE_SERVICE: &str = "issue-service";
const ROWS: &str = "firstcome_sink_rows_total";
const FROZEN: Duration = Duration::from_secs(5);
/// The same as a bound of the histogram of requests: those that were under way before have taken more.
pub(super) const FROZEN_BOUND: &str = "5";
/// Into the sale, until it shows who writes the coupon's rows.
const BEGUN: Duration = Duration::from_secs(1);
/// Longer than `consumer.session-timeout`, so that others get the partitions and write them.
const ZOMBIE: Duration = Duration::from_secs(10);
const COUPON_SERVICE_AWAY: Duration = Duration::from_secs(10);

/// A plain `kill -9` of one instance.
pub(crate) fn issue_service_kill(site: &mut Site<'_>) -> Result<()> {
    let instance = site.any(ISSUE_SERVICE)?;
    site.moment()?;
    site.kill(&instance)?;
    site.back(&instance)?;
    site.lift()?;
    died(site, &instance, ISSUE_SERVICE)
}

/// An instance says that it is another process, and the gateway that requests broke off or found nobody.
pub(super) fn died(site: &mut Site<'_>, instance: &Child, service: &str) -> Result<()> {
    site.anew_sign(instance)?;
    let counter = format!("firstcome_gateway_upstream_failures_total{{upstream=\"{service}\"}}");
    site.counter_sign("gateway", &counter)
}

pub(crate) fn issue_service_stop(site: &mut Site<'_>) -> Result<()> {
    let instance = site.any(ISSUE_SERVICE)?;
    site.moment()?;
    let frozen = site.freeze(&instance)?;
    site.rest(FROZEN)?;
    drop(frozen);
    site.lift()?;
    site.slow_sign(&instance, FROZEN_BOUND)
}

/// The one that writes this coupon's rows dies when it reaches a point.
pub(crate) fn consumer_kill(site: &mut Site<'_>, point: &str) -> Result<()> {
    site.rest(BEGUN)?;
    let writer = site.busiest(CONSUMER, ROWS)?;
    let pid = writer.pid()?;
    // No claim is ever under way in a consumer.
    site.at(&writer, point, "kill", 0)?;
    writer.wait_gone(pid)?;
    site.back(&writer)?;
    site.lift()?;
    site.sign("rows were written after its death", |site| site.grown(CONSUMER, ROWS) > 0)
}

/// The writer stands still until its partitions are written by others, and then goes on where it was.
pub(crate) fn consumer_zombie(site: &mut Site<'_>) -> Result<()> {
    site.rest(BEGUN)?;
    let writer = site.busiest(CONSUMER, ROWS)?;
    let name = writer.spec.name.clone();
    site.moment()?;
    let frozen = site.freeze(&writer)?;
    site.rest(ZOMBIE)?;
    let others = site.grown_each(CONSUMER, ROWS).into_iter().filter(|(other, _)| *other != name);
    let others: u64 = others.map(|(_, rows)| rows).sum();
    drop(frozen);
    site.lift()?;
    site.sign(&format!("others wrote {others} rows meanwhile"), |_| others > 0)
}

pub(crate) fn gateway_kill(site: &mut Site<'_>) -> Result<()> {
    let gateway = site.child("gateway")?;
    site.moment()?;
    site.kill(&gateway)?;
    site.back(&gateway)?;
    site.lift()?;
    site.anew_sign(&gateway)
}

/// The coupon service is gone, the cached definition too, and an instance of the issue service starts anew without
/// either.
pub(crate) fn coupon_service_away(site: &mut Site<'_>) -> Result<()> {
    let coupons = site.child("coupon-service")?;
    let instance = site.any(ISSUE_SERVICE)?;
    let url = format!("{}/coupons/{}", site.stage.gateway, site.coupon);
    site.moment()?;
    let held = site.kill_and_hold(&coupons)?;
    forget_definition(site)?;
    let stack = &site.stage.stack;
    stack.supervisor.restart(&instance, Duration::from_secs(10), &stack.interrupt)?;
    // Somebody has to miss it.
    site.stage.client.get(&url)?;
    site.rest(COUPON_SERVICE_AWAY)?;
    drop(held);
    site.back(&coupons)?;
    site.lift()?;
    died(site, &coupons, "coupon-service")
}
