//! Redis and its Sentinels.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::chaos::site::Site;
use crate::ports::listens;
use crate::proxy::{Effect, Imposed, Source, Way};
use crate::secrets;
use crate::servers::redis::{NODES, SENTINELS};
use crate::servers::resp::{Connection, Value};
use crate::supervisor::Held;

const ISSUE_SERVICE: &str = "issue-service";
/// Users whom a late or missing doorman let pass without an answer.
const AWAY: &str = "firstcome_doorman_away_total";
/// Sentinels call a master down after a second, and need about another to elect and promote.
const PROMOTION: Duration = Duration::from_secs(15);
const FROZEN: Duration = Duration::from_secs(5);
const SPLIT: Duration = Duration::from_secs(5);
const AWAY_FOR: Duration = Duration::from_secs(60);
/// The issue service waits 100 ms for the doorman, and its supervisor 1 s for the master.
const LATE: Duration = Duration::from_millis(150);
const SLOW: Duration = Duration::from_secs(6);
/// Longer than Sentinels need to act, if there are enough of them.
const WITHOUT_MAJORITY: Duration = Duration::from_secs(6);

pub(crate) fn master_kill(site: &mut Site<'_>) -> Result<()> {
    let master = site.redis_master()?;
    let child = site.child(master)?;
    site.moment()?;
    site.kill(&child)?;
    promoted(site, master)?;
    site.lift()?;
    site.counter_sign(ISSUE_SERVICE, AWAY)
}

pub(crate) fn master_restart(site: &mut Site<'_>) -> Result<()> {
    let master = site.redis_master()?;
    let child = site.child(master)?;
    site.moment()?;
    let held = site.kill_and_hold(&child)?;
    drop(held);
    site.back(&child)?;
    site.lift()?;
    let kept = site.redis_master()? == master;
    site.sign(&format!("{master} is back as the master"), |_| kept)?;
    site.counter_sign(ISSUE_SERVICE, AWAY)
}

pub(crate) fn master_stop(site: &mut Site<'_>) -> Result<()> {
    let master = site.redis_master()?;
    let child = site.child(master)?;
    site.moment()?;
    let frozen = site.freeze(&child)?;
    site.rest(FROZEN)?;
    drop(frozen);
    site.lift()?;
    site.counter_sign(ISSUE_SERVICE, AWAY)
}

/// The old master and one instance of the issue service on one side; replicas, Sentinels and everybody else on the
/// other, where a new master is promoted. Both admit users at the same time, then the old master's side comes back.
pub(crate) fn split_brain(site: &mut Site<'_>) -> Result<()> {
    let old = site.redis_master()?;
    let lonely = site.any(ISSUE_SERVICE)?.spec.name.clone();
    let all = site.stage.stack.supervisor.processes().into_iter().map(|(name, _)| name);
    let there: Vec<String> = all.filter(|name| *name != old && *name != lonely).collect();
    let here = vec![old.to_owned(), lonely];
    site.moment()?;
    let mut split = vec![hole(site, old, Source::These(there))?];
    for server in NODES.iter().chain(&SENTINELS).filter(|name| **name != old) {
        split.push(hole(site, server, Source::These(here.clone()))?);
    }
    let new = promoted(site, old)?;
    let before = [members(site, old)?, members(site, new)?];
    let admitted = |site: &Site<'_>| -> Result<[usize; 2]> {
        let after = [members(site, old)?, members(site, new)?];
        Ok([0, 1].map(|side| after[side].difference(&before[side]).count()))
    };
    site.rest(SPLIT)?;
    // On a slow machine the other side may not have found its new master yet.
    let both = site.wait_for("both admit users", SPLIT, |site| {
        admitted(site).ok().filter(|admitted| !admitted.contains(&0))
    });
    let [ours, theirs] = both.or_else(|_| admitted(site))?;
    let masters = [is_master(site, old)?, is_master(site, new)?];
    drop(split);
    site.lift()?;
    site.sign("both were masters at the same time", |_| masters == [true, true])?;
    site.sign(&format!("both admitted users meanwhile: {old} {ours}, {new} {theirs}"), |_| {
        ours > 0 && theirs > 0
    })
}

