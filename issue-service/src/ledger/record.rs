//! What a record of the log looks like on the wire, and nothing else.
//!
//! The formats are frozen: a record that is readable today is readable for ever, and means the same. All
//! integers are big-endian.
//!
//! ```text
//! envelope  magic "FC" (2) | kind (1) | version (1) | payload length (2) | CRC32C (4) | payload
//! 1 definition v1  coupon (8) version (8) stock (4) starts at (8) ends at (8) closed (1)
//! 2 claim      v1  coupon (8) user (8)
//! 3 retire     v1  coupon (8)
//! 4 noop       v1  (empty)
//! ```
//!
//! The checksum covers every byte of the record but its own four. Times are milliseconds since 1970 in UTC.

use crate::ids::{CouponId, MAX_ID, UserId};

const MAGIC: [u8; 2] = *b"FC";
const HEADER: usize = 10;
const VERSION: u8 = 1;

const DEFINITION: u8 = 1;
const CLAIM: u8 = 2;
const RETIRE: u8 = 3;
const NOOP: u8 = 4;

/// The largest stock that a definition may carry; a winner's place fits 24 bits.
pub const MAX_STOCK: u32 = 10_000_000;

/// The definition of a coupon as the log holds it. Times in milliseconds since 1970, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Definition {
    pub coupon: CouponId,
    /// Raised by each change; the highest that was seen is in force.
    pub version: u64,
    pub stock: u32,
    /// First millisecond of the window.
    pub starts_at: u64,
    /// First millisecond after the window.
    pub ends_at: u64,
    pub closed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    Definition(Definition),
    Claim { coupon: CouponId, user: UserId },
    Retire { coupon: CouponId },
    Noop,
}

/// Why a value is not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// The envelope itself is broken: too short, wrong magic, length or checksum.
    Malformed,
    /// A sound envelope of a known kind and version around a payload that cannot be.
    Invalid,
    /// A sound envelope of a kind or version that this build does not know. Whoever meets it must stop: a
    /// newer process may have decided something by it.
    Unknown { kind: u8, version: u8 },
}

impl Record {
    /// The coupon that the record is about; a noop is about none.
    pub fn coupon(&self) -> Option<CouponId> {
        match self {
            Self::Definition(definition) => Some(definition.coupon),
            Self::Claim { coupon, .. } | Self::Retire { coupon } => Some(*coupon),
            Self::Noop => None,
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + 37);
        out.extend_from_slice(&MAGIC);
        out.push(match self {
            Self::Definition(_) => DEFINITION,
            Self::Claim { .. } => CLAIM,
            Self::Retire { .. } => RETIRE,
            Self::Noop => NOOP,
        });
        out.push(VERSION);
        out.extend_from_slice(&[0; 6]);
        match self {
            Self::Definition(d) => {
                out.extend_from_slice(&d.coupon.0.to_be_bytes());
                out.extend_from_slice(&d.version.to_be_bytes());
                out.extend_from_slice(&d.stock.to_be_bytes());
                out.extend_from_slice(&d.starts_at.to_be_bytes());
                out.extend_from_slice(&d.ends_at.to_be_bytes());
                out.push(u8::from(d.closed));
            }
            Self::Claim { coupon, user } => {
                out.extend_from_slice(&coupon.0.to_be_bytes());
                out.extend_from_slice(&user.0.to_be_bytes());
            }
            Self::Retire { coupon } => out.extend_from_slice(&coupon.0.to_be_bytes()),
            Self::Noop => {}
        }
        #[expect(clippy::cast_possible_truncation, reason = "the longest payload has 37 bytes")]
        let length = (out.len() - HEADER) as u16;
        out[4..6].copy_from_slice(&length.to_be_bytes());
        let checksum = checksum(&out);
        out[6..10].copy_from_slice(&checksum.to_be_bytes());
        out
    }

    pub fn decode(value: &[u8]) -> Result<Self, Unreadable> {
        if value.len() < HEADER || value[..2] != MAGIC {
            return Err(Unreadable::Malformed);
        }
        let (kind, version) = (value[2], value[3]);
        let mut fields = Fields(&value[4..]);
        let (length, crc) = (fields.u16(), fields.u32());
        let payload = &value[HEADER..];
        if usize::from(length) != payload.len() || crc != checksum(value) {
            return Err(Unreadable::Malformed);
        }
        if version != VERSION || !(DEFINITION..=NOOP).contains(&kind) {
            return Err(Unreadable::Unknown { kind, version });
        }
        let expected = match kind {
            DEFINITION => 37,
            CLAIM => 16,
            RETIRE => 8,
            _ => 0,
        };
        if payload.len() != expected {
            return Err(Unreadable::Invalid);
        }
        let mut fields = Fields(payload);
        Ok(match kind {
            DEFINITION => {
                let definition = Definition {
                    coupon: CouponId(fields.id()?),
                    version: fields.id()?,
                    stock: fields.u32(),
                    starts_at: fields.u64(),
                    ends_at: fields.u64(),
                    closed: fields.u8() != 0,
                };
                if definition.stock > MAX_STOCK {
                    return Err(Unreadable::Invalid);
                }
                Self::Definition(definition)
            }
            CLAIM => Self::Claim { coupon: CouponId(fields.id()?), user: UserId(fields.id()?) },
            RETIRE => Self::Retire { coupon: CouponId(fields.id()?) },
            _ => Self::Noop,
        })
    }
}

