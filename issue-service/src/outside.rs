//! What a claim meets outside of this process's own decisions: the log, Redis, the coupon service, the clock, and where
//! tasks run.
//!
//! Nothing here decides anything. [`live::Live`] is the real world; the model test drives the same decisions in a world
//! of its own, where every answer may be late, lost or a lie.

pub mod ends;
pub mod live;

use std::future::Future;

use bytes::Bytes;
use platform::lifecycle::BoxError;
use serde::Deserialize;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::doorman::Word;
use crate::ids::{CouponId, UserId};
use crate::ledger::Record;
use crate::store::Won;

/// A definition as the coupon service tells it. Times in milliseconds since 1970, UTC.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Told {
    pub coupon_id: CouponId,
    pub version: u64,
    pub quantity: u32,
    pub starts_at: u64,
    pub ends_at: u64,
    pub closed: bool,
}

/// What has changed at the coupon service, and up to which version.
#[derive(Debug, Deserialize)]
pub struct Changed {
    pub items: Vec<Told>,
    pub version: u64,
}

/// The coupon service can't be asked, or what it says can't be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the coupon's definition can't be had at the moment")]
pub struct Away;

/// How the doorman's set is put right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mend {
    Add,
    Remove,
}

pub trait Outside: Send + Sync + 'static {
    /// This instance's clock, in milliseconds since 1970.
    fn now_ms(&self) -> u64;

    /// Runs something that no request waits for.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static);

    /// Fires when the process ends.
    fn stop(&self) -> CancellationToken;

    /// The name of the log's topic.
    fn topic(&self) -> &str;

    /// Sends a claim that its partition has let in; the partition learns what became of it.
    fn send_claim(&self, coupon: CouponId, user: UserId, attempt: u64, traceparent: Option<&str>);

    /// Appends a record and tells its offset.
    fn append(&self, partition: u32, record: Record) -> impl Future<Output = Result<u64, BoxError>> + Send;

    /// The end of a partition's log as it is after this call. `None`: the log does not say.
    fn end_of(&self, partition: u32) -> impl Future<Output = Option<u64>> + Send;

    /// One call of the doorman's script. `None`: Redis failed.
    fn admit(
        &self,
        coupon: CouponId,
        stock: u32,
        users: &[UserId],
    ) -> impl Future<Output = Option<Vec<Word>>> + Send;

    /// Adds users to the doorman's set or removes them. False: Redis failed.
    fn mend(&self, coupon: CouponId, mend: Mend, users: &[UserId]) -> impl Future<Output = bool> + Send;

    /// What Redis holds as the coupon's definition.
    fn cached(&self, coupon: CouponId) -> impl Future<Output = Option<String>> + Send;

    /// Asks the coupon service; `None`: it knows no such coupon.
    fn told(&self, coupon: CouponId) -> impl Future<Output = Result<Option<Told>, Away>> + Send;

    /// Definitions that have changed since a version.
    fn changed_since(&self, version: u64) -> impl Future<Output = Result<Changed, Away>> + Send;

    /// What the database says of a user and a coupon that was retired at this offset.
    fn won(&self, retired_at: u64, coupon: CouponId, user: UserId) -> impl Future<Output = Won> + Send;

    /// Ids of coupons whose definitions have changed, as text. Redis carries it: some may be lost.
    fn announced(&self) -> broadcast::Receiver<Bytes>;
}
