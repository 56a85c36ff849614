//! The issue service: hands a limited number of coupons to the users who ask first.
//!
//! The log decides: a Kafka topic is the ledger, and its order says who has won. Redis is the doorman, the
//! database an index. `ledger` holds the rules, `claim` one request's way through them, `sink` the way into the
//! database.

pub mod app;
pub mod claim;
pub mod config;
mod control;
pub mod counts;
pub mod definition;
pub mod doorman;
pub mod error;
pub mod failpoint;
pub mod http;
pub mod ids;
pub mod ledger;
pub mod log;
#[cfg(test)]
mod model;
pub mod outside;
pub mod reconciler;
pub mod refusal;
pub mod retirement;
pub mod sink;
pub mod store;
