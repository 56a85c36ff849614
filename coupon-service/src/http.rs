//! The HTTP resources of this service, a file each.

pub mod coupons;
pub mod internal;

#[cfg(test)]
mod tests;
