use super::*;
use crate::build::workspace;
use serde_json::json;

fn audit() -> Value {
    json!({"ok": true, "toldIssued": 1_000, "rows": 1_000, "lost": 0, "duplicates": 0, "overIssued": 0, "unexplained": 0,
    "checks": [
        {"id": "I5", "what": "ledger and API count the rows", "compared": "a", "verdict": "ok"},
        {"id": "I5", "what": "the Redis set is the rows' users", "compared": "1,000 members, 1,000 users",
            "verdict": "ok"},
    ]})
}

fn race(audit: &Value, answered: u64, issued: u64, after_ms: u64) -> Race {
    let load = json!({"requests": 30_000, "soldOut": 28_000, "pending": 3, "errors": 0, "unknown": 0});
    Race {
        verdict: Verdict::new(STOCK, 30_000, &load, audit),
        answered: vec![("issue-service-1".to_owned(), answered), ("issue-service-2".to_owned(), 15_003)],
        redis: redis_check(audit),
        shown: Shown { issued, after: Duration::from_millis(after_ms) },
    }
}

#[test]
fn a_race_that_adds_up_is_written_with_what_must_be() {
    let race = race(&audit(), 14_997, 1_000, 1_000);
    assert_eq!(race.faults(), Vec::<String>::new());
    let mut text = String::new();
    race.write(&mut text).unwrap();
    for row in [
        "| claims that issue-service-1 answered | 14997 | above 0 |",
        "| claims | 30000 | 30000 |",
        "| rows | 1000 | 1000 |",
        "| answered PENDING first | 3 | any |",
        "| the Redis set | 1,000 members, 1,000 users | the same |",
        "| shown as issued by the coupon service | 1000 after 1000 ms | 1000 within 1000 ms |",
    ] {
        assert!(text.contains(row), "{row} in {text}");
    }
}

#[test]
fn each_fault_is_told() {
    let fault = |race: Race| race.faults().join("; ");
    assert_eq!(fault(race(&audit(), 0, 1_000, 5)), "issue-service-1 answered no claim");
    assert_eq!(
        fault(race(&audit(), 7, 999, 1_010)),
        "the coupon shows 999 of 1000 as issued 1010 ms after the race, and must show all within 1000 ms"
    );
    assert!(fault(race(&audit(), 7, 1_000, 1_001)).contains("1001 ms after the race"));

    let mut one_too_many = audit();
    one_too_many["rows"] = json!(1_001);
    assert_eq!(fault(race(&one_too_many, 7, 1_000, 5)), "rows is 1001, not 1000");

    // What the audit could not judge is no success here.
    let mut not_judged = audit();
    not_judged["checks"][1]["verdict"] = json!("notJudged");
    not_judged["checks"][1]["compared"] = json!("the key does not live");
    assert_eq!(
        fault(race(&not_judged, 7, 1_000, 5)),
        "the Redis set was not found equal: the key does not live"
    );
    let mut not_asked = audit();
    not_asked["checks"] = json!([]);
    assert_eq!(fault(race(&not_asked, 7, 1_000, 5)), "the Redis set was not found equal: unknown");
}

#[test]
fn claims_are_counted_over_their_outcomes() {
    let metrics = "# TYPE firstcome_claims_total counter\n\
        firstcome_claims_total{outcome=\"issued\"} 7\nfirstcome_claims_total{outcome=\"sold_out\"} 35\n\
        firstcome_doorman_calls_total 9\n";
    assert_eq!(counted(metrics), 42);
}

#[test]
fn the_write_back_interval_is_the_configured_one() {
    let file = std::fs::read_to_string(workspace().join("config-repo/coupon-service.yml")).unwrap();
    let section = file.split_once("\nwrite-back:").unwrap().1;
    assert!(section.trim_start().starts_with(&format!("interval: {}s ", WRITE_BACK.as_secs())), "{section}");
}
