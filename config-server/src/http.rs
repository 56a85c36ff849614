//! The routes.

pub mod environment;
