//! Parts die in the middle of a race, and the promises hold.
//!
//! A fault counts only if at least [`IN_FLIGHT`] claims were under way when it struck; otherwise the test fails.

use std::time::{Duration, Instant};

use e2e::access_log::{AccessLine, AccessLog};
use e2e::client::Client;
use e2e::coupons::{self, OPEN};
use e2e::load::{self, Live, Outcome, Plan, Record};
use e2e::stack::{Stack, alone};
use e2e::tokens::{Minter, unix_ms, user_ids};
use e2e::{audit, consumers, faults, users};

const USERS: usize = 15_000;
const STOCK: usize = 1_000;
const WORKERS: usize = 150;
const IN_FLIGHT: usize = 50;
/// Answers before the fault: far enough into the race, with most of the stock still to be had.
const ANSWERS: usize = 400;
/// Long enough for every worker to be at the frozen instance's mercy once; shorter than any timeout.
const FROZEN: Duration = Duration::from_millis(200);
/// The gateway stops using a dead instance within this.
const NOTICE: Duration = Duration::from_secs(3);
/// The reconciler has found and mended every difference within this.
const RECONCILED: Duration = Duration::from_secs(30);

/// What was seen of a fault.
struct Struck {
    coupon: u64,
    record: Record,
    /// As the gateway's access log has them.
    claims: Vec<AccessLine>,
}

/// The state of the load when a fault strikes.
struct Moment {
    at: Duration,
    in_flight: usize,
}

impl Moment {
    fn now(live: &Live) -> Self {
        Self { at: live.elapsed(), in_flight: live.in_flight() }
    }
}

