use super::*;

const AVOID: Duration = Duration::from_secs(5);

fn instance(id: &str, port: u16, weight: u32) -> Known {
    let address = Address::Socket(([127, 0, 0, 1], port).into());
    Known { id: id.to_owned(), address, tls: false, weight, zone: String::new() }
}

fn settings() -> BalanceSettings {
    BalanceSettings { avoid_for: AVOID, slow_start: Duration::from_secs(10), zone: String::new() }
}

fn of_zone(id: &str, port: u16, zone: &str) -> Known {
    Known { zone: zone.to_owned(), ..instance(id, port, 1) }
}

fn endpoint(balancer: &Balancer, id: &str) -> Arc<Endpoint> {
    Arc::clone(balancer.endpoints.load().iter().find(|endpoint| endpoint.id() == id).unwrap())
}

/// How many of 1,000 requests each instance gets while none of them takes any time.
fn share(balancer: &Balancer, id: &str) -> usize {
    (0..1_000).filter(|_| balancer.pick(&[]).unwrap().id() == id).count()
}

/// So many answers, of which every `nth` fails.
fn answer(balancer: &Balancer, id: &str, count: usize, nth: usize) {
    let endpoint = endpoint(balancer, id);
    for n in 0..count {
        balancer.answered(&endpoint, Duration::from_millis(2), nth > 0 && n % nth == 0);
    }
}

fn balancer(instances: &[Known]) -> Balancer {
    let balancer = Balancer::new("s", settings());
    balancer.update(instances.iter().cloned());
    balancer
}

