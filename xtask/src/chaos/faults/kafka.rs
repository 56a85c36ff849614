//! The broker.

use std::time::Duration;

use anyhow::Result;

use crate::chaos::site::Site;

const FROZEN: Duration = Duration::from_secs(5);
/// Claims whose two seconds were over before they were decided.
const OUT_OF_TIME: (&str, &str) = ("issue-service", "firstcome_claims_out_of_time_total");

pub(crate) fn kill(site: &mut Site<'_>) -> Result<()> {
    let broker = site.child("kafka")?;
    site.moment()?;
    site.kill(&broker)?;
    site.back(&broker)?;
    site.lift()?;
    site.counter_sign(OUT_OF_TIME.0, OUT_OF_TIME.1)
}

pub(crate) fn stop(site: &mut Site<'_>) -> Result<()> {
    let broker = site.child("kafka")?;
    site.moment()?;
    let frozen = site.freeze(&broker)?;
    site.rest(FROZEN)?;
    drop(frozen);
    site.lift()?;
    site.counter_sign(OUT_OF_TIME.0, OUT_OF_TIME.1)
}
