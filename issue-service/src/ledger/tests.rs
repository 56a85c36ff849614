use proptest::prelude::*;

use super::*;

const PARTITIONS: u32 = 8;
const COUPON: CouponId = CouponId(5);
const START: u64 = 1_800_000_000_000;
const END: u64 = START + 10_000;

struct Log {
    ledger: Ledger,
    at: u64,
}

impl Log {
    fn new() -> Self {
        Self { ledger: Ledger::new(partition_of(COUPON, PARTITIONS), PARTITIONS), at: START }
    }

    fn append(&mut self, record: Record) -> Decided {
        self.append_bytes(&record.encode()).unwrap()
    }

    fn append_bytes(&mut self, value: &[u8]) -> Result<Decided, Stop> {
        let entry = Entry { offset: self.ledger.next(), appended_at: self.at, value };
        self.ledger.apply(entry)
    }

    fn define(&mut self, version: u64, stock: u32) -> Decision {
        self.append(Record::Definition(definition(version, stock))).decision
    }

    fn claim(&mut self, user: u64) -> Decision {
        self.append(Record::Claim { coupon: COUPON, user: UserId(user) }).decision
    }

    fn retire(&mut self) -> Decision {
        self.append(Record::Retire { coupon: COUPON }).decision
    }

    fn coupon(&self) -> &Coupon {
        self.ledger.coupon(COUPON).unwrap()
    }
}

fn definition(version: u64, stock: u32) -> Definition {
    Definition { coupon: COUPON, version, stock, starts_at: START, ends_at: END, closed: false }
}

#[test]
fn the_first_in_the_log_win_and_keep_it() {
    let mut log = Log::new();
    assert_eq!(log.claim(1), Decision::Unknown);
    assert_eq!(log.define(1, 2), Decision::Taken);
    assert_eq!(log.claim(1), Decision::Accepted);
    assert_eq!(log.claim(1), Decision::Already);
    let second = log.append(Record::Claim { coupon: COUPON, user: UserId(2) });
    assert_eq!((second.decision, second.place), (Decision::Accepted, Some(2)));
    assert_eq!(log.claim(3), Decision::SoldOut);
    assert_eq!(log.claim(2), Decision::Already, "membership comes before stock");
    log.at = END;
    assert_eq!(log.claim(2), Decision::Already, "and before the window");
    assert_eq!(log.claim(3), Decision::Ended);
    assert_eq!(log.coupon().winners.get(UserId(2)), Some(Winner { place: 2, issued_at: START }));
}

#[test]
fn the_window_includes_its_start_and_excludes_its_end() {
    let mut log = Log::new();
    log.define(1, 10);
    log.at = START - 1;
    assert_eq!(log.claim(1), Decision::NotStarted);
    log.at = START;
    assert_eq!(log.claim(1), Decision::Accepted);
    log.at = END - 1;
    assert_eq!(log.claim(2), Decision::Accepted);
    log.at = END;
    assert_eq!(log.claim(3), Decision::Ended);
}

#[test]
fn only_a_higher_version_takes_force_and_never_below_what_was_issued() {
    let mut log = Log::new();
    log.define(5, 3);
    assert_eq!(log.define(5, 9), Decision::Stale);
    assert_eq!(log.define(4, 9), Decision::Stale);
    for user in 1..=3 {
        assert_eq!(log.claim(user), Decision::Accepted);
    }
    assert_eq!(log.define(6, 1), Decision::Taken);
    assert_eq!(log.coupon().definition.stock, 3);
    assert_eq!(log.claim(4), Decision::SoldOut);
    assert_eq!(log.define(7, 4), Decision::Taken);
    assert_eq!(log.claim(4), Decision::Accepted);
    let closed = Definition { closed: true, ..definition(8, 9) };
    assert_eq!(log.append(Record::Definition(closed)).decision, Decision::Taken);
    assert_eq!(log.claim(5), Decision::Closed);
    assert_eq!(log.claim(4), Decision::Already);
}

#[test]
fn a_retirement_counts_only_after_the_end_and_is_terminal() {
    let mut log = Log::new();
    assert_eq!(log.retire(), Decision::Ignored, "unknown coupon");
    log.define(1, 10);
    log.claim(1);
    log.at = END - 1;
    assert_eq!(log.retire(), Decision::Ignored, "too early");
    log.at = END;
    let place = log.ledger.next();
    assert!(!log.ledger.is_retired(log.coupon().definition.coupon));
    assert_eq!(log.retire(), Decision::RetireTaken);
    assert_eq!(log.coupon().retired_at, Some(place));
    assert!(log.ledger.is_retired(log.coupon().definition.coupon));
    assert_eq!(log.retire(), Decision::Ignored, "repeated");
    assert_eq!(log.define(2, 10), Decision::Ignored);
    assert_eq!(log.claim(1), Decision::Retired, "winner or not");
    assert_eq!(log.claim(2), Decision::Retired);
}

