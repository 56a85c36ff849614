//! The invariants as pure functions over what was read, so that each can be shown to fail when it must.

use std::collections::{HashMap, HashSet};

use super::api::Coupon;
use super::record::Answers;
use super::rows::{Definition, Row, Rows};
use super::verdict::{Check, Offender};
use crate::ids;
use crate::terminal::grouped;

/// Told and written, both ways round.
#[derive(Debug)]
pub(crate) struct Promises<'a> {
    pub(crate) coupon: u64,
    pub(crate) answers: &'a Answers,
    /// Rows by user.
    pub(crate) users: HashMap<u64, u64>,
}

impl<'a> Promises<'a> {
    pub(crate) fn new(coupon: u64, answers: &'a Answers, rows: &[Row]) -> Self {
        Self { coupon, answers, users: rows_by_user(rows) }
    }

    /// I1: every user who was told ISSUED has exactly one row.
    pub(crate) fn told_have_rows(&self) -> Check {
        let lost = self.answers.winners().filter_map(|(user, _)| match self.users.get(&user) {
            Some(1) => None,
            Some(rows) => Some(Offender { user, problem: format!("told issued, has {rows} rows") }),
            None => Some(Offender { user, problem: "told issued, has no row".to_owned() }),
        });
        let lost: Vec<Offender> = lost.collect();
        let told = grouped(self.answers.winners().count() as u64);
        let compared = format!("{told} told issued, {} users with rows", grouped(self.users.len() as u64));
        Check::of("I1", "who was told issued has one row", compared, lost)
    }

    /// Every receipt's id encodes this coupon and this user.
    pub(crate) fn receipts_are_right(&self) -> Check {
        let wrong =
            self.answers.winners().filter(|(user, id)| !ids::is_issue_id(id, self.coupon, *user)).map(
                |(user, id)| Offender {
                    user,
                    problem: format!("issue id {id} is not this coupon's and user's"),
                },
            );
        let wrong: Vec<Offender> = wrong.collect();
        Check::of("I1", "receipts name coupon and user", "issue ids, decoded", wrong)
    }

    /// Every row is of somebody who was told, or who may have won unheard.
    pub(crate) fn rows_are_explained(&self, partial: bool) -> Check {
        let mut outside = 0_u64;
        let mut unheard = 0_u64;
        let mut offenders = Vec::new();
        for &user in self.users.keys() {
            match self.answers.users.get(&user) {
                Some(told) if told.issued.is_some() => {}
                Some(told) if told.open > 0 => unheard += 1,
                Some(told) => {
                    let problem = format!("has a row, but all {} attempts were refused", told.attempts);
                    offenders.push(Offender { user, problem });
                }
                None => {
                    outside += 1;
                    if !partial {
                        offenders.push(Offender { user, problem: "has a row, but never asked".to_owned() });
                    }
                }
            }
        }
        let Answers { pending, unknown, .. } = self.answers;
        let others = if partial { format!(", {} by others", grouped(outside)) } else { String::new() };
        let compared =
            format!("{} rows unheard of {} pending and unknown{others}", grouped(unheard), pending + unknown);
        Check::of("A", "rows are told, pending or unknown", compared, offenders)
    }

    /// I4: sold out is said only when the stock is gone.
    pub(crate) fn sold_out_means_empty(&self, definition: Option<Definition>, stock_changed: bool) -> Check {
        const WHAT: &str = "sold out only if the stock is gone";
        if stock_changed {
            return Check::not_judged("I4", WHAT, "the stock was changed meanwhile");
        }
        if !self.answers.anybody_sold_out() {
            return Check::not_judged("I4", WHAT, "nobody was told sold out");
        }
        let rows: u64 = self.users.values().sum();
        let stock = definition.map_or(0, |definition| definition.stock);
        Check::new("I4", WHAT, format!("{} rows, stock {}", grouped(rows), grouped(stock)), rows >= stock)
    }

    /// I7, from the record: no two ids, no refusal after a receipt.
    pub(crate) fn answers_agree(&self) -> Check {
        let mut asked_again = 0_u64;
        let mut offenders = Vec::new();
        for (&user, told) in &self.answers.users {
            asked_again += u64::from(told.attempts > 1 && told.issued.is_some());
            offenders.extend(
                told.contradictions.iter().map(|problem| Offender { user, problem: problem.clone() }),
            );
        }
        let compared = format!("{} winners who asked more than once", grouped(asked_again));
        Check::of("I7", "a winner's answers agree", compared, offenders)
    }
}

