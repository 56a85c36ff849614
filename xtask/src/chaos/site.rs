//! Where a fault strikes: the moment, what can be broken, and whether it was felt.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::failpoint::Armed;
use super::live::Live;
use super::metrics::Metrics;
use super::random::Random;
use super::sale::Sale;
use super::stage::Stage;
use crate::first_coupon::unix_ms;
use crate::servers::redis;
use crate::supervisor::{Child, Frozen, Held};

/// A fault counts only with as many claims in flight. A few more are waited for, as what is seen of them is a
/// millisecond old.
pub(crate) const IN_FLIGHT: u64 = 50;
const IN_FLIGHT_SEEN: usize = 70;
/// So many milliseconds a crowd may take to come.
const COMING: usize = 5;
/// Into the sale, before a fault strikes; up to a second more by chance.
const SALE_FIRST: Duration = Duration::from_secs(3);
/// For so many claims to be in flight. Without them the round does not count.
const CROWD_PATIENCE: Duration = Duration::from_secs(3);
/// For the signs of a fault.
const FELT_WITHIN: Duration = Duration::from_secs(15);
/// For a point to be reached with enough claims under way.
const REACHED_WITHIN: Duration = Duration::from_secs(3);
/// A coupon can't be changed while the coupon service, its database or the gateway is away.
const CHANGED_WITHIN: Duration = Duration::from_secs(60);
const SIGNS_EVERY: Duration = Duration::from_millis(250);
const ASK_EVERY: Duration = Duration::from_millis(20);

/// What the audit has to find at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// The stock that was made, all of it issued.
    All,
    /// Another stock is in force, all of it issued.
    Stock(u64),
    /// Nobody wins any more.
    Shut,
}

pub(crate) struct Site<'a> {
    pub(crate) stage: &'a Stage,
    pub(crate) live: &'a Live,
    pub(crate) sale: &'a Sale<'a>,
    pub(crate) coupon: u64,
    pub(crate) stock: u64,
    pub(crate) random: Random,
    /// Nothing else strikes in this sale.
    pub(crate) alone: bool,
    /// What it waits before the moment, for what strikes with it.
    pub(crate) lead: Duration,
    pub(crate) expected: Expected,
    /// Unix milliseconds.
    pub(crate) struck: Option<u64>,
    pub(crate) lifted: Option<u64>,
    /// Each sign that was looked for, and whether it was seen.
    pub(crate) signs: Vec<(String, bool)>,
    /// What had to come to be and did not.
    pub(crate) broken: Vec<String>,
    begun: Instant,
    /// When the round began, and just before the strike.
    at_begin: &'a Metrics,
    before: Metrics,
}

impl<'a> Site<'a> {
    pub(crate) fn new(
        stage: &'a Stage,
        live: &'a Live,
        sale: &'a Sale<'a>,
        random: Random,
        alone: bool,
    ) -> Self {
        Self {
            stage,
            live,
            sale,
            coupon: sale.coupon,
            stock: sale.stock,
            random,
            alone,
            lead: Duration::ZERO,
            expected: Expected::All,
            struck: None,
            lifted: None,
            signs: Vec::new(),
            broken: Vec::new(),
            begun: Instant::now(),
            at_begin: &sale.before,
            before: Metrics::default(),
        }
    }

    /// Comes in the middle of the sale, with many claims in flight: the next line is the fault.
    pub(crate) fn moment(&mut self) -> Result<()> {
        let chance = Duration::from_millis(self.random.below(1_000));
        let at = self.begun + self.lead + SALE_FIRST + chance;
        self.until(at)?;
        // Another fault of the same sale may have struck already.
        self.before = self.at_begin.newer(&self.stage.stack);
        let deadline = Instant::now() + CROWD_PATIENCE;
        let mut seen = VecDeque::from([usize::MAX; COMING]);
        while Instant::now() < deadline {
            let now = self.live.in_flight();
            // A crowd that has just come. Of the others some have their answers, which the load writes a little later.
            let before = seen.pop_front().unwrap_or(usize::MAX);
            if now >= before.saturating_add(IN_FLIGHT_SEEN) {
                break;
            }
            seen.push_back(now);
            self.stage.stack.interrupt.check()?;
            std::thread::sleep(Duration::from_millis(1));
        }
        self.struck = Some(unix_ms()?);
        Ok(())
    }

    /// Waits for the moment, and then until a claim has reached this point in that instance: it is dead or stands still.
    pub(crate) fn at(&mut self, instance: &Arc<Child>, point: &str, action: &str, claims: u32) -> Result<()> {
        self.moment()?;
        let file = self.stage.stack.folder.failpoint(&instance.spec.name);
        let armed = Armed::new(file, instance, point, action, claims)?;
        let what = format!("{} has reached {point}", instance.spec.name);
        self.struck = Some(self.wait_for(&what, REACHED_WITHIN, |_| armed.reached())?);
        self.signs.push((what, true));
        Ok(())
    }

    /// From here on nothing is broken any more.
    pub(crate) fn lift(&mut self) -> Result<()> {
        self.lifted = Some(unix_ms()?);
        Ok(())
    }

    fn until(&self, at: Instant) -> Result<()> {
        self.stage.stack.interrupt.wait_until(|| (Instant::now() >= at).then_some(()))
    }

    /// The fault goes on.
    pub(crate) fn rest(&self, duration: Duration) -> Result<()> {
        self.until(Instant::now() + duration)
    }

