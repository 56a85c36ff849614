use proptest::prelude::*;

use super::super::record::tests::{encode, envelope};
use super::*;

const COUPON: u64 = 5;
const START: u64 = 1_800_000_000_000;
const END: u64 = START + 10_000;

struct Log {
    ledger: Ledger,
    at: u64,
}

impl Log {
    fn new() -> Self {
        Self { ledger: Ledger::new(partition_of(COUPON, 8), 8), at: START }
    }

    fn bytes(&mut self, value: &[u8]) -> Result<Decided, String> {
        let entry = Entry { offset: self.ledger.next, appended_at: self.at, value };
        self.ledger.apply(entry)
    }

    fn append(&mut self, record: &Record) -> (Decision, u64) {
        let decided = self.bytes(&encode(record)).unwrap();
        (decided.decision, decided.place)
    }

    fn define(&mut self, version: u64, stock: u64) -> Decision {
        self.append(&defined(version, stock, false)).0
    }

    fn claim(&mut self, user: u64) -> (Decision, u64) {
        self.append(&Record::Claim { coupon: COUPON, user })
    }

    fn retire(&mut self) -> Decision {
        self.append(&Record::Retire { coupon: COUPON }).0
    }
}

fn defined(version: u64, stock: u64, closed: bool) -> Record {
    let definition = Definition { version, stock, starts_at: START, ends_at: END, closed };
    Record::Definition { coupon: COUPON, definition }
}

#[test]
fn membership_comes_before_closed_window_and_stock() {
    let mut log = Log::new();
    assert_eq!(log.claim(1), (Decision::Unknown, 0));
    assert_eq!(log.define(1, 2), Decision::Taken);
    log.at = START - 1;
    assert_eq!(log.claim(1), (Decision::NotStarted, 0));
    log.at = START;
    assert_eq!(log.claim(1), (Decision::Accepted, 1));
    log.at = END - 1;
    assert_eq!(log.claim(2), (Decision::Accepted, 2));
    assert_eq!(log.claim(3), (Decision::SoldOut, 0));
    assert_eq!(log.claim(1), (Decision::Already, 0));
    log.at = END;
    assert_eq!(log.claim(3), (Decision::Ended, 0));
    assert_eq!(log.claim(1), (Decision::Already, 0));
    log.append(&defined(2, 9, true));
    assert_eq!(log.claim(3), (Decision::Closed, 0));
    assert_eq!(log.claim(2), (Decision::Already, 0));
}

#[test]
fn only_a_higher_version_takes_force_and_never_below_what_was_issued() {
    let mut log = Log::new();
    log.define(5, 3);
    assert_eq!([log.define(5, 9), log.define(4, 9)], [Decision::Stale, Decision::Stale]);
    for user in 1..=3 {
        log.claim(user);
    }
    assert_eq!(log.define(6, 1), Decision::Taken);
    assert_eq!(log.ledger.coupons[&COUPON].definition.stock, 3);
    assert_eq!(log.claim(4), (Decision::SoldOut, 0));
    log.define(7, 4);
    assert_eq!(log.claim(4), (Decision::Accepted, 4));
}

#[test]
fn a_retirement_counts_after_the_end_once_and_is_terminal() {
    let mut log = Log::new();
    assert_eq!(log.retire(), Decision::Ignored);
    log.define(1, 10);
    log.claim(1);
    log.at = END - 1;
    assert_eq!(log.retire(), Decision::Ignored);
    log.at = END;
    let offset = log.ledger.next;
    assert_eq!(log.retire(), Decision::RetireTaken);
    assert_eq!(log.ledger.coupons[&COUPON].retired_at, Some(offset));
    assert_eq!([log.retire(), log.define(2, 10)], [Decision::Ignored; 2]);
    assert_eq!(log.claim(1), (Decision::Retired, 0), "winner or not");
}

#[test]
fn what_nobody_can_decide_stops_and_changes_nothing() {
    let mut log = Log::new();
    let why = log.bytes(&envelope(4, 2, &[])).unwrap_err();
    assert!(why.contains("kind 4, version 2"), "{why}");
    let noop = encode(&Record::Noop);
    let gap = log.ledger.apply(Entry { offset: 1, appended_at: START, value: &noop });
    assert!(gap.unwrap_err().contains("offset 0 is missing"));
    assert_eq!((log.ledger.next, log.ledger.digest), (0, Digest::default()));
    let elsewhere = Record::Claim { coupon: 1, user: 1 };
    assert_eq!(log.append(&elsewhere), (Decision::Invalid, 0), "another partition's coupon");
}

/// The services' own frozen digest of these four records.
#[test]
fn the_digest_is_the_one_that_the_services_froze() {
    let mut log = Log::new();
    log.define(1, 1);
    log.claim(1);
    log.claim(2);
    log.bytes(b"rubbish").unwrap();
    assert_eq!(
        hex::encode(log.ledger.digest),
        "2f3da116edd0619a902f619e419a4437891b56a03491a5cfa5d5edfd5c3af002"
    );
}

fn any_record() -> impl Strategy<Value = Record> {
    prop_oneof![
        8 => (1..=12_u64).prop_map(|user| Record::Claim { coupon: COUPON, user }),
        2 => (1..=6_u64, 0..=8_u64, any::<bool>()).prop_map(|(version, stock, closed)| defined(version, stock, closed)),
        1 => Just(Record::Retire { coupon: COUPON }),
        1 => Just(Record::Noop),
    ]
}

proptest! {
    /// Whatever the log holds, read twice it is decided alike; places are 1, 2, 3 …, nobody wins twice, and never
    /// more than the stock in force.
    #[test]
    fn every_history_is_decided_the_same_way_twice(history in proptest::collection::vec((any_record(), 0..3_000_u64), 1..100)) {
        let (mut one, mut two) = (Log::new(), Log::new());
        one.at -= 2_000;
        let mut places = 0;
        for (record, pause) in history {
            one.at += pause;
            two.at = one.at;
            let (decision, place) = one.append(&record);
            prop_assert_eq!(two.append(&record), (decision, place));
            if decision == Decision::Accepted {
                places += 1;
                prop_assert_eq!(place, places);
            }
            if let Some(coupon) = one.ledger.coupons.get(&COUPON) {
                prop_assert_eq!(coupon.count(), places);
                prop_assert!(coupon.count() <= coupon.definition.stock);
            }
        }
        prop_assert_eq!(one.ledger.digest, two.ledger.digest);
    }
}
