//! Blocking queries, by the rules of <https://developer.hashicorp.com/consul/api-docs/features/blocking>: an index that
//! went back starts anew from 0, an index is at least 1, a return does not mean a change, and waits have jitter.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::watch::Sender;
use tokio::time::Instant;

use super::{ConsulError, Inner, Instance, segment};
use crate::clock::jittered;
use crate::lifecycle::Causes;

/// How long Consul holds a question without news.
const WAIT: Duration = Duration::from_secs(30);
/// Consul itself adds up to a sixteenth of the wait; then something is wrong.
const ANSWER_LIMIT: Duration = Duration::from_secs(30 + 2 + 5);
/// Consul has an answer at once when it isn't told to wait.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// After Consul has lost its memory, everybody registers again within 10 s and is then checked: until then an empty list
/// is no news.
const AMNESIA: Duration = Duration::from_secs(15);

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "Node")]
    node: Node,
    #[serde(rename = "Service")]
    service: Service,
}

#[derive(Deserialize)]
struct Node {
    #[serde(rename = "Address")]
    address: String,
}

#[derive(Deserialize)]
struct Service {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Address", default)]
    address: String,
    #[serde(rename = "Port")]
    port: u16,
    #[serde(rename = "Meta", default)]
    meta: Option<BTreeMap<String, String>>,
}

impl TryFrom<Entry> for Instance {
    type Error = String;

    fn try_from(Entry { node, service }: Entry) -> Result<Self, String> {
        // An empty service address means the node's.
        let address = if service.address.is_empty() { &node.address } else { &service.address };
        let address: IpAddr =
            address.parse().map_err(|_| format!("the address of {} is no IP address", service.id))?;
        let meta = service.meta.unwrap_or_default();
        Ok(Self {
            address: SocketAddr::new(address, service.port),
            zone: meta.get("zone").cloned().unwrap_or_default(),
            weight: weight(&meta).and_then(Result::ok).unwrap_or(1),
            id: service.id,
            meta,
        })
    }
}

/// What an instance says of its share of the requests; others write it, so that it may be anything.
fn weight(meta: &BTreeMap<String, String>) -> Option<Result<u32, &str>> {
    meta.get("weight").map(|weight| weight.parse().map_err(|_| weight.as_str()))
}

/// Ids of the instances whose weight can't be read, with it, each once for as long as it is there: `told` has those that
/// were named before.
fn news_of_weights<'a>(instances: &'a [Instance], told: &mut BTreeSet<String>) -> Vec<(&'a str, &'a str)> {
    let wrong = instances.iter().filter_map(|it| Some((it.id.as_str(), weight(&it.meta)?.err()?)));
    let wrong: Vec<_> = wrong.collect();
    let before = std::mem::replace(told, wrong.iter().map(|(id, _)| (*id).to_owned()).collect());
    wrong.into_iter().filter(|(id, _)| !before.contains(*id)).collect()
}

/// Where the next question goes on.
fn next_index(last: u64, answered: Option<u64>) -> u64 {
    match answered {
        // A server that was restored counts from a lower place.
        Some(index) if index < last => 0,
        Some(index) => index.max(1),
        None => 0,
    }
}

/// Keeps the list until the client is dropped.
pub(super) async fn run(consul: Weak<Inner>, service: String, sender: Sender<Arc<Vec<Instance>>>) {
    let mut index = 0;
    let mut pause = FIRST_PAUSE;
    let mut amnesia_until = None;
    let mut away = false;
    let mut told = BTreeSet::new();
    loop {
        let Some(inner) = consul.upgrade() else { return };
        let asked = ask(&inner, &service, index).await;
        drop(inner);
        match asked {
            Ok((answered, instances)) => {
                let next = next_index(index, answered);
                if next < index || away {
                    amnesia_until = Some(Instant::now() + AMNESIA);
                }
                if away {
                    tracing::info!(service, "Consul is back");
                }
                (index, pause, away) = (next, FIRST_PAUSE, false);
                let forgotten =
                    instances.is_empty() && amnesia_until.is_some_and(|until| Instant::now() < until);
                if forgotten {
                    // Asked again soon, so that an empty list that lasts is believed in the end.
                    index = 0;
                    tokio::time::sleep(FIRST_PAUSE).await;
                    continue;
                }
                for (instance, weight) in news_of_weights(&instances, &mut told) {
                    tracing::warn!(
                        service,
                        instance,
                        weight,
                        "a weight is no whole number, 0 or more; 1 is taken"
                    );
                }
                sender.send_if_modified(|known| {
                    let changed = **known != instances;
                    if changed {
                        tracing::info!(
                            found.service = service,
                            instances = instances.len(),
                            "instances changed"
                        );
                        *known = Arc::new(instances);
                    }
                    changed
                });
            }
            Err(error) => {
                metrics::counter!("firstcome_discovery_failures_total").increment(1);
                if !away {
                    tracing::warn!(service, error = %Causes(&error), "can't watch; the last known instances stay");
                }
                (index, away) = (0, true);
                tokio::time::sleep(jittered(pause)).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
        }
    }
}

async fn ask(consul: &Inner, service: &str, index: u64) -> Result<(Option<u64>, Vec<Instance>), ConsulError> {
    let path = format!(
        "/v1/health/service/{}?passing=true&index={index}&wait={}s",
        segment(service),
        WAIT.as_secs()
    );
    let request = consul.request(http::Method::GET, &path).timeout(ANSWER_LIMIT);
    let response = request.send().await.map_err(ConsulError::Unreachable)?;
    if !response.status().is_success() {
        return Err(ConsulError::Status(response.status()));
    }
    let answered =
        response.headers().get("x-consul-index").and_then(|index| index.to_str().ok()?.parse().ok());
    let body = response.bytes().await.map_err(ConsulError::Unreachable)?;
    let entries: Vec<Entry> =
        serde_json::from_slice(&body).map_err(|error| ConsulError::Answer(error.to_string()))?;
    let mut instances = Vec::with_capacity(entries.len());
    for entry in entries {
        match Instance::try_from(entry) {
            Ok(instance) => instances.push(instance),
            Err(problem) => tracing::warn!(service, problem, "an instance is left out"),
        }
    }
    // Consul's order is its own; ours makes two answers comparable.
    instances.sort_by(|a, b| a.id.cmp(&b.id));
    Ok((answered, instances))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(id: &str, weight: &str) -> Instance {
        let entry = serde_json::json!({
            "Node": {"Address": "127.0.0.1"},
            "Service": {"ID": id, "Port": 80, "Meta": {"weight": weight}},
        });
        serde_json::from_value::<Entry>(entry).unwrap().try_into().unwrap()
    }

    #[test]
    fn a_weight_that_cannot_be_read_is_1_and_said_once() {
        let mut told = BTreeSet::new();
        let first = [instance("a", "3"), instance("b", "heavy"), instance("c", "0")];
        assert_eq!(first.each_ref().map(|instance| instance.weight), [3, 1, 0]);
        assert_eq!(news_of_weights(&first, &mut told), [("b", "heavy")]);
        assert!(news_of_weights(&first, &mut told).is_empty(), "it was said");
        let second = [instance("b", "heavy"), instance("c", "-1")];
        assert_eq!(news_of_weights(&second, &mut told), [("c", "-1")]);
    }

    #[test]
    fn the_index_follows_consuls_rules() {
        assert_eq!(next_index(0, Some(7)), 7);
        assert_eq!(next_index(7, Some(7)), 7);
        assert_eq!(next_index(7, Some(3)), 0);
        assert_eq!(next_index(0, Some(0)), 1);
        assert_eq!(next_index(7, None), 0);
    }
}
