//! An instance of the issue service dies, or stands still, exactly between two steps of a claim.

use std::time::Duration;

use anyhow::Result;

use super::services::{FROZEN_BOUND, ISSUE_SERVICE, died};
use crate::chaos::site::Site;
use crate::process::stands_still;

const STARTS_WITHIN: Duration = Duration::from_secs(1);
/// The service stands still for 5 s by itself.
const ENDS_WITHIN: Duration = Duration::from_secs(9);
/// So many have to be under way in the instance. The other one has about as many, so there are more than count.
const CLAIMS: u32 = 40;

pub(crate) fn kill(site: &mut Site<'_>, point: &str) -> Result<()> {
    let instance = site.any(ISSUE_SERVICE)?;
    let pid = instance.pid()?;
    site.at(&instance, point, "kill", CLAIMS)?;
    instance.wait_gone(pid)?;
    site.back(&instance)?;
    site.lift()?;
    died(site, &instance, ISSUE_SERVICE)
}

pub(crate) fn stop(site: &mut Site<'_>, point: &str) -> Result<()> {
    let instance = site.any(ISSUE_SERVICE)?;
    let pid = instance.pid()?;
    site.at(&instance, point, "stop", CLAIMS)?;
    site.wait_for("it stands still", STARTS_WITHIN, |_| stands_still(pid).then_some(()))?;
    site.wait_for("it goes on", ENDS_WITHIN, |_| (!stands_still(pid)).then_some(()))?;
    site.lift()?;
    site.slow_sign(&instance, FROZEN_BOUND)
}