fn checksum(record: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&record[..6]), &record[HEADER..])
}

/// Reads integers from the front. The caller has checked the length.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.0[..N]);
        self.0 = &self.0[N..];
        bytes
    }

    fn u8(&mut self) -> u8 {
        u8::from_be_bytes(self.take())
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take())
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.take())
    }

    fn id(&mut self) -> Result<u64, Unreadable> {
        Some(self.u64()).filter(|id| (1..=MAX_ID).contains(id)).ok_or(Unreadable::Invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn definition() -> Definition {
        Definition { coupon: CouponId(7), version: 9, stock: 1000, starts_at: 11, ends_at: 12, closed: false }
    }

    /// The frozen bytes. If this fails, every log written so far has become unreadable.
    #[test]
    fn the_bytes_are_frozen() {
        let claim = Record::Claim { coupon: CouponId(0x0102_0304_0506), user: UserId(0x1A_2B3C_4D5E) };
        assert_eq!(hex::encode(claim.encode()), "464302010010bab0fb3100000102030405060000001a2b3c4d5e");
        assert_eq!(
            hex::encode(Record::Definition(definition()).encode()),
            "464301010025b5cf339c00000000000000070000000000000009000003e8000000000000000b000000000000000c00"
        );
        assert_eq!(
            hex::encode(Record::Retire { coupon: CouponId(7) }.encode()),
            "46430301000833ab0d7f0000000000000007"
        );
        assert_eq!(hex::encode(Record::Noop.encode()), "4643040100009156c902");
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        for record in
            [Record::Definition(definition()), Record::Claim { coupon: CouponId(1), user: UserId(2) }]
        {
            let bytes = record.encode();
            for bit in 0..bytes.len() * 8 {
                let mut broken = bytes.clone();
                broken[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Record::decode(&broken), Err(Unreadable::Malformed), "bit {bit}");
            }
        }
    }

    fn envelope(kind: u8, version: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![b'F', b'C', kind, version];
        out.extend_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(payload);
        let crc = checksum(&out);
        out[6..10].copy_from_slice(&crc.to_be_bytes());
        out
    }

    #[test]
    fn a_sound_envelope_around_nonsense_is_invalid_and_a_newer_one_is_unknown() {
        assert_eq!(Record::decode(&envelope(CLAIM, 1, &[1; 15])), Err(Unreadable::Invalid));
        assert_eq!(Record::decode(&envelope(CLAIM, 1, &[0; 16])), Err(Unreadable::Invalid), "ids start at 1");
        assert_eq!(
            Record::decode(&envelope(CLAIM, 1, &[0xFF; 16])),
            Err(Unreadable::Invalid),
            "ids end below 2^53"
        );
        let most = Record::Definition(Definition { stock: MAX_STOCK, ..definition() });
        assert_eq!(Record::decode(&most.encode()), Ok(most));
        let too_much = Definition { stock: MAX_STOCK + 1, ..definition() };
        assert_eq!(Record::decode(&Record::Definition(too_much).encode()), Err(Unreadable::Invalid));
        assert_eq!(Record::decode(&envelope(9, 1, &[])), Err(Unreadable::Unknown { kind: 9, version: 1 }));
        assert_eq!(Record::decode(&envelope(NOOP, 2, &[])), Err(Unreadable::Unknown { kind: 4, version: 2 }));
        assert_eq!(Record::decode(b""), Err(Unreadable::Malformed));
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_read_back(coupon in 1..=MAX_ID, user in 1..=MAX_ID, version in 1..=MAX_ID,
            stock in 0..=MAX_STOCK, starts_at: u64, ends_at: u64, closed: bool)
        {
            let (coupon, user) = (CouponId(coupon), UserId(user));
            let definition = Definition { coupon, version, stock, starts_at, ends_at, closed };
            for record in [Record::Definition(definition), Record::Claim { coupon, user }, Record::Retire { coupon }, Record::Noop] {
                prop_assert_eq!(Record::decode(&record.encode()), Ok(record));
            }
        }

        #[test]
        fn arbitrary_bytes_are_malformed(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(Record::decode(&bytes), Err(Unreadable::Malformed));
        }

        /// A record has one encoding: whatever is read as one is written the same.
        #[test]
        fn what_a_sound_envelope_holds_is_read_exactly_or_not_at_all(kind in 0..6_u8, version in 1..3_u8,
            payload in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..40),
                proptest::collection::vec(prop_oneof![Just(0_u8), Just(1)], 16),
                proptest::collection::vec(prop_oneof![Just(0_u8), Just(1)], 37),
            ])
        {
            let bytes = envelope(kind, version, &payload);
            match Record::decode(&bytes) {
                Ok(record) => prop_assert_eq!(record.encode(), bytes),
                Err(Unreadable::Unknown { kind: k, version: v }) => {
                    prop_assert_eq!((k, v), (kind, version));
                    prop_assert!(version != 1 || !(1..=4).contains(&kind));
                }
                Err(unreadable) => prop_assert_eq!(unreadable, Unreadable::Invalid),
            }
        }
    }
}