fn picks(balancer: &Balancer) -> Vec<String> {
    let mut ids: Vec<String> = (0..200).filter_map(|_| Some(balancer.pick(&[])?.id().to_owned())).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_instance_is_left_out_and_comes_back() {
    let balancer = balancer(&[instance("a", 1, 1), instance("b", 2, 1)]);
    let a = Arc::clone(balancer.endpoints.load().iter().find(|endpoint| endpoint.id() == "a").unwrap());
    balancer.unreachable(&a);
    assert_eq!(picks(&balancer), ["b"]);
    tokio::time::advance(AVOID).await;
    assert_eq!(picks(&balancer), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn if_all_would_be_left_out_none_is() {
    let balancer = balancer(&[instance("a", 1, 1), instance("b", 2, 1)]);
    for endpoint in balancer.endpoints.load().iter() {
        balancer.unreachable(endpoint);
    }
    assert_eq!(picks(&balancer), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn one_broken_answer_is_no_reason_but_five_in_a_row_are() {
    let balancer = balancer(&[instance("a", 1, 1), instance("b", 2, 1)]);
    let a = Arc::clone(balancer.endpoints.load().iter().find(|endpoint| endpoint.id() == "a").unwrap());
    for _ in 0..4 {
        balancer.broke(&a, "broken");
    }
    balancer.answered(&a, Duration::ZERO, false);
    for _ in 0..4 {
        balancer.broke(&a, "broken");
    }
    assert_eq!(picks(&balancer), ["a", "b"]);
    balancer.broke(&a, "broken");
    assert_eq!(picks(&balancer), ["b"]);
}

#[test]
fn each_failure_of_an_instance_is_counted_by_its_kind() {
    let balancer = balancer(&[instance("a", 1, 1)]);
    let a = balancer.pick(&[]).unwrap();
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || {
        balancer.unreachable(&a);
        balancer.broke(&a, "silent");
        balancer.broke(&a, "silent");
        balancer.answered(&a, Duration::ZERO, true);
        balancer.nobody();
    });
    let text = recorder.handle().render();
    let mut counted: Vec<&str> =
        text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    counted.sort_unstable();
    let of = |kind: &str, number: u32| {
        format!("firstcome_gateway_upstream_failures_total{{upstream=\"s\",kind=\"{kind}\"}} {number}")
    };
    assert_eq!(counted, [of("absent", 1), of("silent", 2), of("unreachable", 1)]);
}

#[tokio::test(start_paused = true)]
async fn what_was_tried_is_not_picked_again() {
    let balancer = balancer(&[instance("a", 1, 1), instance("b", 2, 1)]);
    let first = balancer.pick(&[]).unwrap();
    let second = balancer.pick(std::slice::from_ref(&first)).unwrap();
    assert_ne!(first.id(), second.id());
    assert!(balancer.pick(&[first, second]).is_none());
}

#[tokio::test(start_paused = true)]
async fn an_update_keeps_what_is_known_of_those_that_stay() {
    let balancer = balancer(&[instance("a", 1, 1), instance("b", 2, 1), instance("drained", 3, 0)]);
    assert_eq!(picks(&balancer), ["a", "b"]);
    let before = balancer.endpoints.load_full();
    balancer.update([instance("b", 2, 1), instance("a", 9, 1)]);
    let after = balancer.endpoints.load_full();
    assert!(Arc::ptr_eq(&after[0], &before[1]), "b stayed");
    assert_ne!(after[1].key(), before[0].key(), "a came back at another address");
    balancer.update([]);
    assert!(balancer.pick(&[]).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_heavier_instance_costs_less_for_the_same_latency() {
    let balancer = balancer(&[instance("light", 1, 1), instance("heavy", 2, 4)]);
    for endpoint in balancer.endpoints.load().iter() {
        balancer.answered(endpoint, Duration::from_millis(5), false);
    }
    let heavy = balancer.pick(&[]).unwrap();
    assert_eq!(heavy.id(), "heavy");
    let _held: Vec<_> = (0..4).map(|_| heavy.begin()).collect();
    assert_eq!(
        picks(&balancer),
        ["light"],
        "a fifth request there would be one for each quarter and one more"
    );
}

#[tokio::test(start_paused = true)]
async fn who_fails_much_more_than_the_others_is_ejected_and_longer_each_time() {
    let balancer = balancer(&[instance("a", 1, 1), instance("b", 2, 1)]);
    answer(&balancer, "b", 100, 0);
    answer(&balancer, "a", 19, 2);
    assert!(picks(&balancer).contains(&"a".to_owned()), "too few answers to judge by");
    answer(&balancer, "a", 2, 1);
    assert_eq!(picks(&balancer), ["b"]);
    tokio::time::advance(AVOID - Duration::from_millis(1)).await;
    assert_eq!(picks(&balancer), ["b"]);
    tokio::time::advance(Duration::from_secs(20)).await;
    assert_eq!(picks(&balancer), ["a", "b"], "it is tried again, with a clean record");
    answer(&balancer, "a", 40, 2);
    tokio::time::advance(AVOID + Duration::from_secs(1)).await;
    let is_ejected = || endpoint(&balancer, "a").is_ejected(balancer.now());
    assert!(is_ejected(), "twice as long this time");
    tokio::time::advance(Duration::from_secs(20)).await;
    answer(&balancer, "a", 1_000, 0);
    answer(&balancer, "a", 40, 2);
    assert!(is_ejected());
    tokio::time::advance(AVOID).await;
    assert!(!is_ejected(), "it had done well for long");
}

/// Two good answers between any two that do not come.
fn hang_now_and_then(balancer: &Balancer, ids: &[&str]) {
    for _ in 0..20 {
        for id in ids {
            balancer.broke(&endpoint(balancer, id), "silent");
            answer(balancer, id, 2, 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_hangs_now_and_then_is_ejected_however_well_it_answers_in_between() {
    let balancer = balancer(&[instance("a", 1, 1), instance("b", 2, 1)]);
    answer(&balancer, "b", 100, 0);
    hang_now_and_then(&balancer, &["a"]);
    assert!(!endpoint(&balancer, "a").is_avoided(balancer.now()), "never twice in a row");
    assert_eq!(picks(&balancer), ["b"]);
    tokio::time::advance(Duration::from_secs(20)).await;
    assert_eq!(picks(&balancer), ["a", "b"]);
    assert_eq!(endpoint(&balancer, "a").answers(), 0, "what ended meanwhile was of before");
}

#[tokio::test(start_paused = true)]
async fn what_hangs_everywhere_ejects_nobody() {
    let balancer = balancer(&[instance("a", 1, 1), instance("b", 2, 1)]);
    hang_now_and_then(&balancer, &["a", "b"]);
    assert_eq!(picks(&balancer), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn what_fails_everywhere_ejects_nobody_and_half_of_them_stay_whatever_comes() {
    let balancer =
        balancer(&[instance("a", 1, 1), instance("b", 2, 1), instance("c", 3, 1), instance("d", 4, 1)]);
    for _ in 0..100 {
        for id in ["a", "b", "c", "d"] {
            answer(&balancer, id, 1, 1);
        }
    }
    assert_eq!(picks(&balancer).len(), 4);
    for id in ["c", "d"] {
        answer(&balancer, id, 500, 0);
    }
    for id in ["a", "b", "c"] {
        answer(&balancer, id, 100, 1);
    }
    let ejected =
        balancer.endpoints.load().iter().filter(|endpoint| endpoint.is_ejected(balancer.now())).count();
    assert_eq!(ejected, 2, "never more than half");
}

#[tokio::test(start_paused = true)]
async fn if_few_would_be_left_failing_ones_are_better_than_none() {
    let balancer = balancer(&[instance("a", 1, 1), instance("b", 2, 1), instance("c", 3, 1)]);
    for id in ["b", "c"] {
        answer(&balancer, id, 100, 0);
    }
    answer(&balancer, "a", 100, 1);
    assert_eq!(picks(&balancer), ["b", "c"]);
    balancer.unreachable(&endpoint(&balancer, "b"));
    let picked = picks(&balancer);
    assert!(picked.contains(&"a".to_owned()) && !picked.contains(&"b".to_owned()), "{picked:?}");
}

#[tokio::test(start_paused = true)]
async fn a_new_instance_gets_its_share_by_and_by() {
    let balancer = balancer(&[instance("old", 1, 1)]);
    assert_eq!(share(&balancer, "old"), 1_000, "the first has to take all");
    balancer.update([instance("old", 1, 1), instance("new", 2, 1)]);
    let mut shares = Vec::new();
    for _ in 0..3 {
        shares.push(share(&balancer, "new"));
        tokio::time::advance(Duration::from_secs(5)).await;
    }
    assert!((20..90).contains(&shares[0]), "{shares:?}");
    assert!((180..330).contains(&shares[1]), "{shares:?}");
    assert!((430..570).contains(&shares[2]), "{shares:?}");
}

#[tokio::test(start_paused = true)]
async fn the_own_zone_comes_first_while_it_can() {
    let balancer = Balancer::new("s", BalanceSettings { zone: "seoul".to_owned(), ..settings() });
    balancer.update([of_zone("near", 1, "seoul"), of_zone("nearer", 2, "seoul"), of_zone("far", 3, "busan")]);
    assert_eq!(picks(&balancer), ["near", "nearer"]);
    balancer.unreachable(&endpoint(&balancer, "near"));
    assert_eq!(picks(&balancer), ["nearer"]);
    balancer.unreachable(&endpoint(&balancer, "nearer"));
    assert_eq!(picks(&balancer), ["far"]);
    let abroad = Balancer::new("s", BalanceSettings { zone: "jeju".to_owned(), ..settings() });
    abroad.update([of_zone("near", 1, "seoul"), of_zone("far", 3, "busan")]);
    assert_eq!(picks(&abroad), ["far", "near"], "nobody is of that zone");
}
