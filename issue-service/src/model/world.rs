//! Everything that is not one process: the servers, the processes and what befalls them, and what clients were told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::broker::Broker;
use super::database::Database;
use super::dice::Dice;
use super::gate::Gate;
use super::ms;
use super::plan::{Change, Event, Plan, Process};
use super::redis::Redis;
use super::server::{self, SENT, Seen};
use crate::claim::{Claims, Outcome, Status};
use crate::control::{Guard, without};
use crate::ids::{CouponId, UserId, partition_of};
use crate::ledger::{Definition, Record};
use crate::outside::Away;

pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) dice: Arc<Dice>,
    pub(super) broker: Broker,
    pub(super) database: Database,
    pub(super) redis: Redis,
    pub(super) announced: broadcast::Sender<Bytes>,
    pub(super) servers: Mutex<Vec<Server>>,
    consumers: Mutex<Vec<Consumer>>,
    /// Which consumer a partition was given to last.
    owners: Mutex<BTreeMap<u32, usize>>,
    coupons_away_until: Mutex<Instant>,
    pub(super) persons: Mutex<BTreeMap<usize, Person>>,
    pub(super) coupons: Mutex<BTreeMap<usize, CouponId>>,
    /// Every definition that the coupon service ever gave, also those that its database has lost.
    ever: Mutex<BTreeMap<CouponId, Vec<Definition>>>,
    pub(super) said: Mutex<Vec<Said>>,
    pub(super) alarms: Mutex<Vec<String>>,
    /// Partition and offset of what was set aside.
    pub(super) letters: Mutex<BTreeSet<(u32, u64)>>,
    /// Faults may happen.
    rough: AtomicBool,
}

#[derive(Default)]
pub(super) struct Server {
    gate: Gate,
    pub(super) claims: Option<Claims<Seen>>,
}

#[derive(Default)]
struct Consumer {
    gate: Gate,
    down: bool,
    writing: BTreeMap<u32, CancellationToken>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Person {
    pub(super) id: UserId,
    /// When they signed up.
    pub(super) born: u64,
}

/// What a client was told, and the ends of the log around it.
#[derive(Debug, Clone)]
pub(super) struct Said {
    pub(super) person: Person,
    pub(super) coupon: CouponId,
    pub(super) sent_at: u64,
    pub(super) sent_end: u64,
    pub(super) answered_at: u64,
    pub(super) answered_end: u64,
    /// A claim that this request had sent was not read back yet, or not even in the log.
    pub(super) in_flight: bool,
    pub(super) answer: Answer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Claim(Outcome),
    Status(Status),
}

impl Answer {
    /// Nothing else will ever be said, unless the definition changes.
    pub(super) fn is_final(self) -> bool {
        !matches!(
            self,
            Self::Claim(Outcome::Pending | Outcome::Unavailable | Outcome::Overloaded) | Self::Status(_)
        )
    }
}

impl World {
    pub(super) fn new(plan: Plan) -> Arc<Self> {
        let dice = Arc::new(Dice::new(plan.seed));
        let world = Self {
            broker: Broker::new(plan.partitions),
            database: Database::new(dice.clone()),
            redis: Redis::new(plan.mood),
            announced: broadcast::Sender::new(64),
            servers: Mutex::new((0..plan.servers).map(|_| Server::default()).collect()),
            consumers: Mutex::new((0..plan.consumers).map(|_| Consumer::default()).collect()),
            owners: Mutex::default(),
            coupons_away_until: Mutex::new(Instant::now()),
            persons: Mutex::default(),
            coupons: Mutex::default(),
            ever: Mutex::default(),
            said: Mutex::default(),
            alarms: Mutex::default(),
            letters: Mutex::default(),
            rough: AtomicBool::new(true),
            dice,
            plan,
        };
        let world = Arc::new(world);
        for number in 0..world.plan.servers {
            world.start_server(number);
        }
        world
    }

    #[expect(clippy::disallowed_methods, reason = "the model's own runtime, where no lifecycle is needed")]
    pub(super) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        tokio::spawn(future)
    }

    pub(super) fn is_rough(&self) -> bool {
        self.rough.load(Ordering::Relaxed)
    }

    pub(super) fn alarm(&self, why: String) {
        self.alarms.lock().unwrap().push(why);
    }

    pub(super) fn definitions_ever(&self, coupon: CouponId) -> Vec<Definition> {
        self.ever.lock().unwrap().get(&coupon).cloned().unwrap_or_default()
    }

    pub(super) fn coupon_service(&self) -> Result<BTreeMap<CouponId, Definition>, Away> {
        if Instant::now() < *self.coupons_away_until.lock().unwrap() {
            return Err(Away);
        }
        Ok(self.database.read().definitions.clone())
    }

