//! The platform on real servers. Invariant: a missing server is a loud failure, never a skip.

#![expect(clippy::unwrap_used, reason = "a test fails by it, in its helpers too")]

mod consul;
mod mysql;
mod process;
mod redis;
