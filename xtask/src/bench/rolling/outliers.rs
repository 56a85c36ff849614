//! An instance of the coupon service is slow, and then another one fails: how much of the traffic it still gets.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::Scene;
use super::faulty::{Fault, Faulty};
use super::samples::{self, Sample};
use crate::couponctl::text;
use crate::first_coupon::unix_ms;

const SERVICE: &str = "coupon-service";
const INSTANCE: &str = "coupon-service-faulty";
/// Longer than `upstream.slow-start`, after which a new instance has all of its share.
const WARM: Duration = Duration::from_secs(13);
/// How soon it has to be left alone ...
const NOTICED_WITHIN: u64 = 5_000;
/// ... and for how long that is looked at. An instance that was ejected is tried again in this time.
const LOOKED_AT: u64 = 10_000;
/// The share that is too much.
pub(super) const TOO_MUCH: f64 = 0.05;
const CONNECTIONS: &str = "192";

/// What a fault led to. Shares are of the requests in that time.
pub(super) struct Outlier {
    pub(super) fault: &'static str,
    /// In the last 3 s before.
    pub(super) before: f64,
    /// In each second until it has to be noticed.
    pub(super) seconds: Vec<f64>,
    /// From then on.
    pub(super) after: f64,
    pub(super) requests: u64,
    pub(super) failed: u64,
}

pub(super) fn run(scene: &Scene) -> Result<Vec<Outlier>> {
    let slow = measure(scene, "each answer 200 ms later", Fault::Slow)?;
    Ok(vec![slow, measure(scene, "every second answer 500", Fault::Failing)?])
}

fn measure(scene: &Scene, name: &'static str, fault: Fault) -> Result<Outlier> {
    let step = scene.stack.progress.step(name);
    let real = scene.stack.supervisor.find(SERVICE)?;
    let real = real.first().and_then(|child| child.status().endpoint).context("no coupon service")?;
    let faulty = Faulty::start(real.url.trim_start_matches("http://").parse()?)?;
    let agent = format!("http://127.0.0.1:{}/v1/agent/service", scene.stack.ports["consul"]);
    // Without a check it counts as passing.
    let registration = json!({"ID": INSTANCE, "Name": SERVICE, "Address": "127.0.0.1", "Port": faulty.port});
    scene.client.put(&format!("{agent}/register"), &registration)?.expect(200, "register")?;

    let file = |name: &str| text(&scene.records.join(name));
    let (tokens, out) = (file("tokens.csv"), scene.records.join(format!("{fault:?}.jtl")));
    let look = Duration::from_millis(NOTICED_WITHIN + LOOKED_AT);
    let (rate, seconds) = (scene.rate.to_string(), format!("{}s", (WARM + look).as_secs() + 1));
    let (path, to) = (format!("/coupons/{}", scene.coupon), text(&out));
    let [one, other] = &scene.gateways;
    let load = scene.couponctl.begin_load(&[
        "--method",
        "GET",
        "--path",
        &path,
        "--tokens",
        &tokens,
        "--reuse-tokens",
        "--rate",
        &rate,
        "--duration",
        &seconds,
        "--connections",
        CONNECTIONS,
        "--out",
        &to,
        "--gateway",
        one,
        "--gateway",
        other,
    ])?;
    scene.load_begins([&out])?;
    scene.rest(WARM)?;
    let struck = unix_ms()?;
    faulty.set(fault);
    scene.rest(look)?;
    load.wait()?;
    scene.client.put(&format!("{agent}/deregister/{INSTANCE}"), &json!({}))?.expect(200, "deregister")?;
    // Both gateways hear of it before it is gone.
    scene.rest(Duration::from_secs(1))?;

    let samples = samples::read(&out, false)?;
    let found = judge(name, struck, &samples, |from, until| faulty.seen(from, until));
    step.done(&format!(
        "{:.1} % of the traffic before, {:.2} % after",
        found.before * 100.0,
        found.after * 100.0
    ));
    Ok(found)
}

fn judge(fault: &'static str, struck: u64, samples: &[Sample], seen: impl Fn(u64, u64) -> u64) -> Outlier {
    let sum = |from, until| samples::sum(samples, from, until, false);
    let share = |from, until| {
        let all = sum(from, until).requests.max(1);
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        let share = seen(from, until) as f64 / all as f64;
        share
    };
    let noticed = struck + NOTICED_WITHIN;
    let end = noticed + LOOKED_AT;
    let of_all = sum(struck, end);
    Outlier {
        fault,
        before: share(struck - 3_000, struck),
        seconds: (0..NOTICED_WITHIN / 1_000)
            .map(|n| share(struck + n * 1_000, struck + (n + 1) * 1_000))
            .collect(),
        after: share(noticed, end),
        requests: of_all.requests,
        failed: of_all.failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_what_came_in_that_time() {
        let fault = |at| (at == 20_000).then(|| "GET 500".to_owned());
        let samples: Vec<Sample> =
            (0..40_000).map(|at| Sample { at, took: 1, post: false, fault: fault(at) }).collect();
        // A third of all until 21,000, from then on every hundredth.
        let seen = |from: u64, until: u64| {
            let early = until.min(21_000).saturating_sub(from) / 3;
            early + until.saturating_sub(from.max(21_000)) / 100
        };
        let found = judge("x", 20_000, &samples, seen);
        assert!((found.before - 1.0 / 3.0).abs() < 0.01, "{}", found.before);
        assert!(
            found.seconds.len() == 5 && found.seconds[0] > 0.3 && found.seconds[1] < 0.02,
            "{:?}",
            found.seconds
        );
        assert!((found.after - 0.01).abs() < 0.001, "{}", found.after);
        assert_eq!((found.requests, found.failed), (15_000, 1));
    }
}
