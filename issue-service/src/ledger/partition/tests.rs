use std::cell::Cell;

use futures_util::FutureExt as _;

use super::*;
use crate::ids::partition_of;

const COUPON: CouponId = CouponId(5);
const START: u64 = 1_800_000_000_000;

struct Log {
    partition: Partition,
    next: Cell<u64>,
}

impl Log {
    fn new(stock: u32) -> Self {
        let log =
            Self { partition: Partition::new(Ledger::new(partition_of(COUPON, 8), 8)), next: Cell::new(0) };
        log.define(1, stock);
        log
    }

    fn append(&self, record: Record) -> (u64, Decision) {
        let offset = self.next.replace(self.next.get() + 1);
        let entry = Entry { offset, appended_at: START, value: &record.encode() };
        (offset, self.partition.apply(entry).unwrap().decision)
    }

    fn define(&self, version: u64, stock: u32) {
        self.append(Record::Definition(Definition {
            coupon: COUPON,
            version,
            stock,
            starts_at: START,
            ends_at: START + 1000,
            closed: false,
        }));
    }

    fn claim(&self, user: u64) -> (u64, Decision) {
        self.append(Record::Claim { coupon: COUPON, user: UserId(user) })
    }

    fn send(&self, user: u64, arrived: Instant) -> (u64, oneshot::Receiver<Answer>) {
        match self.partition.enter(COUPON, UserId(user), arrived, Pass::Doorman) {
            Entrance::Send { attempt, answer } => (attempt, answer),
            other => panic!("{other:?}"),
        }
    }

