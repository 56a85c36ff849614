//! HTTP: serving with its outermost layer, extractors, problems, trace context, and calls to other services.

pub mod client;
pub mod description;
pub mod extract;
pub mod problem;
pub mod server;
pub mod trace;
