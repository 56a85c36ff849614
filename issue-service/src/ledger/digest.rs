//! The digest of a partition: two processes that hold the same one have read the same records, at the same
//! places and times, and have decided them alike.

use sha2::{Digest as _, Sha256};

use super::{Decision, Entry};

/// A digest is stored beside the watermark at every offset where `(offset + 1) % DIGEST_EVERY == 0`.
pub const DIGEST_EVERY: u64 = 4096;

/// SHA-256 over the digest before it, offset (8), append time (8), length (4) and bytes of the value, decision
/// (1) and place or 0 (4); zeros before the first record. Integers big-endian.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    pub(super) fn next(self, entry: Entry<'_>, decision: Decision, place: Option<u32>) -> Self {
        let mut sha = Sha256::new();
        sha.update(self.0);
        sha.update(entry.offset.to_be_bytes());
        sha.update(entry.appended_at.to_be_bytes());
        sha.update(u32::try_from(entry.value.len()).unwrap_or(u32::MAX).to_be_bytes());
        sha.update(entry.value);
        sha.update([decision as u8]);
        sha.update(place.unwrap_or(0).to_be_bytes());
        Self(sha.finalize().into())
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl TryFrom<&[u8]> for Digest {
    type Error = std::array::TryFromSliceError;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        Ok(Self(bytes.try_into()?))
    }
}

/// The hash of a single record, stored with the watermark: at the next start the record before the watermark
/// is read again and must still be the same one.
pub fn record_hash(entry: Entry<'_>) -> Digest {
    Digest::default().next(entry, Decision::Noop, None)
}
