//! Rows, counts and the doorman's set, as pure functions over what was read.

use crate::index::{Coupon, Row};
use crate::terminal::grouped;
use crate::verdict::{Check, Offender};

use super::api;

/// I2: never more rows than the highest stock that was ever in force.
pub(crate) fn within_stock(rows: &[Row], coupon: Option<&Coupon>, highest: Option<u64>) -> Check {
    const WHAT: &str = "rows are at most the stock";
    let count = rows.len() as u64;
    let (stock, name) = match (highest, coupon) {
        // The stock in force is never below what was issued, so it bounds the rows, too.
        (None, Some(coupon)) => (coupon.definition.stock, "stock"),
        (Some(highest), _) => (highest, "highest stock"),
        (None, None) => (0, "no definition:"),
    };
    let compared = format!("{} rows, {name} {}", grouped(count), grouped(stock));
    Check::new("I2", WHAT, compared, count <= stock)
}

/// I3: no user twice.
pub(crate) fn once_each(rows: &[Row]) -> Check {
    let twice = by_user(rows)
        .filter(|rows| rows.len() > 1)
        .map(|rows| Offender::user(rows[0].user, format!("has {} rows", rows.len())));
    let twice: Vec<Offender> = twice.collect();
    Check::of("I3", "no user has two rows", format!("{} rows", grouped(rows.len() as u64)), twice)
}

/// Rows are sorted by user.
pub(crate) fn by_user(rows: &[Row]) -> impl Iterator<Item = &[Row]> {
    rows.chunk_by(|one, other| one.user == other.user)
}

/// Places are 1 to the number of rows, each once: no gap, no repeat.
pub(crate) fn places_in_line(rows: &[Row]) -> Check {
    let mut taken = vec![false; rows.len()];
    let wrong = rows.iter().filter(|row| {
        let slot = usize::try_from(row.place).ok().and_then(|place| taken.get_mut(place.checked_sub(1)?));
        slot.is_none_or(|slot| std::mem::replace(slot, true))
    });
    let wrong = wrong.map(|row| Offender::user(row.user, format!("has place {}", row.place))).collect();
    Check::of("P", "places are 1 to n, each once", format!("{} places", grouped(rows.len() as u64)), wrong)
}

/// I5: rows, ledger and coupon service say the same number.
pub(crate) fn counts_agree(
    rows: &[Row],
    coupon: Option<&Coupon>,
    shown: Option<&Result<api::Coupon, String>>,
) -> Check {
    const WHAT: &str = "rows, ledger and coupon agree";
    let count = rows.len() as u64;
    let ledger = coupon.map_or(0, |coupon| coupon.count);
    let (shown, agrees) = match shown {
        None => ("coupon service not asked".to_owned(), true),
        Some(Err(problem)) => (problem.clone(), false),
        Some(Ok(coupon)) => {
            (format!("{} issued shown", grouped(coupon.issued_quantity)), coupon.issued_quantity == count)
        }
    };
    let compared = format!("{} rows, {} in the ledger, {shown}", grouped(count), grouped(ledger));
    Check::new("I5", WHAT, compared, count == ledger && agrees)
}

/// I5: the doorman's set, sorted, is the users of the rows, while its key lives.
pub(crate) fn doorman_agrees(
    rows: &[Row],
    set: Option<&Result<Option<Vec<u64>>, String>>,
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
    let users: Vec<u64> = by_user(rows).map(|rows| rows[0].user).collect();
    let without = |one: &[u64], other: &[u64], problem: &str| -> Vec<Offender> {
        let missing = one.iter().filter(|user| other.binary_search(user).is_err());
        missing.map(|user| Offender::user(*user, problem)).collect()
    };
    let mut offenders = without(set, &users, "in Redis without a row");
    offenders.extend(without(&users, set, "has a row, not in Redis"));
    let compared = format!("{} members, {} users", grouped(set.len() as u64), grouped(users.len() as u64));
    if may_differ && !offenders.is_empty() {
        let why = format!("{compared}: {} differ, which was permitted", grouped(offenders.len() as u64));
        return Check::not_judged("I5", WHAT, why);
    }
    Check::of("I5", WHAT, compared, offenders)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::record::Definition;
    use crate::verdict::Verdict;

    fn rows(places: &[(u64, u64)]) -> Vec<Row> {
        places.iter().map(|&(user, place)| Row { user, place, ..Row::default() }).collect()
    }

    fn coupon(stock: u64, count: u64) -> Coupon {
        let definition = Definition { version: 1, stock, starts_at: 0, ends_at: 9, closed: false };
        Coupon { id: 7, partition: 0, definition, retired_at: None, count }
    }

    fn users(check: &Check) -> Vec<u64> {
        check.offenders.iter().map(|offender| offender.user.unwrap()).collect()
    }

    #[test]
    fn more_rows_than_stock_fail() {
        let three = rows(&[(1, 1), (2, 2), (3, 3)]);
        let verdict = |coupon: Option<&Coupon>, highest| within_stock(&three, coupon, highest).verdict;
        assert_eq!(verdict(Some(&coupon(3, 3)), None), Verdict::Ok);
        assert_eq!(verdict(Some(&coupon(2, 3)), None), Verdict::Failed);
        assert_eq!(verdict(Some(&coupon(9, 3)), Some(2)), Verdict::Failed, "the log knows best");
        assert_eq!(verdict(None, None), Verdict::Failed);
    }

    #[test]
    fn doubles_and_places_name_their_users() {
        assert_eq!(users(&once_each(&rows(&[(1, 1), (2, 2), (2, 3)]))), [2]);
        assert!(users(&places_in_line(&rows(&[(1, 1), (2, 2), (3, 3)]))).is_empty());
        assert_eq!(
            users(&places_in_line(&rows(&[(1, 1), (2, 1), (3, 4), (5, 0)]))),
            [2, 5],
            "twice, and none"
        );
    }

    #[test]
    fn counts_must_all_agree() {
        let two = rows(&[(1, 1), (2, 2)]);
        let verdict = |count, shown: Option<Result<u64, String>>| {
            let shown =
                shown.map(|shown| shown.map(|issued_quantity| api::Coupon { quantity: 9, issued_quantity }));
            counts_agree(&two, Some(&coupon(9, count)), shown.as_ref()).verdict
        };
        assert_eq!([verdict(2, None), verdict(2, Some(Ok(2)))], [Verdict::Ok; 2]);
        assert_eq!([verdict(1, None), verdict(2, Some(Ok(1)))], [Verdict::Failed; 2]);
        assert_eq!(verdict(2, Some(Err("gone".to_owned()))), Verdict::Failed);
    }

    #[test]
    fn the_set_must_have_the_users_and_no_others() {
        let two = rows(&[(1, 1), (5, 2)]);
        let check = |set: &[u64], may_differ| doorman_agrees(&two, Some(&Ok(Some(set.to_vec()))), may_differ);
        assert!(users(&check(&[1, 5], false)).is_empty());
        assert_eq!(users(&check(&[1, 4, 6], false)), [4, 5, 6]);
        assert_eq!(check(&[1], true).verdict, Verdict::NotJudged);
        assert_eq!(doorman_agrees(&two, Some(&Ok(None)), false).verdict, Verdict::NotJudged);
        assert_eq!(doorman_agrees(&two, Some(&Err("gone".to_owned())), false).verdict, Verdict::Failed);
    }
}
