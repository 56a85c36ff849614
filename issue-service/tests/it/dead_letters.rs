use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use issue_service::sink::waiting_letters;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::system::{System, eventually};

/// What `couponctl dlt` appends beside a letter.
async fn resolve(system: &System, letter: &str) {
    let producer: FutureProducer = system.kafka.producer().create().unwrap();
    let headers =
        OwnedHeaders::new().insert(Header { key: "firstcome-resolution", value: Some("discarded") });
    let record = FutureRecord::<str, [u8]>::to(&system.kafka.dead_letter_topic).key(letter).headers(headers);
    producer.send(record, Duration::from_secs(5)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_counted_until_they_are_resolved() {
    let system = System::start().await;
    let _consumer = system.consuming();
    let shown = Arc::new(AtomicU64::new(u64::MAX));
    let follow = |shown: &Arc<AtomicU64>| {
        let (shown, stop) = (shown.clone(), system.lifecycle.background_stop());
        let show = move |waiting| shown.store(waiting, Ordering::Relaxed);
        system.lifecycle.spawn("dead letters", waiting_letters::follow(system.kafka.clone(), stop, show));
    };
    let shows = async |shown: &AtomicU64, waiting| {
        eventually("so many wait", async || shown.load(Ordering::Relaxed) == waiting).await;
    };
    follow(&shown);
    shows(&shown, 0).await;
    let offset = system.append_raw(0, b"rubbish").await;
    system.append_raw(1, b"more").await;
    shows(&shown, 2).await;
    resolve(&system, &format!("0/{offset}")).await;
    shows(&shown, 1).await;
    // Another consumer, which begins later, shows the same.
    let other = Arc::new(AtomicU64::new(u64::MAX));
    follow(&other);
    shows(&other, 1).await;
    system.lifecycle.stop_background(Duration::from_secs(5)).await;
    assert!(!system.lifecycle.failed(), "both have ended when told");
}
