//! The race: every user asks twice at the same time, at two instances of the issue service, for far fewer coupons.
//! Answers, rows, the set in Redis and the quantity that the coupon service shows must all say the same.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::Bench;
use crate::demo::Verdict;
use crate::http;
use crate::state::ServiceState;

/// As many as there are users would be no race.
const STOCK: u32 = 1_000;
pub(super) const USERS: u64 = 15_000;
/// Attempts of each user, side by side.
const ATTEMPTS: usize = 2;
pub(super) const SHAPE: [&str; 4] = ["--ramp", "1s", "--repeat", "2"];
pub(super) const TITLE: &str = "race: 30,000 claims within 1 s, 1,000 coupons";
const INSTANCES: usize = 2;
const ISSUE_SERVICE: &str = "issue-service";
/// The counter of answered claims, one line for each outcome.
const CLAIMS: &str = "firstcome_claims_total";
/// `write-back.interval` of `config-repo/coupon-service.yml`: what the shown quantity may lag behind.
const WRITE_BACK: Duration = Duration::from_secs(1);
const ASK_EVERY: Duration = Duration::from_millis(20);

/// What came of it.
pub(super) struct Race {
    verdict: Verdict,
    /// Claims that each instance answered.
    answered: Vec<(String, u64)>,
    /// What the audit says of the set in Redis.
    redis: Value,
    shown: Shown,
}

/// The coupon's `issuedQuantity`, and how long after the load's end it was asked for the last time.
#[derive(Clone, Copy)]
struct Shown {
    issued: u64,
    after: Duration,
}

impl Bench {
    /// The race, and what its load says.
    pub(super) fn race(&self) -> Result<(Race, Value)> {
        let step = self.progress.step("race");
        let instances: Vec<&ServiceState> =
            self.state.services.iter().filter(|it| it.name == ISSUE_SERVICE && it.process.ready).collect();
        if instances.len() != INSTANCES {
            bail!(
                "{} instances of the issue service are ready, and the race is for {INSTANCES}: `cargo xtask scale \
                 {ISSUE_SERVICE}={INSTANCES}`",
                instances.len()
            );
        }
        let coupon = self.coupon("race", STOCK)?;
        let before = claims_of(&instances)?;
        let (claims, answers) = self.claims(coupon, USERS, &SHAPE)?;
        let shown = self.shown(coupon)?;
        let after = claims_of(&instances)?;
        step.say("auditing");
        let audit = self.couponctl.audit(coupon, &[answers], "60s", &[])?;
        step.done("audited");
        let names = instances.iter().map(|it| it.instance.clone());
        let answered = after.iter().zip(before).map(|(after, before)| after.saturating_sub(before));
        let users = usize::try_from(USERS)?;
        let race = Race {
            verdict: Verdict::new(STOCK, users * ATTEMPTS, &claims, &audit),
            answered: names.zip(answered).collect(),
            redis: redis_check(&audit),
            shown,
        };
        Ok((race, claims))
    }

    /// Asks for the coupon until it shows all as issued, or may no longer lag behind.
    fn shown(&self, coupon: u64) -> Result<Shown> {
        let begun = Instant::now();
        loop {
            let url = format!("{}/coupons/{coupon}", self.gateway);
            let answer = self.client.get(&url)?.expect(200, "ask for the coupon")?;
            let issued = answer["issuedQuantity"].as_u64().context("no issuedQuantity in the coupon")?;
            let shown = Shown { issued, after: begun.elapsed() };
            if issued == u64::from(STOCK) || shown.after > WRITE_BACK {
                return Ok(shown);
            }
            std::thread::sleep(ASK_EVERY);
        }
    }
}

impl Race {
    /// Everything that is not as promised, in words.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> = self.verdict.failure().into_iter().collect();
        for (name, answered) in &self.answered {
            if *answered == 0 {
                faults.push(format!("{name} answered no claim"));
            }
        }
        // The audit lets pass what it can't judge; here the set must be there and be compared.
        if self.redis["verdict"] != "ok" {
            faults.push(format!("the Redis set was not found equal: {}", compared(&self.redis)));
        }
        let Shown { issued, after } = self.shown;
        if issued != u64::from(STOCK) || after > WRITE_BACK {
            faults.push(format!(
                "the coupon shows {issued} of {STOCK} as issued {} ms after the race, and must show all within {} ms",
                after.as_millis(),
                WRITE_BACK.as_millis()
            ));
        }
        faults
    }

    pub(super) fn write(&self, text: &mut String) -> Result<()> {
        writeln!(
            text,
            "## The race\n\n{USERS} users, each asking twice at the same time, for {STOCK} coupons at {INSTANCES} \
             instances of the issue service.\n"
        )?;
        writeln!(text, "| what | is | must be |\n|---|---:|---:|")?;
        for (name, answered) in &self.answered {
            writeln!(text, "| claims that {name} answered | {answered} | above 0 |")?;
        }
        for (name, is, must) in self.verdict.lines() {
            let must = must.map_or_else(|| "any".to_owned(), |must| must.to_string());
            writeln!(text, "| {name} | {is} | {must} |")?;
        }
        writeln!(text, "| the Redis set | {} | the same |", compared(&self.redis))?;
        let Shown { issued, after } = self.shown;
        writeln!(
            text,
            "| shown as issued by the coupon service | {issued} after {} ms | {STOCK} within {} ms |\n",
            after.as_millis(),
            WRITE_BACK.as_millis()
        )?;
        Ok(())
    }
}

fn redis_check(audit: &Value) -> Value {
    let checks = audit["checks"].as_array().into_iter().flatten();
    checks
        .filter(|check| check["id"] == "I5")
        .find(|check| said(&check["what"]).contains("Redis"))
        .cloned()
        .into()
}

fn compared(check: &Value) -> &str {
    said(&check["compared"])
}

fn said(value: &Value) -> &str {
    value.as_str().unwrap_or("unknown")
}

/// What each instance counted up to now.
fn claims_of(instances: &[&ServiceState]) -> Result<Vec<u64>> {
    let of = |service: &&ServiceState| {
        let url =
            service.admin_url.as_ref().with_context(|| format!("{}: no admin port", service.instance))?;
        Ok(counted(&http::get_text(&format!("{url}/actuator/prometheus"))?))
    };
    instances.iter().map(of).collect()
}

/// The sum of a counter's lines, such as `firstcome_claims_total{outcome="issued"} 7`.
fn counted(metrics: &str) -> u64 {
    let line = |line: &str| line.strip_prefix(CLAIMS)?.rsplit_once(' ')?.1.parse::<u64>().ok();
    metrics.lines().filter_map(line).sum()
}

#[cfg(test)]
mod tests;
