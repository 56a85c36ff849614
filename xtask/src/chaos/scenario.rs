//! The scenarios: what each does, how often it is run, and to which part of the system.

use anyhow::{Result, bail};

use super::faults::{consul, coupons, failover, failpoints, kafka, links, mysql, redis, restored, services};
use super::guards;
use super::site::Site;
use crate::table;

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// What is done, in one line.
    pub(crate) what: &'static str,
    /// Two faults at the same time are of different parts.
    pub(crate) part: Part,
    /// How often by default.
    pub(crate) rounds: u32,
    /// One round of it belongs to every run of `--ci`.
    pub(crate) ci: bool,
    /// It takes three brokers, or a database with a replica.
    pub(crate) replicated: bool,
    /// Of the load: long enough for the sale to go on when the fault is over.
    pub(crate) seconds: u64,
    /// Of the load, before it can strike: what else strikes in the same sale waits as long.
    pub(crate) lead: u64,
    pub(crate) strike: fn(&mut Site<'_>) -> Result<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Redis,
    IssueService,
    Kafka,
    Mysql,
    Consumer,
    Gateway,
    Consul,
    CouponService,
    Links,
    /// What the coupon says: nothing breaks.
    Coupon,
}

impl Scenario {
    pub(super) const fn new(
        name: &'static str,
        part: Part,
        seconds: u64,
        strike: fn(&mut Site<'_>) -> Result<()>,
        what: &'static str,
    ) -> Self {
        Self { name, what, part, rounds: 5, ci: false, replicated: false, seconds, lead: 0, strike }
    }

    const fn often(mut self) -> Self {
        self.rounds = 20;
        self
    }

    const fn replicated(mut self) -> Self {
        self.replicated = true;
        self
    }

    const fn leading(mut self, seconds: u64) -> Self {
        self.lead = seconds;
        self
    }

    const fn in_ci(mut self) -> Self {
        self.ci = true;
        self
    }
}

/// The names of those that are made of two others, on either stack.
pub(crate) const SOAK: &str = "soak";
pub(crate) const SOAK_REPLICATED: &str = "soak-replicated";
const SOAKS: [&str; 2] = [SOAK, SOAK_REPLICATED];

pub(crate) static ALL: &[Scenario] = &[
    Scenario::new("redis-master-kill", Part::Redis, 12, redis::master_kill, "kill -9 of the Redis master")
        .often()
        .in_ci(),
    Scenario::new(
        "redis-master-restart",
        Part::Redis,
        10,
        redis::master_restart,
        "kill -9 of the Redis master, which is back before the Sentinels notice",
    ),
    Scenario::new(
        "redis-master-stop",
        Part::Redis,
        14,
        redis::master_stop,
        "the Redis master stands still for 5 s (SIGSTOP), and another is promoted meanwhile",
    )
    .in_ci(),
    Scenario::new(
        "redis-split-brain",
        Part::Redis,
        16,
        redis::split_brain,
        "the old Redis master and one issue service are cut off by a black hole; two masters for 5 s",
    )
    .often()
    .in_ci(),
    Scenario::new(
        "redis-wiped",
        Part::Redis,
        12,
        redis::wiped,
        "all of Redis is killed and comes back with nothing",
    )
    .in_ci(),
    Scenario::new(
        "redis-away-60s",
        Part::Redis,
        110,
        redis::away,
        "a black hole in front of all of Redis for 60 s",
    ),
    Scenario::new(
        "redis-slow",
        Part::Redis,
        14,
        redis::slow,
        "all of Redis answers 150 ms late for 6 s, which is later than claims wait for it",
    ),
    Scenario::new(
        "sentinel-majority-lost",
        Part::Redis,
        20,
        redis::sentinel_majority_lost,
        "two of three Sentinels are killed, then the Redis master; 6 s later the Sentinels come back",
    ),
    Scenario::new(
        "issue-service-kill",
        Part::IssueService,
        10,
        services::issue_service_kill,
        "kill -9 of one of the two issue services",
    ),
    Scenario::new(
        "issue-service-stop",
        Part::IssueService,
        14,
        services::issue_service_stop,
        "one of the two issue services stands still for 5 s (SIGSTOP)",
    ),
    Scenario::new(
        "issue-service-kill-before-script",
        Part::IssueService,
        10,
        |site| failpoints::kill(site, "before-script"),
        "one of the two issue services dies before the doorman is asked",
    ),
    Scenario::new(
        "issue-service-kill-after-script",
        Part::IssueService,
        10,
        |site| failpoints::kill(site, "after-script"),
        "one of the two issue services dies when the doorman has admitted users and nothing is appended yet",
    ),
    Scenario::new(
        "issue-service-kill-before-append",
        Part::IssueService,
        10,
        |site| failpoints::kill(site, "before-append"),
        "one of the two issue services dies before an admitted claim is appended",
    ),
    Scenario::new(
        "issue-service-kill-after-ack",
        Part::IssueService,
        10,
        |site| failpoints::kill(site, "after-ack"),
        "one of the two issue services dies when the log has acknowledged a claim that is not read back yet",
    )
    .often()
    .in_ci(),
    Scenario::new(
        "issue-service-kill-before-answer",
        Part::IssueService,
        10,
        |site| failpoints::kill(site, "before-answer"),
        "one of the two issue services dies when a claim is decided and nobody was told yet",
    ),
    Scenario::new(
        "issue-service-stop-before-script",
        Part::IssueService,
        14,
        |site| failpoints::stop(site, "before-script"),
        "one of the two issue services stands still for 5 s before the doorman is asked",
    ),
    Scenario::new(
        "issue-service-stop-after-script",
        Part::IssueService,
        14,
        |site| failpoints::stop(site, "after-script"),
        "one of the two issue services stands still for 5 s when the doorman has admitted users and nothing is appended yet",
    ),
    Scenario::new(
        "issue-service-stop-before-append",
        Part::IssueService,
        14,
        |site| failpoints::stop(site, "before-append"),
        "one of the two issue services stands still for 5 s before an admitted claim is appended",
    ),
    Scenario::new(
        "issue-service-stop-after-ack",
        Part::IssueService,
        14,
        |site| failpoints::stop(site, "after-ack"),
        "one of the two issue services stands still for 5 s when the log has acknowledged a claim that is not read back yet",
    ),
    Scenario::new(
        "issue-service-stop-before-answer",
        Part::IssueService,
        14,
        |site| failpoints::stop(site, "before-answer"),
        "one of the two issue services stands still for 5 s when a claim is decided and nobody was told yet",
    ),
    Scenario::new("kafka-kill", Part::Kafka, 16, kafka::kill, "kill -9 of the only broker, which restarts")
        .in_ci(),
    Scenario::new(
        "kafka-stop",
        Part::Kafka,
        14,
        kafka::stop,
        "the only broker stands still for 5 s (SIGSTOP)",
    ),
    Scenario::new(
        "mysql-kill",
        Part::Mysql,
        10,
        mysql::kill,
        "kill -9 of the database in the middle of the consumers' transactions",
    )
    .in_ci(),
    Scenario::new("mysql-stop", Part::Mysql, 26, mysql::stop, "the database stands still for 10 s (SIGSTOP)"),
    Scenario::new(
        "consumer-kill-before-commit",
        Part::Consumer,
        12,
        |site| services::consumer_kill(site, "before-commit"),
        "the consumer that writes the coupon's rows dies with everything of a transaction sent but its commit",
    )
    .in_ci(),
    Scenario::new(
        "consumer-kill-after-commit",
        Part::Consumer,
        12,
        |site| services::consumer_kill(site, "after-commit"),
        "that consumer dies when a transaction is committed and it has not gone on from it",
    )
    .in_ci(),
    Scenario::new(
        "consumer-zombie",
        Part::Consumer,
        26,
        services::consumer_zombie,
        "that consumer stands still for 10 s, past its session, and goes on where it was",
    ),
    Scenario::new("gateway-kill", Part::Gateway, 10, services::gateway_kill, "kill -9 of the only gateway"),
    Scenario::new(
        "consul-away-30s",
        Part::Consul,
        62,
        consul::away,
        "Consul is killed for 30 s and comes back with an empty catalogue",
    ),
    Scenario::new(
        "coupon-service-away",
        Part::CouponService,
        34,
        services::coupon_service_away,
        "the coupon service is killed for 10 s, the cached definition removed, an issue service restarted",
    ),
    Scenario::new(
        "links-cut",
        Part::Links,
        14,
        links::cut,
        "every link to every server is reset at the same time, five times, a second apart",
    ),
    Scenario::new(
        "stock-raised",
        Part::Coupon,
        10,
        coupons::stock_raised,
        "a tenth more stock in the middle of the sale",
    ),
    Scenario::new(
        "stock-lowered",
        Part::Coupon,
        10,
        coupons::stock_lowered,
        "a tenth less stock in the middle of the sale",
    ),
    Scenario::new(
        "coupon-closed",
        Part::Coupon,
        10,
        coupons::closed,
        "the coupon is closed in the middle of the sale",
    ),
    Scenario::new(
        "window-moved",
        Part::Coupon,
        15,
        coupons::window_moved,
        "the start is moved 5 s into the future in the middle of the sale",
    ),
    // Those below run on a stack of their own, after the others.
    Scenario::new(
        "kafka-one-of-three-kill",
        Part::Kafka,
        30,
        kafka::one_of_three_kill,
        "kill -9 of that one of three brokers that leads the coupon's partition, until another does",
    )
    .replicated(),
    Scenario::new(
        "mysql-failover-busy",
        Part::Mysql,
        12,
        failover::busy,
        "kill -9 of the database in mid-transaction; its replica, behind by a second or more, takes over",
    )
    .often()
    .replicated(),
    Scenario::new(
        "mysql-failover-idle",
        Part::Mysql,
        12,
        failover::idle,
        "the same when the sale is over and nobody writes, so that nothing but the database itself tells of it",
    )
    .often()
    .replicated(),
    Scenario::new(
        "mysql-restored",
        Part::Mysql,
        125,
        restored::restored,
        "the database is put back to a backup, a minute old, after which users, a coupon and a change came",
    )
    .leading(restored::LOST.as_secs())
    .replicated(),
];

/// Of these names, in the order of the list; all without any.
pub(crate) fn chosen(names: &[String], ci: bool) -> Result<Vec<&'static Scenario>> {
    let controls = guards::ALL.iter().map(|guard| guard.fault.name);
    let known: Vec<&str> = ALL.iter().map(|it| it.name).chain(SOAKS).chain(controls).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
        bail!("--scenario {unknown}: no such scenario; there are {}", known.join(", "));
    }
    let wanted = |it: &&Scenario| {
        if names.is_empty() { it.ci || !ci } else { names.iter().any(|name| name == it.name) }
    };
    Ok(ALL.iter().filter(wanted).collect())
}

