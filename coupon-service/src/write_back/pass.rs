//! One look at every active coupon. Invariants: Redis is read before the ledger is asked, so a published count that goes
//! beyond the ledger's word is known for a lie and not believed again; rows change in one transaction.

use std::collections::HashMap;
use std::time::Duration;

use platform::clock::Clock;
use sqlx::Connection as _;
use sqlx::mysql::MySqlConnection;

use crate::cache::Cache;
use crate::coupon::count::{Judgement, LedgerCoupon, Published, contradicts, is_final, judge};
use crate::coupon::{Coupon, CouponId};
use crate::ledger::{CHUNK, LedgerClient, LedgerError};
use crate::store;

/// The issue service answers from memory; a second means that it is in trouble.
const LEDGER_PATIENCE: Duration = Duration::from_secs(1);

/// Which coupons the ledger is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asking {
    All,
    /// Those that have ended, and those whose published count can't be.
    Doubtful,
}

#[derive(Debug)]
pub(super) struct Pass {
    cache: Cache,
    ledger: LedgerClient,
    clock: Clock,
    /// What Redis showed when the ledger had not got so far.
    disbelieved: HashMap<CouponId, Published>,
    settled: Sweep,
}

/// Goes once over the coupons that had their last word, a question in each look.
#[derive(Debug, Default)]
struct Sweep {
    /// Beyond which coupon it is to go on; `None`: it is over.
    after: Option<CouponId>,
    /// Part of the ledger could not be asked: over again, when everything is asked about.
    again: bool,
}

/// What is to be written about a coupon.
enum Write {
    Shown(CouponId, Published),
    Word(Coupon, LedgerCoupon),
    Settled(Coupon),
}

impl Pass {
    pub(super) fn new(cache: Cache, ledger: LedgerClient, clock: Clock) -> Self {
        Self { cache, ledger, clock, disbelieved: HashMap::new(), settled: Sweep::default() }
    }

    /// The database may be another one, or an older one: coupons of which nothing was expected any more are asked about
    /// once, too.
    pub(super) fn look_at_settled(&mut self) {
        self.settled = Sweep { after: Some(CouponId(0)), again: false };
    }

    /// Brings the rows level. `true`: everything that was asked about was answered by the ledger.
    pub(super) async fn run(
        &mut self,
        connection: &mut MySqlConnection,
        asking: Asking,
    ) -> Result<bool, sqlx::Error> {
        let now = self.clock.now_ms();
        let coupons = store::unsettled(&mut *connection, now, asking == Asking::All).await?;
        let ids: Vec<CouponId> = coupons.iter().map(|coupon| coupon.definition.coupon_id).collect();
        let shown = self.shown(&ids).await;
        self.disbelieved.retain(|id, lie| shown.get(id) == Some(lie));

        let doubtful = |coupon: &Coupon| {
            now >= coupon.definition.ends_at
                || self.judge(coupon, shown.get(&coupon.definition.coupon_id)) == Judgement::AskLedger
        };
        let questions: Vec<CouponId> = coupons
            .iter()
            .filter(|coupon| asking == Asking::All || doubtful(coupon))
            .map(|coupon| coupon.definition.coupon_id)
            .collect();
        let answers = self.ledger.words(&questions, LEDGER_PATIENCE).await;
        if let Some(error) = &answers.error {
            tracing::debug!(error = %error, "write-back goes by Redis alone");
        }
        let answered = &answers.answered;

        let mut writes = Vec::new();
        if asking == Asking::All && self.settled.again {
            self.look_at_settled();
        }
        if !answers.error.as_ref().is_some_and(LedgerError::is_away) {
            writes.extend(self.settled(connection).await?);
        }
        for coupon in coupons {
            let id = coupon.definition.coupon_id;
            let seen = shown.get(&id);
            if let Some(word) = answers.known.get(&id) {
                match seen {
                    Some(seen) if seen.offset > word.offset => drop(self.disbelieved.insert(id, *seen)),
                    _ => drop(self.disbelieved.remove(&id)),
                }
                writes.push(Write::Word(coupon, *word));
            } else if answered.contains(&id) && is_final(&coupon.definition, None, now) {
                writes.push(Write::Settled(coupon));
            } else if let Some(seen) = seen
                && self.judge(&coupon, Some(seen)) == Judgement::Write
            {
                writes.push(Write::Shown(id, *seen));
            }
        }
        write(connection, &writes, now).await?;
        Ok(answers.error.is_none())
    }

