//! The coupon service on real MySQL, Redis and Consul. Every test has a database of its own; coupon ids never repeat, so
//! the tests share one Redis.

#![expect(clippy::unwrap_used, reason = "a test that can not go on has failed")]

mod api;
mod cache;
mod change;
mod harness;
mod ledger;
mod write_back;
