use std::time::{Duration, Instant};

use issue_service::claim::Outcome;
use issue_service::ids::{UserId, partition_of};
use issue_service::ledger::Record;
use issue_service::store;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::{Headers as _, Message as _};

use crate::link::Link;
use crate::system::{System, eventually, race, users};

#[tokio::test(flavor = "multi_thread")]
async fn consumers_share_the_partitions_and_each_takes_over_from_the_other() {
    let system = System::start().await;
    let serving = system.serving().await;
    let (first, second) = (system.consuming(), system.consuming());
    let coupons = [
        system.coupon(&[&serving], 40).await,
        system.coupon(&[&serving], 40).await,
        system.coupon(&[&serving], 40).await,
    ];
    for coupon in coupons {
        race(&[&serving], coupon, users(20), 1).await;
    }
    eventually("each has a partition", async || system.assignments() == [vec![0], vec![1]]).await;
    assert!(first.is_sound());
    first.stop().await;
    assert!(first.is_sound(), "it has ended in time");
    for coupon in coupons {
        race(&[&serving], coupon, users(60), 1).await;
    }
    system.level(&serving).await;
    for coupon in coupons {
        assert_eq!(system.rows(coupon).await.len(), 40);
    }
    assert_eq!(system.assignments(), [vec![0, 1]]);
    assert!(second.is_sound());
}

/// What a failover to a lagging replica or a restored backup looks like: the watermark and the rows above it are
/// gone together. The log fills them in again.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_went_back_is_filled_again_while_idle() {
    let system = System::start().await;
    let serving = system.serving().await;
    let _consumer = system.consuming();
    let coupon = system.coupon(&[&serving], 30).await;
    race(&[&serving], coupon, users(10), 1).await;
    system.level(&serving).await;
    let partition = partition_of(coupon, system.kafka.partitions);
    let before = system.watermark(partition).await;
    race(&[&serving], coupon, users(20), 1).await;
    system.level(&serving).await;
    let rows = system.rows(coupon).await;
    assert_eq!(rows.len(), 20);

    let mut transaction = system.pool.begin().await.unwrap();
    for statement in ["DELETE FROM coupon_issues WHERE place > 10", "UPDATE issue_coupons SET `count` = 10"] {
        sqlx::query(statement).execute(&mut *transaction).await.unwrap();
    }
    let now = store::watermark(&mut transaction, partition).await.unwrap();
    assert!(store::move_watermark(&mut transaction, partition, now.next, &before).await.unwrap());
    transaction.commit().await.unwrap();

    eventually("the rows are back", async || system.rows(coupon).await == rows).await;
    let after = system.watermark(partition).await;
    assert_eq!(after.digest, now.digest);
}

