//! What becomes of a log that is not the one that was read: cut and grown again, replaced, decided differently.

use issue_service::claim::Outcome;
use issue_service::ids::UserId;
use issue_service::ledger::{DIGEST_EVERY, Entry, Record};
use issue_service::log::{self, topic};
use issue_service::store;
use platform::clock::now_ms;
use platform::health::Health;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;

use crate::system::{System, eventually};

/// Whichever of the two comes to a place first, the consumer or the follower.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_whose_digest_is_not_the_stored_one_stops() {
    let system = System::start().await;
    let health = Health::new();
    let serving = system.serving_with(&health).await.unwrap();
    let partitions = &serving.claims.partitions;
    let coupon = system.coupon_in(&[&serving], 0, 5).await;
    let Outcome::Issued(winner) = serving.claims.claim(coupon, UserId(1)).await else { panic!("not issued") };
    // No consumer writes the database.
    system.store_false_digest(0, DIGEST_EVERY).await;
    system.fill(&serving, 0, DIGEST_EVERY).await;
    eventually("the partition has stopped", async || partitions[0].is_stopped()).await;
    let told = health.details()["ledger"].clone();
    assert_eq!(told["status"], "DOWN");
    let reason = told["details"]["reason"].as_str().unwrap();
    assert!(reason.starts_with("partition 0: the digest of everything below offset 4096 is"), "{reason}");
    assert_eq!(serving.claims.claim(coupon, UserId(1)).await, Outcome::Already(winner));
    assert_eq!(serving.claims.claim(coupon, UserId(2)).await, Outcome::Unavailable);

    system.fill(&serving, 1, DIGEST_EVERY).await;
    assert!(!partitions[1].is_stopped(), "nothing is known to be wrong there");
    system.store_false_digest(1, DIGEST_EVERY).await;
    eventually("the other has stopped, too", async || partitions[1].is_stopped()).await;
}

/// A process that has read records which the log has lost since goes on in range, in another history than everybody
/// else.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_of_a_log_that_was_cut_and_has_grown_again_stops() {
    let system = System::start().await;
    let (serving, fresh) = (system.serving().await, system.serving().await);
    let _consumer = system.consuming();
    let coupon = system.coupon_in(&[&serving, &fresh], 0, 5).await;
    system.hold_back(&serving, 0, &fresh).await;
    let partition = &serving.claims.partitions[0];
    let lost = Record::Claim { coupon, user: UserId(1) }.encode();
    partition.apply(Entry { offset: partition.next(), appended_at: now_ms(), value: &lost }).unwrap();
    serving.follower.follow(0, partition.next());

    system.fill(&fresh, 0, DIGEST_EVERY).await;
    eventually("it has stopped", async || partition.is_stopped()).await;
    assert!(partition.next() >= DIGEST_EVERY, "nothing else gave it away");
    assert!(!fresh.claims.partitions[0].is_stopped());
    assert!(matches!(fresh.claims.claim(coupon, UserId(1)).await, Outcome::Issued(_)));
}

