//! The result of a run: one JSON object for scripts, one table for people.

use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::{Table, presets};
use hdrhistogram::Histogram;
use serde::Serialize;

use super::outcome::Outcome;
use super::tally::{Live, Tally};
use crate::terminal::{grouped, seconds};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    pub(crate) requests: u64,
    pub(crate) seconds: f64,
    /// Answers a second, over the whole run.
    pub(crate) rate: f64,
    pub(crate) ok: u64,
    pub(crate) issued: u64,
    pub(crate) already_issued: u64,
    pub(crate) sold_out: u64,
    pub(crate) pending: u64,
    pub(crate) refused: BTreeMap<String, u64>,
    /// No connection: these had no effect.
    pub(crate) errors: u64,
    /// No answer: these may have had an effect.
    pub(crate) unknown: u64,
    /// One gateway had no connection for them, and another one answered.
    pub(crate) elsewhere: u64,
    /// The reasons of errors and unknown.
    pub(crate) failures: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pending_followed: Option<Followed>,
    pub(crate) in_flight_max: u64,
    /// From the due time of each request.
    pub(crate) latency_ms: Percentiles,
    /// From its sending.
    pub(crate) service_ms: Percentiles,
    pub(crate) per_second: Vec<Second>,
    /// The run was ended before its plan was: by a signal or by --max-time.
    pub(crate) stopped: bool,
}

#[derive(Debug, Serialize)]
pub(crate) struct Followed {
    issued: u64,
    none: u64,
    unresolved: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Percentiles {
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Second {
    second: usize,
    sent: u64,
    answered: u64,
    issued: u64,
}

impl Report {
    pub(crate) fn new(live: &Live, tally: Tally, took: Duration, follow: bool, stopped: bool) -> Self {
        let [issued, none, unresolved] = tally.followed;
        let answered = tally.latency.len() as f64;
        Self {
            requests: live.sent(),
            seconds: round(took.as_secs_f64()),
            rate: round(answered / took.as_secs_f64().max(1e-3)),
            ok: live.count(Outcome::Ok),
            issued: live.count(Outcome::Issued),
            already_issued: live.count(Outcome::AlreadyIssued),
            sold_out: live.count(Outcome::SoldOut),
            pending: live.count(Outcome::Pending),
            errors: live.count(Outcome::NotSent),
            unknown: live.count(Outcome::Unknown),
            elsewhere: tally.elsewhere,
            pending_followed: follow.then_some(Followed { issued, none, unresolved }),
            in_flight_max: live.in_flight_max(),
            latency_ms: Percentiles::of(&tally.latency),
            service_ms: Percentiles::of(&tally.service),
            per_second: tally
                .seconds
                .iter()
                .enumerate()
                .map(|(second, s)| Second { second, sent: s.sent, answered: s.answered, issued: s.issued })
                .collect(),
            refused: tally.refused,
            failures: tally.failures,
            stopped,
        }
    }

    /// Somebody answered.
    pub(crate) fn answered(&self) -> bool {
        self.requests > self.errors + self.unknown
    }

    /// The code, where everybody was refused with it: it says nothing of the coupon's stock.
    pub(crate) fn refused_alike(&self) -> Option<&str> {
        let (code, count) = self.refused.iter().next()?;
        (*count == self.requests).then_some(code)
    }

    pub(crate) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(["requests", &grouped(self.requests)]);
        let took = format!("{} ({:.0} answers/s)", seconds(Duration::from_secs_f64(self.seconds)), self.rate);
        table.add_row(["time", &took]);
        for (name, count) in [
            ("ok", self.ok),
            ("issued", self.issued),
            ("already issued", self.already_issued),
            ("sold out", self.sold_out),
            ("pending", self.pending),
        ] {
            if count > 0 {
                table.add_row([name, &grouped(count)]);
            }
        }
        if let Some(Followed { issued, none, unresolved }) = &self.pending_followed
            && self.pending > 0
        {
            table.add_row([
                "  of these later",
                &format!("{issued} issued, {none} none, {unresolved} unresolved"),
            ]);
        }
        for (code, count) in &self.refused {
            table.add_row([format!("refused {code}"), grouped(*count)]);
        }
        table.add_row(["errors (not sent)", &grouped(self.errors)]);
        table.add_row(["unknown (no answer)", &grouped(self.unknown)]);
        for (reason, count) in self.failures.iter().take(5) {
            table.add_row([format!("  {reason}"), grouped(*count)]);
        }
        if self.elsewhere > 0 {
            table.add_row(["refused, sent elsewhere", &grouped(self.elsewhere)]);
        }
        table.add_row(["most in flight", &grouped(self.in_flight_max)]);
        table.add_row(["latency", &self.latency_ms.line()]);
        if self.service_ms.p99 + 1.0 < self.latency_ms.p99 {
            table.add_row(["  from the sending", &self.service_ms.line()]);
        }
        let ended = if self.stopped { "\nstopped before its end" } else { "" };
        format!("{table}{ended}")
    }
}

impl Percentiles {
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| round(histogram.value_at_quantile(quantile) as f64 / 1_000.0);
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: round(histogram.max() as f64 / 1_000.0),
        }
    }

    fn line(&self) -> String {
        let Self { p50, p90, p99, p999, max } = self;
        format!("p50 {p50:.1}  p90 {p90:.1}  p99 {p99:.1}  p99.9 {p999:.1}  max {max:.1} ms")
    }
}

/// To three decimals: more would be noise.
fn round(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}
