//! Claims that lie in the log before anybody reads it, and the rows that have to come of them.

use std::collections::BTreeMap;
use std::time::Duration;

use issue_service::ids::{CouponId, MAX_ID, UserId};
use issue_service::ledger::Record;
use issue_service::log;
use issue_service::store::IssueRow;
use platform::clock::now_ms;
use platform::lifecycle::BoxError;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};

use crate::ground::{System, definition};

const DELIVERED_WITHIN: Duration = Duration::from_secs(60);
/// While the producer's queue is full.
const FULL: Duration = Duration::from_millis(2);

/// So many claims, on each coupon in turn, every one of another user.
pub(crate) struct Backlog {
    pub(crate) coupons: Vec<CouponId>,
    pub(crate) claims: u64,
}

impl Backlog {
    fn claim(&self, number: u64) -> (CouponId, UserId) {
        let index = usize::try_from(number).unwrap_or_default() % self.coupons.len();
        (self.coupons[index], user(number + 1))
    }

    /// Writes it, and tells where each partition ends.
    pub(crate) async fn write(&self, system: &System) -> Result<BTreeMap<u32, u64>, BoxError> {
        let define = self.coupons.iter().map(|coupon| Record::Definition(definition(*coupon)));
        let claims = (0..self.claims).map(|number| self.claim(number));
        let records = define.chain(claims.map(|(coupon, user)| Record::Claim { coupon, user }));
        let records: Vec<(u32, Record)> = records
            .map(|record| (record.coupon().map_or(0, |coupon| system.partition_of(coupon)), record))
            .collect();
        let kafka = system.kafka.clone();
        tokio::task::spawn_blocking(move || append(&kafka, &records)).await?
    }

    /// The rows of each partition, in the log's order.
    pub(crate) fn rows(&self, system: &System) -> BTreeMap<u32, Vec<IssueRow>> {
        let mut rows: BTreeMap<u32, Vec<IssueRow>> = BTreeMap::new();
        let mut places: BTreeMap<CouponId, u32> = BTreeMap::new();
        let issued_at = now_ms();
        for number in 0..self.claims {
            let (coupon, user) = self.claim(number);
            let place = places.entry(coupon).or_default();
            *place += 1;
            let rows = rows.entry(system.partition_of(coupon)).or_default();
            rows.push(IssueRow { coupon, user, place: *place, offset: rows.len() as u64, issued_at });
        }
        rows
    }
}

/// Users whose ids have no order that an index could like: a bijection on 53 bits. Numbers count from 1.
pub(crate) fn user(number: u64) -> UserId {
    let mut id = number & MAX_ID;
    for (shift, odd) in [(27, 0x1A_85EC_53A7_C2B9), (25, 0x0D_6E8F_EB86_659F), (29, 1)] {
        id ^= id >> shift;
        id = id.wrapping_mul(odd) & MAX_ID;
    }
    UserId(id)
}

/// Everything is acknowledged when it returns.
fn append(kafka: &log::Settings, records: &[(u32, Record)]) -> Result<BTreeMap<u32, u64>, BoxError> {
    let producer: ThreadedProducer<DefaultProducerContext> =
        kafka.producer().set("queue.buffering.max.ms", "20").create()?;
    let mut ends = BTreeMap::new();
    for (partition, record) in records {
        let value = record.encode();
        let new = || {
            BaseRecord::<(), [u8]>::to(&kafka.topic).partition(log::number(*partition)).payload(&value[..])
        };
        while let Err((error, _)) = producer.send(new()) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(error.into());
            }
            std::thread::sleep(FULL);
        }
        *ends.entry(*partition).or_default() += 1;
    }
    producer.flush(DELIVERED_WITHIN)?;
    let consumer: BaseConsumer = kafka.client().create()?;
    for (partition, end) in &ends {
        let (_, found) =
            consumer.fetch_watermarks(&kafka.topic, log::number(*partition), DELIVERED_WITHIN)?;
        if u64::try_from(found).ok() != Some(*end) {
            return Err(
                format!("{end} records were sent to partition {partition}, and it ends at {found}").into()
            );
        }
    }
    Ok(ends)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_two_users_are_alike() {
        let users: HashSet<UserId> = (1..=100_000).map(user).collect();
        assert_eq!(users.len(), 100_000);
        assert!(users.iter().all(|user| (1..=MAX_ID).contains(&user.0)));
    }
}
