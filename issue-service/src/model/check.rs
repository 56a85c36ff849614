//! What must hold after every history. The log is read once more, by rules written down a second time.

use std::collections::{BTreeMap, BTreeSet};

use super::plan::Event;
use super::world::{Answer, Said, World};
use crate::claim::{Outcome, Status};
use crate::ids::{CouponId, UserId, partition_of};
use crate::ledger::{Definition, Record, Winner};

/// How far a broker's clock may be behind after a change of leader.
const CLOCK_BACK: u64 = 300;

/// A coupon as it was from a place of the log on.
#[derive(Debug, Clone, Copy)]
struct State {
    from: u64,
    definition: Definition,
    count: u32,
    retired: bool,
}

#[derive(Debug, Default)]
struct Told {
    states: Vec<State>,
    /// Offset, and what they won.
    winners: BTreeMap<UserId, (u64, Winner)>,
}

#[derive(Debug, Default)]
struct Log(BTreeMap<CouponId, Told>);

impl Log {
    fn read(world: &World) -> Self {
        let mut log = Self::default();
        for partition in 0..world.broker.partitions() {
            for (offset, stored) in (0..).zip(world.broker.all(partition)) {
                match Record::decode(&stored.value) {
                    Ok(Record::Definition(definition)) => log.define(offset, definition),
                    Ok(Record::Claim { coupon, user }) => log.claim(offset, stored.at, coupon, user),
                    Ok(Record::Retire { coupon }) => log.retire(offset, stored.at, coupon),
                    _ => {}
                }
            }
        }
        log
    }

    fn define(&mut self, offset: u64, mut definition: Definition) {
        let told = self.0.entry(definition.coupon).or_default();
        let count = told.states.last().map_or(0, |state| state.count);
        let newer = |state: &State| !state.retired && state.definition.version < definition.version;
        if told.states.last().is_none_or(newer) {
            definition.stock = definition.stock.max(count);
            told.states.push(State { from: offset + 1, definition, count, retired: false });
        }
    }

    fn retire(&mut self, offset: u64, at: u64, coupon: CouponId) {
        let Some(told) = self.0.get_mut(&coupon) else { return };
        if let Some(state) = told.states.last().copied()
            && at >= state.definition.ends_at
        {
            told.states.push(State { from: offset + 1, retired: true, ..state });
        }
    }

    fn claim(&mut self, offset: u64, at: u64, coupon: CouponId, user: UserId) {
        let Some(told) = self.0.get_mut(&coupon) else { return };
        let Some(State { definition, count, retired, .. }) = told.states.last().copied() else { return };
        let open = !retired && !definition.closed && (definition.starts_at..definition.ends_at).contains(&at);
        if open && count < definition.stock && !told.winners.contains_key(&user) {
            let count = count + 1;
            told.winners.insert(user, (offset, Winner { place: count, issued_at: at }));
            told.states.push(State { from: offset + 1, definition, count, retired });
        }
    }
}

impl Told {
    /// Whether something held at a place of the log between these two.
    fn ever(&self, from: u64, to: u64, holds: impl Fn(&State) -> bool) -> bool {
        let ends = self.states.iter().skip(1).map(|state| state.from).chain([u64::MAX]);
        self.states.iter().zip(ends).any(|(state, end)| state.from <= to && end > from && holds(state))
    }
}

/// The first thing that does not hold.
pub(super) fn check(world: &World) -> Result<(), String> {
    if let Some(alarm) = world.alarms.lock().unwrap().first() {
        return Err(format!("alarm: {alarm}"));
    }
    let log = Log::read(world);
    let nothing = Told::default();
    for said in world.said.lock().unwrap().iter() {
        let told = log.0.get(&said.coupon).unwrap_or(&nothing);
        answer(world, told, said).map_err(|why| format!("{why}: {said:?}"))?;
    }
    definitions(world, &log)?;
    rows(world, &log)?;
    letters(world)?;
    servers(world, &log)
}

