//! Whatever meets the outside first, each with what must hold of it for any bytes at all.
//!
//! The functions are run in two ways: by libFuzzer, which looks for inputs that reach new code (`gateway/fuzz`, see
//! CONTRIBUTING.md), and by the tests here on changed seeds, in seconds and always in the same order. What must hold
//! is said without the code that it is said of: a second opinion, not a copy.

pub mod headers;
pub mod path;
pub mod routes;
pub mod token;

#[cfg(test)]
mod tests;
