//! What the log says of one coupon: its winners, and when all of its stock was gone.

use super::record::Heard;
use crate::index::Row;
use crate::replay::record::{Definition, Record};
use crate::replay::rules::{Coupon, Decided, Decision, Entry};

/// From a record's append time to another's, unix milliseconds by the brokers' clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from: u64,
    /// `None`: to this day.
    pub(crate) to: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct History {
    /// In the order of their places; sorted by user when all was read.
    pub(crate) winners: Vec<Row>,
    pub(crate) highest_stock: u64,
    stock: Option<u64>,
    /// Since when the stock in force is what it is.
    pub(crate) stock_since: u64,
    /// When as many had won as there was stock.
    pub(crate) gone: Vec<Span>,
    /// Each window that was in force, and since when; the next one ends it.
    windows: Vec<(u64, Window)>,
}

/// When a coupon can be claimed, unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    starts_at: u64,
    ends_at: u64,
    /// Closed or retired.
    shut: bool,
}

impl History {
    /// Of a coupon that the log does not hold.
    pub(crate) const fn new() -> Self {
        Self {
            winners: Vec::new(),
            highest_stock: 0,
            stock: None,
            stock_since: 0,
            gone: Vec::new(),
            windows: Vec::new(),
        }
    }

    /// Whether the log holds a definition of it.
    pub(crate) fn is_defined(&self) -> bool {
        self.stock.is_some()
    }

    /// Takes down a record of this coupon; the coupon is as it is after it.
    pub(crate) fn note(&mut self, entry: Entry<'_>, decided: &Decided, coupon: &Coupon) {
        let (at, stock) = (entry.appended_at, coupon.definition.stock);
        if let (Decision::Accepted, Ok(Record::Claim { user, .. })) = (decided.decision, decided.record) {
            self.winners.push(Row { user, place: decided.place, offset: entry.offset, issued_at: at });
        }
        if self.stock != Some(stock) {
            (self.stock, self.stock_since) = (Some(stock), at);
            self.highest_stock = self.highest_stock.max(stock);
        }
        let Definition { starts_at, ends_at, closed, .. } = coupon.definition;
        let window = Window { starts_at, ends_at, shut: closed || coupon.retired_at.is_some() };
        if self.windows.last().is_none_or(|(_, last)| *last != window) {
            self.windows.push((at, window));
        }
        match (coupon.count() >= stock, self.gone.last_mut()) {
            (true, None | Some(Span { to: Some(_), .. })) => self.gone.push(Span { from: at, to: None }),
            (false, Some(span @ Span { to: None, .. })) => span.to = Some(at),
            _ => {}
        }
    }

    pub(crate) fn complete(&mut self) {
        self.winners.sort_unstable_by_key(|row| row.user);
    }

    /// Whether all stock was gone at some moment between asking and hearing so, give or take the clocks' difference.
    fn was_gone(&self, asked: u64, heard: u64, tolerance: u64) -> bool {
        self.gone
            .iter()
            .any(|span| span.from <= heard + tolerance && span.to.is_none_or(|to| asked <= to + tolerance))
    }

