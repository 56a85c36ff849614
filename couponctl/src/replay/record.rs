//! A record of the log as its bytes say, read here a second time on purpose: a checker that shared the services'
//! code would share their errors.
//!
//! ```text
//! "FC" | kind (1) | version (1) | length of the payload (2) | CRC32C of all other bytes (4) | payload
//! kind 1  definition  coupon (8) version (8) stock (4) starts at (8) ends at (8) closed (1)
//! kind 2  claim       coupon (8) user (8)
//! kind 3  retire      coupon (8)
//! kind 4  noop        nothing
//! ```
//!
//! Integers are big-endian, times milliseconds since 1970; every kind has version 1. The envelope alone decides
//! what is malformed.

use serde::Serialize;

use crate::ids::LIMIT;

const ENVELOPE: usize = 10;
const MAX_STOCK: u64 = 10_000_000;

/// What a coupon gives, and when, as of one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Definition {
    pub(crate) version: u64,
    pub(crate) stock: u64,
    /// First millisecond of the window, and first after it.
    pub(crate) starts_at: u64,
    pub(crate) ends_at: u64,
    pub(crate) closed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Record {
    Definition { coupon: u64, definition: Definition },
    Claim { coupon: u64, user: u64 },
    Retire { coupon: u64 },
    Noop,
}

/// Why a value is no record, in words that end a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreadable {
    Malformed(&'static str),
    Invalid(&'static str),
    /// Written by something newer than this tool.
    Unknown {
        kind: u8,
        version: u8,
    },
}

impl Record {
    pub(crate) fn coupon(&self) -> Option<u64> {
        match *self {
            Self::Definition { coupon, .. } | Self::Claim { coupon, .. } | Self::Retire { coupon } => {
                Some(coupon)
            }
            Self::Noop => None,
        }
    }

    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Definition { .. } => "definition",
            Self::Claim { .. } => "claim",
            Self::Retire { .. } => "retire",
            Self::Noop => "noop",
        }
    }
}

pub(crate) fn decode(value: &[u8]) -> Result<Record, Unreadable> {
    let Some((envelope, payload)) = value.split_at_checked(ENVELOPE) else {
        return Err(Unreadable::Malformed("it is shorter than an envelope"));
    };
    if envelope[..2] != *b"FC" {
        return Err(Unreadable::Malformed("it does not begin with \"FC\""));
    }
    if number(&envelope[4..6]) != payload.len() as u64 {
        return Err(Unreadable::Malformed("its length is not the one that it names"));
    }
    if number(&envelope[6..]) != u64::from(crc32c::crc32c_append(crc32c::crc32c(&envelope[..6]), payload)) {
        return Err(Unreadable::Malformed("its checksum is wrong"));
    }
    match (envelope[2], envelope[3]) {
        (1, 1) => definition(payload),
        (2, 1) => {
            let [coupon, user] = ids(payload)?;
            Ok(Record::Claim { coupon, user })
        }
        (3, 1) => ids(payload).map(|[coupon]| Record::Retire { coupon }),
        (4, 1) => ids(payload).map(|[]| Record::Noop),
        (kind, version) => Err(Unreadable::Unknown { kind, version }),
    }
}

fn definition(payload: &[u8]) -> Result<Record, Unreadable> {
    let (Some((head, rest)), 37) = (payload.split_at_checked(16), payload.len()) else {
        return Err(WRONG_LENGTH);
    };
    let [coupon, version] = ids(head)?;
    let stock = number(&rest[..4]);
    if stock > MAX_STOCK {
        return Err(Unreadable::Invalid("its stock is above 10,000,000"));
    }
    let (starts_at, ends_at) = (number(&rest[4..12]), number(&rest[12..20]));
    let definition = Definition { version, stock, starts_at, ends_at, closed: rest[20] != 0 };
    Ok(Record::Definition { coupon, definition })
}

const WRONG_LENGTH: Unreadable = Unreadable::Invalid("its payload has another length than its kind");

