//! One change after another while the load goes on, and what became of the requests of each step.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::Value;

use super::Scene;
use super::samples::{self, Sample, Sum};
use super::traffic::Traffic;
use crate::chaos::metrics::Metrics;
use crate::config_repository;
use crate::first_coupon::unix_ms;
use crate::services::{self, GATEWAY};

/// Before the first step, to compare with.
const QUIET: Duration = Duration::from_secs(5);
/// Between two instances, and after a step.
const BETWEEN: Duration = Duration::from_secs(2);
/// For what was changed to take effect everywhere.
const TAKEN_UP_WITHIN: Duration = Duration::from_secs(15);
/// Requests that the gateway sent once more, to another instance.
const RETRIES: &str = "firstcome_gateway_retries_total";
const HEADER: &str = "x-rolling";

/// All steps.
pub(super) struct Rolled {
    pub(super) steps: Vec<Step>,
    /// Requests for which one gateway had no connection, so that they were sent by way of the other one.
    pub(super) elsewhere: u64,
    /// What the audit says of the claims.
    pub(super) audit: Value,
    samples: Vec<Sample>,
}

pub(super) struct Step {
    pub(super) name: String,
    pub(super) seconds: f64,
    pub(super) get: Sum,
    pub(super) post: Sum,
    pub(super) retries: u64,
}

impl Rolled {
    /// How often each fault came.
    pub(super) fn reasons(&self) -> BTreeMap<String, u64> {
        samples::reasons(&self.samples)
    }

    /// Of all requests, those before the first step and after the last one included.
    pub(super) fn total(&self, post: bool) -> Sum {
        samples::sum(&self.samples, 0, u64::MAX, post)
    }
}

pub(super) fn run(scene: &Scene) -> Result<Rolled> {
    let making = scene.stack.progress.step("load");
    let traffic = Traffic::begin(scene)?;
    making.done(&format!("{} requests a second", scene.rate));
    let mut course = Course { scene, seen: Metrics::default(), stages: Vec::new() };
    course.step("nothing changes", |course| course.scene.rest(QUIET))?;
    for service in services::WAVES.iter().flat_map(|wave| wave.iter()).filter(|it| it.group != GATEWAY) {
        course.restart(service.group)?;
    }
    course.restart(GATEWAY)?;
    course.step("the signing key is rotated", |course| course.rotate(&traffic))?;
    course.step("a route is changed", |course| course.change_routes())?;
    let stages = course.stages;
    let answers = traffic.end()?;
    let auditing = scene.stack.progress.step("audit of the claims");
    // A machine driven to its limit makes Redis late, and whoever passed without it is not in its set; rows and answers
    // must add up all the same.
    let audit = scene.couponctl.audit(scene.coupon, &[answers.claims], "60s", &["--redis-may-differ"])?;
    auditing.done(if audit["ok"] == true { "adds up" } else { "DOES NOT ADD UP" });
    let samples = answers.samples;
    let step = |Stage { name, from, until, retries }: Stage| {
        let sum = |post| samples::sum(&samples, from, until, post);
        #[expect(clippy::cast_precision_loss, reason = "minutes in milliseconds")]
        let seconds = (until - from) as f64 / 1e3;
        Step { name, seconds, get: sum(false), post: sum(true), retries }
    };
    let steps = stages.into_iter().map(step).collect();
    Ok(Rolled { steps, elsewhere: answers.elsewhere, audit, samples })
}

struct Course<'a> {
    scene: &'a Scene,
    /// The last that was heard of every process, also of those that have ended.
    seen: Metrics,
    stages: Vec<Stage>,
}

/// A step's time, in unix milliseconds.
struct Stage {
    name: String,
    from: u64,
    until: u64,
    retries: u64,
}

impl Course<'_> {
    fn step(&mut self, name: &str, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let shown = self.scene.stack.progress.step(name);
        self.look();
        let (before, from) = (self.seen.clone(), unix_ms()?);
        work(self)?;
        self.look();
        let retries = self.seen.grown(&before, GATEWAY, RETRIES);
        self.stages.push(Stage { name: name.to_owned(), from, until: unix_ms()?, retries });
        shown.done("done");
        Ok(())
    }

    fn look(&mut self) {
        self.seen = self.seen.newer(&self.scene.stack);
    }

    /// One instance after the other.
    fn restart(&mut self, group: &str) -> Result<()> {
        let mut children = self.scene.stack.supervisor.children();
        children.retain(|child| child.spec.group == group);
        let instances = if children.len() == 1 { "one instance" } else { "two instances" };
        self.step(&format!("{group}: {instances} restarted"), |course| {
            for child in children {
                course.look();
                course.scene.stack.restart(&child)?;
                course.scene.rest(BETWEEN)?;
            }
            Ok(())
        })
    }

    /// Until tokens are signed with another key; from then on both keys' tokens are in use.
    fn rotate(&self, traffic: &Traffic) -> Result<()> {
        let before = traffic.signing_key();
        self.scene.couponctl.rotate_keys()?;
        self.taken_up("tokens are signed with the next key", || traffic.signing_key() != before)?;
        self.scene.rest(BETWEEN * 2)
    }

    /// Until both gateways show it.
    fn change_routes(&self) -> Result<()> {
        let Scene { stack, client, gateways, coupon, .. } = self.scene;
        let filter = format!("default-filters: [\"AddResponseHeader={HEADER}, changed\"]\n");
        config_repository::append(&stack.folder, "gateway-local.yml", &filter, &stack.interrupt)?;
        let shows = |gateway: &String| {
            client.header(&format!("{gateway}/coupons/{coupon}"), HEADER).is_ok_and(|value| value.is_some())
        };
        self.taken_up("answers have the new header", || gateways.iter().all(shows))?;
        self.scene.rest(BETWEEN)
    }

    fn taken_up(&self, what: &str, done: impl Fn() -> bool) -> Result<()> {
        let deadline = Instant::now() + TAKEN_UP_WITHIN;
        while !done() {
            if Instant::now() > deadline {
                bail!("not within {} s: {what}", TAKEN_UP_WITHIN.as_secs());
            }
            self.scene.rest(Duration::from_millis(100))?;
        }
        Ok(())
    }
}
