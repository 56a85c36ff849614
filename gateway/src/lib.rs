//! The only door: routes, who is asking, which instance answers, and what never gets through.

pub mod access_log;
pub mod app;
pub mod auth;
pub mod balance;
pub mod config;
pub mod cors;
pub mod discovery;
pub mod forwarded;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod headers;
pub mod limits;
pub mod openapi;
pub mod proxy;
pub mod reload;
pub mod rescue;
pub mod resilience;
pub mod routes;
pub mod sending;
pub mod standalone;
