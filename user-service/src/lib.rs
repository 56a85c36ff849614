//! Accounts, logins, tokens and the keys that sign them.
//!
//! Invariants: one account per normalised e-mail address; a password exists in clear only in memory, from the
//! request to the hash; a refresh token works once, and showing it again ends its whole login; a login that was ended
//! stays ended.

pub mod app;
pub mod config;
pub mod email;
pub mod error;
pub mod first_admin;
pub mod http;
pub mod keys;
pub mod password;
pub mod revocation;
pub mod store;
pub mod sweep;
pub mod throttle;
pub mod token;

pub use app::start;

/// The name in Consul, in the configuration repository and in traces.
pub const SERVICE: &str = "user-service";
