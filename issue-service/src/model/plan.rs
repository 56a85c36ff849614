//! What happens in a history, drawn from its seed before it begins, so that it can be told again with less.

use super::dice::Dice;
use super::redis::Mood;

/// Nothing new happens after this moment, in milliseconds.
pub(super) const LAST_EVENT: u64 = 4_000;

#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) partitions: u32,
    pub(super) servers: usize,
    pub(super) consumers: usize,
    pub(super) mood: Mood,
    /// In percent, what becomes of an append.
    pub(super) fates: Fates,
    /// How far instances' clocks are off, at most.
    pub(super) skew: u64,
    /// How far followers are behind, usually.
    pub(super) lag: u64,
    /// In order of time.
    pub(super) events: Vec<(u64, Event)>,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fates {
    pub(super) answer_lost: u64,
    pub(super) lost: u64,
    pub(super) doubled: u64,
    pub(super) late: u64,
    pub(super) refused: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
    Create {
        coupon: usize,
        stock: u32,
        starts_in: u64,
        lasts: u64,
    },
    Change {
        coupon: usize,
        to: Change,
    },
    SignUp {
        person: usize,
    },
    Claim {
        person: usize,
        coupon: usize,
        server: usize,
    },
    Ask {
        person: usize,
        coupon: usize,
        server: usize,
    },
    Freeze {
        process: Process,
        ms: u64,
    },
    Kill {
        process: Process,
        ms: u64,
    },
    /// A consumer gets a partition; whoever had it may not know yet.
    Assign {
        partition: u32,
        consumer: usize,
        told_after: u64,
    },
    BrokerAway {
        ms: u64,
    },
    BrokerClockBack {
        ms: u64,
    },
    Garbage {
        partition: u32,
    },
    /// Somebody writes a retirement, early or late.
    Retire {
        coupon: usize,
    },
    DatabaseAway {
        ms: u64,
    },
    DatabaseBack,
    CouponsAway {
        ms: u64,
    },
    RedisWiped,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Change {
    Stock(u32),
    Close,
    Open,
    /// Begins now or later, ends this much later.
    Window {
        starts_in: u64,
        lasts: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Process {
    Server(usize),
    Consumer(usize),
}

/// Longer than any history.
const FOR_EVER: u64 = 3_600_000;

impl Plan {
    pub(super) fn draw(seed: u64) -> Self {
        let dice = Dice::new(seed ^ 0x5eed_0000_0000_0000);
        let (servers, consumers) = (2 + dice.index(2), 2);
        let partitions = 1 + u32::try_from(dice.below(2)).unwrap_or(0);
        let coupons = 1 + dice.index(2);
        let persons = 3 + dice.index(6);
        let mood = *dice.pick(&[Mood::Honest, Mood::Forgetful, Mood::Liar, Mood::Liar, Mood::Gone]);
        // Some histories go smoothly but for one thing.
        let rough = |most: u64| if dice.percent(60) { 0 } else { dice.below(most + 1) };
        let fates = Fates {
            answer_lost: rough(20),
            lost: rough(15),
            doubled: rough(20),
            late: rough(25),
            refused: rough(10),
        };
        // A window opens under a crowd, whose servers do not agree on the time and are behind.
        let opening = dice.percent(20);
        let skew = if !opening && dice.percent(70) { 0 } else { dice.below(200) };
        let lag = if !opening && dice.percent(50) { 2 } else { dice.below(120) };
        let when = || dice.below(LAST_EVENT);
        let mut events = Vec::new();
        for coupon in 0..coupons {
            let at = if dice.percent(70) { 0 } else { dice.below(1_500) };
            let starts_in = if dice.percent(80) { 0 } else { dice.below(1_500) };
            let lasts = if dice.percent(80) { FOR_EVER } else { 500 + dice.below(2_500) };
            let stock = u32::try_from(1 + dice.below(4)).unwrap_or(1);
            events.push((at, Event::Create { coupon, stock, starts_in, lasts }));
        }
        for coupon in 0..coupons {
            for _ in 0..dice.below(4).saturating_sub(1) {
                events.push((1_000 + dice.below(LAST_EVENT - 1_000), Event::Retire { coupon }));
            }
        }
        for person in 0..persons {
            let born = if dice.percent(70) { 0 } else { dice.below(2_500) };
            events.push((born, Event::SignUp { person }));
            // Crowds come together, and some click twice.
            let crowd = 100 + dice.below(8) * 400;
            for _ in 0..1 + dice.below(3) {
                let at = if dice.percent(70) { crowd + dice.below(60) } else { when() };
                let coupon = if dice.percent(4) { coupons } else { dice.index(coupons) };
                let server = dice.index(servers);
                let event = match dice.below(6) {
                    0 => Event::Ask { person, coupon, server },
                    _ => Event::Claim { person, coupon, server },
                };
                events.push((at.max(born), event));
                if dice.percent(25) {
                    let server = dice.index(servers);
                    let gap = if dice.percent(50) { 4 } else { 150 };
                    events.push((at.max(born) + dice.below(gap), Event::Claim { person, coupon, server }));
                }
            }
        }
        if opening {
            let (at, coupon, starts_in) = (400 + dice.below(2_000), dice.index(coupons), dice.below(300));
            events.push((at, Event::Change { coupon, to: Change::Window { starts_in, lasts: FOR_EVER } }));
            for person in 0..persons {
                let server = dice.index(servers);
                for _ in 0..2 + dice.below(4) {
                    let at = (at + starts_in).saturating_sub(100) + dice.below(400);
                    events.push((at, Event::Claim { person, coupon, server }));
                }
            }
        }
        // A server stands still under a crowd, the definition changes meanwhile, and the crowd comes again.
        if dice.percent(15) {
            let (at, coupon, server) = (500 + dice.below(2_000), dice.index(coupons), dice.index(servers));
            for person in 0..persons {
                events.push((at + dice.below(10), Event::Claim { person, coupon, server }));
                events.push((at + 100 + dice.below(500), Event::Claim { person, coupon, server }));
            }
            let process = Process::Server(server);
            events.push((at + 3 + dice.below(15), Event::Freeze { process, ms: 300 + dice.below(1_000) }));
            let stock = u32::try_from(1 + dice.below(8)).unwrap_or(0);
            events.push((at + 20 + dice.below(300), Event::Change { coupon, to: Change::Stock(stock) }));
        }
        for _ in 0..dice.below(4) {
            let to = match dice.below(6) {
                0 => Change::Close,
                1 => Change::Open,
                2 => Change::Window { starts_in: dice.below(800), lasts: 300 + dice.below(3_000) },
                3 => Change::Window { starts_in: 0, lasts: FOR_EVER },
                _ => Change::Stock(u32::try_from(dice.below(7)).unwrap_or(0)),
            };
            let at = if dice.percent(50) { when() } else { 100 + dice.below(8) * 400 + dice.below(150) };
            events.push((at, Event::Change { coupon: dice.index(coupons), to }));
        }
        for _ in 0..dice.below(6) {
            let process = match dice.below(2) {
                0 => Process::Server(dice.index(servers)),
                _ => Process::Consumer(dice.index(consumers)),
            };
            let event = match dice.below(12) {
                0 | 1 => Event::Freeze { process, ms: dice.below(3_000) },
                2 | 3 => Event::Kill { process, ms: dice.below(1_500) },
                4 => Event::BrokerAway { ms: dice.below(2_500) },
                5 => Event::BrokerClockBack { ms: dice.below(300) },
                6 => Event::Garbage {
                    partition: u32::try_from(dice.below(u64::from(partitions))).unwrap_or(0),
                },
                7 => Event::DatabaseAway { ms: dice.below(2_000) },
                8 | 9 => Event::DatabaseBack,
                10 => Event::CouponsAway { ms: dice.below(3_000) },
                _ => Event::RedisWiped,
            };
            events.push((when(), event));
        }
        for partition in 0..partitions {
            events.push((0, Event::Assign { partition, consumer: dice.index(consumers), told_after: 0 }));
            for _ in 0..dice.below(3) {
                let consumer = dice.index(consumers);
                events.push((when(), Event::Assign { partition, consumer, told_after: dice.below(1_500) }));
            }
        }
        // Now and then the database goes back when everything else is over.
        if dice.percent(15) {
            events.push((LAST_EVENT + 1_500, Event::DatabaseBack));
        }
        events.sort_by_key(|(at, _)| *at);
        Self { seed, partitions, servers, consumers, mood, fates, skew, lag, events }
    }

    /// The plan with as few of its events as show the same, by leaving out ever smaller parts.
    pub(super) fn shrink(mut self, still_fails: impl Fn(&Self) -> bool) -> Self {
        let mut part = self.events.len().div_ceil(2);
        while part > 0 {
            let mut at = 0;
            while at < self.events.len() {
                let mut less = self.clone();
                less.events.drain(at..(at + part).min(self.events.len()));
                if still_fails(&less) {
                    self = less;
                } else {
                    at += part;
                }
            }
            part /= 2;
        }
        self
    }
}
