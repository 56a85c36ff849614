//! What became of single requests, out of the result files of loads, and what they come to.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sample {
    /// Unix milliseconds at which it was to be sent.
    pub(super) at: u64,
    /// Milliseconds from then until it was answered.
    pub(super) took: u64,
    pub(super) post: bool,
    /// Why it counts as failed.
    pub(super) fault: Option<String>,
}

/// Of some requests of one method.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) requests: u64,
    pub(super) failed: u64,
    pub(super) p99: u64,
}

/// All that a load wrote into its result file.
pub(super) fn read(path: &Path, post: bool) -> Result<Vec<Sample>> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let lines = text.lines().skip(1);
    lines.map(|line| parse(line, post).with_context(|| format!("{}: {line}", path.display()))).collect()
}

/// `timeStamp,elapsed,label,responseCode,responseMessage,threadName,dataType,success,...`; only the message may hold
/// commas.
fn parse(line: &str, post: bool) -> Option<Sample> {
    let (before, after) = line.split_once(",couponctl 1-")?;
    let mut fields = before.splitn(5, ',');
    let (at, took) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let (_label, code, message) = (fields.next()?, fields.next()?, fields.next()?);
    let mut rest = after.split(',').skip(2);
    let (success, failure) = (rest.next()?, rest.next()?);
    let method = if post { "POST" } else { "GET" };
    let fault = (success != "true").then(|| format!("{method} {code} {message} {failure}").trim().to_owned());
    Some(Sample { at, took, post, fault })
}

/// Of those that were to be sent in this time.
pub(super) fn sum(samples: &[Sample], from: u64, until: u64, post: bool) -> Sum {
    let within = samples.iter().filter(|it| it.post == post && (from..until).contains(&it.at));
    let (mut took, mut failed) = (Vec::new(), 0);
    for sample in within {
        took.push(sample.took);
        failed += u64::from(sample.fault.is_some());
    }
    took.sort_unstable();
    let p99 = took.get((took.len() * 99 / 100).min(took.len().saturating_sub(1))).copied();
    Sum { requests: took.len() as u64, failed, p99: p99.unwrap_or_default() }
}

/// How often each fault came.
pub(super) fn reasons(samples: &[Sample]) -> BTreeMap<String, u64> {
    let mut reasons = BTreeMap::new();
    for fault in samples.iter().filter_map(|sample| sample.fault.clone()) {
        *reasons.entry(fault).or_default() += 1;
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_what_the_load_wrote() {
        let good = "1000,12,claim,200,OK,couponctl 1-7,text,true,,310,820,5,5,http://x/y,12,0,0";
        assert_eq!(parse(good, true), Some(Sample { at: 1_000, took: 12, post: true, fault: None }));
        let cut = "7,30,request,Non HTTP: no answer,\"reset, by peer\",couponctl 1-2,text,false,,0,9,5,5,http://x/y,0,0,0";
        let fault = "GET Non HTTP: no answer \"reset, by peer\"".to_owned();
        assert_eq!(parse(cut, false), Some(Sample { at: 7, took: 30, post: false, fault: Some(fault) }));
        let refused = "7,30,request,503,,couponctl 1-2,text,false,OVERLOADED,0,9,5,5,http://x/y,0,0,0";
        assert_eq!(parse(refused, false).unwrap().fault.unwrap(), "GET 503  OVERLOADED");
        assert_eq!(parse("7,30", false), None);
    }

    #[test]
    fn a_time_has_its_own_requests() {
        let of =
            |at, post, fault: Option<&str>| Sample { at, took: at, post, fault: fault.map(str::to_owned) };
        let mut samples: Vec<Sample> = (0..200).map(|at| of(at, false, None)).collect();
        samples.push(of(150, true, Some("x")));
        samples.push(of(150, false, Some("x")));
        assert_eq!(sum(&samples, 0, 100, false), Sum { requests: 100, failed: 0, p99: 99 });
        assert_eq!(sum(&samples, 100, 200, false), Sum { requests: 101, failed: 1, p99: 198 });
        assert_eq!(sum(&samples, 0, 200, true), Sum { requests: 1, failed: 1, p99: 150 });
        assert_eq!(sum(&samples, 500, 600, true), Sum::default());
        assert_eq!(reasons(&samples), [("x".to_owned(), 2)].into());
    }
}