#[test]
fn winners_leave_memory_only_when_the_watermark_has_passed_their_retirement() {
    let mut log = Log::new();
    log.define(1, 10);
    log.claim(1);
    log.at = END;
    assert!(log.ledger.evict(u64::MAX).is_empty(), "not retired");
    let retired_at = log.ledger.next();
    log.retire();
    assert!(log.ledger.is_leaving());
    assert!(
        log.ledger.evict(retired_at).is_empty(),
        "the database has everything below, and not the retirement"
    );
    assert!(log.coupon().winners.get(UserId(1)).is_some());
    let evicted = log.ledger.evict(retired_at + 1);
    assert_eq!(evicted.iter().map(Winners::count).collect::<Vec<_>>(), [1]);
    assert!(!log.ledger.is_leaving());
    assert_eq!((log.coupon().winners.get(UserId(1)), log.coupon().count()), (None, 1));
    // From a snapshot that still has them.
    let mut winners = Winners::default();
    winners.add(UserId(1), START);
    let coupon = Coupon { winners, ..log.coupon().clone() };
    let coupons = HashMap::from([(COUPON, coupon)]);
    let mut restored =
        Ledger::restore(log.ledger.partition(), PARTITIONS, retired_at + 1, Digest::default(), coupons);
    assert_eq!((restored.evict(retired_at).len(), restored.evict(retired_at + 1).len()), (0, 1));
}

#[test]
fn what_cannot_be_read_changes_nothing_but_the_digest() {
    let mut log = Log::new();
    log.define(1, 1);
    let before = log.ledger.digest();
    assert_eq!(log.append_bytes(b"").unwrap().decision, Decision::Malformed);
    assert_eq!(log.append_bytes(b"rubbish").unwrap().decision, Decision::Malformed);
    let elsewhere = Record::Claim { coupon: CouponId(1), user: UserId(1) };
    assert_eq!(log.append(elsewhere).decision, Decision::Invalid, "another partition's coupon");
    assert_eq!(log.append(Record::Noop).decision, Decision::Noop);
    assert_eq!((log.coupon().count(), log.ledger.next()), (0, 5));
    assert_ne!(log.ledger.digest(), before);
}

#[test]
fn a_record_from_the_future_and_a_gap_stop_the_partition() {
    let mut log = Log::new();
    let mut newer = Record::Noop.encode();
    newer[3] = 2;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&newer[..6]), &newer[10..]);
    newer[6..10].copy_from_slice(&crc.to_be_bytes());
    let stop = log.append_bytes(&newer).unwrap_err();
    assert_eq!(stop, Stop::UnknownRecord { offset: 0, kind: 4, version: 2 });
    assert_eq!(log.ledger.next(), 0, "nothing has changed");
    let gap = Entry { offset: 1, appended_at: START, value: &Record::Noop.encode() };
    assert_eq!(log.ledger.apply(gap), Err(Stop::Gap { expected: 0, got: 1 }));
}

/// Frozen like the formats: another process, another build, the same digest.
#[test]
fn the_digest_is_frozen() {
    let mut log = Log::new();
    log.define(1, 1);
    log.claim(1);
    log.claim(2);
    log.append_bytes(b"rubbish").unwrap();
    assert_eq!(
        format!("{:?}", log.ledger.digest()),
        "2f3da116edd0619a902f619e419a4437891b56a03491a5cfa5d5edfd5c3af002"
    );
}

#[test]
fn a_digest_survives_the_database() {
    let bytes: [u8; 32] = std::array::from_fn(|index| u8::try_from(index).unwrap());
    assert_eq!(Digest::try_from(bytes.as_slice()).unwrap(), Digest(bytes));
    assert!(Digest::try_from(&bytes[1..]).is_err());
}

fn any_record() -> impl Strategy<Value = Record> {
    prop_oneof![
        8 => (1..=12_u64).prop_map(|user| Record::Claim { coupon: COUPON, user: UserId(user) }),
        2 => (1..=6_u64, 0..=8_u32, any::<bool>())
            .prop_map(|(version, stock, closed)| Record::Definition(Definition { closed, ..definition(version, stock) })),
        1 => Just(Record::Retire { coupon: COUPON }),
        1 => Just(Record::Noop),
    ]
}

proptest! {
    /// Whatever the log holds: nobody wins twice, places are 1, 2, 3 …, and winners never outnumber the
    /// highest stock that was ever in force.
    #[test]
    fn no_history_oversells_or_doubles(history in proptest::collection::vec((any_record(), 0..3_000_u64), 1..120)) {
        let mut log = Log::new();
        log.at = START - 2_000;
        let mut highest = 0;
        let mut accepted = Vec::new();
        for (record, pause) in history {
            log.at += pause;
            let decided = log.append(record);
            if let Some(coupon) = log.ledger.coupon(COUPON) {
                highest = highest.max(coupon.definition.stock);
                prop_assert!(coupon.count() <= highest);
                prop_assert!(coupon.count() <= coupon.definition.stock);
            }
            if let (Decision::Accepted, Record::Claim { user, .. }) = (decided.decision, record) {
                prop_assert!(!accepted.contains(&user), "{user} won twice");
                accepted.push(user);
                prop_assert_eq!(decided.place.map(|place| place as usize), Some(accepted.len()));
                prop_assert!((START..END).contains(&log.at));
            }
        }
    }

    /// Whoever lets go of winners, and whenever, comes to the same decisions and the same digest.
    #[test]
    fn letting_go_of_winners_changes_no_decision(history in proptest::collection::vec((any_record(), 0..3_000_u64, 0..40_u64), 1..120)) {
        let (mut keeping, mut letting_go) = (Log::new(), Log::new());
        keeping.at = START - 2_000;
        for (record, pause, lag) in history {
            keeping.at += pause;
            letting_go.at = keeping.at;
            prop_assert_eq!(keeping.append(record), letting_go.append(record));
            letting_go.ledger.evict(letting_go.ledger.next().saturating_sub(lag));
            prop_assert_eq!(keeping.ledger.digest(), letting_go.ledger.digest());
            let count = |log: &Log| log.ledger.coupon(COUPON).map(Coupon::count);
            prop_assert_eq!(count(&keeping), count(&letting_go));
        }
    }
}
