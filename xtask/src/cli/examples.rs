//! The examples below each `--help`. A test parses every one of them.

pub(crate) const TOP: &str = "\
Examples:
  # the whole system, the reference load, and a verdict; then it stops
  cargo xtask up --demo
  # the system in the background; look at it, break it, end it
  cargo xtask up --detach
  cargo xtask status
  cargo xtask kill redis-1
  cargo xtask down
  # everything that a change has to pass
  cargo xtask test

All commands but test work on one run, whose folder is --dir, else FIRSTCOME_STATE, else target/firstcome.";

pub(crate) const UP: &str = "\
Examples:
  # until Ctrl-C
  cargo xtask up
  # quick to build, in the background
  cargo xtask up --debug --detach
  # a second system beside the first, with a gateway where you want it
  cargo xtask up --dir target/second --port gateway=8081
  # only the servers, for a service that you run yourself
  cargo xtask up --servers-only --mysql

A port is kept from the folder's last run. Where there was none it is a well-known one (gateway 8080, Consul 8500, \
trace UI 9411) if that is free, else any free one.";

pub(crate) const STATUS: &str = "\
Examples:
  cargo xtask status
  # for scripts
  cargo xtask status --json | jq -r .gateway

It ends with 0 while the run goes on, else with 1.";

pub(crate) const DOWN: &str = "\
Examples:
  cargo xtask down
  cargo xtask down --dir target/second";

pub(crate) const RESET: &str = "\
Examples:
  cargo xtask reset
  cargo xtask reset --dir target/second";

pub(crate) const RESTART: &str = "\
Examples:
  # a new binary, or a new commit in the configuration repository
  cargo xtask restart coupon-service
  cargo xtask restart issue-service-2";

pub(crate) const KILL: &str = "\
Examples:
  cargo xtask kill redis-1
  # both instances at once
  cargo xtask kill issue-service";

pub(crate) const SCALE: &str = "\
Examples:
  cargo xtask scale issue-service=3
  cargo xtask scale issue-consumer=1";

pub(crate) const LOGS: &str = "\
Examples:
  # which there are
  cargo xtask logs
  cargo xtask logs -f gateway
  cargo xtask logs gateway | grep 4bf92f3577b34da6a3ce929d0e0e4736";

pub(crate) const DEMO: &str = "\
Examples:
  cargo xtask demo
  # a small one
  cargo xtask demo --stock 100 --signups 20 --users 1000 --ramp 5s
  # for scripts
  cargo xtask demo --json | jq .lost

It ends with 0 if everything adds up, else with 1.";

pub(crate) const TEST: &str = "\
Examples:
  cargo xtask test
  # without the end-to-end tests
  cargo xtask test --quick
  # one package; tests by name
  cargo xtask test -p coupon-service
  cargo xtask test --filter write_back
  # servers for many runs of `cargo test`
  cargo xtask test --servers-only";

pub(crate) const CHAOS: &str = "\
Examples:
  # what there is
  cargo xtask chaos --list
  # kill the Redis master in the middle of a sale, three times
  cargo xtask chaos --scenario redis-master-kill --rounds 3
  # one round of the most telling ones, as a change has to pass
  cargo xtask chaos --ci
  # everything, which takes some three hours; after an interruption the rest of it
  cargo xtask chaos --publish
  cargo xtask chaos --publish --resume
  # on a stack of its own, with a replica of the database
  cargo xtask chaos --scenario mysql-failover-busy --rounds 3
  # take the guards out of the services, one after another: what breaks then has to be found
  cargo xtask chaos --controls
  # two faults at a time, by chance; a third of the minutes on the stack with three brokers
  cargo xtask chaos --scenario soak --scenario soak-replicated --minutes 15 --seed 7

Ctrl-C thaws what is frozen, opens what is cut and stops everything; the rounds that were done are kept. It ends with 0 \
if no promise was broken, else with 1.";

pub(crate) const BENCH: &str = "\
Examples:
  cargo xtask bench smoke
  cargo xtask bench smoke --out /tmp/smoke.md
  # these start servers of their own where none run
  cargo xtask bench sink
  cargo xtask bench promise
  cargo xtask bench retire
  cargo xtask bench start
  # beside nginx, which it finds or gets
  cargo xtask bench gateway
  # on a stack of its own
  cargo xtask bench rolling";

pub(crate) const BENCH_SINK: &str = "\
Examples:
  cargo xtask bench sink
  cargo xtask bench sink --quick
  cargo xtask bench sink --json | jq .figures.outage.rowsPerSecond

It takes about 4 minutes, on the servers of the run if they run, else on servers of its own. It fails if the consumer is \
slower than asked for.";

pub(crate) const BENCH_PROMISE: &str = "\
Examples:
  cargo xtask bench promise
  cargo xtask bench promise --quick
  cargo xtask bench promise --json | jq '.figures.loads[] | {load, answeredAfter, averageMs}'

It takes about 2 minutes, on the servers of the run if they run, else on servers of its own.";

pub(crate) const BENCH_RETIRE: &str = "\
Examples:
  cargo xtask bench retire
  cargo xtask bench retire --quick
  cargo xtask bench retire --json | jq .figures.waves[-1]

It takes about 4 minutes, on the servers of the run if they run, else on servers of its own. It fails if anything is left.";

pub(crate) const BENCH_START: &str = "\
Examples:
  cargo xtask bench start
  cargo xtask bench start --quick
  cargo xtask bench start --json | jq .figures.bytesAWinner

It takes about 2 minutes, on the servers of the run if they run, else on servers of its own. It fails if an instance is \
ready later than asked for.";

pub(crate) const BENCH_ROLLING: &str = "\
Examples:
  # quick to build
  cargo xtask bench rolling --debug --rate 300
  cargo xtask bench rolling --json | jq '.figures.steps[] | {step, get, post}'
  # rewrite the tables of docs/reliability.md
  cargo xtask bench rolling --publish

It takes about 5 minutes, on a stack of its own with two instances of every service and two gateways. It fails if a \
request failed, if the claims do not add up, or if an instance that is slow or fails gets 5 % of the traffic or more.";

pub(crate) const BENCH_GATEWAY: &str = "\
Examples:
  cargo xtask bench gateway
  cargo xtask bench gateway --quick
  cargo xtask bench gateway --json | jq '.figures.proxied[] | {load, way, ofNginx, cpuMicros}'

It takes about 6 minutes and needs no run. It fails if the gateway falls behind nginx by more than is allowed.";
