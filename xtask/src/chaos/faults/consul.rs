//! Discovery.

use std::time::Duration;

use anyhow::Result;

use crate::chaos::site::Site;

const AWAY: Duration = Duration::from_secs(30);

/// It dies, and comes back with an empty catalogue.
pub(crate) fn away(site: &mut Site<'_>) -> Result<()> {
    let agent = site.child("consul")?;
    let links = site.stage.stack.proxies.of("consul")?.clone();
    let before = links.broken();
    site.moment()?;
    let held = site.kill_and_hold(&agent)?;
    site.rest(AWAY)?;
    drop(held);
    site.back(&agent)?;
    site.lift()?;
    let broken = links.broken() - before;
    site.sign(&format!("{broken} links and calls to it failed"), |_| broken > 0)
}
