//! What the services count of themselves, read from their admin ports.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::http;
use crate::stack::Stack;
use crate::supervisor::Kind;

/// Counters of every service that answers, by instance and pid: a new process counts from zero.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Metrics(BTreeMap<(String, i32), Counters>);

#[derive(Debug, Clone, Default, PartialEq)]
struct Counters {
    group: String,
    /// By name and labels, as they are written.
    values: BTreeMap<String, f64>,
}

impl Counters {
    /// Of a name, or of a name and one label such as `name{label="value"}`: the sum over all other labels.
    fn sum(&self, selector: &str) -> f64 {
        let (name, label) = split(selector);
        let of = |(what, value): (&String, &f64)| {
            let (there, labels) = split(what);
            let wanted = there == name && (label.is_empty() || labels.split(',').any(|it| it == label));
            wanted.then_some(*value)
        };
        self.values.iter().filter_map(of).sum()
    }
}

fn split(what: &str) -> (&str, &str) {
    what.strip_suffix('}').and_then(|what| what.split_once('{')).unwrap_or((what, ""))
}

/// A histogram.
const REQUESTS: &str = "http_server_requests_seconds";
/// Of each process, by its own clock.
const STARTED: &str = "process_start_time_seconds";

/// For every service to answer on its admin port.
const PATIENCE: Duration = Duration::from_secs(10);

