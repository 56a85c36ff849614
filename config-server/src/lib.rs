//! Serves the configuration repository from git, in the wire format of Spring Cloud Config.
//!
//! Invariant: what is served is what a commit holds. There is no work tree, so nothing uncommitted, half written or
//! outside the repository can get out, and an answer names the commit it was read from.

pub mod app;
pub mod config;
pub mod document;
pub mod environment;
pub mod http;
pub mod profiles;
pub mod properties;
pub mod repository;
pub mod yaml;

pub use app::start;

/// The name in Consul, in logs and in traces.
pub const SERVICE: &str = "config-server";
