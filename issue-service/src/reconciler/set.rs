//! One coupon's set beside the ledger: when it is compared, and what is done about a difference.
//!
//! A winner whom the set lacks is added at once. A member who has not won may be on the way to it, so it is removed only
//! if an earlier comparison has seen it already, longer ago than any claim is on its way.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use redis::RedisResult;
use redis::aio::ConnectionLike;

use super::{CHUNK, PACE};
use crate::claim::BUDGET;
use crate::doorman::users_key;
use crate::ids::{CouponId, UserId};
use crate::ledger::partition::Partition;

/// A count that changed is compared when it has rested for this long, since differences may cancel out.
const REST: Duration = Duration::from_secs(10);
/// Between the two looks after which a stranger is removed.
const APART: Duration = BUDGET.saturating_mul(2);
/// Strangers of one set that are remembered; others have to wait until these are gone.
const MOST: usize = 100_000;

/// Members as Redis holds them: it may hold anything.
type Strangers = HashSet<Vec<u8>>;

/// What is known of one set.
#[derive(Debug)]
pub(super) struct Known {
    /// The ledger's count, and since when.
    count: u32,
    since: Instant,
    /// The count when the contents were compared.
    compared: Option<u32>,
    /// Members who had not won, and when they were first seen.
    strangers: Option<(Instant, Strangers)>,
}

impl Known {
    pub(super) fn nothing(now: Instant) -> Self {
        Self { count: 0, since: now, compared: None, strangers: None }
    }

    /// The set is to be compared next time, whatever its size.
    pub(super) fn doubt(&mut self) {
        self.compared = None;
    }

    /// Whether nothing is to be done as long as nobody wins or claims.
    pub(super) fn is_settled(&self, count: u32) -> bool {
        self.compared == Some(count) && self.strangers.is_none()
    }

    /// Whether the contents are to be compared now.
    pub(super) fn is_due(&mut self, size: u64, count: u32, now: Instant) -> bool {
        if self.count != count {
            (self.count, self.since) = (count, now);
        }
        match (self.compared, &self.strangers) {
            (None, _) => true,
            // Before that nothing can be removed, so the sizes will differ.
            (_, Some((seen, _))) => now >= *seen + APART,
            (Some(compared), None) => {
                size != u64::from(count) || compared != count && now >= self.since + REST
            }
        }
    }

    /// Those who were strangers then and still are; the others are remembered.
    fn remember(&mut self, mut strangers: Strangers, count: u32, now: Instant) -> Vec<Vec<u8>> {
        self.compared = Some(count);
        let mut leaked = Vec::new();
        match &self.strangers {
            // Too early: they are looked at again.
            Some((seen, _)) if now < *seen + APART => return leaked,
            Some((_, earlier)) => leaked.extend(strangers.extract_if(|member| earlier.contains(member))),
            None => {}
        }
        self.strangers = Some((now, strangers)).filter(|(_, strangers)| !strangers.is_empty());
        leaked
    }
}

/// Compares the set with the ledger and brings it level.
pub(super) async fn compare(
    conn: &mut impl ConnectionLike,
    partition: &Partition,
    coupon: CouponId,
    known: &mut Known,
) -> RedisResult<()> {
    let key = users_key(coupon);
    let now = Instant::now();
    let Some(count) = count(partition, coupon) else { return Ok(()) };
    let mut strangers = Strangers::new();
    let mut cursor = 0_u64;
    loop {
        let mut scan = redis::cmd("SSCAN");
        scan.arg(&key).arg(cursor).arg("COUNT").arg(CHUNK);
        let (next, mut members): (_, Vec<Vec<u8>>) = scan.query_async(conn).await?;
        keep_strangers(partition, coupon, &mut members);
        members.truncate(MOST.saturating_sub(strangers.len()));
        strangers.extend(members);
        cursor = next;
        if cursor == 0 {
            break;
        }
        tokio::time::sleep(PACE).await;
    }
    let found = strangers.len() as u64;
    let size: u64 = redis::cmd("SCARD").arg(&key).query_async(conn).await?;
    for leaked in known.remember(strangers, count, now).chunks(CHUNK) {
        let mut leaked = leaked.to_vec();
        // Whoever has won meanwhile stays, and whoever is on the way for unusually long.
        keep_strangers(partition, coupon, &mut leaked);
        leaked.retain(|member| user(member).is_none_or(|user| !partition.is_in_flight(coupon, user)));
        change(conn, "SREM", &key, &leaked).await?;
    }
    if size < found + u64::from(count) {
        for winners in winners(partition, coupon).chunks(CHUNK) {
            let winners: Vec<_> = winners.iter().map(|user| user.0).collect();
            change(conn, "SADD", &key, &winners).await?;
        }
    }
    Ok(())
}