    /// Whether this no was true at some moment between asking and hearing it, whoever asked.
    pub(crate) fn was_true(&self, no: Heard, asked: u64, heard: u64, tolerance: u64) -> bool {
        let (from, to) = (asked.saturating_sub(tolerance), heard + tolerance);
        let ends = self.windows.iter().skip(1).map(|(since, _)| *since).chain([u64::MAX]);
        let mut windows =
            self.windows.iter().zip(ends).filter(|((since, _), end)| *since <= to && *end >= from);
        match no {
            Heard::SoldOut => self.was_gone(asked, heard, tolerance),
            Heard::NotStarted => windows.any(|((since, window), _)| window.starts_at > from.max(*since)),
            Heard::Ended => windows.any(|((_, window), end)| window.shut || window.ends_at <= to.min(end)),
            Heard::NotFound => self.windows.first().is_none_or(|(since, _)| *since >= from),
            _ => true,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::ids::partition_of;
    use crate::replay::record::Definition;
    use crate::replay::record::tests::encode;
    use crate::replay::rules::Ledger;

    const COUPON: u64 = 7;

    /// Each record at its append time.
    pub(crate) fn history(log: &[(u64, Record)]) -> History {
        let mut ledger = Ledger::new(partition_of(COUPON, 8), 8);
        let mut history = History::new();
        for (offset, (appended_at, record)) in (0..).zip(log) {
            let value = encode(record);
            let entry = Entry { offset, appended_at: *appended_at, value: &value };
            let decided = ledger.apply(entry).unwrap();
            if let Some(coupon) = ledger.coupons.get(&COUPON) {
                history.note(entry, &decided, coupon);
            }
        }
        history.complete();
        history
    }

    pub(crate) fn stock(version: u64, stock: u64) -> Record {
        let definition = Definition { version, stock, starts_at: 0, ends_at: 1_000, closed: false };
        Record::Definition { coupon: COUPON, definition }
    }

    pub(crate) fn claim(user: u64) -> Record {
        Record::Claim { coupon: COUPON, user }
    }

    #[test]
    fn winners_stock_and_when_it_was_gone() {
        let history = history(&[
            (10, stock(1, 2)),
            (20, claim(9)),
            (21, claim(9)),
            (30, claim(3)),
            (31, claim(4)),
            (40, stock(2, 3)),
            (50, claim(5)),
            (60, stock(3, 1)),
            (70, stock(4, 5)),
            (80, stock(5, 4)),
        ]);
        let row = |user, place, offset, issued_at| Row { user, place, offset, issued_at };
        assert_eq!(history.winners, [row(3, 2, 3, 30), row(5, 3, 6, 50), row(9, 1, 1, 20)]);
        assert_eq!((history.highest_stock, history.stock_since), (5, 80));
        let span = |from, to| Span { from, to: Some(to) };
        assert_eq!(history.gone, [span(30, 40), span(50, 70)]);
        let gone = |asked, heard| history.was_true(Heard::SoldOut, asked, heard, 0);
        assert!(gone(25, 30) && gone(35, 36) && gone(40, 45) && gone(41, 50));
        assert!(!gone(20, 29) && !gone(41, 49) && !gone(71, 99));
        assert!(history.was_gone(20, 29, 1) && history.was_gone(71, 99, 1));
    }

    fn window(version: u64, starts_at: u64, ends_at: u64, closed: bool) -> Record {
        Record::Definition {
            coupon: COUPON,
            definition: Definition { version, stock: 9, starts_at, ends_at, closed },
        }
    }

    #[test]
    fn when_a_no_was_true() {
        let history = history(&[
            (10, window(1, 20, 100, false)),
            (40, window(2, 60, 100, false)),
            (70, window(3, 60, 100, true)),
            (80, window(4, 60, 100, false)),
            (120, Record::Retire { coupon: COUPON }),
        ]);
        let spans = |no: Heard| {
            let was_true: Vec<u64> = (0..130).filter(|at| history.was_true(no, *at, *at, 0)).collect();
            was_true.chunk_by(|one, next| one + 1 == *next).map(|run| (run[0], run[run.len() - 1])).collect()
        };
        // Before it is in the log there is nothing to start.
        let spans: [Vec<(u64, u64)>; 3] = [Heard::NotFound, Heard::NotStarted, Heard::Ended].map(spans);
        assert_eq!(spans[0], [(0, 10)]);
        assert_eq!(spans[1], [(10, 19), (40, 59)]);
        assert_eq!(spans[2], [(70, 80), (100, 129)]);
        assert!(!history.was_true(Heard::Ended, 90, 95, 0) && history.was_true(Heard::Ended, 90, 95, 5));
        assert!(
            !history.was_true(Heard::NotStarted, 25, 35, 0) && history.was_true(Heard::NotStarted, 25, 35, 6)
        );
        assert!(History::new().was_true(Heard::NotFound, 1, 1, 0));
        assert!(!History::new().was_true(Heard::Ended, 1, 1, 0));
    }
}
