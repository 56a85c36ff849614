//! What keeps a failing service from taking its callers along.

pub mod circuit_breaker;
pub mod retry;

pub use circuit_breaker::{BreakerSettings, Breaking, CircuitBreaker};
pub use retry::{Retry, RetrySettings};
