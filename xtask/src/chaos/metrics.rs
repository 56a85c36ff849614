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
    /// Sums over all labels.
    values: BTreeMap<String, f64>,
}

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
            let counters = Counters { group: child.spec.group.clone(), values: sums(&text) };
            Some(((child.spec.name.clone(), status.pid?), counters))
        });
        Self(read.collect())
    }

    /// By how much a counter has grown since, over all instances of a group.
    pub(crate) fn grown(&self, since: &Self, group: &str, name: &str) -> u64 {
        self.by_instance(since, group, name).into_values().sum()
    }

    /// The same for each instance.
    pub(crate) fn by_instance(&self, since: &Self, group: &str, name: &str) -> BTreeMap<String, u64> {
        let mut grown = BTreeMap::new();
        for (process, counters) in self.0.iter().filter(|(_, counters)| counters.group == group) {
            let value = |counters: &Counters| counters.values.get(name).copied().unwrap_or(0.0);
            let before = since.0.get(process).map_or(0.0, value);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts are small")]
            let by = (value(counters) - before).max(0.0) as u64;
            *grown.entry(process.0.clone()).or_default() += by;
        }
        grown
    }

    /// The same over all services.
    pub(crate) fn grown_anywhere(&self, since: &Self, name: &str) -> u64 {
        let groups: std::collections::BTreeSet<&str> =
            self.0.values().map(|counters| counters.group.as_str()).collect();
        groups.into_iter().map(|group| self.grown(since, group, name)).sum()
    }
}

/// Of lines such as `firstcome_claims_total{outcome="issued"} 7`.
fn sums(text: &str) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((what, value)) = line.rsplit_once(' ') else { continue };
        let Ok(value) = value.parse::<f64>() else { continue };
        let name = what.split('{').next().unwrap_or(what);
        *sums.entry(name.to_owned()).or_default() += value;
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(instances: &[(&str, i32, &str)]) -> Metrics {
        let of = |(name, pid, text): &(&str, i32, &str)| {
            let group = name.rsplit_once('-').unwrap().0.to_owned();
            (((*name).to_owned(), *pid), Counters { group, values: sums(text) })
        };
        Metrics(instances.iter().map(of).collect())
    }

    #[test]
    fn counters_are_summed_over_labels() {
        let text =
            "# TYPE a_total counter\na_total{x=\"1\"} 7\na_total{x=\"2 3\"} 35\nab_total 9\nnonsense\n";
        assert_eq!(sums(text), [("a_total".to_owned(), 42.0), ("ab_total".to_owned(), 9.0)].into());
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
}
