//! Who waits for a coupon: at the own door for a turn, for a user to show, for the stock to be used up.
//!
//! Invariant: whoever gives up leaves nothing behind, and a turn that is not used goes to the next.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use super::{Key, OWN_DOOR, Partition};
use crate::ids::CouponId;

#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) in_flight: u32,
    /// Woken for a place at the own door, and not yet through it.
    pub(super) called: u32,
    /// Since those who gave up were last taken from the queue.
    pub(super) arrivals: usize,
    /// For a place at the own door, in order of arrival.
    pub(super) door: VecDeque<oneshot::Sender<()>>,
    /// For the stock to be used up, or for another definition.
    pub(super) settled: Vec<oneshot::Sender<()>>,
}

impl Waiting {
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.called == 0 && self.door.is_empty() && self.settled.is_empty()
    }

    pub(super) fn let_in(&mut self, most: u32) {
        let mut room = most.saturating_sub(self.in_flight + self.called);
        while room > 0
            && let Some(next) = self.door.pop_front()
        {
            if next.send(()).is_ok() {
                self.called += 1;
                room -= 1;
            }
        }
    }

    /// There is nothing left to wait for: everybody looks again. Nobody at the door is called by this.
    pub(super) fn wake_all(&mut self) {
        self.door.clear();
        for waiter in std::mem::take(&mut self.settled) {
            let _ = waiter.send(());
        }
    }
}

/// A place in the queue at the own door. Whoever is called keeps it until the claim is in flight; if it never gets
/// there, dropping this calls the next.
#[derive(Debug)]
pub struct Turn<'a> {
    pub(super) partition: &'a Partition,
    pub(super) coupon: CouponId,
    pub(super) call: oneshot::Receiver<()>,
    pub(super) called: bool,
}

impl Turn<'_> {
    /// Resolves when it is this one's turn (true), or when there is nothing left to wait for.
    pub async fn comes(&mut self) -> bool {
        self.called = (&mut self.call).await.is_ok();
        self.called
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // First of all: nobody can call this one between the look and the end.
        self.call.close();
        if self.called || self.call.try_recv().is_ok() {
            self.partition.end_turn(self.coupon);
        }
    }
}

impl Partition {
    fn end_turn(&self, coupon: CouponId) {
        let mut inner = self.inner.lock();
        let left = inner.left(coupon);
        if let Some(waiting) = inner.per_coupon.get_mut(&coupon) {
            waiting.called -= 1;
            waiting.let_in(left.min(OWN_DOOR));
            if waiting.is_idle() {
                inner.per_coupon.remove(&coupon);
            }
        }
    }
}

/// Somebody who waits for a user to show; leaves no trace when it gives up.
pub(super) struct Shown<'a> {
    pub(super) partition: &'a Partition,
    pub(super) key: Key,
    pub(super) receiver: oneshot::Receiver<()>,
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.receiver.close();
        let mut inner = self.partition.inner.lock();
        if let Some(waiting) = inner.shown.get_mut(&self.key) {
            waiting.retain(|sender| !sender.is_closed());
            if waiting.is_empty() {
                inner.shown.remove(&self.key);
            }
        }
    }
}

/// Adds a waiter. Before the room grows, those who have given up are forgotten.
pub(super) fn push(waiters: &mut Vec<oneshot::Sender<()>>, waiter: oneshot::Sender<()>) {
    if waiters.len() >= 1024 && waiters.len() == waiters.capacity() {
        waiters.retain(|waiter| !waiter.is_closed());
        waiters.reserve(waiters.len().max(1024)); // not again at the next one
    }
    waiters.push(waiter);
}
