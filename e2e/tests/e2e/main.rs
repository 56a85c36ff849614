//! End to end, through the gateway of the stack that FIRSTCOME_STATE names.
//!
//! Tests that get along take the stack together; those that break something, or need the machine for themselves,
//! take it alone (`stack::shared`, `stack::alone`).

mod accounts;
mod attacks;
mod claims;
mod couponctl;
mod faults;
mod gateway;
mod keys;
mod logs;
mod openapi;
mod operations;
mod race;
mod sessions;
mod sign_up;
mod tokens;
