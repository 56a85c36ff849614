//! The issue service on real MySQL, Kafka and Redis. Each test has a topic, a database and coupons of its own.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod claims;
mod dead_letters;
mod definitions;
mod http;
mod link;
mod log;
mod reconciler;
mod retirement;
mod sink;
mod store;
mod system;
