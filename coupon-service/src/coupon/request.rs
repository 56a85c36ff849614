//! What an administrator may ask for. Invariant: a [`Draft`] and a [`Change`] that exist obey every rule that can be
//! checked without the coupon itself; [`Change::apply`] checks the rest.

use super::{CouponId, Definition};

/// Longest name, in characters. The column's width.
pub const MAX_NAME: usize = 200;
/// Largest quantity. The winners of a coupon are held in the memory of every issuing process.
pub const MAX_QUANTITY: u32 = 10_000_000;
/// Ids are JSON numbers that every client reads exactly: below 2^53.
pub const MAX_ID: u64 = (1 << 53) - 1;
/// 9999-12-31T23:59:59.999Z, the last moment that RFC 3339 and a DATETIME can name in UTC.
const MAX_TIME: u64 = 253_402_300_799_999;

/// A rule that a request breaks, in the terms of its fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    NameBlank,
    /// With the length that was given, in characters.
    NameTooLong(usize),
    /// With what was given.
    Quantity(i64),
    EventId(i64),
    /// With the field and what was given.
    Time(&'static str, String),
    /// The window would begin at its end or later; with the field that is to blame.
    Window(&'static str),
    /// A change that names no field that can be changed.
    NothingToChange,
}

/// A coupon to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    pub name: String,
    pub quantity: u32,
    pub starts_at: u64,
    pub ends_at: u64,
    pub event_id: Option<u64>,
}

/// What was asked to be made, as it came in.
#[derive(Debug, Clone)]
pub struct DraftInput<'a> {
    pub name: &'a str,
    pub quantity: i64,
    pub starts_at: &'a str,
    pub ends_at: &'a str,
    pub event_id: Option<i64>,
}

impl Draft {
    /// All violations at once, in the order of the fields.
    pub fn parse(input: &DraftInput<'_>) -> Result<Self, Vec<Violation>> {
        let mut violations = Vec::new();
        let length = input.name.chars().count();
        if input.name.trim().is_empty() {
            violations.push(Violation::NameBlank);
        } else if length > MAX_NAME {
            violations.push(Violation::NameTooLong(length));
        }
        let quantity = keep(quantity(input.quantity), &mut violations);
        let starts_at = keep(time("startsAt", input.starts_at), &mut violations);
        let ends_at = keep(time("endsAt", input.ends_at), &mut violations);
        if let (Some(starts_at), Some(ends_at)) = (starts_at, ends_at)
            && starts_at >= ends_at
        {
            violations.push(Violation::Window("endsAt"));
        }
        let event_id = keep(input.event_id.map(event_id).transpose(), &mut violations);
        match (quantity, starts_at, ends_at, event_id) {
            (Some(quantity), Some(starts_at), Some(ends_at), Some(event_id)) if violations.is_empty() => {
                Ok(Self { name: input.name.to_owned(), quantity, starts_at, ends_at, event_id })
            }
            _ => Err(violations),
        }
    }

    #[must_use]
    pub fn definition(&self, coupon_id: CouponId, version: u64) -> Definition {
        let Self { quantity, starts_at, ends_at, .. } = *self;
        Definition { coupon_id, version, quantity, starts_at, ends_at, closed: false }
    }
}

/// A change of an existing coupon: what is absent stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Change {
    pub quantity: Option<u32>,
    pub starts_at: Option<u64>,
    pub ends_at: Option<u64>,
    pub closed: Option<bool>,
}

impl Change {
    pub fn parse(
        quantity_input: Option<i64>,
        starts_at: Option<&str>,
        ends_at: Option<&str>,
        closed: Option<bool>,
    ) -> Result<Self, Vec<Violation>> {
        let mut violations = Vec::new();
        let change = Self {
            quantity: quantity_input.and_then(|given| keep(quantity(given), &mut violations)),
            starts_at: starts_at.and_then(|text| keep(time("startsAt", text), &mut violations)),
            ends_at: ends_at.and_then(|text| keep(time("endsAt", text), &mut violations)),
            closed,
        };
        if violations.is_empty() && change == Self::default() {
            violations.push(Violation::NothingToChange);
        }
        if violations.is_empty() { Ok(change) } else { Err(violations) }
    }

    /// The definition after this change, still with the version before it.
    pub fn apply(&self, before: &Definition) -> Result<Definition, Violation> {
        let after = Definition {
            quantity: self.quantity.unwrap_or(before.quantity),
            starts_at: self.starts_at.unwrap_or(before.starts_at),
            ends_at: self.ends_at.unwrap_or(before.ends_at),
            closed: self.closed.unwrap_or(before.closed),
            ..*before
        };
        if after.starts_at < after.ends_at {
            Ok(after)
        } else {
            // Blame the field that was sent: the other one is the coupon's own.
            Err(Violation::Window(if self.ends_at.is_some() { "endsAt" } else { "startsAt" }))
        }
    }
}

fn keep<T>(result: Result<T, Violation>, violations: &mut Vec<Violation>) -> Option<T> {
    result.map_err(|violation| violations.push(violation)).ok()
}

fn quantity(given: i64) -> Result<u32, Violation> {
    u32::try_from(given)
        .ok()
        .filter(|quantity| (1..=MAX_QUANTITY).contains(quantity))
        .ok_or(Violation::Quantity(given))
}

fn event_id(given: i64) -> Result<u64, Violation> {
    u64::try_from(given).ok().filter(|id| (1..=MAX_ID).contains(id)).ok_or(Violation::EventId(given))
}

fn time(field: &'static str, text: &str) -> Result<u64, Violation> {
    platform::clock::parse_rfc3339(text)
        .filter(|ms| *ms <= MAX_TIME)
        .ok_or_else(|| Violation::Time(field, text.to_owned()))
}
