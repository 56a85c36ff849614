//! The command line.

mod examples;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// The developer's tool: the whole system on real servers, without Docker.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, max_term_width = 110)]
#[command(after_help = examples::TOP)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build everything, find or get the servers, start it all, and keep it running until Ctrl-C
    #[command(after_help = examples::UP)]
    Up(Up),
    /// What runs where
    #[command(after_help = examples::STATUS)]
    Status {
        #[command(flatten)]
        place: Place,
        /// For scripts
        #[arg(long)]
        json: bool,
    },
    /// Stop everything in order; data stays
    #[command(after_help = examples::DOWN)]
    Down {
        #[command(flatten)]
        place: Place,
    },
    /// Stop everything and remove data, logs, ports and secrets of the run
    #[command(after_help = examples::RESET)]
    Reset {
        #[command(flatten)]
        place: Place,
    },
    /// Stop one process in order and start it again
    #[command(after_help = examples::RESTART)]
    Restart {
        /// A process (issue-service-1) or all of a kind (issue-service)
        name: String,
        #[command(flatten)]
        place: Place,
    },
    /// SIGKILL a process, as a fault; the supervisor starts it again
    #[command(after_help = examples::KILL)]
    Kill {
        /// A process (redis-1) or all of a kind (issue-service)
        name: String,
        #[command(flatten)]
        place: Place,
    },
    /// Change the number of instances: scale issue-service=3
    #[command(after_help = examples::SCALE)]
    Scale {
        /// NAME=COUNT
        #[arg(value_parser = pair::<usize>)]
        target: (String, usize),
        #[command(flatten)]
        place: Place,
    },
    /// Print the log of a process; without a name, list the logs
    #[command(after_help = examples::LOGS)]
    Logs {
        /// A process, such as gateway, issue-consumer-1, redis-2
        name: Option<String>,
        /// Go on as it grows, also when a new run begins a new one; Ctrl-C ends it
        #[arg(short, long)]
        follow: bool,
        #[command(flatten)]
        place: Place,
    },
    /// 15,000 users race for 1,000 coupons on the running stack; audits and judges
    #[command(after_help = examples::DEMO)]
    Demo(Demo),
    /// Format, lints and all tests on servers of their own
    #[command(after_help = examples::TEST)]
    Test(Test),
    /// Sales on a stack of its own with faults in their middle, and whether every promise was kept
    #[command(after_help = examples::CHAOS)]
    Chaos(Chaos),
    /// Measurements, each kept as a report
    #[command(after_help = examples::BENCH)]
    Bench {
        #[command(subcommand)]
        what: Bench,
    },
    /// Become a supervised process (internal)
    #[command(hide = true)]
    Child {
        #[arg(long)]
        record: Option<PathBuf>,
        #[arg(long)]
        parent: i32,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Place {
    /// Folder of the run: state, data, logs, secrets [default: target/firstcome]
    #[arg(long, env = "FIRSTCOME_STATE", hide_env_values = true)]
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Debug binaries: quick to build, slow to run
    #[arg(long)]
    pub(crate) debug: bool,
    /// Return when all is ready; `cargo xtask down` ends it
    #[arg(long)]
    pub(crate) detach: bool,
    /// MySQL instead of MariaDB
    #[arg(long)]
    pub(crate) mysql: bool,
    /// Only the servers (no trace UI), for work on a service
    #[arg(long, conflicts_with = "demo")]
    pub(crate) servers_only: bool,
    /// Run the demo when all is ready, then stop (with --detach: leave it running)
    #[arg(long)]
    pub(crate) demo: bool,
    /// A port of your own, such as gateway=8081; may be repeated
    #[arg(long = "port", value_name = "NAME=PORT", value_parser = pair::<u16>)]
    pub(crate) ports: Vec<(String, u16)>,
    /// The supervisor behind --detach
    #[arg(long, hide = true)]
    pub(crate) supervise: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Demo {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Coupons to win
    #[arg(long, default_value_t = 1_000)]
    pub(crate) stock: u32,
    /// Users who sign up and log in over HTTP
    #[arg(long, default_value_t = 200)]
    pub(crate) signups: u32,
    /// Further users, with tokens made from the run's signing key
    #[arg(long, default_value_t = 15_000)]
    pub(crate) users: u32,
    /// Time over which the users arrive
    #[arg(long, default_value = "20s")]
    pub(crate) ramp: String,
    /// Print the verdict as one JSON object on stdout, for scripts
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Test {
    /// Leave out the end-to-end tests
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only tests whose name contains this; skips format and lints
    #[arg(long, value_name = "NAME")]
    pub(crate) filter: Option<String>,
    /// Only start the servers and keep them, for tests run by an editor
    #[arg(long, conflicts_with_all = ["quick", "filter", "package"])]
    pub(crate) servers_only: bool,
    /// Only this package
    #[arg(short, long)]
    pub(crate) package: Option<String>,
    /// MySQL instead of MariaDB
    #[arg(long)]
    pub(crate) mysql: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Chaos {
    /// Only this scenario; may be repeated [default: all]
    #[arg(long = "scenario", value_name = "NAME")]
    pub(crate) scenarios: Vec<String>,
    /// Rounds of each scenario that count [default: see --list]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) rounds: Option<u32>,
    /// How long the soaks go on; a third of it is the one's on the replicated stack
    #[arg(long, value_name = "N", default_value_t = 45)]
    pub(crate) minutes: u64,
    /// Everything that is left to chance follows from it
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Claims a second
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(100..=20_000))]
    pub(crate) rate: u64,
    /// Go on with the rounds that the folder's chaos.json lacks; no more than documents may have changed since
    #[arg(long)]
    pub(crate) resume: bool,
    /// Show the scenarios
    #[arg(long)]
    pub(crate) list: bool,
    /// One round of each scenario that is marked for it, ten minutes at most
    #[arg(long, conflicts_with_all = ["scenarios", "rounds", "resume", "publish"])]
    pub(crate) ci: bool,
    /// Only the controls: guards are taken out of the services, and what breaks has to be found
    #[arg(long, conflicts_with = "ci")]
    pub(crate) controls: bool,
    /// Write the tables into docs/reliability.md, too
    #[arg(long)]
    pub(crate) publish: bool,
    /// Debug binaries: quick to build, slow to run; give a lower --rate
    #[arg(long)]
    pub(crate) debug: bool,
    /// MySQL instead of MariaDB
    #[arg(long)]
    pub(crate) mysql: bool,
    /// Folder of the run: chaos.json, data, logs [default: target/chaos]
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
}

impl Chaos {
    /// What is not in the list of scenarios belongs to a run of everything, or is chosen by its name.
    pub(crate) fn wants(&self, name: &str) -> bool {
        let everything = self.scenarios.is_empty() && !self.ci && !self.controls;
        everything || self.scenarios.iter().any(|it| it == name)
    }
}

/// The package whose tests need the whole stack.
pub(crate) const END_TO_END: &str = "e2e";

impl Test {
    /// Whether the end-to-end tests are among those that run.
    pub(crate) fn end_to_end(&self) -> bool {
        let chosen = self.package.as_deref().is_none_or(|package| package == END_TO_END);
        chosen && !self.quick && !self.servers_only
    }
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Bench {
    /// Sizes, starts and latencies of the whole, as a report; fails where a limit is reached
    #[command(after_help = examples::BENCH)]
    Smoke {
        #[command(flatten)]
        place: Place,
        /// Where the report goes [default: docs/benchmarks/smoke.md]
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Rows a second that the consumer writes, beside a bare INSERT loop, and an outage of the consumer
    #[command(after_help = examples::BENCH_SINK)]
    Sink(MeasureOnServers),
    /// What the promise costs: claims answered after the doorman, after the log's acknowledgement, after reading back
    #[command(after_help = examples::BENCH_PROMISE)]
    Promise(MeasureOnServers),
    /// What is left of two thousand coupons that end and retire: keys in Redis, memory, queues
    #[command(after_help = examples::BENCH_RETIRE)]
    Retire(MeasureOnServers),
    /// How soon an instance is ready with a million winners, what it weighs then, and how long their audit takes
    #[command(after_help = examples::BENCH_START)]
    Start(MeasureOnServers),
    /// What the gateway costs: requests a second, latencies, CPU and memory, beside nginx as a proxy
    #[command(after_help = examples::BENCH_GATEWAY)]
    Gateway(Measure),
    /// Every service restarted one instance after the other, keys rotated, a route changed, and an instance that is slow
    /// or fails, under load; fails where a request does
    #[command(after_help = examples::BENCH_ROLLING)]
    Rolling(Rolling),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Rolling {
    /// Requests a second
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(100..=20_000))]
    pub(crate) rate: u64,
    /// Debug binaries: quick to build, slow to run; give a lower --rate
    #[arg(long)]
    pub(crate) debug: bool,
    /// Write the tables into docs/reliability.md, too
    #[arg(long)]
    pub(crate) publish: bool,
    /// Print the figures as one JSON object on stdout, for scripts
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct MeasureOnServers {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) measure: Measure,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Measure {
    /// Where the report goes [default: docs/benchmarks/NAME.md; with --quick nowhere]
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// A tenth of everything, to try it out
    #[arg(long)]
    pub(crate) quick: bool,
    /// Print the figures as one JSON object on stdout, for scripts
    #[arg(long)]
    pub(crate) json: bool,
}

/// NAME=VALUE.
fn pair<T>(text: &str) -> Result<(String, T), String>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    let (name, value) = text.split_once('=').ok_or("expected NAME=NUMBER")?;
    Ok((name.to_owned(), value.parse().map_err(|error| format!("{value}: {error}"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    /// A command with all below it, as people can see them.
    fn all(command: clap::Command) -> Vec<clap::Command> {
        let below = command.get_subcommands().filter(|it| !it.is_hide_set() && it.get_name() != "help");
        let below: Vec<_> = below.cloned().flat_map(all).collect();
        std::iter::once(command).chain(below).collect()
    }

    #[test]
    fn every_help_has_examples_that_parse() {
        use clap::CommandFactory as _;
        for command in all(Cli::command()) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let lines = help.lines().filter_map(|line| line.strip_prefix("  cargo "));
            let lines: Vec<&str> = lines.map(|line| line.split(" | ").next().unwrap()).collect();
            assert!(!lines.is_empty(), "{}", command.get_name());
            for line in lines {
                if let Err(error) = Cli::try_parse_from(line.split(' ')) {
                    panic!("{line}: {error}");
                }
            }
        }
    }

    #[test]
    fn the_end_to_end_tests_run_unless_others_are_chosen() {
        let end_to_end = |arguments: &[&str]| {
            let cli = Cli::parse_from(["xtask", "test"].iter().chain(arguments));
            let Command::Test(test) = cli.command else { panic!("not test") };
            test.end_to_end()
        };
        for arguments in [&[][..], &["--filter", "trace"], &["-p", "e2e"], &["--mysql"]] {
            assert!(end_to_end(arguments), "{arguments:?}");
        }
        for arguments in [&["--quick"][..], &["--servers-only"], &["-p", "gateway"]] {
            assert!(!end_to_end(arguments), "{arguments:?}");
        }
    }

    #[test]
    fn everything_has_its_controls_and_its_soak() {
        let wants = |arguments: &[&str]| {
            let cli = Cli::parse_from(["xtask", "chaos"].iter().chain(arguments));
            let Command::Chaos(chaos) = cli.command else { panic!("not chaos") };
            chaos.wants("soak")
        };
        assert!(wants(&[]) && wants(&["--scenario", "soak"]) && wants(&["--controls", "--scenario", "soak"]));
        assert!(!wants(&["--ci"]) && !wants(&["--controls"]) && !wants(&["--scenario", "kafka-kill"]));
    }

    #[test]
    fn pairs() {
        let cli = Cli::parse_from(["xtask", "scale", "issue-service=3"]);
        let Command::Scale { target, .. } = cli.command else { panic!("not scale") };
        assert_eq!(target, ("issue-service".to_owned(), 3));
        assert!(Cli::try_parse_from(["xtask", "up", "--port", "gateway=99999"]).is_err());
    }
}
