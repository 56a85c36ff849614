//! Links between healthy processes.

use std::time::Duration;

use anyhow::Result;

use crate::chaos::site::Site;
use crate::proxy::{Effect, Imposed, Proxy, Source, Way};

/// Each time, all links to all servers at once.
const CUTS: u32 = 5;
const CUT: Duration = Duration::from_millis(100);
const BETWEEN_CUTS: Duration = Duration::from_secs(1);

pub(crate) fn cut(site: &mut Site<'_>) -> Result<()> {
    let proxies = &site.stage.stack.proxies;
    let proxies: Vec<_> = proxies.all().cloned().collect();
    let broken = || proxies.iter().map(|proxy| proxy.broken()).sum::<u64>();
    let before = broken();
    site.moment()?;
    for _ in 0..CUTS {
        let cut = |proxy| Proxy::impose(proxy, Source::Everybody, Way::Both, Effect::Cut);
        let cuts: Vec<Imposed> = proxies.iter().map(cut).collect();
        site.rest(CUT)?;
        drop(cuts);
        site.rest(BETWEEN_CUTS)?;
    }
    site.lift()?;
    let broken = broken() - before;
    site.sign(&format!("{broken} links were cut"), |_| broken > 0)?;
    site.counter_sign("gateway", "firstcome_discovery_failures_total")
}
