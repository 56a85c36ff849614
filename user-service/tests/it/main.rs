//! The service on a real MySQL or MariaDB, each test in a database of its own.

#![expect(clippy::unwrap_used, reason = "these are tests, helpers included")]

mod accounts;
mod away;
mod first_admin;
mod harness;
mod logout;
mod logs;
mod rotation;
mod throttle;