/// What `--list` shows.
pub(crate) fn list() -> String {
    let mut table = table::new(&["scenario", "rounds", "in --ci", "what is done"]);
    for scenario in ALL {
        let ci = if scenario.ci { "yes" } else { "" };
        table.add_row([scenario.name, &scenario.rounds.to_string(), ci, scenario.what]);
    }
    for (soak, what) in SOAKS.into_iter().zip([
        "two of the above at the same time, by chance, again and again, on one broker and one database",
        "the same on three brokers and a database with a replica; one of the two is of those that take them",
    ]) {
        table.add_row([soak, "by --minutes", "", what]);
    }
    for guard in guards::ALL {
        let rounds = format!("at most {}", guards::ROUNDS);
        table.add_row([guard.fault.name, &rounds, "", &format!("a control: {}", guard.fault.what)]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn names(scenarios: &[&Scenario]) -> Vec<&'static str> {
        scenarios.iter().map(|scenario| scenario.name).collect()
    }

    #[test]
    fn each_has_a_name_of_its_own() {
        let controls = guards::ALL.iter().map(|guard| guard.fault.name);
        let distinct: BTreeSet<&str> = ALL.iter().map(|it| it.name).chain(SOAKS).chain(controls).collect();
        assert_eq!(distinct.len(), ALL.len() + SOAKS.len() + guards::ALL.len());
        assert!(distinct.iter().all(|name| list().contains(name)));
    }

    /// A name that the service does not know would arm nothing.
    #[test]
    fn the_service_knows_every_point() {
        let service = include_str!("../../../issue-service/src/failpoint.rs");
        let begins = ["issue-service-kill-", "issue-service-stop-", "consumer-kill-"];
        let point = |it: &Scenario| begins.iter().find_map(|begin| it.name.strip_prefix(begin));
        let points: Vec<&str> = ALL.iter().filter_map(point).collect();
        assert_eq!(points.len(), 12);
        for point in points {
            assert!(service.contains(&format!("\"{point}\" => Point::")), "{point}");
        }
    }

    #[test]
    fn some_or_all_can_be_chosen() {
        assert_eq!(chosen(&[], false).unwrap().len(), ALL.len());
        let some = ["kafka-kill", "redis-wiped"].map(str::to_owned);
        assert_eq!(names(&chosen(&some, false).unwrap()), ["redis-wiped", "kafka-kill"]);
        let ci = chosen(&[], true).unwrap();
        assert!(ci.iter().all(|it| it.ci) && (5..ALL.len()).contains(&ci.len()));
        for other in SOAKS.into_iter().chain(["without-read-back"]) {
            assert!(chosen(&[other.to_owned()], false).unwrap().is_empty());
        }
        let error = chosen(&["kafka".to_owned()], false).err().unwrap().to_string();
        assert!(
            error.starts_with("--scenario kafka: no such scenario; there are redis-master-kill, "),
            "{error}"
        );
    }
}
