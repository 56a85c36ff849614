//! Power of two choices over peak-EWMA latency: of two random instances, the one that is expected to
//! answer sooner.
//!
//! Invariant: selection is a pure function of the snapshot, the time and the random numbers; it never
//! returns an endpoint that `accept` refuses.

use std::sync::Arc;

use rand::Rng;

use super::endpoint::{Endpoint, Nanos};

/// `None` if `accept` refuses all.
pub fn pick<'a>(
    endpoints: &'a [Arc<Endpoint>],
    now: Nanos,
    accept: impl Fn(&Endpoint) -> bool,
    rng: &mut impl Rng,
) -> Option<&'a Arc<Endpoint>> {
    let nth = |n: usize| endpoints.iter().filter(|endpoint| accept(endpoint)).nth(n);
    // Counted first, so that no list of the acceptable ones is built per request.
    let usable = endpoints.iter().filter(|endpoint| accept(endpoint)).count();
    if usable <= 1 {
        return nth(0);
    }
    let first = rng.random_range(0..usable);
    let second = (first + rng.random_range(1..usable)) % usable;
    let (first, second) = (nth(first)?, nth(second)?);
    // `first` is random, so a tie favours nobody.
    Some(if second.cost(now) < first.cost(now) { second } else { first })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::balance::Known;
    use crate::balance::endpoint::Address;

    fn endpoints(count: usize) -> Vec<Arc<Endpoint>> {
        (0..count)
            .map(|n| {
                let port = u16::try_from(n + 1).unwrap();
                let address = Address::Socket(([127, 0, 0, 1], port).into());
                Arc::new(Endpoint::new(Known {
                    id: format!("i{n}"),
                    address,
                    tls: false,
                    weight: 1,
                    zone: String::new(),
                }))
            })
            .collect()
    }

    fn shares(endpoints: &[Arc<Endpoint>], now: Nanos) -> HashMap<String, u32> {
        let mut rng = StdRng::seed_from_u64(7);
        let mut shares = HashMap::new();
        for _ in 0..1_000 {
            let picked = pick(endpoints, now, |_| true, &mut rng).unwrap();
            *shares.entry(picked.id().to_owned()).or_default() += 1;
        }
        shares
    }

    #[test]
    fn equals_share_alike() {
        let endpoints = endpoints(4);
        for (id, count) in shares(&endpoints, 0) {
            assert!((200..300).contains(&count), "{id} got {count} of 1000");
        }
    }

    #[test]
    fn the_slow_one_gets_only_what_is_left() {
        let endpoints = endpoints(2);
        endpoints[0].observe(Duration::from_millis(50), 1);
        endpoints[1].observe(Duration::from_millis(2), 1);
        assert_eq!(shares(&endpoints, 1).get("i0"), None);
    }

    #[test]
    fn a_slow_one_is_tried_again_when_its_past_fades() {
        let endpoints = endpoints(2);
        endpoints[0].observe(Duration::from_millis(50), 1);
        endpoints[1].observe(Duration::from_millis(5), 1);
        assert_eq!(shares(&endpoints, 1).get("i0"), None);
        let later = 60_000_000_000;
        endpoints[1].observe(Duration::from_millis(5), later);
        assert!(shares(&endpoints, later).contains_key("i0"), "after a minute of silence");
    }

    #[test]
    fn requests_in_flight_weigh() {
        let endpoints = endpoints(2);
        for endpoint in &endpoints {
            endpoint.observe(Duration::from_millis(5), 1);
        }
        let _held = endpoints[0].begin();
        assert_eq!(shares(&endpoints, 1).get("i0"), None);
    }

    #[test]
    fn nobody_acceptable_is_nobody() {
        let mut rng = StdRng::seed_from_u64(1);
        assert!(pick(&endpoints(3), 0, |_| false, &mut rng).is_none());
        assert!(pick(&[], 0, |_| true, &mut rng).is_none());
    }

    proptest! {
        #[test]
        fn only_acceptable_ones_are_picked_and_one_always_is(
            accepted in prop::collection::vec(any::<bool>(), 0..12),
            latencies in prop::collection::vec(0_u64..100_000, 12),
            seed in any::<u64>(),
        ) {
            let endpoints = endpoints(accepted.len());
            for (endpoint, latency) in endpoints.iter().zip(&latencies) {
                endpoint.observe(Duration::from_micros(*latency), 1);
            }
            let mut rng = StdRng::seed_from_u64(seed);
            let accept = |endpoint: &Endpoint| {
                endpoints.iter().position(|other| other.id() == endpoint.id()).is_some_and(|at| accepted[at])
            };
            match pick(&endpoints, 2, accept, &mut rng) {
                Some(endpoint) => prop_assert!(accept(endpoint)),
                None => prop_assert!(!accepted.contains(&true)),
            }
        }
    }
}
