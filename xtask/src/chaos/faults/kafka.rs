//! The broker, or one of three.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::chaos::site::Site;
use crate::ports::listens;
use crate::servers::kafka::{metadata, named, of_run};

/// Without heartbeats for 9 s a broker is taken for dead, and what it led is led by others.
const ELECTION: Duration = Duration::from_secs(30);
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

/// The one that leads the coupon's partition dies, and is kept away until another one leads it.
pub(crate) fn one_of_three_kill(site: &mut Site<'_>) -> Result<()> {
    let old = leader(site)?;
    let broker = site.child(old)?;
    site.moment()?;
    let held = site.kill_and_hold(&broker)?;
    let new = site.wait_for("another broker leads the partition", ELECTION, |site| {
        leader(site).ok().filter(|leader| *leader != old)
    })?;
    drop(held);
    site.back(&broker)?;
    site.lift()?;
    site.signs.push((format!("{new} took over from {old}"), true));
    site.counter_sign(OUT_OF_TIME.0, OUT_OF_TIME.1)
}

/// The broker that leads the coupon's partition, as any of those says that live.
fn leader(site: &Site<'_>) -> Result<&'static str> {
    let stack = &site.stage.stack;
    let mut brokers = of_run(&stack.ports).into_iter();
    let known = brokers.find_map(|broker| metadata::ask(listens(&stack.ports, broker)).ok());
    let mut partitions = known.context("no broker answers")?.partitions;
    let topic = stack.state().kafka.topic;
    partitions.retain(|it| it.topic == topic);
    let partition = partition_of(site.coupon, u64::try_from(partitions.len())?);
    let partition = partitions.iter().find(|it| u64::try_from(it.index) == Ok(partition));
    let leader = partition.with_context(|| format!("{topic} lacks the coupon's partition"))?.leader;
    named(leader).context("nobody leads the coupon's partition")
}

/// FNV-1a of the coupon's id, as the services have it.
fn partition_of(coupon: u64, partitions: u64) -> u64 {
    let hash = coupon.to_be_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash % partitions.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_those_of_the_services() {
        let partitions: Vec<u64> = (1..=8).map(|coupon| partition_of(coupon, 8)).collect();
        assert_eq!(partitions, [2, 7, 4, 1, 6, 3, 0, 5]);
    }
}
