//! The ground that every service stands on: configuration, telemetry, lifecycle, HTTP serving, health, identity,
//! discovery, and the clients of MySQL and Redis. Nothing here knows what a coupon is.

pub mod admin;
pub mod clock;
pub mod config;
pub mod consul;
mod files;
pub mod health;
pub mod http;
pub mod id;
pub mod identity;
pub mod lifecycle;
mod memory;
pub mod mysql;
pub mod redis;
pub mod telemetry;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use crate::http::trace::trace_id;
