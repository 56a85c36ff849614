//! The only door: routes, who is asking, which instance answers, and what never gets through.

pub mod access_log;
pub mod app;
pub mod auth;
pub mod balance;
pub mod config;
pub mod discovery;
pub mod headers;
pub mod limits;
pub mod proxy;
pub mod rescue;
pub mod routes;
