//! The issue service on real MySQL, Kafka and Redis. Each test has a topic, a database and coupons of its own.

mod claims;
mod sink;
mod system;
