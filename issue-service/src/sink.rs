//! The consumer: writes what the log decided into the database, partition by partition.
//!
//! Invariant: the watermark moves in the same transaction as the rows below it, from exactly where it was read.
//! So a zombie, a lost acknowledgement of a commit and a database that went back all end in reading the
//! watermark again, and never in a lost or doubled row.

pub(crate) mod around;
pub(crate) mod batch;
mod dead_letter;
pub mod membership;
pub mod waiting_letters;
pub(crate) mod worker;

pub use membership::{Membership, Settings};
