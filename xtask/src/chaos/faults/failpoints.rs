//! An instance of the issue service dies, or stands still, exactly between two steps of a claim.

use std::time::Duration;

use anyhow::Result;

use super::services::{ISSUE_SERVICE, SLOW, got_no_good_answer};
use crate::chaos::site::Site;
use crate::first_coupon::unix_ms;
use crate::process::stands_still;

/// The service stands still for 5 s by itself; what waits is looked at before they are over.
const WATCHED: Duration = Duration::from_secs(4);
const STARTS_WITHIN: Duration = Duration::from_secs(1);
const ENDS_WITHIN: Duration = Duration::from_secs(5);
/// So many have to be under way in the instance. The other one has about as many, so there are more than count.
const CLAIMS: u32 = 40;

pub(crate) fn kill(site: &mut Site<'_>, point: &str) -> Result<()> {
    let instance = site.any(ISSUE_SERVICE)?;
    let pid = instance.pid()?;
    let before = got_no_good_answer(site);
    site.at(&instance, point, "kill", CLAIMS)?;
    instance.wait_gone(pid)?;
    site.back(&instance)?;
    site.lift()?;
    site.sign("claims in its hands got no good answer", |site| got_no_good_answer(site) > before)
}

pub(crate) fn stop(site: &mut Site<'_>, point: &str) -> Result<()> {
    let instance = site.any(ISSUE_SERVICE)?;
    let pid = instance.pid()?;
    site.at(&instance, point, "stop", CLAIMS)?;
    site.wait_for("it stands still", STARTS_WITHIN, |_| stands_still(pid).then_some(()))?;
    site.rest(WATCHED)?;
    let waiting = site.live.waiting_since(unix_ms()? - u64::try_from(SLOW.as_millis())?);
    site.wait_for("it goes on", ENDS_WITHIN, |_| (!stands_still(pid)).then_some(()))?;
    site.lift()?;
    site.sign(&format!("{waiting} claims have waited more than {} s", SLOW.as_secs()), |_| waiting > 0)
}
