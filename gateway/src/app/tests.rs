//! The gateway as a whole, between clients and real services on loopback.

mod access;
mod bodies;
mod deadlines;
mod filters;
mod harness;
mod identity;
mod issuers;
mod openapi;
mod reloads;
mod resilience;
mod stalls;
mod tunnels;
mod upstreams;
