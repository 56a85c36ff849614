//! Attacks on the running system, by kind. Each is refused, and where nothing may get through, the services say so.
//! The table in docs/gateway.md names them.

mod bodies;
mod cross_origin;
mod http2;
mod identity;
mod limits;
mod paths;
mod slowness;
mod smuggling;
mod tokens;
