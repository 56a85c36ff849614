//! What histories of the model do not tell, or only by what it costs.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use platform::config::Secret;
use platform::lifecycle::BoxError;
use tokio::sync::{Semaphore, broadcast};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::ledger::{Entry, Ledger, Record};
use crate::outside::{Away, Changed, Mend, Told};

const COUPON: CouponId = CouponId(5);
const USER: UserId = UserId(1);
const NOW: u64 = 1_800_000_000_000;

fn told(version: u64, quantity: u32) -> Told {
    Told { coupon_id: COUPON, version, quantity, starts_at: NOW, ends_at: NOW + 1000, closed: false }
}

/// What the doorman answers to everybody.
#[derive(Clone, Copy)]
enum Says {
    This(Word),
    /// An error.
    Nothing,
    /// He never answers.
    Never,
}

/// A log of one partition that is read as soon as it is written, and whose definitions wait until they may be.
struct Scene {
    partitions: Arc<[Partition]>,
    /// How many definitions may still be appended.
    may_append: Semaphore,
    /// The coupon service's.
    known: Mutex<Option<Told>>,
    /// The log does not say where it ends.
    silent: AtomicBool,
    doorman: Mutex<Says>,
    announced: broadcast::Sender<Bytes>,
}

impl Scene {
    /// A coupon of this stock is on sale.
    fn sell(&self, stock: u32) {
        let Told { coupon_id: coupon, version, starts_at, ends_at, closed, .. } = told(1, stock);
        self.append_now(&Record::Definition(Definition {
            coupon,
            version,
            stock,
            starts_at,
            ends_at,
            closed,
        }));
    }

    fn append_now(&self, record: &Record) -> u64 {
        let partition = &self.partitions[0];
        let offset = partition.next();
        partition.apply(Entry { offset, appended_at: NOW, value: &record.encode() }).unwrap();
        offset
    }

    /// The parts of a process around this log; they follow what changes at the coupon service.
    fn claims(self: &Arc<Self>) -> Claims<Self> {
        let (refusals, answering) = Refusals::new(self.clone(), self.partitions.clone());
        self.spawn(answering);
        let secret: Secret = serde_json::from_value("a secret of at least thirty-two bytes".into()).unwrap();
        let definitions = Definitions::new(self.clone(), secret, self.partitions.clone());
        self.spawn(definitions.clone().follow_changes());
        Claims {
            partitions: self.partitions.clone(),
            outside: self.clone(),
            doorman: Doorman::new(self.clone()),
            definitions,
            refusals: Arc::new(refusals),
            waiting: Arc::new(Waiting::new(100)),
        }
    }
}

fn scene() -> Arc<Scene> {
    let partitions = [Partition::new(Ledger::new(0, 1))].into();
    let announced = broadcast::Sender::new(1);
    Arc::new(Scene {
        partitions,
        may_append: Semaphore::new(0),
        known: Mutex::default(),
        silent: AtomicBool::new(false),
        doorman: Mutex::new(Says::This(Word::Admitted)),
        announced,
    })
}

impl Outside for Scene {
    fn now_ms(&self) -> u64 {
        NOW
    }

    #[expect(clippy::disallowed_methods, reason = "the test's own runtime, where no lifecycle is needed")]
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(task);
    }

    fn stop(&self) -> CancellationToken {
        CancellationToken::new()
    }

    fn topic(&self) -> &str {
        "t"
    }

    fn send_claim(&self, coupon: CouponId, user: UserId, attempt: u64, _: Option<&str>) {
        let offset = self.append_now(&Record::Claim { coupon, user });
        self.partitions[0].acked(coupon, user, attempt, offset);
    }

    async fn append(&self, _: u32, record: Record) -> Result<u64, BoxError> {
        self.may_append.acquire().await?.forget();
        Ok(self.append_now(&record))
    }

    async fn end_of(&self, _: u32) -> Option<u64> {
        (!self.silent.load(Ordering::Relaxed)).then(|| self.partitions[0].next())
    }

    async fn admit(&self, _: CouponId, _: u32, users: &[UserId]) -> Option<Vec<Word>> {
        let says = *self.doorman.lock().unwrap();
        match says {
            Says::This(word) => Some(vec![word; users.len()]),
            Says::Nothing => None,
            Says::Never => std::future::pending().await,
        }
    }

    async fn mend(&self, _: CouponId, _: Mend, _: &[UserId]) -> bool {
        true
    }

    async fn cached(&self, _: CouponId) -> Option<String> {
        None
    }

    async fn told(&self, _: CouponId) -> Result<Option<Told>, Away> {
        Ok(*self.known.lock().unwrap())
    }

    async fn changed_since(&self, version: u64) -> Result<Changed, Away> {
        let items: Vec<Told> = self.known.lock().unwrap().iter().copied().collect();
        let version = items.iter().map(|told| told.version).fold(version, u64::max);
        Ok(Changed { items, version })
    }

    async fn won(&self, _: u64, _: CouponId, _: UserId) -> Won {
        Won::Unknown
    }

    fn announced(&self) -> broadcast::Receiver<Bytes> {
        self.announced.subscribe()
    }
}

#[test]
fn no_more_wait_than_may() {
    let waiting = Waiting::new(2);
    let (first, _second) = (waiting.enter().unwrap(), waiting.enter().unwrap());
    assert!(waiting.enter().is_none());
    assert!(waiting.enter().is_none(), "who is turned away takes no place");
    drop(first);
    assert!(waiting.enter().is_some());
}