/// A second writer of the same partition (a zombie that woke up) can't double or lose anything.
#[tokio::test(flavor = "multi_thread")]
async fn two_groups_that_write_the_same_database_write_every_row_once() {
    let system = System::start().await;
    let serving = system.serving().await;
    let one = system.consuming();
    let zombie = system.consuming_in(&format!("{}-zombie", system.kafka.topic), &system.pool);
    for group in [system.kafka.topic.clone(), format!("{}-zombie", system.kafka.topic)] {
        eventually("both write both partitions", async || system.assignments_of(&group) == [vec![0, 1]])
            .await;
    }
    let coupon = system.coupon(&[&serving], 500).await;
    for _ in 0..3 {
        race(&[&serving], coupon, users(600), 1).await;
    }
    system.level(&serving).await;
    assert_eq!(system.rows(coupon).await.len(), 500);
    // Had either written a row that was there already, it would have stopped.
    assert!(one.is_sound() && zombie.is_sound());
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_in_the_log_is_set_aside_with_its_origin_and_stops_nobody() {
    let system = System::start().await;
    let serving = system.serving().await;
    let _consumer = system.consuming();
    let coupon = system.coupon(&[&serving], 5).await;
    let partition = partition_of(coupon, system.kafka.partitions);
    let offset = system.append_raw(partition, b"rubbish").await;
    assert!(matches!(serving.claims.claim(coupon, UserId(1)).await, Outcome::Issued(_)));
    system.level(&serving).await;
    assert_eq!(system.rows(coupon).await.len(), 1);

    let message = system.dead_letter().await;
    assert_eq!(message.payload(), Some(&b"rubbish"[..]));
    let headers = message.headers().unwrap();
    let header = |name: &str| {
        let found = headers.iter().find(|header| header.key == name);
        found.and_then(|header| std::str::from_utf8(header.value?).ok()).unwrap_or_default().to_owned()
    };
    assert_eq!(header("kafka_dlt-original-topic"), system.kafka.topic);
    assert_eq!(header("kafka_dlt-original-partition"), partition.to_string());
    assert_eq!(header("kafka_dlt-original-offset"), offset.to_string());
    assert!(header("kafka_dlt-exception-message").starts_with("malformed"));
}

/// It may be longer than what the client library would send, and nothing is lost of the rest.
#[tokio::test(flavor = "multi_thread")]
async fn of_very_long_rubbish_the_beginning_is_set_aside() {
    let system = System::start().await;
    let serving = system.serving().await;
    let consumer = system.consuming();
    let coupon = system.coupon(&[&serving], 5).await;
    let partition = partition_of(coupon, system.kafka.partitions);
    let rubbish = vec![b'x'; 1_040_000];
    system.append_raw(partition, &rubbish).await;
    assert!(matches!(serving.claims.claim(coupon, UserId(1)).await, Outcome::Issued(_)));
    system.level(&serving).await;
    assert_eq!(system.rows(coupon).await.len(), 1);
    let letter = system.dead_letter().await;
    assert_eq!(letter.payload(), Some(&rubbish[..65_536]));
    let length = letter.headers().unwrap().iter().find(|header| header.key == "firstcome-original-length");
    assert_eq!(length.and_then(|header| header.value), Some(&b"1040000"[..]));
    assert!(consumer.is_sound());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_cannot_be_written_holds_up_no_other() {
    let system = System::start().await;
    let serving = system.serving().await;
    let _consumer = system.consuming();
    system.level(&serving).await;
    let mut lock = system.pool.begin().await.unwrap();
    // A consumer that used this connection before lets the server end it soon.
    sqlx::query("SET SESSION wait_timeout = 600").execute(&mut *lock).await.unwrap();
    sqlx::query("SELECT * FROM ledger_watermarks WHERE log_partition = 0 FOR UPDATE")
        .fetch_all(&mut *lock)
        .await
        .unwrap();
    let before = system.watermark(0).await.next;
    // More than two batches and what waits behind them.
    system.fill(&serving, 0, before + 31_000).await;
    let coupon = system.coupon_in(&[&serving], 1, 5).await;
    race(&[&serving], coupon, users(3), 1).await;
    eventually("the other is written", async || system.rows(coupon).await.len() == 3).await;
    assert_eq!(system.watermark(0).await.next, before);
    lock.rollback().await.unwrap();
    system.level(&serving).await;
}

/// The number is part of the data: a coupon's partition follows from it.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_were_added_are_not_written() {
    let system = System::start().await;
    let serving = system.serving().await;
    let admin: AdminClient<DefaultClientContext> = system.kafka.client().create().unwrap();
    let more = NewPartitions::new(&system.kafka.topic, 3);
    admin.create_partitions(&[more], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    let consumer = system.consuming();
    eventually("it has been given the third, too", async || !consumer.is_sound()).await;
    let coupon = system.coupon(&[&serving], 5).await;
    race(&[&serving], coupon, users(3), 1).await;
    eventually("the others are written", async || system.rows(coupon).await.len() == 3).await;
}

/// A record of a version that nobody reads yet.
fn newer_noop() -> Vec<u8> {
    let mut newer = Record::Noop.encode();
    newer[3] = 2;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&newer[..6]), &newer[10..]);
    newer[6..10].copy_from_slice(&crc.to_be_bytes());
    newer
}

/// A record of the future stops its partition in this process; the other partitions go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_a_newer_version_stops_its_partition_and_known_receipts_are_still_given() {
    let system = System::start().await;
    let serving = system.serving().await;
    let coupon = system.coupon(&[&serving], 5).await;
    let partition = partition_of(coupon, system.kafka.partitions);
    let Outcome::Issued(winner) = serving.claims.claim(coupon, UserId(1)).await else { panic!("not issued") };
    system.append_raw(partition, &newer_noop()).await;
    eventually("the partition has stopped", async || {
        serving.claims.partitions[partition as usize].is_stopped()
    })
    .await;
    assert_eq!(serving.claims.claim(coupon, UserId(1)).await, Outcome::Already(winner));
    assert_eq!(serving.claims.claim(coupon, UserId(2)).await, Outcome::Unavailable);
    let other = system.coupon_in(&[&serving], 1 - partition, 5).await;
    assert!(matches!(serving.claims.claim(other, UserId(2)).await, Outcome::Issued(_)));
}

/// What was decided before a record that stops the partition is in the database, and nothing after it.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_decided_before_an_unreadable_record_is_written() {
    let system = System::start().await;
    let serving = system.serving().await;
    let coupon = system.coupon(&[&serving], 5).await;
    race(&[&serving], coupon, users(3), 1).await;
    let partition = partition_of(coupon, system.kafka.partitions);
    let broken = system.append_raw(partition, &newer_noop()).await;
    let claim = Record::Claim { coupon, user: UserId(9) };
    system.append_raw(partition, &claim.encode()).await;
    // All of it waits when the consumer starts, so it comes in one batch.
    let consumer = system.consuming();
    eventually("it is running", async || consumer.is_running()).await;
    eventually("it is written up to there", async || system.watermark(partition).await.next == broken).await;
    eventually("the partition has stopped", async || !consumer.is_sound()).await;
    assert_eq!(system.rows(coupon).await.len(), 3);
    assert_eq!(system.watermark(partition).await.next, broken);
}