/// All nodes die at once and come back with nothing.
pub(crate) fn wiped(site: &mut Site<'_>) -> Result<()> {
    let children = NODES.map(|node| site.child(node));
    site.moment()?;
    let held =
        children.into_iter().map(|child| site.kill_and_hold(&child?)).collect::<Result<Vec<Held>>>()?;
    for node in NODES {
        let data = site.stage.stack.folder.data().join(node);
        for entry in fs::read_dir(&data).with_context(|| format!("read {}", data.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                fs::remove_dir_all(&path)?;
            } else if path.extension().is_some_and(|it| it == "rdb" || it == "aof") {
                fs::remove_file(&path)?;
            }
        }
    }
    drop(held);
    for node in NODES {
        let node = site.child(node)?;
        site.back(&node)?;
    }
    site.lift()?;
    site.counter_sign(ISSUE_SERVICE, AWAY)
}

/// No byte gets to any node or from it.
pub(crate) fn away(site: &mut Site<'_>) -> Result<()> {
    site.moment()?;
    let holes = NODES.map(|node| hole(site, node, Source::Everybody));
    let holes = holes.into_iter().collect::<Result<Vec<Imposed>>>()?;
    site.rest(AWAY_FOR)?;
    drop(holes);
    site.lift()?;
    site.counter_sign(ISSUE_SERVICE, AWAY)
}

/// It lives and answers, but later than anybody waits for.
pub(crate) fn slow(site: &mut Site<'_>) -> Result<()> {
    site.moment()?;
    let late = Effect::Delay(LATE);
    let slow = |node| Ok(site.stage.stack.proxies.of(node)?.impose(Source::Everybody, Way::FromServer, late));
    let slow = NODES.into_iter().map(slow).collect::<Result<Vec<Imposed>>>()?;
    site.rest(SLOW)?;
    drop(slow);
    site.lift()?;
    site.counter_sign(ISSUE_SERVICE, AWAY)
}

/// The master dies when one Sentinel is left, which may promote nobody; then the others come back.
pub(crate) fn sentinel_majority_lost(site: &mut Site<'_>) -> Result<()> {
    let old = site.redis_master()?;
    let master = site.child(old)?;
    let gone = [site.child(SENTINELS[0])?, site.child(SENTINELS[1])?];
    site.moment()?;
    let sentinels = gone.iter().map(|child| site.kill_and_hold(child)).collect::<Result<Vec<Held>>>()?;
    let held = site.kill_and_hold(&master)?;
    site.rest(WITHOUT_MAJORITY)?;
    let still = site.redis_master()? == old;
    drop(sentinels);
    promoted(site, old)?;
    drop(held);
    site.lift()?;
    site.sign("nobody was promoted without a majority", |_| still)?;
    site.counter_sign(ISSUE_SERVICE, AWAY)
}

fn promoted(site: &Site<'_>, old: &str) -> Result<&'static str> {
    site.wait_for("another master is promoted", PROMOTION, |site| {
        let new = site.redis_master().ok().filter(|new| *new != old)?;
        is_master(site, new).ok()?.then_some(new)
    })
}

pub(super) fn hole(site: &Site<'_>, server: &str, from: Source) -> Result<Imposed> {
    Ok(site.stage.stack.proxies.of(server)?.impose(from, Way::Both, Effect::BlackHole))
}

/// A connection of this tool's own, past the proxies.
fn connection(site: &Site<'_>, node: &str) -> Result<Connection> {
    let stack = &site.stage.stack;
    let password = secrets::read(&stack.folder, secrets::REDIS)?;
    Connection::open(listens(&stack.ports, node), Some(&password)).with_context(|| node.to_owned())
}

fn is_master(site: &Site<'_>, node: &str) -> Result<bool> {
    let role = connection(site, node)?.ask(&["ROLE"])?;
    Ok(matches!(role, Value::List(parts) if parts.first().is_some_and(|role| role.text() == "master")))
}

/// The coupon's users, as this node has them.
fn members(site: &Site<'_>, node: &str) -> Result<BTreeSet<String>> {
    let key = format!("coupon:{{{}}}:users", site.coupon);
    match connection(site, node)?.ask(&["SMEMBERS", &key])? {
        Value::List(users) => Ok(users.iter().map(|user| user.text().to_owned()).collect()),
        _ => Ok(BTreeSet::new()),
    }
}

/// Lets the coupon's cached definition be forgotten.
pub(super) fn forget_definition(site: &Site<'_>) -> Result<()> {
    let key = format!("coupon:{{{}}}:info", site.coupon);
    connection(site, site.redis_master()?)?.ask(&["DEL", &key])?;
    Ok(())
}
