use super::*;
use crate::audit::history::tests::{claim, history, stock};
use crate::audit::record::tests::{COUPON, record};
use crate::ids::issue_id;
use crate::verdict::Verdict;

/// An attempt of a user with what was heard, at these times.
fn heard(number: u64, user: u64, at: [u64; 2], outcome: &str) -> [String; 2] {
    let attempt = format!(r#"{{"attempt":{number},"user":{user},"at":{}}}"#, at[0]);
    let code = outcome.strip_prefix("COUPON_").map(|_| format!(r#","code":"{outcome}""#)).unwrap_or_default();
    let outcome = if code.is_empty() { outcome } else { "REFUSED" };
    let id = issue_id(COUPON, user);
    let answer = format!(
        r#"{{"answer":{number},"at":{},"status":200,"outcome":"{outcome}","issueId":"{id}"{code}}}"#,
        at[1]
    );
    [attempt, answer]
}

fn lines(of: &[[String; 2]]) -> Vec<&str> {
    of.iter().flatten().map(String::as_str).collect()
}

fn rows(users: &[(u64, u64)]) -> Vec<Row> {
    (1..)
        .zip(users)
        .map(|(place, &(user, issued_at))| Row { user, place, offset: place, issued_at })
        .collect()
}

fn definition(stock: u64) -> Definition {
    Definition { version: 1, stock, starts_at: 0, ends_at: 1_000, closed: false }
}

fn promises<'a>(record: &'a Record, rows: &'a [Row], definition: &'a Definition) -> Promises<'a> {
    Promises { record, rows, definition: Some(definition), history: None, tolerance: 0 }
}

fn users(check: &Check) -> Vec<u64> {
    assert_eq!(check.verdict == Verdict::Failed, !check.offenders.is_empty());
    check.offenders.iter().map(|offender| offender.user.unwrap()).collect()
}

#[test]
fn who_was_told_and_has_no_row_or_two_is_named() {
    let told =
        [heard(0, 1, [1, 2], "ISSUED"), heard(1, 2, [1, 2], "ALREADY_ISSUED"), heard(2, 3, [1, 2], "ISSUED")];
    let (record, definition) = (record(&[&lines(&told)]), definition(9));
    let rows = rows(&[(1, 1), (3, 1), (3, 1)]);
    assert_eq!(users(&promises(&record, &rows, &definition).told_have_rows()), [2, 3]);
}

#[test]
fn place_and_time_of_receipts_are_the_rows_the_logs_and_always_the_same() {
    let told = |number: u64, place: u64, at: &str| {
        let [attempt, answer] = heard(number, 1, [1, 2], "ISSUED");
        let more = format!(r#","place":{place},"issuedAt":"1970-01-01T00:00:00{at}Z"}}"#);
        [attempt, answer.replace('}', &more)]
    };
    let (definition, row) = (definition(9), rows(&[(1, 15)]));
    let with = |told: &[[String; 2]], rows: &[Row], log| {
        let record = record(&[&lines(told)]);
        let check = Promises { history: log, ..promises(&record, rows, &definition) }.receipts_are_the_same();
        (check.verdict, check.offenders.into_iter().map(|it| it.problem).collect::<Vec<_>>().join("; "))
    };
    let good = (Verdict::Ok, String::new());
    let failed = |problem: &str| (Verdict::Failed, problem.to_owned());
    let log = history(&[(10, stock(1, 9)), (15, claim(1))]);
    let other = history(&[(10, stock(1, 9)), (11, claim(2)), (15, claim(1))]);
    let right = told(0, 1, ".015");
    assert_eq!(with(std::slice::from_ref(&right), &row, Some(&log)), good);
    assert_eq!(with(&[told(0, 2, ".015")], &row, None), failed("told place 2, in its row it is 1"));
    assert_eq!(with(&[told(0, 1, ".016")], &row, None), failed("told issued at 16, in its row it is 15"));
    let by_log = failed("told place 1, by the log it is 2");
    assert_eq!(with(std::slice::from_ref(&right), &[], Some(&other)), by_log);
    assert_eq!(with(std::slice::from_ref(&right), &row, Some(&other)), by_log);
    let twice = [right.clone(), told(1, 1, ".016")];
    assert_eq!(with(&twice, &[], None), failed("told issued at 16, in another receipt it is 15"));
    let twice = [right.clone(), told(1, 2, ".015")];
    assert_eq!(with(&twice, &[], None), failed("told place 2, in another receipt it is 1"));
    // A record of before place and time were written down, alone and beside a newer one.
    let old = heard(1, 1, [1, 2], "ISSUED");
    assert_eq!(with(std::slice::from_ref(&old), &row, Some(&log)).0, Verdict::NotJudged);
    assert_eq!(with(&[right, old], &row, Some(&log)), good);
}

#[test]
fn a_row_is_explained_by_a_receipt_or_by_what_nobody_can_know() {
    let told = [
        heard(0, 1, [1, 2], "ISSUED"),
        heard(1, 2, [1, 2], "PENDING"),
        heard(2, 3, [1, 2], "UNKNOWN"),
        heard(3, 4, [1, 2], "SOLD_OUT"),
        heard(4, 5, [1, 2], "NOT_SENT"),
    ];
    let mut lines = lines(&told);
    lines.push(r#"{"attempt":9,"user":6,"at":3}"#);
    let (record, definition) = (record(&[&lines]), definition(9));
    let rows = rows(&[(1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1), (7, 1)]);
    let promises = promises(&record, &rows, &definition);
    assert_eq!(users(&promises.rows_are_explained(false)), [4, 5, 7]);
    let partial = promises.rows_are_explained(true);
    assert_eq!(users(&partial), [4, 5]);
    assert!(
        partial.compared.starts_with("3 rows unheard of 1 pending and 2 unknown, 1 by others"),
        "{partial:?}"
    );
    assert_eq!(promises.unheard(), 3);
}

/// Winner 1 won at 100 by the log, and heard of it at 110.
#[test]
fn a_refusal_after_receipt_or_log_is_named_and_one_that_may_be_true_is_not() {
    let refused = |at: [u64; 2], outcome: &str, won: Option<u64>, tolerance| {
        let told = [heard(0, 1, [95, 110], "ISSUED"), heard(1, 1, at, outcome)];
        // The lines of the two overlap, as their times do.
        let order = if at[0] >= 110 { [0, 1, 2, 3] } else { [0, 2, 1, 3] };
        let flat = lines(&told);
        let (record, definition) = (record(&[&order.map(|index| flat[index])]), definition(9));
        let rows = won.map(|at| rows(&[(1, at)])).unwrap_or_default();
        let check = Promises { tolerance, ..promises(&record, &rows, &definition) }.no_winner_refused();
        users(&check).len()
    };
    for outcome in ["SOLD_OUT", "COUPON_ENDED", "COUPON_NOT_STARTED", "COUPON_NOT_FOUND"] {
        assert_eq!(refused([120, 130], outcome, Some(100), 0), 1, "{outcome}");
        assert_eq!(refused([120, 130], outcome, None, 0), 1, "{outcome}, by the receipt alone");
    }
    assert_eq!(refused([110, 130], "SOLD_OUT", None, 9), 1, "in the same millisecond, but on a line below");
    assert_eq!(refused([120, 130], "COUPON_OTHER", Some(100), 0), 0, "not a refusal of the coupon");
    assert_eq!(refused([101, 130], "SOLD_OUT", Some(100), 0), 1, "the claim stood in the log");
    assert_eq!(refused([101, 130], "SOLD_OUT", Some(100), 1), 0, "by the clocks it need not have");
    assert_eq!(refused([100, 130], "SOLD_OUT", Some(100), 0), 0, "it may have been appended after");
    assert_eq!(refused([96, 130], "SOLD_OUT", None, 0), 0, "sent before the receipt came");
}

#[test]
fn the_log_knows_winners_that_have_no_row() {
    let told = [heard(0, 1, [50, 60], "SOLD_OUT")];
    let (record, definition) = (record(&[&lines(&told)]), definition(9));
    let history = history(&[(10, stock(1, 9)), (20, claim(1))]);
    let with = |history| Promises { history, ..promises(&record, &[], &definition) };
    assert!(users(&with(None).no_winner_refused()).is_empty());
    assert_eq!(users(&with(Some(&history)).no_winner_refused()), [1]);
}

/// Lines of two runs say nothing about each other's order; their clocks do.
#[test]
fn receipts_of_another_run_count_by_time() {
    let refused = |sent| {
        let (one, two) = ([heard(0, 1, [10, 20], "ISSUED")], [heard(0, 1, [sent, 90], "SOLD_OUT")]);
        let (record, definition) = (record(&[&lines(&two), &lines(&one)]), definition(9));
        users(&promises(&record, &[], &definition).no_winner_refused()).len()
    };
    assert_eq!([refused(20), refused(21)], [0, 1]);
}

#[test]
fn a_status_of_none_after_the_win_is_a_refusal() {
    let none = |asked: u64| {
        let lines = [
            r#"{"attempt":0,"user":1,"at":10}"#.to_owned(),
            r#"{"answer":0,"at":20,"status":202,"outcome":"PENDING"}"#.to_owned(),
            format!(
                r#"{{"answer":0,"at":90,"asked":{asked},"status":200,"outcome":"REFUSED","code":"NONE","followed":true}}"#
            ),
        ];
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let (record, definition) = (record(&[&lines]), definition(9));
        let rows = rows(&[(1, 50)]);
        users(&promises(&record, &rows, &definition).no_winner_refused()).len()
    };
    assert_eq!([none(50), none(51)], [0, 1]);
}

#[test]
fn sold_out_is_held_against_rows_or_times() {
    let told = [
        heard(0, 1, [10, 20], "ISSUED"),
        heard(1, 2, [12, 25], "SOLD_OUT"),
        heard(2, 3, [40, 41], "SOLD_OUT"),
    ];
    let record = record(&[&lines(&told)]);
    let (one, two) = (definition(1), definition(2));
    let rows = rows(&[(1, 15)]);
    assert_eq!(promises(&record, &rows, &one).sold_out_means_gone(false).verdict, Verdict::Ok);
    assert_eq!(promises(&record, &rows, &two).sold_out_means_gone(false).verdict, Verdict::Failed);
    assert_eq!(promises(&record, &rows, &two).sold_out_means_gone(true).verdict, Verdict::NotJudged);

    // By the log the stock was gone from 26, or from 15 to 30.
    let late = history(&[(10, stock(1, 1)), (26, claim(1))]);
    let raised = history(&[(10, stock(1, 1)), (15, claim(1)), (30, stock(2, 2))]);
    let with = |history| Promises { history: Some(history), ..promises(&record, &rows, &one) };
    assert_eq!(users(&with(&late).sold_out_means_gone(false)), [2]);
    assert_eq!(users(&with(&raised).sold_out_means_gone(false)), [3]);
    let tolerant = Promises { tolerance: 10, ..with(&raised) };
    assert!(users(&tolerant.sold_out_means_gone(false)).is_empty());
}

#[test]
fn a_no_that_was_never_true_is_found() {
    let told = [(0, 10, "COUPON_NOT_FOUND"), (1, 12, "COUPON_NOT_FOUND"), (2, 20, "COUPON_ENDED")];
    let told = told.map(|(number, at, code)| {
        let status = if code == "COUPON_NOT_FOUND" { 404 } else { 409 };
        [
            format!(r#"{{"attempt":{number},"user":{number},"at":{at}}}"#),
            format!(
                r#"{{"answer":{number},"at":{},"status":{status},"outcome":"REFUSED","code":"{code}"}}"#,
                at + 1
            ),
        ]
    });
    let (record, definition) = (record(&[&lines(&told)]), definition(1));
    let judged = promises(&record, &[], &definition);
    assert_eq!(judged.noes_were_true().verdict, Verdict::NotJudged, "without the log");
    let history = history(&[(11, stock(1, 1))]);
    let with = Promises { history: Some(&history), ..judged };
    assert_eq!(users(&with.noes_were_true()), [1, 2]);
    // By a clock that is that much behind.
    assert_eq!(users(&Promises { tolerance: 1, ..with }.noes_were_true()), [2]);
}

#[test]
fn a_leaked_slot_is_judged_only_if_enough_asked_to_the_end() {
    let issued = heard(0, 1, [10, 20], "ISSUED");
    let pending = heard(1, 2, [10, 20], "PENDING");
    let sold_out = heard(2, 3, [12, 25], "SOLD_OUT");
    let rows = rows(&[(1, 15)]);
    let verdict = |told: &[[String; 2]], stock, changed| {
        let (record, definition) = (record(&[&lines(told)]), definition(stock));
        promises(&record, &rows, &definition).no_slot_leaked(changed).verdict
    };
    let gave_up = [issued.clone(), pending];
    assert_eq!(verdict(&gave_up, 1, false), Verdict::Ok);
    assert_eq!(verdict(&gave_up, 2, false), Verdict::NotJudged, "user 2 did not ask to the end");
    let all = [issued, sold_out];
    assert_eq!(verdict(&all, 2, false), Verdict::Failed);
    assert_eq!(verdict(&all, 2, true), Verdict::NotJudged);
    assert_eq!(verdict(&all, 3, false), Verdict::NotJudged, "two for a stock of three");

    // User 3 heard sold out while the stock was 1, and has not asked since it is 2.
    let (record, two) = (record(&[&lines(&all)]), definition(2));
    let raised = history(&[(10, stock(1, 1)), (15, claim(1)), (30, stock(2, 2))]);
    let early = history(&[(1, stock(1, 1)), (5, stock(2, 2)), (15, claim(1))]);
    let with = |history| Promises { history: Some(history), ..promises(&record, &rows, &two) };
    assert_eq!(with(&raised).no_slot_leaked(false).verdict, Verdict::NotJudged);
    assert_eq!(with(&early).no_slot_leaked(false).verdict, Verdict::Failed);
    let unknown = Promises { definition: None, ..promises(&record, &rows, &two) };
    assert_eq!(unknown.no_slot_leaked(false).verdict, Verdict::NotJudged);
}
