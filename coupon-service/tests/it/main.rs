//! The coupon service on real MySQL, Redis and Consul. Every test has a database of its own; coupon ids never repeat, so
//! the tests share one Redis.

mod api;
mod cache;
mod change;
mod harness;
mod ledger;
mod write_back;