    fn start_server(self: &Arc<Self>, number: usize) {
        let gate = Gate::default();
        self.servers.lock().unwrap()[number] = Server { gate: gate.clone(), claims: None };
        gate.spawn(server::serve(self.clone(), gate.clone(), number));
    }

    pub(super) fn happen(self: &Arc<Self>, event: Event) {
        match event {
            Event::Create { coupon, stock, starts_in, lasts } => self.create(coupon, stock, starts_in, lasts),
            Event::Change { coupon, to } => self.change(coupon, to),
            Event::SignUp { person } => self.sign_up(person),
            Event::Claim { person, coupon, server } => self.ask_later(person, coupon, server, false),
            Event::Ask { person, coupon, server } => self.ask_later(person, coupon, server, true),
            Event::Freeze { process, ms: time } => {
                let gate = self.gate(process);
                gate.freeze();
                self.spawn(async move {
                    tokio::time::sleep(ms(time)).await;
                    gate.thaw();
                });
            }
            Event::Kill { process, ms: time } => {
                self.kill(process);
                let world = self.clone();
                self.spawn(async move {
                    tokio::time::sleep(ms(time)).await;
                    world.restart(process);
                });
            }
            Event::Assign { partition, consumer, told_after } => self.assign(partition, consumer, told_after),
            Event::BrokerAway { ms } => self.broker.go_away(ms),
            Event::BrokerClockBack { ms } => self.broker.step_back(ms),
            Event::Garbage { partition } => {
                self.broker.append(partition, b"not a record".to_vec());
            }
            Event::Retire { coupon } => {
                if let Some(coupon) = self.coupons.lock().unwrap().get(&coupon).copied() {
                    let partition = partition_of(coupon, self.plan.partitions);
                    self.broker.append(partition, Record::Retire { coupon }.encode());
                }
            }
            Event::DatabaseAway { ms } => self.database.go_away(ms),
            Event::DatabaseBack => self.database.go_back(),
            Event::CouponsAway { ms: time } => {
                *self.coupons_away_until.lock().unwrap() = Instant::now() + ms(time);
            }
            Event::RedisWiped => self.redis.wipe(),
        }
    }

    fn gate(&self, process: Process) -> Gate {
        match process {
            Process::Server(number) => self.servers.lock().unwrap()[number].gate.clone(),
            Process::Consumer(number) => self.consumers.lock().unwrap()[number].gate.clone(),
        }
    }

    fn kill(&self, process: Process) {
        self.gate(process).kill();
        match process {
            Process::Server(number) => self.servers.lock().unwrap()[number].claims = None,
            Process::Consumer(number) => {
                let consumer = &mut self.consumers.lock().unwrap()[number];
                consumer.down = true;
                consumer.writing.clear();
            }
        }
    }

    fn restart(self: &Arc<Self>, process: Process) {
        if !self.gate(process).is_killed() {
            return; // killed twice, restarted once
        }
        match process {
            Process::Server(number) => self.start_server(number),
            Process::Consumer(number) => {
                self.consumers.lock().unwrap()[number] = Consumer::default();
                let owners = self.owners.lock().unwrap().clone();
                for (partition, _) in owners.into_iter().filter(|(_, owner)| *owner == number) {
                    self.begin(partition, number);
                }
            }
        }
    }

    fn begin(self: &Arc<Self>, partition: u32, consumer: usize) {
        let mut consumers = self.consumers.lock().unwrap();
        let consumer = &mut consumers[consumer];
        if !consumer.down {
            let gate = consumer.gate.clone();
            consumer.writing.insert(partition, super::consumer::write(self, &gate, partition));
        }
    }

    fn assign(self: &Arc<Self>, partition: u32, consumer: usize, told_after: u64) {
        let before = self.owners.lock().unwrap().insert(partition, consumer);
        if before == Some(consumer) {
            return;
        }
        let old = before.and_then(|before| self.consumers.lock().unwrap()[before].writing.remove(&partition));
        if let Some(old) = old {
            self.spawn(async move {
                tokio::time::sleep(ms(told_after)).await;
                old.cancel();
            });
        }
        self.begin(partition, consumer);
    }

    fn draw_id(&self, taken: impl Fn() -> u64) -> u64 {
        if without(Guard::IdsByTime) {
            return taken() + 1;
        }
        // As the id generator does it: milliseconds, then random bits.
        (self.broker.now() - platform::id::EPOCH_MS) << 12 | self.dice.below(1 << 12)
    }

    fn sign_up(&self, person: usize) {
        let id = self.draw_id(|| self.database.read().users.last().copied().unwrap_or(0));
        self.database.change(|tables| tables.users.insert(id));
        let born = self.broker.now();
        self.persons.lock().unwrap().insert(person, Person { id: UserId(id), born });
    }

