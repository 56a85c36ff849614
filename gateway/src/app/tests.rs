//! The gateway as a whole, between clients and real services on loopback.

mod access;
mod bodies;
mod harness;
mod identity;
mod upstreams;