impl Metrics {
    /// Of every service: who is not read has an alarm that nobody hears.
    pub(crate) fn read_all(stack: &Stack) -> Result<Self> {
        let begun = Instant::now();
        loop {
            let read = Self::read(stack);
            let children = stack.supervisor.children();
            let services = children.iter().filter(|child| child.spec.kind == Kind::Service);
            let mut silent =
                services.filter(|child| !read.0.keys().any(|(name, _)| *name == child.spec.name));
            let Some(silent) = silent.next() else { return Ok(read) };
            if begun.elapsed() > PATIENCE {
                bail!("{} does not give its metrics", silent.spec.name);
            }
            stack.interrupt.check()?;
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// As they are now; of who does not answer, as they were.
    pub(crate) fn newer(&self, stack: &Stack) -> Self {
        let mut all = self.clone();
        all.0.extend(Self::read(stack).0);
        all
    }

    /// Of every service that answers.
    pub(crate) fn read(stack: &Stack) -> Self {
        let children = stack.supervisor.children();
        let services = children.iter().filter(|child| child.spec.kind == Kind::Service);
        let read = services.filter_map(|child| {
            let status = child.status();
            let url = status.endpoint?.admin_url?;
            let text = http::get_text(&format!("{url}/actuator/prometheus")).ok()?;
            let counters = Counters { group: child.spec.group.clone(), values: values(&text) };
            Some(((child.spec.name.clone(), status.pid?), counters))
        });
        Self(read.collect())
    }

    /// When the process of an instance began by its own word, in unix milliseconds.
    pub(crate) fn began(&self, instance: &str) -> Option<u64> {
        let (_, counters) = self
            .0
            .iter()
            .filter(|((name, _), _)| name == instance)
            .max_by(|(_, one), (_, other)| one.sum(STARTED).total_cmp(&other.sum(STARTED)))?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time of this century")]
        let began = (counters.sum(STARTED) * 1_000.0) as u64;
        Some(began).filter(|began| *began > 0)
    }

    /// By how much a counter has grown since, over all instances of a group.
    pub(crate) fn grown(&self, since: &Self, group: &str, name: &str) -> u64 {
        self.by_instance(since, group, name).into_values().sum()
    }

    /// The same for each instance.
    pub(crate) fn by_instance(&self, since: &Self, group: &str, name: &str) -> BTreeMap<String, u64> {
        let mut grown = BTreeMap::new();
        for (process, counters) in self.0.iter().filter(|(_, counters)| counters.group == group) {
            let before = since.0.get(process).map_or(0.0, |counters| counters.sum(name));
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts are small")]
            let by = (counters.sum(name) - before).max(0.0) as u64;
            *grown.entry(process.0.clone()).or_default() += by;
        }
        grown
    }

    /// How many requests an instance has answered since that took it longer than a bound of the histogram, in seconds.
    pub(crate) fn slower(&self, since: &Self, group: &str, instance: &str, bound: &str) -> u64 {
        let grown = |name: &str| self.by_instance(since, group, name).get(instance).copied().unwrap_or(0);
        let within = grown(&format!("{REQUESTS}_bucket{{le=\"{bound}\"}}"));
        grown(&format!("{REQUESTS}_count")).saturating_sub(within)
    }

    /// The same over all services.
    pub(crate) fn grown_anywhere(&self, since: &Self, name: &str) -> u64 {
        let groups: std::collections::BTreeSet<&str> =
            self.0.values().map(|counters| counters.group.as_str()).collect();
        groups.into_iter().map(|group| self.grown(since, group, name)).sum()
    }
}

/// Of lines such as `firstcome_claims_total{outcome="issued"} 7`.
fn values(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let values = lines.filter_map(|line| {
        let (what, value) = line.rsplit_once(' ')?;
        Some((what.to_owned(), value.parse::<f64>().ok()?))
    });
    values.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(instances: &[(&str, i32, &str)]) -> Metrics {
        let of = |(name, pid, text): &(&str, i32, &str)| {
            let group = name.rsplit_once('-').unwrap().0.to_owned();
            (((*name).to_owned(), *pid), Counters { group, values: values(text) })
        };
        Metrics(instances.iter().map(of).collect())
    }

    #[test]
    fn counters_are_summed_over_labels() {
        let text = "# TYPE a_total counter\na_total{x=\"1\",y=\"1\"} 7\na_total{x=\"2 3\"} 35\nab_total 9\nnonsense\n";
        let counters = Counters { group: String::new(), values: values(text) };
        let sums =
            ["a_total", "ab_total", "a_total{x=\"1\"}", "a_total{y=\"1\"}", "a_total{x=\"2\"}", "b_total"];
        assert_eq!(sums.map(|selector| counters.sum(selector)), [42.0, 9.0, 7.0, 7.0, 0.0, 0.0]);
    }

    /// A process that is there still has not begun anew, whatever else happens to it.
    #[test]
    fn a_process_says_when_it_began() {
        let began = |metrics: &Metrics| metrics.began("gateway-1");
        let before = metrics(&[("gateway-1", 1, "process_start_time_seconds{instance=\"gateway-1\"} 1.5\n")]);
        assert_eq!((began(&before), before.began("gateway-2")), (Some(1_500), None));
        let after = [
            ("gateway-1", 1, "process_start_time_seconds 1.5"),
            ("gateway-1", 2, "process_start_time_seconds 9"),
        ];
        assert_eq!(began(&metrics(&after)), Some(9_000));
        assert_eq!(began(&metrics(&[("gateway-1", 1, "a 1")])), None);
    }

    #[test]
    fn a_new_process_counts_from_zero() {
        let before = metrics(&[("issue-1", 1, "a 5"), ("issue-2", 2, "a 5"), ("other-1", 3, "a 1")]);
        let after = metrics(&[("issue-1", 1, "a 7"), ("issue-2", 9, "a 4"), ("other-1", 3, "a 3\nb 1")]);
        assert_eq!(after.grown(&before, "issue", "a"), 2 + 4);
        let each = [("issue-1".to_owned(), 2), ("issue-2".to_owned(), 4)].into();
        assert_eq!(after.by_instance(&before, "issue", "a"), each);
        assert_eq!(after.grown(&before, "issue", "b"), 0);
        assert_eq!((after.grown_anywhere(&before, "a"), after.grown_anywhere(&before, "b")), (8, 1));
    }

    #[test]
    fn requests_that_took_long_are_told_by_the_instance_that_held_them_up() {
        let text = |within: u64, all: u64| {
            let of = |status: u64, le: &str, count: u64| {
                format!("http_server_requests_seconds_bucket{{status=\"{status}\",le=\"{le}\"}} {count}\n")
            };
            let count = format!("http_server_requests_seconds_count{{status=\"200\"}} {all}\n");
            of(200, "2", 0) + &of(200, "5", within) + &of(200, "10", all) + &of(200, "+Inf", all) + &count
        };
        let both = |one: &str, other: &str| metrics(&[("issue-1", 1, one), ("issue-2", 2, other)]);
        let before = both(&text(10, 12), &text(10, 10));
        let after = both(&text(20, 22), &text(20, 23));
        let slower = |instance| after.slower(&before, "issue", instance, "5");
        assert_eq!((slower("issue-1"), slower("issue-2"), slower("issue-3")), (0, 3, 0));
    }
}