    /// Waits for what a fault must lead to; without it the fault was none.
    pub(crate) fn wait_for<T>(
        &self,
        what: &str,
        patience: Duration,
        mut done: impl FnMut(&Self) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(value) = done(self) {
                return Ok(value);
            }
            if Instant::now() > deadline {
                bail!("not within {} s: {what}", patience.as_secs());
            }
            self.rest(ASK_EVERY)?;
        }
    }

    /// Waits for what must come to be, whatever was broken: without it the round has broken a promise.
    pub(crate) fn promise<T>(
        &mut self,
        what: &str,
        patience: Duration,
        done: impl FnMut(&Self) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.wait_for(what, patience, done) {
            Ok(value) => Ok(Some(value)),
            Err(error) => {
                self.stage.stack.interrupt.check()?;
                self.broken.push(format!("{error:#}"));
                Ok(None)
            }
        }
    }

    /// Looks for a sign of the fault, and waits a little for it.
    pub(crate) fn sign(&mut self, what: &str, seen: impl Fn(&Self) -> bool) -> Result<()> {
        let deadline = Instant::now() + FELT_WITHIN;
        let mut found = seen(self);
        while !found && Instant::now() < deadline {
            self.rest(SIGNS_EVERY)?;
            found = seen(self);
        }
        self.signs.push((what.to_owned(), found));
        Ok(())
    }

    /// The sign that a counter of this group has grown since just before the strike.
    pub(crate) fn counter_sign(&mut self, group: &str, counter: &str) -> Result<()> {
        self.sign(&format!("{counter} rose in {group}"), |site| site.grown(group, counter) > 0)
    }

    /// The sign that a process is another one since the strike, by its own word.
    pub(crate) fn anew_sign(&mut self, child: &Child) -> Result<()> {
        let struck = self.struck.context("nothing has struck yet")?;
        let name = &child.spec.name;
        self.sign(&format!("{name} has begun after the strike, by its metrics"), |site| {
            Metrics::read(&site.stage.stack).began(name).is_some_and(|began| began > struck)
        })
    }

    /// The sign that requests which were under way in an instance took it longer than a bound of its histogram.
    pub(crate) fn slow_sign(&mut self, child: &Child, bound: &str) -> Result<()> {
        let spec = &child.spec;
        let what = format!("requests have taken {} more than {bound} s, by its metrics", spec.name);
        self.sign(&what, |site| {
            Metrics::read(&site.stage.stack).slower(&site.before, &spec.group, &spec.name, bound) > 0
        })
    }

    /// By how much a counter has grown since just before the strike.
    pub(crate) fn grown(&self, group: &str, counter: &str) -> u64 {
        Metrics::read(&self.stage.stack).grown(&self.before, group, counter)
    }

    /// The same for each instance.
    pub(crate) fn grown_each(&self, group: &str, counter: &str) -> Vec<(String, u64)> {
        Metrics::read(&self.stage.stack).by_instance(&self.before, group, counter).into_iter().collect()
    }

    /// The instance whose counter has grown most since the round began.
    pub(crate) fn busiest(&self, group: &str, counter: &str) -> Result<Arc<Child>> {
        let grown = Metrics::read(&self.stage.stack).by_instance(self.at_begin, group, counter);
        let busiest = grown.into_iter().max_by_key(|(_, by)| *by).filter(|(_, by)| *by > 0);
        let (name, _) = busiest.with_context(|| format!("{counter} did not grow in any {group}"))?;
        self.child(&name)
    }

    pub(crate) fn child(&self, name: &str) -> Result<Arc<Child>> {
        let found = self.stage.stack.supervisor.find(name)?;
        found.into_iter().next().with_context(|| format!("nothing is named {name}"))
    }

    /// One of a group, by chance.
    pub(crate) fn any(&mut self, group: &str) -> Result<Arc<Child>> {
        let found = self.stage.stack.supervisor.find(group)?;
        let index = self.random.below(found.len().try_into()?);
        found.get(usize::try_from(index)?).cloned().with_context(|| format!("nothing is named {group}"))
    }

    /// SIGKILL; it comes back as its supervisor has it.
    pub(crate) fn kill(&self, child: &Child) -> Result<()> {
        let pid = self.stage.stack.supervisor.kill(child)?;
        child.wait_gone(pid)
    }

    pub(crate) fn kill_and_hold(&self, child: &Arc<Child>) -> Result<Held> {
        self.stage.stack.supervisor.kill_and_hold(child)
    }

    pub(crate) fn freeze(&self, child: &Arc<Child>) -> Result<Frozen> {
        self.stage.stack.supervisor.freeze(child)
    }

    /// Waits until a child that was killed is ready again, as it must be.
    pub(crate) fn back(&mut self, child: &Child) -> Result<()> {
        let what = format!("{} is back", child.spec.name);
        self.promise(&what, Duration::from_secs(60), |_| child.status().ready.then_some(())).map(drop)
    }

    /// The master in the Sentinels' eyes.
    pub(crate) fn redis_master(&self) -> Result<&'static str> {
        redis::master(&self.stage.stack.ports).context("no Sentinel names a master")
    }

    /// Waits for the moment and changes the coupon; again, where what else strikes in this sale is in the way.
    pub(crate) fn change(&mut self, mut change: impl FnMut() -> Result<Value>) -> Result<()> {
        let url = format!("{}/coupons/{}", self.stage.gateway, self.coupon);
        // Before the moment: to log in takes a while.
        let token = self.stage.admin_token()?;
        self.moment()?;
        let mut once = || -> Result<()> {
            self.stage.client.patch(&url, &token, &change()?)?.expect(200, "change the coupon")?;
            Ok(())
        };
        if self.alone {
            return once();
        }
        self.wait_for("the coupon is changed", CHANGED_WITHIN, |_| once().ok())
    }
}
