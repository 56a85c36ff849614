//! What users were told against what is: the checks that need the load's record.

use std::collections::HashMap;

use super::checks::by_user;
use super::history::History;
use super::record::{Attempt, Heard, Receipt, Record, has_receipt};
use crate::index::{Row, of_user};
use crate::replay::record::Definition;
use crate::terminal::grouped;
use crate::verdict::{Check, Offender};

/// Told and written, both ways round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Promises<'a> {
    pub(crate) record: &'a Record,
    /// Sorted by user.
    pub(crate) rows: &'a [Row],
    /// In force.
    pub(crate) definition: Option<&'a Definition>,
    /// What the log says, where it was read.
    pub(crate) history: Option<&'a History>,
    /// By how much the clocks of load and brokers may differ, milliseconds.
    pub(crate) tolerance: u64,
}

impl Promises<'_> {
    /// I1: every user who was told ISSUED has exactly one row.
    pub(crate) fn told_have_rows(&self) -> Check {
        let mut told = 0;
        let mut offenders = Vec::new();
        for user in self.record.winners() {
            told += 1;
            match of_user(self.rows, user).len() {
                1 => {}
                0 => offenders.push(Offender::user(user, "told issued, has no row")),
                rows => offenders.push(Offender::user(user, format!("told issued, has {rows} rows"))),
            }
        }
        let compared = format!("{} told issued, {} users with rows", grouped(told), grouped(self.users()));
        Check::of("I1", "who was told issued has one row", compared, offenders)
    }

    /// Every receipt's id encodes this coupon and this user.
    pub(crate) fn receipts_are_right(&self) -> Check {
        let wrong = self.record.wrong.clone();
        Check::of("I1", "receipts name coupon and user", "issue ids, decoded", wrong)
    }

    /// I7: whatever answer a winner's receipt came in, its place and time are those of the row and of the log.
    pub(crate) fn receipts_are_the_same(&self) -> Check {
        const WHAT: &str = "each receipt has the winner's place and time";
        let mut compared = 0_u64;
        let mut offenders = Vec::new();
        for told in self.record.receipts() {
            let user = told[0].user;
            compared += told.iter().filter(|it| it.place.is_some() && it.issued_at.is_some()).count() as u64;
            let first = |of: fn(&Receipt) -> Option<u64>| told.iter().find_map(of);
            let of = |rows| of_user(rows, user).first().map(|row| (Some(row.place), Some(row.issued_at)));
            let others = [
                ("in its row", of(self.rows)),
                ("by the log", self.history.and_then(|history| of(&history.winners))),
                ("in another receipt", Some((first(|it| it.place), first(|it| it.issued_at)))),
            ];
            let problem = told.iter().find_map(|receipt| {
                others.iter().find_map(|&(whose, other)| {
                    let (place, issued_at) = other?;
                    differing("place", receipt.place, place, whose)
                        .or_else(|| differing("issued at", receipt.issued_at, issued_at, whose))
                })
            });
            offenders.extend(problem.map(|problem| Offender::user(user, problem)));
        }
        if compared == 0 && offenders.is_empty() {
            return Check::not_judged("I7", WHAT, "no answer of the record holds place and time");
        }
        Check::of("I7", WHAT, format!("{} receipts, against row and log", grouped(compared)), offenders)
    }

    /// Every row is of somebody who was told, or who may have won unheard.
    pub(crate) fn rows_are_explained(&self, partial: bool) -> Check {
        let mut others = 0_u64;
        let mut offenders = Vec::new();
        for rows in by_user(self.rows) {
            let user = rows[0].user;
            let asked = self.record.of_user(user);
            if asked.is_empty() {
                others += 1;
                if !partial {
                    let problem = "has a row, but never asked (--partial lets claims from elsewhere pass)";
                    offenders.push(Offender::user(user, problem));
                }
            } else if !has_receipt(asked) && !asked.iter().any(|attempt| attempt.heard.is_open()) {
                let problem = format!("has a row, but all {} attempts were refused", asked.len());
                offenders.push(Offender::user(user, problem));
            }
        }
        let Record { pending, unknown, .. } = self.record;
        let others = if partial { format!(", {} by others", grouped(others)) } else { String::new() };
        let unheard = grouped(self.unheard());
        let compared = format!(
            "{unheard} rows unheard of {} pending and {} unknown{others}",
            grouped(*pending),
            grouped(*unknown)
        );
        Check::of("A", "rows are told, pending or unknown", compared, offenders)
    }

    /// Users whose pending or unanswered claim became a row without their having heard of it. No fault.
    pub(crate) fn unheard(&self) -> u64 {
        let unheard = by_user(self.rows).filter(|rows| {
            let asked = self.record.of_user(rows[0].user);
            !has_receipt(asked) && asked.iter().any(|attempt| attempt.heard.is_open())
        });
        unheard.count() as u64
    }

    /// I4: nobody hears a no that was not true at any moment between asking and hearing, by the log.
    pub(crate) fn noes_were_true(&self) -> Check {
        const WHAT: &str = "each no was true when it was said";
        let Some(history) = self.history else {
            return Check::not_judged("I4", WHAT, "the log was not read (--replay)");
        };
        let mut told = 0_u64;
        let mut offenders = Vec::new();
        for attempt in self.record.users().flat_map(|(_, asked)| asked) {
            // Whether somebody has won, or all is gone, is looked at elsewhere.
            let Some(no) =
                attempt.heard.refusal().filter(|_| !matches!(attempt.heard, Heard::SoldOut | Heard::None))
            else {
                continue;
            };
            told += 1;
            if !history.was_true(attempt.heard, attempt.sent, attempt.heard_at, self.tolerance) {
                let problem = format!("told {no} at {}, and by the log it was not so", attempt.heard_at);
                offenders.push(Offender::user(attempt.user, problem));
            }
        }
        let compared =
            format!("{} told of a time or an unknown coupon, against the log's times", grouped(told));
        Check::of("I4", WHAT, compared, offenders)
    }

    /// I4: sold out is said only while the stock is gone.
    pub(crate) fn sold_out_means_gone(&self, stock_changed: bool) -> Check {
        const WHAT: &str = "sold out only if the stock is gone";
        let told = || {
            let asked = self.record.users().flat_map(|(_, asked)| asked);
            asked.filter(|attempt| attempt.heard == Heard::SoldOut)
        };
        let count = told().count() as u64;
        if count == 0 {
            return Check::not_judged("I4", WHAT, "nobody was told sold out");
        }
        if let Some(history) = self.history {
            let early = told()
                .filter(|told| !history.was_true(told.heard, told.sent, told.heard_at, self.tolerance))
                .map(|told| {
                    Offender::user(
                        told.user,
                        format!("told sold out at {}, and by the log it was not", told.heard_at),
                    )
                });
            let compared = format!("{} told so, times against the log's", grouped(count));
            return Check::of("I4", WHAT, compared, early.collect());
        }
        if stock_changed {
            return Check::not_judged("I4", WHAT, "the stock was changed meanwhile");
        }
        let (rows, stock) = (self.users(), self.stock());
        let compared =
            format!("{} told so; {} rows, stock {}", grouped(count), grouped(rows), grouped(stock));
        Check::new("I4", WHAT, compared, rows >= stock)
    }

    /// I4: no slot leaks. Who heard a receipt or sold out kept asking until the end; if these were as many as there is
    /// stock, all of it must be issued. Of those who gave up with 503, PENDING or nothing, that can't be said.
    pub(crate) fn no_slot_leaked(&self, stock_changed: bool) -> Check {
        const WHAT: &str = "as many as the stock asked: all is issued";
        let (rows, stock) = (self.users(), self.stock());
        let compared = format!("{} rows, stock {}", grouped(rows), grouped(stock));
        if rows >= stock && self.definition.is_some() {
            return Check::new("I4", WHAT, compared, true);
        }
        if self.definition.is_none() || (stock_changed && self.history.is_none()) {
            return Check::not_judged(
                "I4",
                WHAT,
                format!("{compared}: no definition, or it was changed meanwhile"),
            );
        }
        // A sold out of the time before the stock was raised is the end of nothing.
        let since = self.history.map_or(0, |history| history.stock_since + self.tolerance);
        let to_the_end = |asked: &[Attempt]| {
            let sold_out = |attempt: &Attempt| attempt.heard == Heard::SoldOut && attempt.sent >= since;
            has_receipt(asked) || asked.iter().any(sold_out)
        };
        let (mut ended, mut gave_up) = (0_u64, 0_u64);
        for (_, asked) in self.record.users() {
            *(if to_the_end(asked) { &mut ended } else { &mut gave_up }) += 1;
        }
        let compared = format!(
            "{compared}; {} users asked until they heard yes or sold out, {} did not",
            grouped(ended),
            grouped(gave_up)
        );
        if ended >= stock {
            Check::new("I4", WHAT, compared, false)
        } else {
            Check::not_judged("I4", WHAT, compared)
        }
    }

    /// I7, from the record: no winner hears a refusal to a request that was sent when the coupon was won.
    pub(crate) fn no_winner_refused(&self) -> Check {
        let mut again = 0_u64;
        let mut offenders = Vec::new();
        for (user, asked) in self.record.users() {
            let winners = self.history.map_or(self.rows, |history| &history.winners);
            let won_at = of_user(winners, user).first().map(|row| row.issued_at);
            again += u64::from(asked.len() > 1 && (won_at.is_some() || has_receipt(asked)));
            self.refusals(asked, won_at, &mut offenders);
        }
        let compared = format!(
            "{} winners who asked more than once; by receipts and append times, clocks within {} ms",
            grouped(again),
            self.tolerance
        );
        Check::of("I7", "no winner was refused", compared, offenders)
    }

    /// A user's refusals that are provably wrong.
    fn refusals(&self, asked: &[Attempt], won_at: Option<u64>, offenders: &mut Vec<Offender>) {
        if !asked.iter().any(|attempt| attempt.heard.refusal().is_some()) {
            return;
        }
        let receipts = || asked.iter().filter(|attempt| attempt.heard == Heard::Receipt);
        let mut lines: HashMap<u32, u32> = HashMap::new();
        for receipt in receipts() {
            let line = lines.entry(receipt.run).or_insert(receipt.heard_line);
            *line = receipt.heard_line.min(*line);
        }
        let told_at = receipts().map(|receipt| receipt.heard_at).min();
        for attempt in asked {
            let Some(refusal) = attempt.heard.refusal() else { continue };
            let later = |than: Option<u64>| than.is_some_and(|than| than + self.tolerance < attempt.sent);
            let above = lines.get(&attempt.run).is_some_and(|line| *line < attempt.sent_line);
            let when = if above || later(told_at) {
                "after the receipt had arrived".to_owned()
            } else if later(won_at) {
                format!("{} ms after the claim stood in the log", attempt.sent - won_at.unwrap_or_default())
            } else {
                continue;
            };
            let problem = format!("told {refusal} on asking at {}, {when}", attempt.sent);
            offenders.push(Offender::user(attempt.user, problem));
        }
    }

    /// Users with rows.
    fn users(&self) -> u64 {
        by_user(self.rows).count() as u64
    }

    fn stock(&self) -> u64 {
        self.definition.map_or(0, |definition| definition.stock)
    }
}

/// What was told otherwise; what is not known on either side is no difference.
fn differing(name: &str, told: Option<u64>, other: Option<u64>, whose: &str) -> Option<String> {
    let (told, other) = (told?, other?);
    (told != other).then(|| format!("told {name} {told}, {whose} it is {other}"))
}

#[cfg(test)]
mod tests;
