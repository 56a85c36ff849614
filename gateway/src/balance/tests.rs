use std::collections::BTreeMap;

use super::*;

const AVOID: Duration = Duration::from_secs(5);

fn instance(id: &str, port: u16, weight: u32) -> Instance {
    Instance {
        id: id.to_owned(),
        address: ([127, 0, 0, 1], port).into(),
        meta: BTreeMap::new(),
        zone: String::new(),
        weight,
    }
}

fn balancer(instances: &[Instance]) -> Balancer {
    let balancer = Balancer::new("s", AVOID);
    balancer.update(instances);
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
        balancer.broke(&a);
    }
    balancer.answered(&a, Duration::ZERO);
    for _ in 0..4 {
        balancer.broke(&a);
    }
    assert_eq!(picks(&balancer), ["a", "b"]);
    balancer.broke(&a);
    assert_eq!(picks(&balancer), ["b"]);
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
    balancer.update(&[instance("b", 2, 1), instance("a", 9, 1)]);
    let after = balancer.endpoints.load_full();
    assert!(Arc::ptr_eq(&after[0], &before[1]), "b stayed");
    assert_ne!(after[1].key(), before[0].key(), "a came back at another address");
    balancer.update(&[]);
    assert!(balancer.pick(&[]).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_heavier_instance_costs_less_for_the_same_latency() {
    let balancer = balancer(&[instance("light", 1, 1), instance("heavy", 2, 4)]);
    for endpoint in balancer.endpoints.load().iter() {
        balancer.answered(endpoint, Duration::from_millis(5));
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
