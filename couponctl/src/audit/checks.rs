//! Rows, counts and the doorman's set, as pure functions over what was read.

use crate::index::{Coupon, Row};
use crate::terminal::grouped;
use crate::verdict::{Check, Offender};

use super::live::{Difference, Shown};

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

/// I5: rows, ledger and coupon service say the same number; while it grows, what is shown is between the rows of the
/// snapshot and those afterwards.
pub(crate) fn counts_agree(
    rows: &[Row],
    coupon: Option<&Coupon>,
    shown: Option<&Result<Shown, String>>,
) -> Check {
    const WHAT: &str = "rows, ledger and coupon agree";
    let count = rows.len() as u64;
    let ledger = coupon.map_or(0, |coupon| coupon.count);
    let compared = format!("{} rows, {} in the ledger", grouped(count), grouped(ledger));
    let (shown, agrees) = match shown {
        None => ("coupon service not asked".to_owned(), true),
        Some(Err(problem)) => (problem.clone(), false),
        Some(Ok(Shown { issued, rows, level })) => {
            let mut shown = format!("{} issued shown", grouped(*issued));
            if *rows != count {
                shown += &format!(", {} rows afterwards", grouped(*rows));
            }
            if count == ledger && issued > rows && !level {
                let why = format!("{compared}, {shown}: more may be on their way through the log");
                return Check::not_judged("I5", WHAT, why);
            }
            (shown, (count..=*rows).contains(issued))
        }
    };
    Check::new("I5", WHAT, format!("{compared}, {shown}"), count == ledger && agrees)
}

/// I5: the doorman's set is the users of the rows, while its key lives.
pub(crate) fn doorman_agrees(
    rows: &[Row],
    set: Option<&Result<Option<Difference>, String>>,
    may_differ: bool,
) -> Check {
    const WHAT: &str = "the Redis set is the rows' users";
    let found = match set {
        None => return Check::not_judged("I5", WHAT, "no Redis given"),
        Some(Err(problem)) => return Check::new("I5", WHAT, problem.clone(), false),
        Some(Ok(None)) if rows.is_empty() => return Check::new("I5", WHAT, "no rows, no key", true),
        Some(Ok(None)) => return Check::not_judged("I5", WHAT, "the key does not live"),
        Some(Ok(Some(found))) => found,
    };
    let compared = format!("{} members, {} users", grouped(found.members), grouped(found.users));
    let extra = found.extra.iter().map(|user| Offender::user(*user, "in Redis without a row"));
    let missing = found.missing.iter().map(|user| Offender::user(*user, "has a row, not in Redis"));
    let offenders: Vec<Offender> = extra.chain(missing).collect();
    if may_differ && !offenders.is_empty() {
        let why = format!("{compared}: {} differ, which was permitted", grouped(offenders.len() as u64));
        return Check::not_judged("I5", WHAT, why);
    }
    if found.missing.is_empty() && !offenders.is_empty() && !found.level {
        let why = format!("{compared}: {} may still be on their way", grouped(offenders.len() as u64));
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
        let verdict = |count, shown: Option<Result<Shown, String>>| {
            counts_agree(&two, Some(&coupon(9, count)), shown.as_ref()).verdict
        };
        let shown = |issued, rows, level| Some(Ok(Shown { issued, rows, level }));
        assert_eq!([verdict(2, None), verdict(2, shown(2, 2, true))], [Verdict::Ok; 2]);
        assert_eq!([verdict(1, None), verdict(1, shown(2, 2, true))], [Verdict::Failed; 2]);
        assert_eq!([verdict(2, shown(1, 2, true)), verdict(2, shown(3, 2, true))], [Verdict::Failed; 2]);
        assert_eq!(verdict(2, Some(Err("gone".to_owned()))), Verdict::Failed);

        // While it grows, to five rows afterwards.
        for issued in 0..=9 {
            let good = (2..=5).contains(&issued);
            let expected = if good { Verdict::Ok } else { Verdict::Failed };
            assert_eq!(verdict(2, shown(issued, 5, true)), expected, "{issued}");
        }
        assert_eq!(verdict(2, shown(6, 5, false)), Verdict::NotJudged, "the consumers are not level");
        assert_eq!(verdict(2, shown(1, 5, false)), Verdict::Failed, "however they are");
        assert_eq!(verdict(1, shown(6, 5, false)), Verdict::Failed, "of one moment, and differing");
    }

    #[test]
    fn the_set_must_have_the_users_and_no_others() {
        let two = rows(&[(1, 1), (5, 2)]);
        let found = |set: &[u64], level| Ok(Some(Difference { level, ..Difference::new(&[1, 5], set) }));
        let check = |set: &[u64], may_differ| doorman_agrees(&two, Some(&found(set, true)), may_differ);
        assert!(users(&check(&[1, 5], false)).is_empty());
        assert_eq!(users(&check(&[1, 4, 6], false)), [4, 5, 6]);
        assert_eq!(check(&[1], true).verdict, Verdict::NotJudged);
        assert_eq!(doorman_agrees(&two, Some(&Ok(None)), false).verdict, Verdict::NotJudged);
        assert_eq!(doorman_agrees(&two, Some(&Err("gone".to_owned())), false).verdict, Verdict::Failed);
        let behind = |set: &[u64]| doorman_agrees(&two, Some(&found(set, false)), false).verdict;
        assert_eq!([behind(&[1, 5, 6]), behind(&[1, 6])], [Verdict::NotJudged, Verdict::Failed]);
    }
}