/// A database that went back in part holds digests of places that the consumer passes again.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_meets_a_stored_digest_goes_on_only_if_it_agrees() {
    let system = System::start().await;
    let health = Health::new();
    let serving = system.serving_with(&health).await.unwrap();
    let consumer = system.consuming();
    system.level(&serving).await;
    let before = system.watermark(0).await;
    system.fill(&serving, 0, DIGEST_EVERY).await;
    system.level(&serving).await;
    let after = system.watermark(0).await;
    let mut connection = system.pool.acquire().await.unwrap();
    // The consumer is idle, and notices.
    assert!(store::move_watermark(&mut connection, 0, after.next, &before).await.unwrap());
    eventually("it has written it again", async || system.watermark(0).await == after).await;
    assert!(consumer.is_sound());

    system.store_false_digest(0, 2 * DIGEST_EVERY).await;
    system.fill(&serving, 0, 2 * DIGEST_EVERY).await;
    eventually("the consumer has stopped", async || !consumer.is_sound()).await;
    assert!(system.watermark(0).await.next < 2 * DIGEST_EVERY);
    eventually("the follower has, too", async || serving.claims.partitions[0].is_stopped()).await;
    let reason = health.details()["ledger"]["details"]["reason"].to_string();
    assert!(reason.contains("below offset 8192"), "it has agreed about 4096: {reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_made_anew_is_not_followed_from_its_beginning() {
    let system = System::start().await;
    let serving = system.serving().await;
    let consumer = system.consuming();
    let coupon = system.coupon_in(&[&serving], 0, 5).await;
    let Outcome::Issued(winner) = serving.claims.claim(coupon, UserId(1)).await else { panic!("not issued") };
    system.level(&serving).await;
    let before = system.watermark(0).await;
    assert!(consumer.is_sound());

    system.replace_topic().await;
    eventually("every partition has stopped", async || {
        serving.claims.partitions.iter().all(|partition| partition.is_stopped())
    })
    .await;
    assert_eq!(serving.claims.claim(coupon, UserId(1)).await, Outcome::Already(winner));
    assert_eq!(serving.claims.claim(coupon, UserId(2)).await, Outcome::Unavailable);
    eventually("the consumer has stopped", async || !consumer.is_sound()).await;
    assert_eq!(system.watermark(0).await, before);
    let error = issue_service::app::open_log(&system.settings, &system.pool).await.unwrap_err().to_string();
    assert!(error.contains("the topic was replaced"), "{error}");
}

/// Nothing that is due is missing in the new one, so only its id gives it away.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_made_anew_and_has_grown_as_long_is_not_followed() {
    let system = System::start().await;
    let serving = system.serving().await;
    let partition = &serving.claims.partitions[0];
    let other = system.serving().await;
    system.hold_back(&serving, 0, &other).await;
    system.replace_topic().await;
    for _ in 0..=partition.next() {
        system.append_raw(0, &Record::Noop.encode()).await;
    }
    serving.follower.follow(0, partition.next());
    eventually("it has stopped", async || partition.is_stopped()).await;
}

/// What has one copy is lost with its broker, whatever the settings say.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_with_fewer_replicas_than_are_meant_is_refused() {
    let system = System::start().await;
    let topic = format!("{}.replicas", system.kafka.topic);
    let dead_letter_topic = format!("{topic}.dlt");
    let new = |name, partitions| {
        NewTopic::new(name, partitions, TopicReplication::Fixed(1))
            .set("message.timestamp.type", "LogAppendTime")
            .set("cleanup.policy", "delete")
            .set("min.insync.replicas", "2")
            .set("unclean.leader.election.enable", "false")
    };
    let admin: AdminClient<DefaultClientContext> = system.kafka.client().create().unwrap();
    let topics = [&new(&topic, 2), &new(&dead_letter_topic, 1)];
    for made in admin.create_topics(topics, &AdminOptions::new()).await.unwrap() {
        made.unwrap();
    }
    let settings = log::Settings {
        topic: topic.clone(),
        dead_letter_topic: dead_letter_topic.clone(),
        replication_factor: 2,
        ..(*system.kafka).clone()
    };
    let error = topic::prepare(&settings).await.unwrap_err().to_string();
    assert!(
        error.contains("has a partition with 1 replicas, and kafka.replication-factor says 2"),
        "{error}"
    );
}

/// The number of partitions says where a coupon's records are, so it is part of the data.
#[tokio::test(flavor = "multi_thread")]
async fn another_number_of_partitions_is_refused() {
    let mut system = System::start().await;
    system.settings.kafka.partitions = 3;
    let refused = async |system: &System| {
        issue_service::app::open_log(&system.settings, &system.pool).await.unwrap_err().to_string()
    };
    let error = refused(&system).await;
    assert!(error.contains("has 2 partitions, and kafka.partitions says 3"), "{error}");
    system.settings.kafka.partitions = 2;
    sqlx::query("UPDATE ledger_meta SET partitions = 3").execute(&system.pool).await.unwrap();
    let error = refused(&system).await;
    assert!(error.contains("with 3 partitions"), "{error}");
}
