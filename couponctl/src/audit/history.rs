//! What the log says of one coupon: its winners, and when all of its stock was gone.

use crate::index::Row;
use crate::replay::record::Record;
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
}

impl History {
    /// Of a coupon that the log does not hold.
    pub(crate) const fn new() -> Self {
        Self { winners: Vec::new(), highest_stock: 0, stock: None, stock_since: 0, gone: Vec::new() }
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
    pub(crate) fn was_gone(&self, asked: u64, heard: u64, tolerance: u64) -> bool {
        self.gone
            .iter()
            .any(|span| span.from <= heard + tolerance && span.to.is_none_or(|to| asked <= to + tolerance))
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
        let gone = |asked, heard| history.was_gone(asked, heard, 0);
        assert!(gone(25, 30) && gone(35, 36) && gone(40, 45) && gone(41, 50));
        assert!(!gone(20, 29) && !gone(41, 49) && !gone(71, 99));
        assert!(history.was_gone(20, 29, 1) && history.was_gone(71, 99, 1));
    }
}