/// A stop must not wait for a database that hangs, and is no failure.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_whose_database_hangs_ends_when_told() {
    let system = System::start().await;
    let serving = system.serving().await;
    let coupon = system.coupon(&[&serving], 50).await;
    let link = Link::to(&system.settings.mysql.host, system.settings.mysql.port, &system.lifecycle).await;
    let pool = system.pool_through(link.port);
    let consumer = system.consuming_in(&system.kafka.topic, &pool);
    race(&[&serving], coupon, users(5), 1).await;
    system.level(&serving).await;
    link.hang();
    race(&[&serving], coupon, users(40).skip(5), 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let told = Instant::now();
    consumer.stop().await;
    assert!(!consumer.lifecycle.failed(), "ended within {:?}", told.elapsed());
    assert_eq!(system.rows(coupon).await.len(), 5);
    // Somebody else goes on where it was.
    let _another = system.consuming();
    system.level(&serving).await;
    assert_eq!(system.rows(coupon).await.len(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_another_log_is_refused() {
    let system = System::start().await;
    sqlx::query("UPDATE ledger_meta SET topic_id = 'another'").execute(&system.pool).await.unwrap();
    let error = issue_service::app::open_log(&system.settings, &system.pool).await.unwrap_err();
    assert!(error.to_string().contains("belongs to topic id another"), "{error}");
}

/// Rows, count and highest place have to say the same, or nothing is derived from them.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_contradicts_itself_is_not_believed() {
    let system = System::start().await;
    let serving = system.serving().await;
    let consumer = system.consuming();
    let coupon = system.coupon(&[&serving], 5).await;
    race(&[&serving], coupon, users(3), 1).await;
    system.level(&serving).await;
    consumer.stop().await;
    sqlx::query("DELETE FROM coupon_issues WHERE place = 2").execute(&system.pool).await.unwrap();
    let error = system.try_serving().await.expect_err("no start").to_string();
    assert!(error.contains("has 2 rows, a count of 3 and 3 as the highest place"), "{error}");
    let consumer = system.consuming();
    eventually("it is running", async || consumer.is_running()).await;
    eventually("the partition is left alone", async || !consumer.is_sound()).await;
}

/// A row that the log has just decided can't be there: somebody else has written into the tables.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_exists_already_stops_its_partition() {
    let system = System::start().await;
    let serving = system.serving().await;
    let coupon = system.coupon_in(&[&serving], 0, 5).await;
    let strange = sqlx::query("INSERT INTO coupon_issues VALUES (?, ?, 9, 0, 0)");
    let user = users(1).next().unwrap();
    strange.bind(coupon.0).bind(user.0).execute(&system.pool).await.unwrap();
    let consumer = system.consuming();
    eventually("it is running", async || consumer.is_running()).await;
    let Outcome::Issued(_) = serving.claims.claim(coupon, user).await else { panic!("not issued") };
    eventually("the partition has stopped", async || !consumer.is_sound()).await;
    let other = system.coupon_in(&[&serving], 1, 5).await;
    race(&[&serving], other, users(3), 1).await;
    eventually("the other is written", async || system.rows(other).await.len() == 3).await;
}

/// The window is judged by the broker's clock, so a log that takes the clients' word for it is none.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_times_are_not_the_broker_s_is_refused() {
    let system = System::start().await;
    let serving = system.serving().await;
    let coupon = system.coupon_in(&[&serving], 0, 5).await;
    system.set("message.timestamp.type", "CreateTime").await;
    // The broker takes its time to hear of it.
    eventually("the partition has stopped", async || {
        system.append_raw(0, &Record::Claim { coupon, user: UserId(1) }.encode()).await;
        serving.claims.partitions[0].is_stopped()
    })
    .await;
    assert_eq!(serving.claims.claim(coupon, UserId(2)).await, Outcome::Unavailable);
    let error = issue_service::app::open_log(&system.settings, &system.pool).await.unwrap_err().to_string();
    assert!(error.contains("message.timestamp.type is \"CreateTime\""), "{error}");
}

/// A writer that was cut off in the middle of its transaction holds locks until the server notices.
#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_hangs_in_its_transaction_holds_nobody_up_for_long() {
    let system = System::start().await;
    let serving = system.serving().await;
    let coupon = system.coupon_in(&[&serving], 0, 5).await;
    let consumer = system.consuming();
    race(&[&serving], coupon, users(2), 1).await;
    system.level(&serving).await;
    consumer.stop().await;

    let link = Link::to(&system.settings.mysql.host, system.settings.mysql.port, &system.lifecycle).await;
    let mut zombie = system.pool_through(link.port).acquire().await.unwrap();
    let mut transaction = store::begin(&mut zombie).await.unwrap();
    let here = system.watermark(0).await;
    assert!(store::move_watermark(&mut transaction, 0, here.next, &here).await.unwrap());
    link.hang();

    race(&[&serving], coupon, users(5), 1).await;
    let _successor = system.consuming();
    eventually("the rows are written", async || system.rows(coupon).await.len() == 5).await;
}