    fn join(&self, user: u64, arrived: Instant) -> oneshot::Receiver<Answer> {
        match self.partition.enter(COUPON, UserId(user), arrived, Pass::Doorman) {
            Entrance::Joined(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn ack(&self, user: u64, attempt: u64, offset: u64) {
        self.partition.acked(COUPON, UserId(user), attempt, offset);
    }
}

#[test]
fn a_win_is_told_before_the_acknowledgement_and_to_one_request_as_new() {
    let log = Log::new(1);
    let (_, mut first) = log.send(1, Instant::now());
    let mut second = log.join(1, Instant::now());
    log.claim(1);
    let winner = Winner { place: 1, issued_at: START };
    assert_eq!(first.try_recv(), Ok(Answer::Issued(winner)));
    assert_eq!(second.try_recv(), Ok(Answer::Already(winner)));
    assert!(!log.partition.is_in_flight(COUPON, UserId(1)));
}

#[test]
fn a_win_goes_to_the_first_request_that_is_still_there() {
    let log = Log::new(1);
    let (_, first) = log.send(1, Instant::now());
    let mut second = log.join(1, Instant::now());
    drop(first);
    log.claim(1);
    assert!(matches!(second.try_recv(), Ok(Answer::Issued(_))));
}

#[test]
fn a_refusal_counts_only_at_the_offset_that_was_acknowledged() {
    let log = Log::new(1);
    log.claim(9);
    let (attempt, mut answer) = log.send(1, Instant::now());
    let (older, decision) = log.claim(1); // an earlier attempt of another instance
    assert_eq!(decision, Decision::SoldOut);
    assert!(answer.try_recv().is_err(), "an older record of the user says nothing of this one");
    log.define(2, 2);
    let (mine, _) = log.claim(1);
    assert!(mine > older);
    log.ack(1, attempt, mine);
    assert!(matches!(answer.try_recv(), Ok(Answer::Issued(_))));

    // An older record of the user may also be read back when the acknowledgement is known already.
    let (attempt, mut answer) = log.send(2, Instant::now());
    log.ack(2, attempt, log.next.get() + 1);
    assert_eq!(log.claim(2).1, Decision::SoldOut);
    assert!(answer.try_recv().is_err(), "this one is not at the offset that was acknowledged");
    log.claim(2);
    assert_eq!(answer.try_recv(), Ok(Answer::Lost(Decision::SoldOut)));

    // Acknowledged before or after it is read back, it is the same.
    for ack_first in [true, false] {
        let user = if ack_first { 5 } else { 6 };
        let (attempt, mut answer) = log.send(user, Instant::now());
        if ack_first {
            log.ack(user, attempt, log.next.get());
            assert!(answer.try_recv().is_err(), "an acknowledgement alone answers nobody");
            log.claim(user);
        } else {
            let (offset, _) = log.claim(user);
            assert!(answer.try_recv().is_err(), "it may have been another one's record");
            log.ack(user, attempt, offset);
        }
        assert_eq!(answer.try_recv(), Ok(Answer::Lost(Decision::SoldOut)));
    }
}

#[test]
fn who_joined_after_the_claim_was_sent_is_not_refused_by_it() {
    let log = Log::new(0);
    let early = Instant::now();
    let (attempt, mut first) = log.send(1, Instant::now());
    let mut before = log.join(1, early);
    let mut after = log.join(1, Instant::now() + Duration::from_millis(1));
    let (offset, _) = log.claim(1);
    log.ack(1, attempt, offset);
    assert_eq!(first.try_recv(), Ok(Answer::Lost(Decision::SoldOut)));
    assert_eq!(before.try_recv(), Ok(Answer::Lost(Decision::SoldOut)));
    assert_eq!(after.try_recv(), Ok(Answer::JoinedALoser));
}

/// Whether it is this one's turn; `None` while it isn't.
fn comes(turn: &mut Turn<'_>) -> Option<bool> {
    turn.comes().now_or_never()
}

fn knock(log: &Log, user: u64, pass: Pass) -> Entrance<'_> {
    log.partition.enter(COUPON, UserId(user), Instant::now(), pass)
}

fn wait(log: &Log, user: u64) -> Turn<'_> {
    match knock(log, user, Pass::None) {
        Entrance::Wait(turn) => turn,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_own_door_lets_in_no_more_than_can_still_win() {
    let log = Log::new(2);
    let Entrance::Send { attempt, .. } = knock(&log, 1, Pass::None) else { panic!() };
    let Entrance::Send { .. } = knock(&log, 2, Pass::None) else { panic!() };
    let mut third = wait(&log, 3);
    assert_eq!(comes(&mut third), None);
    log.partition.failed(COUPON, UserId(1), attempt, Answer::Unknown);
    assert_eq!(comes(&mut third), Some(true), "the first failed, so the next may try");
    let mut fourth = wait(&log, 4);
    let Entrance::Send { .. } = knock(&log, 3, Pass::Turn) else { panic!() };
    drop(third);
    assert_eq!(comes(&mut fourth), None, "the place was taken");
    log.claim(2);
    log.claim(3);
    assert_eq!(comes(&mut fourth), Some(false), "sold out: nobody waits for nothing");
    assert!(matches!(
        log.partition.standing(COUPON, UserId(4), START),
        Standing::Refused { decision: Decision::SoldOut, .. }
    ));
}

/// Called and gone, called and a winner by another instance, called and in flight by another request: whichever it
/// was, the next in the queue is called.
#[test]
fn a_turn_that_is_not_used_is_passed_on() {
    let log = Log::new(1);
    let Entrance::Send { attempt, .. } = knock(&log, 1, Pass::None) else { panic!() };
    let (second, mut third, mut fourth) = (wait(&log, 2), wait(&log, 3), wait(&log, 4));
    log.partition.failed(COUPON, UserId(1), attempt, Answer::Unknown);
    drop(second); // before it could look
    assert_eq!((comes(&mut third), comes(&mut fourth)), (Some(true), None));
    drop(third); // after it has looked
    assert_eq!(comes(&mut fourth), Some(true));
    let Entrance::Send { attempt, .. } = knock(&log, 4, Pass::Turn) else { panic!() };
    drop(fourth);
    let (mut again, mut fifth, mut sixth) = (wait(&log, 5), wait(&log, 5), wait(&log, 6));
    log.partition.failed(COUPON, UserId(4), attempt, Answer::Unknown);
    assert_eq!((comes(&mut again), comes(&mut fifth)), (Some(true), None));
    let Entrance::Send { attempt, .. } = knock(&log, 5, Pass::Turn) else { panic!() };
    drop(again);
    log.partition.failed(COUPON, UserId(5), attempt, Answer::Unknown);
    assert_eq!((comes(&mut fifth), comes(&mut sixth)), (Some(true), None));
    drop(fifth);
    assert_eq!(comes(&mut sixth), Some(true));
    drop(sixth);
    assert!(log.partition.inner.lock().per_coupon.is_empty(), "nobody waits, so nothing is kept");
}

#[test]
fn who_was_called_and_has_not_come_yet_counts_as_well() {
    let log = Log::new(3);
    let attempts = [1, 2, 3].map(|user| match knock(&log, user, Pass::None) {
        Entrance::Send { attempt, .. } => attempt,
        other => panic!("{other:?}"),
    });
    let mut turns = [4, 5, 6].map(|user| wait(&log, user));
    log.partition.failed(COUPON, UserId(1), attempts[0], Answer::Unknown);
    log.partition.failed(COUPON, UserId(2), attempts[1], Answer::Unknown);
    assert_eq!(turns.each_mut().map(comes), [Some(true), Some(true), None]);
}

#[test]
fn a_newcomer_does_not_overtake_whoever_was_called() {
    let log = Log::new(1);
    let Entrance::Send { attempt, .. } = knock(&log, 1, Pass::None) else { panic!() };
    let mut second = wait(&log, 2);
    log.partition.failed(COUPON, UserId(1), attempt, Answer::Unknown);
    let mut third = wait(&log, 3);
    assert_eq!((comes(&mut second), comes(&mut third)), (Some(true), None));
    let Entrance::Send { .. } = knock(&log, 2, Pass::Turn) else { panic!() };
}

#[test]
fn who_gives_up_waiting_leaves_nothing_behind() {
    let log = Log::new(2);
    {
        let mut shown = Box::pin(log.partition.shown(COUPON, UserId(1)));
        assert!((&mut shown).now_or_never().is_none());
        assert_eq!(log.partition.inner.lock().shown.len(), 1);
    }
    assert!(log.partition.inner.lock().shown.is_empty());
    for _ in 0..10_000 {
        drop(log.partition.settled(COUPON));
        drop(log.partition.passed(99));
    }
    let inner = log.partition.inner.lock();
    assert!(inner.per_coupon[&COUPON].settled.len() <= 2048);
    assert!(inner.at_offset[&99].len() <= 2048);
}

#[test]
fn who_gives_up_at_the_own_door_makes_room_and_who_stays_keeps_the_place() {
    let log = Log::new(1);
    let Entrance::Send { attempt, .. } = knock(&log, 1, Pass::None) else { panic!() };
    let mut patient = wait(&log, 2);
    for _ in 0..10_000 {
        drop(wait(&log, 3));
    }
    assert!(log.partition.inner.lock().per_coupon[&COUPON].door.len() <= 2048);
    log.partition.failed(COUPON, UserId(1), attempt, Answer::Unknown);
    assert_eq!(comes(&mut patient), Some(true));
}

/// By the time it is at the door the stock may be gone; its record says so.
#[test]
fn nobody_waits_at_the_own_door_of_a_coupon_that_is_gone() {
    let log = Log::new(1);
    log.claim(9);
    let Entrance::Send { .. } = knock(&log, 1, Pass::None) else { panic!() };
}

#[test]
fn a_coupon_for_which_nobody_waits_any_more_is_forgotten() {
    let waits = |log: &Log| (log.partition.settled(COUPON), log.partition.inner.lock().per_coupon.len());
    let sold_out = Log::new(1);
    let (_, mut answer) = sold_out.send(1, Instant::now());
    let (mut settled, kept) = waits(&sold_out);
    sold_out.claim(1);
    assert!(kept == 1 && answer.try_recv().is_ok() && settled.try_recv().is_ok());
    let changed = Log::new(1);
    drop(waits(&changed));
    changed.define(2, 1);
    let retired = Log::new(1);
    drop(waits(&retired));
    retired.append(Record::Retire { coupon: COUPON });
    for log in [sold_out, changed, retired] {
        assert!(log.partition.inner.lock().per_coupon.is_empty());
    }
}

#[test]
fn a_failed_claim_leaves_no_trace_and_a_late_report_meets_the_wrong_attempt_in_vain() {
    let log = Log::new(1);
    let (old, mut answer) = log.send(1, Instant::now());
    log.partition.failed(COUPON, UserId(1), old, Answer::Unknown);
    assert_eq!(answer.try_recv(), Ok(Answer::Unknown));
    let (new, mut answer) = log.send(1, Instant::now());
    assert_ne!(old, new);
    log.claim(9);
    let (offset, _) = log.claim(1);
    log.ack(1, old, offset);
    assert!(answer.try_recv().is_err());
    log.ack(1, new, offset);
    assert_eq!(answer.try_recv(), Ok(Answer::Lost(Decision::SoldOut)));
}

#[test]
fn waiters_for_an_offset_a_user_and_the_end_of_the_stock_are_woken() {
    let log = Log::new(1);
    let mut offset = log.partition.passed(3);
    let mut user = Box::pin(log.partition.shown(COUPON, UserId(2)));
    let mut full = log.partition.settled(COUPON);
    log.append(Record::Noop);
    assert!(offset.try_recv().is_err() && (&mut user).now_or_never().is_none() && full.try_recv().is_err());
    log.claim(2);
    assert_eq!((offset.try_recv(), user.now_or_never(), full.try_recv()), (Ok(()), Some(()), Ok(())));
    assert_eq!(log.partition.passed(3).try_recv(), Ok(()), "what has passed needs no waiting");
}

#[test]
fn a_stopped_partition_gives_known_receipts_and_nothing_else() {
    let log = Log::new(2);
    log.claim(1);
    let mut waiting = log.partition.passed(99);
    log.partition.stop();
    assert_eq!(waiting.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    assert!(matches!(log.partition.standing(COUPON, UserId(1), START), Standing::Winner(_)));
    assert_eq!(log.partition.standing(COUPON, UserId(2), START), Standing::Stopped);
    assert!(matches!(
        log.partition.enter(COUPON, UserId(2), Instant::now(), Pass::Doorman),
        Entrance::Stopped
    ));
}

#[test]
fn of_a_retired_coupon_only_the_database_knows_the_winners_once_they_were_evicted() {
    let log = Log::new(2);
    log.claim(1);
    let retired = log.partition.next();
    log.next.set(retired + 1);
    let value = Record::Retire { coupon: COUPON }.encode();
    let entry = Entry { offset: retired, appended_at: START + 1000, value: &value };
    assert_eq!(log.partition.apply(entry).unwrap().decision, Decision::RetireTaken);
    let standing = |user| log.partition.standing(COUPON, UserId(user), START);
    assert!(log.partition.evict(retired).is_empty());
    assert!(matches!(standing(1), Standing::Winner(_)));
    assert!(matches!(standing(2), Standing::Refused { decision: Decision::Retired, .. }));
    assert_eq!(log.partition.evict(retired + 1).len(), 1);
    for user in [1, 2] {
        assert_eq!(standing(user), Standing::Evicted { retired_at: retired });
        let (attempt, mut answer) = log.send(user, Instant::now());
        let (offset, decision) = log.claim(user);
        assert_eq!(decision, Decision::Retired);
        log.ack(user, attempt, offset);
        assert_eq!(answer.try_recv(), Ok(Answer::JoinedALoser), "it may have been a winner's");
    }
    assert_eq!(log.partition.definition(COUPON).map(|(_, count, _)| count), Some(1));
    log.partition.stop();
    assert_eq!(standing(1), Standing::Evicted { retired_at: retired }, "a receipt is given all the same");
}

#[test]
fn what_has_changed_is_told_once() {
    let log = Log::new(2);
    assert_eq!(log.partition.take_changed(), HashSet::from([COUPON]), "its definition");
    log.claim(1);
    assert_eq!(log.partition.take_changed(), HashSet::from([COUPON]), "its count");
    log.claim(1);
    assert!(log.partition.take_changed().is_empty());
}

#[test]
fn who_goes_past_the_doorman_is_noted() {
    let log = Log::new(2);
    log.send(1, Instant::now());
    assert!(log.partition.take_own_doors().is_empty());
    let Entrance::Send { .. } = knock(&log, 2, Pass::None) else { panic!() };
    assert_eq!(log.partition.take_own_doors(), HashSet::from([COUPON]));
    assert!(log.partition.take_own_doors().is_empty());
}

#[tokio::test(start_paused = true)]
async fn while_the_log_is_silent_one_claim_a_second_goes_through() {
    let log = Log::new(100);
    let (first, _) = log.send(1, Instant::now());
    assert!(matches!(knock(&log, 2, Pass::Doorman), Entrance::Send { .. }));
    tokio::time::advance(STALL).await;
    assert!(matches!(knock(&log, 3, Pass::Doorman), Entrance::Send { .. }), "the test");
    for user in 4..9 {
        assert!(matches!(knock(&log, user, Pass::Doorman), Entrance::Stalled));
    }
    let (offset, _) = log.claim(1);
    log.ack(1, first, offset);
    assert!(matches!(knock(&log, 9, Pass::Doorman), Entrance::Send { .. }), "the log is back");
}

/// Who would have to wait at the own door sends nothing, so the test is not theirs: they would use up every one of it.
#[tokio::test(start_paused = true)]
async fn who_must_wait_does_not_test_a_silent_log() {
    let log = Log::new(1);
    log.send(1, Instant::now());
    let _first = wait(&log, 2);
    tokio::time::advance(STALL).await;
    assert!(matches!(knock(&log, 3, Pass::None), Entrance::Stalled));
    assert!(matches!(knock(&log, 4, Pass::Doorman), Entrance::Send { .. }), "the test");
}