#[test]
fn what_a_claim_has_waited_for_has_a_name_in_the_metrics() {
    use Stage::{Definition, Doorman, Echo, Index, LastSlots, News, OwnDoor, ReadBack};
    let names: BTreeSet<&str> =
        [Definition, Index, News, Doorman, Echo, LastSlots, OwnDoor, ReadBack].map(Stage::name).into();
    assert_eq!(names.len(), 8);
    assert!(names.contains("read_back"));
}

#[tokio::test(start_paused = true)]
async fn of_a_stopped_partition_nothing_is_said() {
    let scene = scene();
    let claims = scene.claims();
    assert_eq!(claims.status(COUPON, USER).await, Status::None);
    let Entrance::Send { .. } = scene.partitions[0].enter(COUPON, USER, Instant::now(), Pass::None) else {
        panic!("not let in")
    };
    assert_eq!(claims.status(COUPON, USER).await, Status::Pending);
    scene.partitions[0].stop();
    assert_eq!(claims.status(COUPON, USER).await, Status::Unavailable);
    assert_eq!(claims.claim(COUPON, USER).await, Outcome::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn without_news_of_the_log_no_coupon_is_unknown() {
    let scene = scene();
    let claims = scene.claims();
    scene.silent.store(true, Ordering::Relaxed);
    assert_eq!(claims.claim(COUPON, USER).await, Outcome::Unavailable);
    scene.silent.store(false, Ordering::Relaxed);
    assert_eq!(claims.claim(COUPON, USER).await, Outcome::NotFound);
}

/// Whoever asks when the coupon was just made waits for it, though it was not there a moment ago.
#[tokio::test(start_paused = true)]
async fn a_definition_on_its_way_is_waited_for() {
    let scene = scene();
    let claims = scene.claims();
    assert_eq!(claims.claim(COUPON, USER).await, Outcome::NotFound);
    *scene.known.lock().unwrap() = Some(told(1, 0));
    while claims.definitions.newest_known(COUPON) == 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let late = async || {
        tokio::time::sleep(Duration::from_millis(500)).await;
        scene.may_append.add_permits(1);
    };
    let (outcome, ()) = tokio::join!(claims.claim(COUPON, USER), late());
    assert_eq!(outcome, Outcome::SoldOut);

    // Nobody is refused by a definition that is known to be an old one.
    *scene.known.lock().unwrap() = Some(told(2, 1));
    while claims.definitions.newest_known(COUPON) == 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (outcome, ()) = tokio::join!(claims.claim(COUPON, USER), late());
    assert_eq!(outcome, Outcome::Issued(Winner { place: 1, issued_at: NOW }));
    assert_eq!(claims.claim(COUPON, UserId(2)).await, Outcome::SoldOut);
}

/// The place of one who comes to nothing is that of the next in the queue, who counts once and not as another in front
/// of himself.
#[tokio::test(start_paused = true)]
async fn who_is_called_at_the_own_door_goes_through_it() {
    let scene = scene();
    let claims = scene.claims();
    *scene.doorman.lock().unwrap() = Says::Nothing;
    scene.sell(1);
    let first = UserId(9);
    let Entrance::Send { attempt, .. } = scene.partitions[0].enter(COUPON, first, Instant::now(), Pass::None)
    else {
        panic!("not let in")
    };
    let gives_up = async || {
        tokio::time::sleep(Duration::from_millis(500)).await;
        scene.partitions[0].failed(COUPON, first, attempt, Answer::NotSent);
    };
    let begun = Instant::now();
    let (outcome, ()) = tokio::join!(claims.claim(COUPON, USER), gives_up());
    assert_eq!(outcome, Outcome::Issued(Winner { place: 1, issued_at: NOW }));
    assert!(begun.elapsed() < BUDGET, "{:?}", begun.elapsed());
}

/// Ten users claim at the same time, each once, with three to be had, while this is all that the doorman says. Everybody
/// has to hear the truth when so many milliseconds are over, and soon after.
async fn ten_claim(says: Says, waited: u64) -> Claims<Scene> {
    let scene = scene();
    let claims = scene.claims();
    *scene.doorman.lock().unwrap() = says;
    scene.sell(3);
    let begun = Instant::now();
    let all = (1..=10).map(|user| claims.claim(COUPON, UserId(user)));
    let outcomes = futures_util::future::join_all(all).await;
    let took = begun.elapsed();
    let issued = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Issued(_))).count();
    let sold_out = outcomes.iter().filter(|outcome| **outcome == Outcome::SoldOut).count();
    assert_eq!((issued, sold_out), (3, 7), "{outcomes:?}");
    let waited = Duration::from_millis(waited);
    assert!((waited..waited + Duration::from_millis(50)).contains(&took), "{took:?}");
    claims
}

/// The slots of attempts that died fill the doorman's set: nobody waits for them longer than the last slots may take.
#[tokio::test(start_paused = true)]
async fn leaked_slots_heal_within_a_claim() {
    ten_claim(Says::This(Word::SoldOut), 200).await;
}

/// A doorman who takes every question and answers none is waited for once, and by nobody in the second after that.
#[tokio::test(start_paused = true)]
async fn a_frozen_doorman_holds_no_claim_up() {
    let claims = ten_claim(Says::Never, 100).await;
    let begun = Instant::now();
    assert_eq!(claims.claim(COUPON, UserId(11)).await, Outcome::SoldOut);
    assert!(begun.elapsed() < Duration::from_millis(20), "{:?}", begun.elapsed());
}

/// A crowd of losers must not become a crowd of questions.
#[tokio::test(start_paused = true)]
async fn a_partition_s_end_is_asked_for_at_a_pace() {
    let claims = scene().claims();
    let begun = Instant::now();
    for _ in 0..5 {
        claims.refusals.news(0).await.unwrap();
    }
    assert!(begun.elapsed() >= Duration::from_millis(20), "{:?}", begun.elapsed());
}
