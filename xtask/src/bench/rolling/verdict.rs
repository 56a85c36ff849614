//! The tables, and what is asked for.

use serde_json::{Value, json};

use super::outliers::{Outlier, TOO_MUCH};
use super::samples::Sum;
use super::steps::{Rolled, Step};
use crate::bench::outcome::{Check, Outcome, Section};

pub(super) fn outcome(rolled: &Rolled, outliers: &[Outlier]) -> Outcome {
    let mut checks = vec![
        none("requests that failed: GET", rolled.total(false).failed),
        none("requests that failed: POST", rolled.total(true).failed),
        Check {
            what: "claims, by their audit".to_owned(),
            is: if rolled.audit["ok"] == true { "they add up" } else { "they do not" }.to_owned(),
            must: "they add up".to_owned(),
            ok: rolled.audit["ok"] == true,
        },
    ];
    checks.extend(outliers.iter().map(|outlier| Check {
        what: format!("share of an instance, {}", outlier.fault),
        is: percent(outlier.after),
        must: format!("below {} from the fifth second on", percent(TOO_MUCH)),
        ok: outlier.after < TOO_MUCH,
    }));
    Outcome {
        title: "Rolling restarts".to_owned(),
        about: String::new(),
        sections: vec![steps(rolled), shares(outliers)],
        checks,
        figures: figures(rolled, outliers),
    }
}

fn none(what: &str, is: u64) -> Check {
    Check { what: what.to_owned(), is: is.to_string(), must: "0".to_owned(), ok: is == 0 }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn steps(rolled: &Rolled) -> Section {
    let row = |name: &str, seconds: String, get: Sum, post: Sum, retries: String| {
        let of = |sum: Sum| [sum.requests, sum.failed, sum.p99].map(|it| it.to_string());
        let [requests, failed, p99] = of(get);
        let [posts, posts_failed, posts_p99] = of(post);
        vec![name.to_owned(), seconds, requests, failed, p99, posts, posts_failed, posts_p99, retries]
    };
    let mut rows: Vec<Vec<String>> = rolled
        .steps
        .iter()
        .map(|step| {
            let seconds = format!("{:.1}", step.seconds);
            row(&step.name, seconds, step.get, step.post, step.retries.to_string())
        })
        .collect();
    let (seconds, retries) =
        rolled.steps.iter().fold((0.0, 0), |sum, step| (sum.0 + step.seconds, sum.1 + step.retries));
    let totals = (rolled.total(false), rolled.total(true));
    rows.push(row("all of it", format!("{seconds:.1}"), totals.0, totals.1, retries.to_string()));
    Section {
        heading: "Nothing fails while instances come and go".to_owned(),
        about: format!(
            "One instance after the other is stopped in order and started again, while requests come at their rate. \
             *Sent again* are requests that a gateway brought to another instance because one had no connection for \
             them; no byte of them had been sent. Of all requests {} met a gateway without a connection, and went to the \
             other one by the client's choice, as nothing had been sent.",
            rolled.elsewhere
        ),
        columns: words(&["step", "s", "GET", "failed", "p99 ms", "POST", "failed", "p99 ms", "sent again"]),
        rows,
    }
}

fn shares(outliers: &[Outlier]) -> Section {
    let row = |outlier: &Outlier| {
        let mut row = vec![outlier.fault.to_owned(), percent(outlier.before)];
        row.extend(outlier.seconds.iter().copied().map(percent));
        row.extend([percent(outlier.after), outlier.requests.to_string(), outlier.failed.to_string()]);
        row
    };
    Section {
        heading: "Who is slow or fails is left alone".to_owned(),
        about: "The share of the traffic of one of three instances: in the 3 s before the fault, in each second from its \
                begin on, and in the 10 s after these. Requests and those that failed are of the 15 s."
            .to_owned(),
        columns: words(&[
            "one instance", "before", "1st s", "2nd s", "3rd s", "4th s", "5th s", "6th to 15th s", "requests", "failed",
        ]),
        rows: outliers.iter().map(row).collect(),
    }
}

fn figures(rolled: &Rolled, outliers: &[Outlier]) -> Value {
    let sum = |sum: Sum| json!({"requests": sum.requests, "failed": sum.failed, "p99Ms": sum.p99});
    let step = |step: &Step| {
        json!({"step": step.name, "seconds": step.seconds, "get": sum(step.get), "post": sum(step.post),
            "sentAgain": step.retries})
    };
    let outlier = |it: &Outlier| {
        json!({"fault": it.fault, "before": it.before, "seconds": it.seconds, "after": it.after,
            "requests": it.requests, "failed": it.failed})
    };
    json!({
        "steps": rolled.steps.iter().map(step).collect::<Vec<_>>(),
        "get": sum(rolled.total(false)),
        "post": sum(rolled.total(true)),
        "elsewhere": rolled.elsewhere,
        "reasons": rolled.reasons(),
        "claimsAddUp": rolled.audit["ok"],
        "outliers": outliers.iter().map(outlier).collect::<Vec<_>>(),
    })
}