/// A race with `strike` in its middle, then the audit, then the stack whole again. `strike` is given the coupon's id
/// and says when it struck.
async fn race_with(strike: impl AsyncFnOnce(&Stack, &Live, u64) -> Moment) -> Struck {
    let stack = faults::wait_until_whole(&Stack::load()).await;
    let client = Client::gateway(&stack);
    let admin = users::admin(&stack, &client).await;
    let coupon = coupons::create(&client, &admin, STOCK as u64, OPEN).await;
    let mysql = audit::mysql(&stack).await;
    let plan = Plan { users: user_ids(USERS), parallel: 2, workers: WORKERS };
    let log = AccessLog::from_here(&stack);
    let load = load::start(&client, &Minter::of(&stack), coupon, &plan).await;

    load.live.wait_for(ANSWERS, IN_FLIGHT).await;
    let Moment { at, in_flight } = strike(&stack, &load.live, coupon).await;
    let record = load.finish().await;
    // First of all, so that a failure here is no failure of the next test.
    faults::wait_until_whole(&stack).await;
    println!("{in_flight} claims in flight at {at:?}; {}", record.summary());
    assert!(in_flight >= IN_FLIGHT, "{in_flight} claims in flight: this proves nothing");

    assert_eq!(record.count(|o| matches!(o, Outcome::Wrong(..))), 0, "{:?}", record.sample());
    audit::check(&mysql, coupon, STOCK, &record).await;
    audit::wait_for_issued(&client, coupon, STOCK as u64, Duration::from_secs(60)).await;
    let claims = log.lines().into_iter().filter(|line| line.route == "coupon-issues-claim").collect();
    Struck { coupon, record, claims }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_of_the_issue_service_dies() {
    let _stack = alone().await;
    let mut victim = String::new();
    // Unix milliseconds.
    let (mut killed, mut gone) = (0.0, 0.0);
    let struck = race_with(async |stack, live, _| {
        let pid = stack.one("issue-service").pid;
        victim = stack.one("issue-service").instance.clone();
        // Frozen for a moment, so that claims are surely in its hands when it dies.
        faults::freeze(pid);
        tokio::time::sleep(FROZEN).await;
        let moment = Moment::now(live);
        killed = unix_ms() as f64;
        faults::kill_9(pid);
        faults::wait_until_gone(pid).await;
        gone = unix_ms() as f64;
        moment
    })
    .await;
    // A claim is sent to one instance only. With an instance that dies it is lost if it was there by then; one that
    // comes later finds no connection, which costs nothing, and goes to another. So of the users' failures each is a
    // claim that was at the victim while it died.
    let at_victim = |claim: &&AccessLine| claim.instance == victim;
    let when_it_died = |claim: &&AccessLine| claim.began() <= gone && claim.ended() >= killed;
    let in_flight = struck.claims.iter().filter(at_victim).filter(when_it_died).count();
    let lost: Vec<_> = struck.claims.iter().filter(|claim| claim.status >= 500).collect();
    println!("{} claims lost of {in_flight} in flight at {victim} within {} ms", lost.len(), gone - killed);
    assert!(!lost.is_empty(), "no claim was in the hands of the instance that died: this proves nothing");
    for claim in &lost {
        assert!(at_victim(claim) && when_it_died(claim), "not in flight at {victim} when it died: {claim:?}");
    }
    assert_eq!(struck.record.failed().count(), lost.len(), "{:?}", struck.record.sample());

    let notice = gone + NOTICE.as_secs_f64() * 1e3;
    let later: Vec<_> = struck.claims.iter().filter(|claim| claim.began() >= notice).collect();
    assert!(later.len() >= 1_000, "only {} claims began after {NOTICE:?}: this proves nothing", later.len());
    for claim in later {
        assert_eq!(claim.attempts, 1, "a dead instance was tried {NOTICE:?} later: {claim:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_dies() {
    let _stack = alone().await;
    let mut killed = None;
    let struck = race_with(async |stack, live, coupon| {
        // A coupon is written by one consumer, and no other matters to it.
        let partition = consumers::partition_of(coupon);
        let writer = consumers::writer_of(stack, partition);
        let consumers = stack.instances("issue-consumer");
        let owner = consumers.iter().find(|consumer| consumer.instance == writer.instance);
        let pid = owner.expect("the writer is a consumer of the stack").pid;
        let written = audit::rows(&audit::mysql(stack).await, coupon).await.len();
        let moment = Moment::now(live);
        faults::kill_9(pid);
        killed = Some((partition, writer, written));
        moment
    })
    .await;
    let (partition, writer, written) = killed.expect("a consumer was killed");
    println!("{} was killed with {written} rows of {STOCK} written", writer.instance);
    assert!(written < STOCK, "all rows were written before: this proves nothing");
    let successor = consumers::writer_of(&Stack::load(), partition);
    assert!(successor.since > writer.since, "{writer:?} was killed, and then nobody began to write");
    assert_eq!(
        struck.record.failed().count(),
        0,
        "claims do not need the consumer: {:?}",
        struck.record.sample()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_redis_master_dies() {
    let _stack = alone().await;
    let struck = race_with(async |stack, live, _| {
        let pid = faults::redis_master_pid(stack).await;
        let moment = Moment::now(live);
        faults::kill_9(pid);
        moment
    })
    .await;
    assert_eq!(struck.record.count(|o| matches!(o, Outcome::Broken(_))), 0, "{:?}", struck.record.sample());
    // The own door serves everybody meanwhile; one in a thousand may have waited too long for it.
    let failed = struck.record.failed().count();
    assert!(failed * 1_000 <= struck.record.attempts.len(), "{failed} failed: {:?}", struck.record.sample());
    // Whatever the new master had not heard of is told to it.
    let stack = Stack::load();
    let rows = audit::rows(&audit::mysql(&stack).await, struck.coupon).await;
    let begin = Instant::now();
    while audit::redis_users(&stack, struck.coupon).await != rows.keys().copied().collect() {
        assert!(begin.elapsed() < RECONCILED, "the set is not the rows' users after {RECONCILED:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_coupon_service_is_restarted() {
    let _stack = alone().await;
    let struck = race_with(async |stack, live, _| {
        let pid = stack.one("coupon-service").pid;
        let moment = Moment::now(live);
        faults::terminate(pid);
        moment
    })
    .await;
    assert_eq!(
        struck.record.failed().count(),
        0,
        "the ledger has the definition: {:?}",
        struck.record.sample()
    );
}
