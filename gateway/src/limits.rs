//! What the gateway takes on at once, and how much of one request.
//!
//! Invariant: a permit lasts until the last byte of the answer is gone, so that the count is of work that
//! is really under way; and a request beyond the limit is turned away before anything is spent on it.

pub mod rate;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use http::HeaderMap;
use http::header;
use parking_lot::Mutex;
use platform::http::problem::Problem;

/// Enough that two workers seldom meet.
const SHARDS: usize = 32;

#[derive(Debug)]
pub struct InFlightLimit {
    /// Shared by those that have followed one another.
    current: Arc<AtomicUsize>,
    limit: usize,
}

impl InFlightLimit {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { current: Arc::default(), limit })
    }

    /// One of another size in its place; what is under way counts there too.
    #[must_use]
    pub fn resized(&self, limit: usize) -> Arc<Self> {
        Arc::new(Self { current: Arc::clone(&self.current), limit })
    }

    /// One request's place, or a 503 at once: waiting in line would only make the answer later.
    pub fn admit(self: &Arc<Self>) -> Result<Permit, Problem> {
        // Made first, so that a refused request gives its count back by the same way.
        let permit = Permit(Arc::clone(self));
        if self.current.fetch_add(1, Relaxed) < self.limit { Ok(permit) } else { Err(Problem::overloaded()) }
    }

    pub fn current(&self) -> usize {
        self.current.load(Relaxed)
    }
}

#[derive(Debug)]
pub struct Permit(Arc<InFlightLimit>);

/// Requests of one user at once, so that nobody takes all places.
#[derive(Debug)]
pub struct FairShare {
    /// Users with requests in flight, and how many.
    shards: Box<[Mutex<HashMap<u64, u32>>]>,
    limit: u32,
}

#[derive(Debug)]
pub struct FairPermit {
    share: Arc<FairShare>,
    user: u64,
}

impl FairShare {
    #[must_use]
    pub fn new(limit: u32) -> Arc<Self> {
        Arc::new(Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), limit })
    }

    /// # Errors
    /// 429 if this user has as many in flight as one may have.
    pub fn admit(self: &Arc<Self>, user: u64) -> Result<FairPermit, Problem> {
        let mut users = self.shard(user).lock();
        let current = users.entry(user).or_default();
        if *current >= self.limit {
            return Err(Problem::rate_limited().retry_after(1));
        }
        *current += 1;
        Ok(FairPermit { share: Arc::clone(self), user })
    }

    fn shard(&self, user: u64) -> &Mutex<HashMap<u64, u32>> {
        &self.shards[usize::try_from(user % SHARDS as u64).unwrap_or_default()]
    }
}

impl Drop for FairPermit {
    fn drop(&mut self) {
        let mut users = self.share.shard(self.user).lock();
        if let Some(current) = users.get_mut(&self.user) {
            *current -= 1;
            if *current == 0 {
                users.remove(&self.user);
            }
        }
    }
}

/// A request's places: at the gateway, its user's, and of its route if that has a limit of its own.
#[derive(Debug)]
pub struct Permits {
    gateway: Permit,
    user: Option<FairPermit>,
    route: Option<Permit>,
}

impl Permits {
    /// # Errors
    /// 503 if all of the route's are taken.
    pub fn take(
        gateway: Permit,
        user: Option<FairPermit>,
        route: Option<&Arc<InFlightLimit>>,
    ) -> Result<Self, Problem> {
        Ok(Self { gateway, user, route: route.map(InFlightLimit::admit).transpose()? })
    }
}

impl Permits {
    /// Gives the route's place back.
    #[must_use]
    pub fn gateway(self) -> Permit {
        self.gateway
    }

    /// Gives the gateway's place back, for what has taken one of another kind.
    #[must_use]
    pub fn beside_gateway(self) -> (Option<FairPermit>, Option<Permit>) {
        (self.user, self.route)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.current.fetch_sub(1, Relaxed);
    }
}

/// What a request says about its body's size in bytes. One that says nothing is counted on its way.
pub fn announced_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back() {
        let limit = InFlightLimit::new(2);
        let (first, _second) = (limit.admit().unwrap(), limit.admit().unwrap());
        assert!(limit.admit().is_err());
        assert_eq!(limit.current(), 2, "a refused request holds no place");
        drop(first);
        assert!(limit.admit().is_ok());
    }

    #[test]
    fn one_user_does_not_take_all() {
        let share = FairShare::new(2);
        let (first, second) = (share.admit(7).unwrap(), share.admit(7).unwrap());
        assert_eq!(share.admit(7).unwrap_err().status(), 429);
        assert!(share.admit(7 + SHARDS as u64).is_ok(), "another user of the same shard");
        drop(first);
        assert!(share.admit(7).is_ok());
        drop(second);
        assert!(share.shard(7).lock().is_empty(), "nobody is remembered without a request");
    }
}
