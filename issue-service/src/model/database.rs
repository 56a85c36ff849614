//! The database server: committed tables, transactions with a lock on the watermark, and a past to go back to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::dice::Dice;
use crate::ids::{CouponId, UserId};
use crate::ledger::snapshot::{Snapshot, Watermark};
use crate::ledger::{Coupon, Definition, Digest, Ledger, Winner, Winners};
use crate::sink::batch::{Batch, Part};
use crate::store::{CouponRow, IssueRow, StoreError, Won};

/// innodb_lock_wait_timeout of [`crate::store::begin`], and its wait_timeout.
const LOCK_WAIT: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Default)]
pub(super) struct Tables {
    pub(super) coupons: BTreeMap<CouponId, (u32, CouponRow)>,
    pub(super) issues: BTreeMap<(CouponId, UserId), IssueRow>,
    pub(super) watermarks: BTreeMap<u32, Watermark>,
    pub(super) digests: BTreeMap<(u32, u64), Digest>,
    /// Of the user service.
    pub(super) users: BTreeSet<u64>,
    /// Of the coupon service.
    pub(super) definitions: BTreeMap<CouponId, Definition>,
}

#[derive(Debug)]
pub(super) struct Database {
    dice: Arc<Dice>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    now: Arc<Tables>,
    past: Vec<Arc<Tables>>,
    /// Who holds a partition's watermark, and since when.
    locks: HashMap<u32, (u64, Instant)>,
    sessions: u64,
    away_until: Instant,
    /// Transactions that began before the server went back are gone.
    epoch: u64,
}

impl Database {
    pub(super) fn new(dice: Arc<Dice>) -> Self {
        let inner = Inner {
            now: Arc::default(),
            past: vec![Arc::default()],
            locks: HashMap::new(),
            sessions: 0,
            away_until: Instant::now(),
            epoch: 0,
        };
        Self { dice, inner: Mutex::new(inner) }
    }

    pub(super) fn go_away(&self, ms: u64) {
        let mut inner = self.inner.lock().unwrap();
        inner.away_until = Instant::now() + Duration::from_millis(ms);
        inner.epoch += 1;
        inner.locks.clear();
    }

    /// A lagging replica takes over, or a backup is restored.
    pub(super) fn go_back(&self) {
        let mut inner = self.inner.lock().unwrap();
        let index = self.dice.index(inner.past.len());
        inner.past.truncate(index + 1);
        inner.now = inner.past[index].clone();
        inner.epoch += 1;
        inner.locks.clear();
    }

    pub(super) fn read(&self) -> Arc<Tables> {
        self.inner.lock().unwrap().now.clone()
    }

