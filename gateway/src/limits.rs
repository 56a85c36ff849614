//! What the gateway takes on at once, and how much of one request.
//!
//! Invariant: a permit lasts until the last byte of the answer is gone, so that the count is of work that
//! is really under way; and a request beyond the limit is turned away before anything is spent on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use http::HeaderMap;
use http::header;
use platform::http::problem::Problem;

#[derive(Debug)]
pub struct InFlightLimit {
    current: AtomicUsize,
    limit: usize,
}

impl InFlightLimit {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { current: AtomicUsize::new(0), limit })
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
}
