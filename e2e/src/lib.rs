//! What the end-to-end tests stand on: the running stack, a client that knows the public API's shapes, tokens for any
//! number of users, load with a record of every answer, faults, and an audit that reads the servers by itself.
//!
//! Invariant: nothing here uses the product's own code, so an error there can't hide itself.

pub mod access_log;
pub mod audit;
pub mod client;
pub mod configuration;
pub mod consumers;
pub mod counters;
pub mod coupons;
pub mod faults;
pub mod load;
pub mod raw;
pub mod secrets;
pub mod stack;
pub mod tokens;
pub mod users;
