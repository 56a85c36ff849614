//! The platform on real servers. Invariant: a missing server is a loud failure, never a skip.

mod consul;
mod mysql;
mod process;
mod redis;
