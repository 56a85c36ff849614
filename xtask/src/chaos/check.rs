//! The verdict on a round: what the audit found, what users heard when all asked once more, what the services alarm of.
//! Pure, so that each fault can be shown to be found.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::record::{Heard, Said, count};
use super::site::Expected;

/// Each is zero on a healthy system, whatever is lost around it.
pub(crate) const ALARMS: [&str; 4] = [
    "firstcome_contradictions_total",
    "firstcome_ledger_stopped",
    "firstcome_sink_stopped",
    "firstcome_dead_letters_total",
];

/// What is judged.
pub(crate) struct Evidence<'a> {
    pub(crate) audit: &'a Value,
    /// Of the sale, and of the time when all asked once more.
    pub(crate) sale: &'a BTreeMap<u64, Said>,
    pub(crate) again: &'a BTreeMap<u64, Said>,
    pub(crate) stock: u64,
    pub(crate) expected: Expected,
    /// By how much each alarm has risen.
    pub(crate) alarms: &'a BTreeMap<String, u64>,
}

/// The figures of a round's promises, or of several rounds'.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Promises {
    pub(crate) told_issued: u64,
    pub(crate) rows: u64,
    pub(crate) lost: u64,
    pub(crate) duplicates: u64,
    pub(crate) over_issued: u64,
    /// Stock that nobody has, although more users than that asked; none where the coupon was shut.
    pub(crate) leaked: Option<u64>,
    pub(crate) winners_refused: u64,
    /// Users with an attempt of which nothing was heard, and a coupon.
    pub(crate) unknown_became_rows: u64,
}

impl std::iter::Sum for Promises {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, it| Self {
            told_issued: sum.told_issued + it.told_issued,
            rows: sum.rows + it.rows,
            lost: sum.lost + it.lost,
            duplicates: sum.duplicates + it.duplicates,
            over_issued: sum.over_issued + it.over_issued,
            leaked: sum.leaked.map_or(it.leaked, |leaked| Some(leaked + it.leaked.unwrap_or(0))),
            winners_refused: sum.winners_refused + it.winners_refused,
            unknown_became_rows: sum.unknown_became_rows + it.unknown_became_rows,
        })
    }
}

