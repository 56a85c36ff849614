use proptest::prelude::*;

use super::count::{Judgement, LedgerCoupon, Published, contradicts, is_final, judge};
use super::request::{Change, Draft, DraftInput, MAX_NAME, MAX_QUANTITY, Violation};
use super::*;

const T: u64 = 1_700_000_000_000;

fn coupon(quantity: u32, count: u32) -> Coupon {
    let definition = Definition {
        coupon_id: CouponId(1),
        version: T,
        quantity,
        starts_at: T,
        ends_at: T + 1_000,
        closed: false,
    };
    Coupon { definition, event_id: None, name: "c".to_owned(), issued: Issued { count, offset: Some(10) } }
}

#[test]
fn the_state_follows_closed_then_window_then_stock() {
    let full = coupon(5, 5);
    let open = coupon(5, 4);
    let mut closed = full.clone();
    closed.definition.closed = true;
    let rows = [
        (&open, T - 1, State::Scheduled),
        (&open, T, State::Open),
        (&open, T + 999, State::Open),
        (&open, T + 1_000, State::Ended),
        (&full, T - 1, State::Scheduled),
        (&full, T, State::SoldOut),
        (&full, T + 1_000, State::Ended),
        (&closed, T - 1, State::Closed),
        (&closed, T + 1_000, State::Closed),
    ];
    for (coupon, now, state) in rows {
        assert_eq!(coupon.state(now), state, "at T{:+}", now.cast_signed() - T.cast_signed());
    }
}

#[test]
fn a_quantity_below_the_issued_one_leaves_nothing_and_takes_nothing() {
    let lowered = coupon(3, 7);
    assert_eq!((lowered.quantity_in_force(), lowered.remaining()), (7, 0));
    assert_eq!(lowered.state(T), State::SoldOut);
}

#[test]
fn a_draft_names_every_broken_rule_at_once() {
    let long = "가".repeat(MAX_NAME + 1);
    let input = DraftInput {
        name: &long,
        quantity: 0,
        starts_at: "yesterday",
        ends_at: "2026-01-01",
        event_id: Some(-1),
    };
    assert_eq!(
        Draft::parse(&input),
        Err(vec![
            Violation::NameTooLong(MAX_NAME + 1),
            Violation::Quantity(0),
            Violation::Time("startsAt", "yesterday".to_owned()),
            Violation::Time("endsAt", "2026-01-01".to_owned()),
            Violation::EventId(-1),
        ])
    );
    let window = DraftInput {
        name: " ",
        quantity: i64::from(MAX_QUANTITY) + 1,
        starts_at: "2026-01-01T00:00:00Z",
        ends_at: "2026-01-01T09:00:00+09:00",
        event_id: None,
    };
    assert_eq!(
        Draft::parse(&window),
        Err(vec![Violation::NameBlank, Violation::Quantity(10_000_001), Violation::Window("endsAt")])
    );
}

#[test]
fn times_that_no_column_can_hold_are_refused() {
    for time in
        ["9999-12-31T23:59:59-00:01", "1969-12-31T23:59:59Z", "2026-02-30T00:00:00Z", "2026-01-01T00:00:00"]
    {
        let refused = Change::parse(None, Some(time), None, None);
        assert_eq!(refused, Err(vec![Violation::Time("startsAt", time.to_owned())]));
    }
    assert!(Change::parse(None, Some("9999-12-31T23:59:59.999Z"), None, None).is_ok());
}

#[test]
fn a_draft_at_the_limits_is_taken() {
    for (name, quantity) in [("n".to_owned(), 1), ("가".repeat(MAX_NAME), MAX_QUANTITY)] {
        let input = DraftInput {
            name: &name,
            quantity: i64::from(quantity),
            starts_at: "2026-01-01T09:00:00+09:00",
            ends_at: "2026-01-01T00:00:00.001Z",
            event_id: None,
        };
        let draft = Draft::parse(&input).unwrap();
        assert_eq!((draft.quantity, draft.ends_at - draft.starts_at), (quantity, 1));
    }
}

#[test]
fn a_change_blames_the_field_that_was_sent() {
    let before = coupon(5, 0).definition;
    let late_start = Change { starts_at: Some(T + 1_000), ..Change::default() };
    assert_eq!(late_start.apply(&before), Err(Violation::Window("startsAt")));
    let early_end = Change { ends_at: Some(T), ..Change::default() };
    assert_eq!(early_end.apply(&before), Err(Violation::Window("endsAt")));
    assert_eq!(Change::parse(None, None, None, None), Err(vec![Violation::NothingToChange]));
    let closing = Change::parse(None, None, None, Some(true)).unwrap();
    assert_eq!(closing.apply(&before), Ok(Definition { closed: true, ..before }));
}

