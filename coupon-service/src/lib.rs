//! Coupon definitions: who may claim what, when and how many; and how many were issued.
//!
//! Invariants: MySQL is the only place that a definition is written to, and each change raises its version; what lies
//! in Redis is a copy that proves its origin by a MAC; an issued count comes from the ledger, straight or through
//! Redis, and of the two the straight word wins.

pub mod app;
pub mod cache;
pub mod change;
pub mod config;
pub mod coupon;
pub mod error;
pub mod http;
pub mod ledger;
pub mod store;
pub mod write_back;

/// The name in Consul, in the configuration repository and in traces.
pub const SERVICE: &str = "coupon-service";