async fn change<T: redis::ToRedisArgs>(
    conn: &mut impl ConnectionLike,
    verb: &'static str,
    key: &str,
    members: &[T],
) -> RedisResult<()> {
    if !members.is_empty() {
        let changed: u64 = redis::cmd(verb).arg(key).arg(members).query_async(conn).await?;
        metrics::counter!("firstcome_reconciled_members_total", "command" => verb).increment(changed);
        tokio::time::sleep(PACE).await;
    }
    Ok(())
}

/// None if there is nothing to compare with any more: the coupon is retired, and its keys are deleted.
fn count(partition: &Partition, coupon: CouponId) -> Option<u32> {
    partition.with(|ledger| {
        ledger.coupon(coupon).filter(|coupon| coupon.retired_at.is_none()).map(|coupon| coupon.count())
    })
}

fn winners(partition: &Partition, coupon: CouponId) -> Vec<UserId> {
    partition.with(|ledger| {
        let coupon = ledger.coupon(coupon).filter(|coupon| coupon.retired_at.is_none());
        coupon.map(|coupon| coupon.winners.users().collect()).unwrap_or_default()
    })
}

fn keep_strangers(partition: &Partition, coupon: CouponId, members: &mut Vec<Vec<u8>>) {
    partition.with(|ledger| match ledger.coupon(coupon) {
        Some(coupon) if coupon.retired_at.is_none() => {
            members.retain(|member| user(member).is_none_or(|user| coupon.winners.get(user).is_none()));
        }
        _ => members.clear(),
    });
}

fn user(member: &[u8]) -> Option<UserId> {
    std::str::from_utf8(member).ok()?.parse().ok().map(UserId)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strangers(names: &[&str]) -> Strangers {
        names.iter().map(|name| name.as_bytes().to_vec()).collect()
    }

    #[test]
    fn contents_are_compared_when_they_may_differ() {
        let start = Instant::now();
        let mut known = Known::nothing(start);
        assert!(known.is_due(0, 0, start), "nothing is known of a new one");
        known.remember(Strangers::new(), 0, start);
        assert!(known.is_settled(0) && !known.is_due(0, 0, start + REST * 2));
        assert!(known.is_due(1, 0, start) && known.is_due(0, 1, start), "the sizes differ");
        // Equal sizes may hide differences that cancel out.
        assert!(!known.is_settled(1));
        assert!(!known.is_due(1, 1, start + REST - Duration::from_millis(1)));
        assert!(!known.is_due(2, 2, start + REST), "it has changed again");
        assert!(known.is_due(2, 2, start + REST * 2));
        known.remember(Strangers::new(), 2, start);
        assert!(!known.is_due(2, 2, start + REST * 9));
        known.doubt();
        assert!(known.is_due(2, 2, start));
    }

    #[test]
    fn a_stranger_leaves_only_if_it_was_one_long_before() {
        let start = Instant::now();
        let mut known = Known::nothing(start);
        assert!(known.remember(strangers(&["1", "2"]), 0, start).is_empty());
        assert!(!known.is_due(2, 0, start + APART - Duration::from_millis(1)) && !known.is_settled(0));
        let early = known.remember(strangers(&["1", "2", "3"]), 0, start + APART / 2);
        assert!(early.is_empty(), "its claim may be on its way");
        let later = start + APART;
        assert!(known.is_due(2, 0, later));
        assert_eq!(known.remember(strangers(&["2", "3"]), 0, later), [b"2"]);
        assert_eq!(known.remember(strangers(&["3"]), 0, later + APART), [b"3"]);
        assert!(known.is_settled(0));
    }
}