/// So many ids, and nothing else.
fn ids<const N: usize>(bytes: &[u8]) -> Result<[u64; N], Unreadable> {
    if bytes.len() != N * 8 {
        return Err(WRONG_LENGTH);
    }
    let mut ids = [0; N];
    for (id, bytes) in ids.iter_mut().zip(bytes.chunks(8)) {
        *id = number(bytes);
        if *id == 0 || *id >= LIMIT {
            return Err(Unreadable::Invalid("an id is 0, or 2^53 or above"));
        }
    }
    Ok(ids)
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A sound envelope around anything.
    pub(crate) fn envelope(kind: u8, version: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
        let covered = [&[b'F', b'C', kind, version], length.as_slice(), payload].concat();
        let checksum = crc32c::crc32c(&covered).to_be_bytes();
        [&covered[..6], checksum.as_slice(), payload].concat()
    }

    pub(crate) fn encode(record: &Record) -> Vec<u8> {
        let words = |words: &[u64]| -> Vec<u8> { words.iter().flat_map(|word| word.to_be_bytes()).collect() };
        match *record {
            Record::Definition { coupon, definition } => {
                let Definition { version, stock, starts_at, ends_at, closed } = definition;
                let stock = u32::try_from(stock).unwrap().to_be_bytes();
                let head = words(&[coupon, version]);
                let window = words(&[starts_at, ends_at]);
                envelope(1, 1, &[&head, stock.as_slice(), &window, &[u8::from(closed)]].concat())
            }
            Record::Claim { coupon, user } => envelope(2, 1, &words(&[coupon, user])),
            Record::Retire { coupon } => envelope(3, 1, &words(&[coupon])),
            Record::Noop => envelope(4, 1, &[]),
        }
    }

    fn any_record() -> impl Strategy<Value = Record> {
        let id = || 1..LIMIT;
        let definition = (id(), id(), 0..=MAX_STOCK, any::<u64>(), any::<u64>(), any::<bool>()).prop_map(
            |(coupon, version, stock, starts_at, ends_at, closed)| Record::Definition {
                coupon,
                definition: Definition { version, stock, starts_at, ends_at, closed },
            },
        );
        prop_oneof![
            definition,
            (id(), id()).prop_map(|(coupon, user)| Record::Claim { coupon, user }),
            id().prop_map(|coupon| Record::Retire { coupon }),
            Just(Record::Noop),
        ]
    }

    /// The bytes that the services froze: a log that holds them is read as they mean it.
    #[test]
    fn the_frozen_bytes_are_read() {
        let read = |text: &str| decode(&hex::decode(text).unwrap());
        assert_eq!(
            read("464302010010bab0fb3100000102030405060000001a2b3c4d5e"),
            Ok(Record::Claim { coupon: 0x0102_0304_0506, user: 0x1A_2B3C_4D5E })
        );
        let definition = Definition { version: 9, stock: 1000, starts_at: 11, ends_at: 12, closed: false };
        assert_eq!(
            read(
                "464301010025b5cf339c00000000000000070000000000000009000003e8000000000000000b000000000000000c00"
            ),
            Ok(Record::Definition { coupon: 7, definition })
        );
        assert_eq!(read("46430301000833ab0d7f0000000000000007"), Ok(Record::Retire { coupon: 7 }));
        assert_eq!(read("4643040100009156c902"), Ok(Record::Noop));
    }

    #[test]
    fn what_cannot_be_is_told_apart() {
        let claim = |payload: &[u8]| decode(&envelope(2, 1, payload));
        assert_eq!(claim(&[1; 15]), Err(WRONG_LENGTH));
        for id in [0, LIMIT, u64::MAX] {
            let payload = [id.to_be_bytes(), 1_u64.to_be_bytes()].concat();
            assert!(matches!(claim(&payload), Err(Unreadable::Invalid(_))), "{id}");
        }
        let mut stock = encode(&Record::Definition {
            coupon: 1,
            definition: Definition {
                version: 1,
                stock: MAX_STOCK,
                starts_at: 0,
                ends_at: u64::MAX,
                closed: true,
            },
        });
        assert!(decode(&stock).is_ok());
        stock.drain(..ENVELOPE);
        stock[16..20].copy_from_slice(&10_000_001_u32.to_be_bytes());
        assert!(matches!(decode(&envelope(1, 1, &stock)), Err(Unreadable::Invalid(_))));
        assert_eq!(decode(&envelope(9, 1, &[])), Err(Unreadable::Unknown { kind: 9, version: 1 }));
        assert_eq!(decode(&envelope(4, 2, &[])), Err(Unreadable::Unknown { kind: 4, version: 2 }));
        assert_eq!(decode(&envelope(4, 1, &[0])), Err(WRONG_LENGTH));
        assert!(matches!(decode(b""), Err(Unreadable::Malformed(_))));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_and_no_flipped_bit_goes_unseen(record in any_record(), bit: prop::sample::Index) {
            let mut bytes = encode(&record);
            prop_assert_eq!(decode(&bytes), Ok(record));
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(matches!(decode(&bytes), Err(Unreadable::Malformed(_))));
        }

        #[test]
        fn anything_else_is_malformed(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(matches!(decode(&bytes), Err(Unreadable::Malformed(_))));
        }

        /// Inside a sound envelope nothing is malformed, and what is read has exactly these bytes.
        #[test]
        fn a_sound_envelope_is_read_exactly_or_not_at_all(kind in 0..6_u8, version in 0..3_u8,
            payload in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..40),
                proptest::collection::vec(0..2_u8, 8),
                proptest::collection::vec(0..2_u8, 16),
                proptest::collection::vec(0..2_u8, 37),
            ])
        {
            let bytes = envelope(kind, version, &payload);
            match decode(&bytes) {
                Ok(record) => prop_assert_eq!(encode(&record), bytes),
                Err(Unreadable::Unknown { .. }) => prop_assert!(version != 1 || !(1..=4).contains(&kind)),
                Err(unreadable) => prop_assert!(matches!(unreadable, Unreadable::Invalid(_))),
            }
        }
    }
}