/// I2: never more rows than stock.
pub(crate) fn within_stock(rows: &Rows) -> Check {
    const WHAT: &str = "rows are at most the stock";
    let count = rows.rows.len() as u64;
    match rows.definition {
        Some(Definition { stock, .. }) => Check::new(
            "I2",
            WHAT,
            format!("{} rows, stock {}", grouped(count), grouped(stock)),
            count <= stock,
        ),
        None => Check::new("I2", WHAT, format!("{} rows, no definition", grouped(count)), count == 0),
    }
}

/// I3: no user twice.
pub(crate) fn once_each(rows: &[Row]) -> Check {
    let twice = rows_by_user(rows)
        .into_iter()
        .filter(|&(_, rows)| rows > 1)
        .map(|(user, rows)| Offender { user, problem: format!("has {rows} rows") });
    let twice: Vec<Offender> = twice.collect();
    Check::of("I3", "no user has two rows", format!("{} rows", grouped(rows.len() as u64)), twice)
}

/// Places are 1 to the number of rows, each once: no gap, no repeat.
pub(crate) fn places_in_line(rows: &[Row]) -> Check {
    let mut seen = HashSet::with_capacity(rows.len());
    let wrong =
        rows.iter().filter(|row| !seen.insert(row.place) || row.place == 0 || row.place > rows.len() as u64);
    let wrong =
        wrong.map(|row| Offender { user: row.user, problem: format!("has place {}", row.place) }).collect();
    Check::of("P", "places are 1 to n, each once", format!("{} places", grouped(rows.len() as u64)), wrong)
}

/// I5: rows, ledger and coupon service say the same number.
pub(crate) fn counts_agree(rows: &Rows, api: Option<&Result<Coupon, String>>) -> Check {
    const WHAT: &str = "rows, ledger and coupon agree";
    let count = rows.rows.len() as u64;
    let ledger = rows.definition.map_or(0, |definition| definition.count);
    let (shown, agrees) = match api {
        None => ("coupon service not asked".to_owned(), true),
        Some(Err(problem)) => (problem.clone(), false),
        Some(Ok(coupon)) => {
            (format!("{} issued shown", grouped(coupon.issued_quantity)), coupon.issued_quantity == count)
        }
    };
    let compared = format!("{} rows, {} in the ledger, {shown}", grouped(count), grouped(ledger));
    Check::new("I5", WHAT, compared, count == ledger && agrees)
}

/// I5: the doorman's set is the users of the rows, while its key lives.
pub(crate) fn doorman_agrees(
    rows: &[Row],
    set: Option<&Result<Option<HashSet<u64>>, String>>,
    may_differ: bool,
) -> Check {
    const WHAT: &str = "the Redis set is the rows' users";
    let set = match set {
        None => return Check::not_judged("I5", WHAT, "no Redis given"),
        Some(Err(problem)) => return Check::new("I5", WHAT, problem.clone(), false),
        Some(Ok(None)) if rows.is_empty() => return Check::new("I5", WHAT, "no rows, no key", true),
        Some(Ok(None)) => return Check::not_judged("I5", WHAT, "the key does not live"),
        Some(Ok(Some(set))) => set,
    };
    let users: HashSet<u64> = rows.iter().map(|row| row.user).collect();
    let extra =
        set.difference(&users).map(|&user| Offender { user, problem: "in Redis without a row".to_owned() });
    let missing =
        users.difference(set).map(|&user| Offender { user, problem: "has a row, not in Redis".to_owned() });
    let offenders: Vec<Offender> = extra.chain(missing).collect();
    let compared = format!("{} members, {} users", grouped(set.len() as u64), grouped(users.len() as u64));
    if may_differ && !offenders.is_empty() {
        let why = format!("{compared}: {} differ, which was permitted", grouped(offenders.len() as u64));
        return Check::not_judged("I5", WHAT, why);
    }
    Check::of("I5", WHAT, compared, offenders)
}

pub(crate) fn rows_by_user(rows: &[Row]) -> HashMap<u64, u64> {
    let mut users = HashMap::with_capacity(rows.len());
    for row in rows {
        *users.entry(row.user).or_default() += 1;
    }
    users
}