    /// A small transaction of another service.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Tables) -> T) -> T {
        let mut inner = self.inner.lock().unwrap();
        let mut tables = (*inner.now).clone();
        let answer = change(&mut tables);
        inner.commit(tables);
        answer
    }

    async fn answer(&self) -> Result<Arc<Tables>, StoreError> {
        self.dice.pause(2).await;
        let inner = self.inner.lock().unwrap();
        if Instant::now() < inner.away_until {
            return Err(gone());
        }
        Ok(inner.now.clone())
    }

    pub(super) async fn watermark(&self, partition: u32) -> Result<Watermark, StoreError> {
        Ok(self.answer().await?.watermarks.get(&partition).copied().unwrap_or_default())
    }

    pub(super) async fn snapshots(
        &self,
        wanted: &[u32],
        partitions: u32,
    ) -> Result<Vec<Snapshot>, StoreError> {
        let tables = self.answer().await?;
        let snapshot = |partition: &u32| {
            let watermark = tables.watermarks.get(partition).copied().unwrap_or_default();
            let rows = tables.coupons.iter().filter(|(_, (of, _))| of == partition);
            let coupons = rows.map(|(id, (_, row))| {
                if row.retired_at.is_some_and(|offset| offset < watermark.next) {
                    let winners = Winners::only_counted(row.count);
                    return (*id, Coupon { definition: row.definition, retired_at: row.retired_at, winners });
                }
                let mut winners = Winners::default();
                let all = (*id, UserId(0))..=(*id, UserId(u64::MAX));
                for ((_, user), issue) in tables.issues.range(all) {
                    winners.insert(*user, Winner { place: issue.place, issued_at: issue.issued_at });
                }
                (*id, Coupon { definition: row.definition, retired_at: row.retired_at, winners })
            });
            let ledger =
                Ledger::restore(*partition, partitions, watermark.next, watermark.digest, coupons.collect());
            Snapshot { ledger, watermark }
        };
        Ok(wanted.iter().map(snapshot).collect())
    }

    pub(super) async fn won(&self, partition: u32, retired_at: u64, coupon: CouponId, user: UserId) -> Won {
        let Ok(tables) = self.answer().await else { return Won::Unknown };
        let row = tables.issues.get(&(coupon, user));
        let row = row.map(|row| Winner { place: row.place, issued_at: row.issued_at });
        Won::judge(row, tables.watermarks.get(&partition).copied().unwrap_or_default(), retired_at)
    }

    pub(super) async fn write(&self, partition: u32, batch: &Batch) -> Result<bool, StoreError> {
        for parts in Batch::transactions() {
            self.answer().await?;
            let mut session = Session::begin(self);
            for part in *parts {
                self.dice.pause(3).await;
                match part {
                    Part::Watermark => {
                        session.lock(partition).await?;
                        let found =
                            session.tables(self)?.watermarks.get(&partition).copied().unwrap_or_default();
                        if found.next != batch.from {
                            return Ok(false);
                        }
                        session.changes.watermarks.insert(partition, batch.to);
                    }
                    Part::Coupons => {
                        let rows = batch.coupons.iter().map(|(id, row)| (*id, (partition, *row)));
                        session.changes.coupons.extend(rows);
                    }
                    Part::Issues => {
                        let committed = session.tables(self)?;
                        for row in &batch.issues {
                            let key = (row.coupon, row.user);
                            if committed.issues.contains_key(&key)
                                || session.changes.issues.insert(key, *row).is_some()
                            {
                                return Err(StoreError::Contradiction(format!("doubled: {key:?}")));
                            }
                        }
                    }
                    Part::Digests => {
                        let rows = batch.digests.iter().map(|(next, digest)| ((partition, *next), *digest));
                        session.changes.digests.extend(rows);
                    }
                }
            }
            self.dice.pause(2).await;
            session.commit()?;
            self.dice.pause(2).await;
            if self.dice.percent(3) {
                return Err(gone()); // the answer to the commit was lost
            }
        }
        Ok(true)
    }
}

impl Inner {
    fn commit(&mut self, tables: Tables) {
        self.now = Arc::new(tables);
        self.past.push(self.now.clone());
    }
}

fn gone() -> StoreError {
    StoreError::Database(sqlx::Error::PoolTimedOut)
}

/// A transaction; rolled back unless it is committed.
struct Session<'a> {
    database: &'a Database,
    id: u64,
    epoch: u64,
    locked: Option<u32>,
    changes: Tables,
}

impl<'a> Session<'a> {
    fn begin(database: &'a Database) -> Self {
        let mut inner = database.inner.lock().unwrap();
        inner.sessions += 1;
        let (id, epoch) = (inner.sessions, inner.epoch);
        drop(inner);
        Self { database, id, epoch, locked: None, changes: Tables::default() }
    }

    fn tables(&self, database: &Database) -> Result<Arc<Tables>, StoreError> {
        let inner = database.inner.lock().unwrap();
        if inner.epoch != self.epoch { Err(gone()) } else { Ok(inner.now.clone()) }
    }

    async fn lock(&mut self, partition: u32) -> Result<(), StoreError> {
        let begun = Instant::now();
        loop {
            {
                let mut inner = self.database.inner.lock().unwrap();
                if inner.epoch != self.epoch {
                    return Err(gone());
                }
                let held = inner.locks.get(&partition).is_some_and(|(_, since)| since.elapsed() < IDLE);
                if !held {
                    inner.locks.insert(partition, (self.id, Instant::now()));
                    self.locked = Some(partition);
                    return Ok(());
                }
            }
            if begun.elapsed() > LOCK_WAIT {
                return Err(gone());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn commit(self) -> Result<(), StoreError> {
        let mut inner = self.database.inner.lock().unwrap();
        let own =
            |inner: &Inner, partition| inner.locks.get(&partition).is_some_and(|(id, _)| *id == self.id);
        if inner.epoch != self.epoch || self.locked.is_some_and(|partition| !own(&inner, partition)) {
            return Err(gone());
        }
        let mut tables = (*inner.now).clone();
        tables.watermarks.extend(&self.changes.watermarks);
        tables.coupons.extend(&self.changes.coupons);
        tables.issues.extend(&self.changes.issues);
        tables.digests.extend(&self.changes.digests);
        inner.commit(tables);
        Ok(())
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        let mut inner = self.database.inner.lock().unwrap();
        if let Some(partition) = self.locked
            && inner.locks.get(&partition).is_some_and(|(id, _)| *id == self.id)
        {
            inner.locks.remove(&partition);
        }
    }
}
