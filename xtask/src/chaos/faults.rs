//! What is done to the running system, a file for each part of it.
//!
//! Every fault waits for [`Site::moment`](super::site::Site::moment), strikes in the next line, lifts what it did and
//! says so, and then looks for the signs that it was felt. What it holds ends with it, however it ends.

pub(crate) mod consul;
pub(crate) mod coupons;
pub(crate) mod failover;
pub(crate) mod failpoints;
pub(crate) mod kafka;
pub(crate) mod links;
pub(crate) mod mysql;
pub(crate) mod redis;
pub(crate) mod restored;
pub(crate) mod services;
pub(crate) mod unguarded;