    /// What the ledger says otherwise of the next settled coupons.
    async fn settled(&mut self, connection: &mut MySqlConnection) -> Result<Vec<Write>, sqlx::Error> {
        let Some(after) = self.settled.after else { return Ok(Vec::new()) };
        let coupons = store::settled(&mut *connection, after, CHUNK).await?;
        let ids: Vec<CouponId> = coupons.iter().map(|coupon| coupon.definition.coupon_id).collect();
        let answers = self.ledger.words(&ids, LEDGER_PATIENCE).await;
        if answers.error.as_ref().is_some_and(LedgerError::is_away) {
            return Ok(Vec::new()); // the same in the next look
        }
        self.settled = Sweep {
            after: ids.last().copied(),
            // A part of the ledger that can't be asked holds up no other.
            again: self.settled.again || answers.error.is_some(),
        };
        let differs = |coupon: Coupon| {
            let word = answers.known.get(&coupon.definition.coupon_id)?;
            let newer = word.version > coupon.definition.version;
            (newer || contradicts(coupon.issued, word.issued())).then_some(Write::Word(coupon, *word))
        };
        Ok(coupons.into_iter().filter_map(differs).collect())
    }

    /// What Redis shows; nothing where it shows none, or rubbish, or is away.
    async fn shown(&self, ids: &[CouponId]) -> HashMap<CouponId, Published> {
        if ids.is_empty() {
            return HashMap::new();
        }
        let values = self.cache.published(ids).await.unwrap_or_default();
        ids.iter().zip(values).filter_map(|(id, value)| Some((*id, Published::parse(&value?)?))).collect()
    }

    fn judge(&self, coupon: &Coupon, seen: Option<&Published>) -> Judgement {
        match seen {
            // As long as it stays there it may keep honest counts out, so the ledger is asked each time.
            Some(seen) if self.disbelieved.get(&coupon.definition.coupon_id) == Some(seen) => {
                Judgement::AskLedger
            }
            Some(seen) => judge(coupon.issued, coupon.definition.quantity, *seen),
            None => Judgement::Keep,
        }
    }
}

async fn write(connection: &mut MySqlConnection, writes: &[Write], now: u64) -> Result<(), sqlx::Error> {
    if writes.is_empty() {
        return Ok(());
    }
    let mut transaction = connection.begin().await?;
    let (mut by_redis, mut by_ledger) = (0, 0);
    for write in writes {
        match write {
            Write::Shown(id, shown) => {
                store::advance(&mut *transaction, *id, *shown).await?;
                by_redis += 1;
            }
            Write::Word(coupon, word) => {
                let mut definition = coupon.definition;
                if contradicts(coupon.issued, word.issued()) {
                    store::overrule(&mut *transaction, definition.coupon_id, word.issued()).await?;
                    by_ledger += 1;
                }
                if word.version > definition.version {
                    // The database went back behind the ledger: what is in force is the ledger's.
                    definition = word.definition();
                    store::redefine(&mut *transaction, &definition, now).await?;
                }
                if word.retired {
                    store::retire(&mut *transaction, definition.version, &word.definition(), now).await?;
                } else if is_final(&definition, Some(word), now) {
                    store::settle(&mut *transaction, &definition).await?;
                }
            }
            Write::Settled(coupon) => store::settle(&mut *transaction, &coupon.definition).await?,
        }
    }
    transaction.commit().await?;
    metrics::counter!("coupon_write_back_rows_total", "source" => "redis").increment(by_redis);
    metrics::counter!("coupon_write_back_rows_total", "source" => "ledger").increment(by_ledger);
    Ok(())
}
