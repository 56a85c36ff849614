//! The service on a real MySQL or MariaDB, each test in a database of its own.

#![expect(clippy::unwrap_used, reason = "these are tests, helpers included")]

mod account;
mod accounts;
mod away;
mod first_admin;
mod harness;
mod keys;
mod logout;
mod logs;
mod roles;
mod rotation;
mod throttle;
