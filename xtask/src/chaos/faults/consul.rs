//! Discovery.

use std::time::Duration;

use anyhow::Result;

use crate::chaos::site::Site;

const AWAY: Duration = Duration::from_secs(30);

/// It dies, and comes back with an empty catalogue.
pub(crate) fn away(site: &mut Site<'_>) -> Result<()> {
    let agent = site.child("consul")?;
    site.moment()?;
    let held = site.kill_and_hold(&agent)?;
    site.rest(AWAY)?;
    drop(held);
    site.back(&agent)?;
    site.lift()?;
    site.counter_sign("gateway", "firstcome_discovery_failures_total")
}