impl Evidence<'_> {
    /// The figures, and every promise that was broken, in words.
    pub(crate) fn judge(&self) -> (Promises, Vec<String>) {
        let mut broken = Vec::new();
        let mut figure = |name: &str| {
            let figure = self.audit[name].as_u64();
            if figure.is_none() {
                broken.push(format!("the audit has no figure {name}"));
            }
            figure.unwrap_or_default()
        };
        let in_force = figure("stock");
        let mut promises = Promises {
            told_issued: figure("toldIssued"),
            rows: figure("rows"),
            lost: figure("lost"),
            duplicates: figure("duplicates"),
            over_issued: figure("overIssued"),
            leaked: None,
            winners_refused: self.winners_refused(),
            unknown_became_rows: self.unknown_became_rows(),
        };
        if self.expected != Expected::Shut {
            promises.leaked = Some(in_force.saturating_sub(promises.rows));
        }
        let mut zero = |name: &str, is: u64| {
            if is > 0 {
                broken.push(format!("{name}: {is}"));
            }
        };
        zero("told ISSUED and without a row", promises.lost);
        zero("rows beyond the first of a user", promises.duplicates);
        zero("rows beyond the stock", promises.over_issued);
        zero("slots that nobody got", promises.leaked.unwrap_or(0));
        zero("winners who were refused", promises.winners_refused);
        zero("users who won after nothing but 503", self.unavailable_and_won());
        for alarm in ALARMS {
            zero(alarm, self.alarms.get(alarm).copied().unwrap_or(0));
        }
        broken.extend(self.wrong_stock(in_force, promises.rows));
        broken.extend(self.failed_checks());
        if self.audit["ok"] != true && broken.is_empty() {
            broken.push("the audit failed".to_owned());
        }
        (promises, broken)
    }

    /// Users who heard a no with their receipt in hand, in the sale or when they asked once more; and those who heard a
    /// no in the sale at last, and then turned out to have won before.
    fn winners_refused(&self) -> u64 {
        let with_receipt = self.sale.iter().filter(|(user, said)| {
            let again = self.again.get(user);
            said.refused_with_receipt() || (said.receipt && again.is_some_and(|again| again.refused))
        });
        let before = self.turned_out_to_have_won().filter(|said| said.refused_at_last());
        count(with_receipt) + count(before)
    }

    /// A 503 says that nothing of the request is in flight.
    fn unavailable_and_won(&self) -> u64 {
        count(self.turned_out_to_have_won().filter(|said| !said.refused && said.open == 0))
    }

    fn unknown_became_rows(&self) -> u64 {
        count(self.turned_out_to_have_won().filter(|said| said.open > 0 && !said.refused_at_last()))
    }

    /// What users without a receipt heard in the sale, whose first answer afterwards was that they have it already.
    fn turned_out_to_have_won(&self) -> impl Iterator<Item = &Said> {
        self.sale.iter().filter_map(|(user, said)| {
            let already = self.again.get(user)?.first == Some(Heard::Already);
            (already && !said.receipt).then_some(said)
        })
    }

    fn wrong_stock(&self, in_force: u64, rows: u64) -> Option<String> {
        let must = match self.expected {
            Expected::All => self.stock,
            Expected::Stock(stock) => stock,
            Expected::Shut => {
                let won = count(self.again.values().filter(|said| said.first == Some(Heard::Issued)));
                return (won > 0).then(|| format!("{won} won after the coupon was shut"));
            }
        };
        // A lower stock takes force as what is issued.
        let fine = in_force == must || (in_force > must && in_force == rows && must < self.stock);
        (!fine).then(|| format!("the stock in force is {in_force}, not {must}"))
    }

    fn failed_checks(&self) -> Vec<String> {
        let said = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let checks = self.audit["checks"].as_array().into_iter().flatten();
        let failed = checks.filter(|check| check["verdict"] == "failed");
        failed
            .map(|check| {
                format!("{} {}: {}", said(&check["id"]), said(&check["what"]), said(&check["compared"]))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::chaos::record::tests::record;

    const ISSUED: &str = r#""status":200,"outcome":"ISSUED","issueId":"x""#;
    const ALREADY: &str = r#""status":409,"outcome":"ALREADY_ISSUED","issueId":"x""#;
    const SOLD_OUT: &str = r#""status":409,"outcome":"SOLD_OUT""#;
    const BUSY: &str = r#""status":503,"outcome":"REFUSED","code":"OVERLOADED""#;
    const CUT: &str = r#""outcome":"UNKNOWN""#;

    /// What each user heard, in order.
    fn said(users: &[(u64, &[&str])]) -> BTreeMap<u64, Said> {
        let mut lines = Vec::new();
        for (user, answers) in users {
            for (time, answer) in (1_u64..).zip(*answers) {
                let number = user * 100 + time;
                lines.push(format!(r#"{{"attempt":{number},"user":{user},"at":{time}}}"#));
                lines.push(format!(r#"{{"answer":{number},"at":{time},{answer}}}"#));
            }
        }
        record(&lines.iter().map(String::as_str).collect::<Vec<_>>()).users()
    }

    struct Case {
        audit: Value,
        sale: BTreeMap<u64, Said>,
        again: BTreeMap<u64, Said>,
        expected: Expected,
        alarms: BTreeMap<String, u64>,
    }

    /// Two of three users won, one of them without having heard it.
    fn good() -> Case {
        let audit = json!({"ok": true, "stock": 2, "toldIssued": 2, "rows": 2, "lost": 0, "duplicates": 0,
            "overIssued": 0, "checks": [{"id": "I1", "what": "x", "compared": "y", "verdict": "ok"}]});
        Case {
            audit,
            sale: said(&[(1, &[ISSUED, ALREADY]), (2, &[CUT]), (3, &[SOLD_OUT])]),
            again: said(&[(1, &[ALREADY]), (2, &[ALREADY]), (3, &[SOLD_OUT])]),
            expected: Expected::All,
            alarms: BTreeMap::new(),
        }
    }

    fn judge(case: &Case) -> (Promises, String) {
        let Case { audit, sale, again, expected, alarms } = case;
        let evidence = Evidence { audit, sale, again, stock: 2, expected: *expected, alarms };
        let (promises, broken) = evidence.judge();
        (promises, broken.join("; "))
    }

    fn broken(change: impl FnOnce(&mut Case)) -> String {
        let mut case = good();
        change(&mut case);
        judge(&case).1
    }

    #[test]
    fn what_is_right_is_found_right() {
        let (promises, broken) = judge(&good());
        assert_eq!(broken, "");
        let expected = Promises {
            told_issued: 2,
            rows: 2,
            leaked: Some(0),
            unknown_became_rows: 1,
            ..Promises::default()
        };
        assert_eq!(promises, expected);
    }

    #[test]
    fn each_broken_promise_is_found() {
        assert_eq!(broken(|it| it.audit["lost"] = json!(1)), "told ISSUED and without a row: 1");
        assert_eq!(broken(|it| it.audit["duplicates"] = json!(1)), "rows beyond the first of a user: 1");
        assert_eq!(broken(|it| it.audit["rows"] = json!(1)), "slots that nobody got: 1");
        assert_eq!(broken(|it| it.audit["overIssued"] = json!(1)), "rows beyond the stock: 1");
        assert_eq!(broken(|it| it.audit["ok"] = json!(false)), "the audit failed");
        assert_eq!(broken(|it| it.audit["checks"][0]["verdict"] = json!("failed")), "I1 x: y");
        let stopped = broken(|it| it.alarms = BTreeMap::from([("firstcome_ledger_stopped".to_owned(), 1)]));
        assert_eq!(stopped, "firstcome_ledger_stopped: 1");
    }

    #[test]
    fn a_figure_that_is_missing_is_no_good_one() {
        assert_eq!(broken(|it| it.audit["lost"] = Value::Null), "the audit has no figure lost");
        assert!(broken(|it| it.audit["stock"] = Value::Null).starts_with("the audit has no figure stock; "));
    }

    #[test]
    fn a_winner_is_never_refused() {
        let refused = "winners who were refused: 1";
        assert_eq!(broken(|it| it.again = said(&[(1, &[SOLD_OUT]), (2, &[ALREADY])])), refused);
        assert_eq!(
            broken(|it| it.sale = said(&[(1, &[ISSUED, SOLD_OUT]), (2, &[CUT])])),
            refused,
            "in the sale"
        );
        // Sold out was said to somebody who had won.
        assert_eq!(broken(|it| it.sale = said(&[(1, &[ISSUED]), (2, &[CUT, SOLD_OUT])])), refused);
        // What was asked after the no may have won.
        assert_eq!(broken(|it| it.sale = said(&[(1, &[ISSUED]), (2, &[SOLD_OUT, CUT])])), "");
        // No answer, 503 or a lost connection is no refusal.
        assert_eq!(broken(|it| it.again = said(&[(1, &[BUSY]), (2, &[CUT, ALREADY])])), "");
    }

    #[test]
    fn a_503_says_that_nothing_is_in_flight() {
        let only_busy = broken(|it| it.sale = said(&[(1, &[ISSUED]), (2, &[BUSY])]));
        assert_eq!(only_busy, "users who won after nothing but 503: 1");
        assert_eq!(broken(|it| it.sale = said(&[(1, &[ISSUED]), (2, &[BUSY, CUT])])), "");
    }

    #[test]
    fn the_stock_is_what_was_said_last() {
        let stock = |expected, in_force: u64, rows: u64| {
            broken(|it| {
                it.expected = expected;
                it.audit["stock"] = json!(in_force);
                it.audit["rows"] = json!(rows);
            })
        };
        assert_eq!(stock(Expected::Stock(3), 3, 3), "");
        assert_eq!(stock(Expected::Stock(3), 2, 2), "the stock in force is 2, not 3");
        assert_eq!(stock(Expected::Stock(1), 1, 1), "");
        // Two had it before the stock was lowered.
        assert_eq!(stock(Expected::Stock(1), 2, 2), "");
        assert_eq!(stock(Expected::All, 3, 3), "the stock in force is 3, not 2");
    }

    #[test]
    fn nobody_wins_after_a_coupon_was_shut() {
        let shut = |again: &[(u64, &[&str])]| {
            broken(|it| {
                it.expected = Expected::Shut;
                it.audit["rows"] = json!(1);
                it.again = said(again);
            })
        };
        assert_eq!(shut(&[(1, &[ALREADY])]), "");
        assert_eq!(shut(&[(1, &[ALREADY]), (3, &[ISSUED])]), "1 won after the coupon was shut");
    }
}