#[test]
fn published_counts_are_read_strictly() {
    assert_eq!(Published::parse("12:5"), Some(Published { offset: 12, count: 5 }));
    for rubbish in ["", ":", "12", "12:", ":5", "-1:5", "12:-5", "12:5:6", "12:4294967296", "a:b", "12: 5"] {
        assert_eq!(Published::parse(rubbish), None, "{rubbish:?}");
    }
}

#[test]
fn what_redis_shows_is_judged_beside_the_row() {
    let row = Issued { count: 5, offset: Some(10) };
    let cases = [
        (11, 6, Judgement::Write),
        (11, 20, Judgement::Write),
        (11, 5, Judgement::Keep),
        (9, 4, Judgement::Keep),
        (9, 6, Judgement::Keep),
        (10, 6, Judgement::AskLedger),
        (11, 4, Judgement::AskLedger),
        (11, 21, Judgement::AskLedger),
    ];
    for (offset, count, judgement) in cases {
        assert_eq!(judge(row, 20, Published { offset, count }), judgement, "{offset}:{count}");
    }
    assert_eq!(judge(Issued::default(), 20, Published { offset: 0, count: 1 }), Judgement::Write);
}

fn ledger(version: u64, closed: bool) -> LedgerCoupon {
    LedgerCoupon {
        coupon_id: CouponId(1),
        version,
        stock: 5,
        starts_at: T,
        ends_at: T + 1_000,
        closed,
        retired: false,
        count: 5,
        offset: 10,
    }
}

#[test]
fn the_last_word_is_about_the_newest_definition() {
    let definition = coupon(5, 5).definition;
    assert!(!is_final(&definition, Some(&ledger(T, false)), T + 1_000), "the log's clock may be late");
    assert!(is_final(&definition, Some(&ledger(T, false)), T + 6_000));
    assert!(is_final(&definition, Some(&ledger(T, true)), T));
    assert!(
        !is_final(&definition, Some(&ledger(T - 1, true)), T + 6_000),
        "a newer definition may reopen it"
    );
    let retired = LedgerCoupon { retired: true, ..ledger(T - 1, false) };
    assert!(is_final(&definition, Some(&retired), T), "nothing reopens what is retired");
    assert!(!is_final(&definition, None, T + 6_000));
    assert!(is_final(&definition, None, T + 1_000 + 3_600_000));
}

proptest! {
    #[test]
    fn nothing_shown_is_ever_negative_or_above_the_quantity(quantity: u32, count: u32, now in 0..2 * T) {
        let coupon = coupon(quantity, count);
        prop_assert!(coupon.issued.count <= coupon.quantity_in_force());
        prop_assert_eq!(coupon.remaining() + coupon.issued.count, coupon.quantity_in_force());
        if coupon.state(now) == State::Open {
            prop_assert!(coupon.remaining() > 0);
        }
    }

    #[test]
    fn redis_moves_a_row_only_forward_and_never_above_the_quantity(
        count in 0_u32..50, offset in proptest::option::of(0_i64..50),
        quantity in 1_u32..50, shown_count in 0_u32..50, shown_offset in 0_i64..50,
    ) {
        let row = Issued { count, offset };
        if judge(row, quantity, Published { offset: shown_offset, count: shown_count }) == Judgement::Write {
            prop_assert!(Some(shown_offset) > offset);
            prop_assert!(shown_count > count && shown_count <= quantity);
        }
    }

    #[test]
    fn after_the_ledgers_word_nothing_contradicts_it(count: u32, offset in 0_i64.., row: (u32, Option<i64>)) {
        let word = Issued { count, offset: Some(offset) };
        prop_assert!(!contradicts(word, word));
        let row = Issued { count: row.0, offset: row.1 };
        if !contradicts(row, word) {
            prop_assert_eq!(row.count, count);
        }
    }

    #[test]
    fn a_version_is_above_all_that_came_before(previous in 0..2 * T, ledger in proptest::option::of(0..2 * T), now in 0..2 * T) {
        let version = next_version(previous, ledger, now);
        prop_assert!(version > previous && version >= now);
        prop_assert!(ledger.is_none_or(|ledger| version > ledger));
    }

    #[test]
    fn a_change_touches_only_what_it_names(
        quantity in proptest::option::of(1..=MAX_QUANTITY), closed in proptest::option::of(any::<bool>()),
    ) {
        let before = coupon(5, 0).definition;
        let after = Change { quantity, closed, ..Change::default() }.apply(&before).unwrap();
        prop_assert_eq!(after, Definition {
            quantity: quantity.unwrap_or(before.quantity),
            closed: closed.unwrap_or(before.closed),
            ..before
        });
    }
}
