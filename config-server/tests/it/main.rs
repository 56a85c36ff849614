//! The server's routes on real git repositories, each made for its test.

#![expect(clippy::unwrap_used, reason = "a test that can't set itself up has failed")]

mod environment;
mod locked;
mod mirror;
mod repository;
mod support;