    fn create(&self, coupon: usize, stock: u32, starts_in: u64, lasts: u64) {
        let id = self.draw_id(|| self.database.read().definitions.keys().last().map_or(0, |id| id.0));
        let (id, now) = (CouponId(id), self.broker.now());
        let (starts_at, ends_at) = (now + starts_in, now + starts_in + lasts);
        self.coupons.lock().unwrap().insert(coupon, id);
        self.define(Definition { coupon: id, version: now, stock, starts_at, ends_at, closed: false });
    }

    fn change(&self, coupon: usize, to: Change) {
        let Some(id) = self.coupons.lock().unwrap().get(&coupon).copied() else { return };
        let Some(mut definition) = self.database.read().definitions.get(&id).copied() else { return };
        let now = self.broker.now();
        match to {
            Change::Stock(stock) => definition.stock = stock,
            Change::Close => definition.closed = true,
            Change::Open => definition.closed = false,
            Change::Window { starts_in, lasts } => {
                (definition.starts_at, definition.ends_at) = (now + starts_in, now + starts_in + lasts);
            }
        }
        let newest = self.definitions_ever(id).iter().map(|it| it.version).max().unwrap_or(0);
        definition.version = now.max(newest + 1);
        self.define(definition);
    }

    fn define(&self, definition: Definition) {
        self.ever.lock().unwrap().entry(definition.coupon).or_default().push(definition);
        self.database.change(|tables| tables.definitions.insert(definition.coupon, definition));
        if self.dice.percent(70) {
            let _ = self.announced.send(Bytes::from(definition.coupon.to_string()));
        }
    }

    fn ask_later(self: &Arc<Self>, person: usize, coupon: usize, server: usize, status: bool) {
        let person = self.persons.lock().unwrap().get(&person).copied();
        // Nobody has made it yet, or ever will.
        let coupon =
            self.coupons.lock().unwrap().get(&coupon).copied().unwrap_or(CouponId(1 + coupon as u64));
        if let Some(person) = person {
            let world = self.clone();
            self.spawn(async move { world.ask(person, coupon, server, status).await });
        }
    }

    /// One request of a client; `None` if no answer came.
    pub(super) async fn ask(
        self: &Arc<Self>,
        person: Person,
        coupon: CouponId,
        server: usize,
        status: bool,
    ) -> Option<Answer> {
        let partition = partition_of(coupon, self.plan.partitions);
        let (sent_at, sent_end) = (self.broker.now(), self.broker.end(partition));
        let (gate, claims) = {
            let servers = self.servers.lock().unwrap();
            (servers[server].gate.clone(), servers[server].claims.clone()?)
        };
        let world = self.clone();
        let (sender, answer) = tokio::sync::oneshot::channel();
        let sent = Arc::new(Mutex::new(Vec::<Arc<AtomicU64>>::new()));
        gate.spawn(SENT.scope(sent.clone(), async move {
            world.dice.pause(2).await;
            let answer = match status {
                true => Answer::Status(claims.status(coupon, person.id).await),
                false => Answer::Claim(claims.claim(coupon, person.id).await),
            };
            let read = claims.partitions[partition as usize].next();
            let in_flight = sent.lock().unwrap().iter().any(|sent| sent.load(Ordering::Relaxed) > read);
            let _ = sender.send((answer, in_flight));
        }));
        let (answer, in_flight) = tokio::time::timeout(ms(30_000), answer).await.ok()?.ok()?;
        let (answered_at, answered_end) = (self.broker.now(), self.broker.end(partition));
        let said = Said { person, coupon, sent_at, sent_end, answered_at, answered_end, in_flight, answer };
        self.said.lock().unwrap().push(said);
        Some(answer)
    }

    /// All faults are over: what is frozen thaws, what is dead comes back.
    pub(super) fn heal(self: &Arc<Self>) {
        self.rough.store(false, Ordering::Relaxed);
        self.broker.go_away(0);
        *self.coupons_away_until.lock().unwrap() = Instant::now();
        let servers = (0..self.plan.servers).map(Process::Server);
        for process in servers.chain((0..self.plan.consumers).map(Process::Consumer)) {
            self.gate(process).thaw();
            self.restart(process);
        }
        for partition in 0..self.plan.partitions {
            if !self.owners.lock().unwrap().contains_key(&partition) {
                self.assign(partition, 0, 0);
            }
        }
    }

    /// Whether every server answers and the database has followed the log to its end.
    pub(super) fn is_level(&self) -> bool {
        let tables = self.database.read();
        let level = |partition: u32| {
            let next = tables.watermarks.get(&partition).map_or(0, |watermark| watermark.next);
            let end = self.broker.end(partition);
            let servers = self.servers.lock().unwrap();
            let read = |server: &Server| {
                server
                    .claims
                    .as_ref()
                    .is_some_and(|claims| claims.partitions[partition as usize].next() >= end)
            };
            next == end && servers.iter().all(read)
        };
        (0..self.plan.partitions).all(level)
    }
}