fn answer(world: &World, told: &Told, said: &Said) -> Result<(), &'static str> {
    let won = told.winners.get(&said.person.id);
    let back = world.plan.events.iter().any(|(_, event)| matches!(event, Event::BrokerClockBack { .. }));
    let (from, to) = (said.sent_end, said.answered_end);
    let slack = world.plan.skew + if back { CLOCK_BACK } else { 0 };
    match said.answer {
        Answer::Claim(Outcome::Issued(winner) | Outcome::Already(winner))
        | Answer::Status(Status::Issued(winner)) => match won {
            None => return Err("I1: told ISSUED, and has not won"),
            // A promise that was made too early has no place yet.
            Some((_, real)) if winner.place != 0 && *real != winner => return Err("I7: another receipt"),
            Some((_, real)) if real.issued_at + CLOCK_BACK < said.person.born => {
                return Err("I1: told of a win that is older than the person");
            }
            Some(_) => {}
        },
        Answer::Claim(Outcome::Unavailable | Outcome::Overloaded) if said.in_flight => {
            return Err("told that nothing is in flight, and its claim is");
        }
        Answer::Claim(Outcome::Pending | Outcome::Unavailable | Outcome::Overloaded)
        | Answer::Status(Status::Pending | Status::Unavailable) => {}
        _ if won.is_some_and(|(offset, _)| *offset < said.sent_end) => {
            return Err("I7: a winner was refused");
        }
        Answer::Claim(Outcome::SoldOut) => {
            if !told.ever(from, to, |state| state.count >= state.definition.stock) {
                return Err("I7: told SOLD_OUT while there was stock");
            }
        }
        Answer::Claim(Outcome::NotStarted) => {
            if !told.ever(from, to, |state| state.definition.starts_at + slack >= said.sent_at) {
                return Err("I7: told NOT_STARTED after the start");
            }
        }
        Answer::Claim(Outcome::Ended) => {
            let over = |state: &State| {
                state.retired
                    || state.definition.closed
                    || state.definition.ends_at <= said.answered_at + slack
            };
            if !told.ever(from, to, over) {
                return Err("I7: told ENDED before the end");
            }
        }
        Answer::Claim(Outcome::NotFound) => {
            if told.states.first().is_some_and(|state| state.from <= from) {
                return Err("I7: told NOT_FOUND of a coupon that the log has");
            }
        }
        Answer::Status(Status::None) => {}
    }
    Ok(())
}

/// Only what the coupon service said is in force, and nobody won above it.
fn definitions(world: &World, log: &Log) -> Result<(), String> {
    for (coupon, told) in &log.0 {
        let given = world.definitions_ever(*coupon);
        let most = given.iter().map(|definition| definition.stock).max().unwrap_or(0);
        if told.winners.len() > most as usize {
            return Err(format!(
                "I2: {} won coupon {coupon}, of which there were {most}",
                told.winners.len()
            ));
        }
        for state in &told.states {
            let known = given.iter().any(|it| it.version == state.definition.version);
            if !known {
                return Err(format!("I2: in force, but nobody defined it: {:?}", state.definition));
            }
        }
    }
    Ok(())
}

/// The database holds what the log says.
fn rows(world: &World, log: &Log) -> Result<(), String> {
    let tables = world.database.read();
    let mut rows = tables.issues.clone();
    for (coupon, told) in &log.0 {
        for (user, (offset, winner)) in &told.winners {
            let row = rows.remove(&(*coupon, *user));
            let as_log = |row: &crate::store::IssueRow| {
                (row.place, row.issued_at, row.offset) == (winner.place, winner.issued_at, *offset)
            };
            if !row.as_ref().is_some_and(as_log) {
                return Err(format!("I1: user {user} won coupon {coupon} at {offset}, the row is {row:?}"));
            }
        }
        let (count, definition) = told.states.last().map(|it| (it.count, it.definition)).unzip();
        let stored = tables.coupons.get(coupon).map(|(_, row)| row);
        if (stored.map(|row| row.count), stored.map(|row| row.definition)) != (count, definition) {
            return Err(format!(
                "I5: coupon {coupon} is {stored:?} in the database, {count:?} of {definition:?} in the log"
            ));
        }
    }
    match rows.values().next() {
        Some(row) => Err(format!("I8: a row that the log does not have: {row:?}")),
        None => Ok(()),
    }
}

/// What can't be read was set aside, and nothing else.
fn letters(world: &World) -> Result<(), String> {
    let unreadable = (0..world.broker.partitions()).flat_map(|partition| {
        let records = (0..).zip(world.broker.all(partition));
        let bad = records.filter(|(_, stored)| Record::decode(&stored.value).is_err());
        bad.map(|(offset, _)| (partition, offset)).collect::<Vec<_>>()
    });
    let (unreadable, letters) = (unreadable.collect::<BTreeSet<_>>(), world.letters.lock().unwrap());
    match unreadable.symmetric_difference(&letters).next() {
        Some((partition, offset)) if letters.contains(&(*partition, *offset)) => {
            Err(format!("I6: the record at {partition}/{offset} was set aside, and can be read"))
        }
        Some((partition, offset)) => Err(format!("I6: the record at {partition}/{offset} was not set aside")),
        None => Ok(()),
    }
}

/// Every server holds the same ledger as the database.
fn servers(world: &World, log: &Log) -> Result<(), String> {
    let tables = world.database.read();
    for server in world.servers.lock().unwrap().iter().filter_map(|server| server.claims.as_ref()) {
        for partition in server.partitions.iter() {
            let stored = tables.watermarks.get(&partition.id()).copied().unwrap_or_default();
            if partition.with(|ledger| ledger.digest()) != stored.digest {
                return Err(format!("I8: the digests of partition {} differ", partition.id()));
            }
        }
        for (coupon, told) in &log.0 {
            let partition = &server.partitions[partition_of(*coupon, world.plan.partitions) as usize];
            let count = partition.definition(*coupon).map_or(0, |(_, count, _)| count);
            if count as usize != told.winners.len() {
                return Err(format!("I5: a server counts {count}, the log {}", told.winners.len()));
            }
        }
    }
    Ok(())
}
