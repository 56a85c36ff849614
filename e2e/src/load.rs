//! Many users at once, each asking several times in parallel. Invariant: every attempt is on record with its begin,
//! its end and what was said; a missing answer is on record as broken, never dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::client::{Answer, Client, with_token};
use crate::coupons::check_receipt;
use crate::tokens::Minter;

/// How often a user whose claim had no final answer asks again, and the pause before.
const RETRIES: usize = 60;
const PAUSE: Duration = Duration::from_millis(250);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 200, with the receipt.
    Issued(Value),
    /// 409 with the receipt of an earlier claim.
    Already(Value),
    Pending,
    SoldOut,
    /// 502, 503, 504.
    Unavailable(u16),
    /// No answer.
    Broken(String),
    /// What the API does not promise.
    Wrong(u16, String),
}

/// One request and its answer; times count from the begin of the load.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub user: u64,
    pub began: Duration,
    pub ended: Duration,
    pub outcome: Outcome,
}

/// What is going on, for whoever wants to break something in the middle.
#[derive(Debug)]
pub struct Live {
    begin: Instant,
    in_flight: AtomicUsize,
    answered: AtomicUsize,
}

impl Live {
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    pub fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    /// Waits until `answers` came and `in_flight` claims are under way, and tells how many those are.
    ///
    /// # Panics
    /// When it does not come to that: a fault then would prove nothing.
    pub async fn wait_for(&self, answers: usize, in_flight: usize) -> usize {
        for _ in 0..30_000 {
            let now = self.in_flight();
            if self.answered.load(Ordering::SeqCst) >= answers && now >= in_flight {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("never {answers} answers with {in_flight} claims in flight");
    }
}

/// A load under way.
#[derive(Debug)]
pub struct Load {
    pub live: Arc<Live>,
    workers: JoinSet<Vec<Attempt>>,
}

/// Users, each asking `parallel` times at once, `workers` users at a time.
#[derive(Clone, Debug)]
pub struct Plan {
    pub users: Vec<u64>,
    pub parallel: usize,
    pub workers: usize,
}

/// Starts a load of claims on `coupon`.
///
/// Each token is shown to the gateway once before, on a claim without a coupon, which is refused: so the race is not
/// one for the first verification of a token, and what is in flight is in flight at the issue service.
///
/// # Panics
/// When a token is not accepted.
pub async fn start(client: &Client, minter: &Minter, coupon: u64, plan: &Plan) -> Load {
    let tokens: Arc<Vec<(u64, String)>> =
        Arc::new(plan.users.iter().map(|&user| (user, minter.token(user))).collect());
    show(client, &tokens, plan.workers).await;
    let live = Arc::new(Live {
        begin: Instant::now(),
        in_flight: AtomicUsize::new(0),
        answered: AtomicUsize::new(0),
    });
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..plan.workers {
        let (client, live, next) = (client.clone(), Arc::clone(&live), Arc::clone(&next));
        let (tokens, parallel) = (Arc::clone(&tokens), plan.parallel);
        workers.spawn(async move {
            let mut attempts = Vec::new();
            while let Some((user, token)) = tokens.get(next.fetch_add(1, Ordering::Relaxed)) {
                one_user(&client, &live, coupon, *user, token, parallel, &mut attempts).await;
            }
            attempts
        });
    }
    Load { live, workers }
}

async fn show(client: &Client, tokens: &Arc<Vec<(u64, String)>>, workers: usize) {
    let next = Arc::new(AtomicUsize::new(0));
    let mut shown = JoinSet::new();
    for _ in 0..workers {
        let (client, next, tokens) = (client.clone(), Arc::clone(&next), Arc::clone(tokens));
        shown.spawn(async move {
            while let Some((_, token)) = tokens.get(next.fetch_add(1, Ordering::Relaxed)) {
                let answer = client.post("/coupon-issues", Some(token), &json!({})).await;
                answer.problem(400, "VALIDATION_FAILED");
            }
        });
    }
    while let Some(worker) = shown.join_next().await {
        worker.unwrap_or_else(|error| panic!("a token was not accepted: {error}"));
    }
}

impl Load {
    /// Waits for the end and gives the record.
    ///
    /// # Panics
    /// When a worker did.
    pub async fn finish(mut self) -> Record {
        let mut attempts = Vec::new();
        while let Some(worker) = self.workers.join_next().await {
            attempts.extend(worker.unwrap_or_else(|error| panic!("a worker ended early: {error}")));
        }
        Record { attempts }
    }
}

async fn one_user(
    client: &Client,
    live: &Arc<Live>,
    coupon: u64,
    user: u64,
    token: &str,
    parallel: usize,
    attempts: &mut Vec<Attempt>,
) {
    let mut asked = JoinSet::new();
    for _ in 1..parallel {
        let (client, live, token) = (client.clone(), Arc::clone(live), token.to_owned());
        asked.spawn(async move { attempt(&client, &live, coupon, user, &token).await });
    }
    attempts.push(attempt(client, live, coupon, user, token).await);
    let first = attempts.len() - 1;
    while let Some(other) = asked.join_next().await {
        attempts.extend(other);
    }
    if attempts[first..].iter().any(|attempt| attempt.outcome.is_final()) {
        return;
    }
    for _ in 0..RETRIES {
        tokio::time::sleep(PAUSE).await;
        let again = attempt(client, live, coupon, user, token).await;
        let done = again.outcome.is_final();
        attempts.push(again);
        if done {
            return;
        }
    }
}

async fn attempt(client: &Client, live: &Live, coupon: u64, user: u64, token: &str) -> Attempt {
    let request = client.request(reqwest::Method::POST, "/coupon-issues");
    let request = with_token(request, Some(token)).json(&json!({"couponId": coupon}));
    let began = live.elapsed();
    live.in_flight.fetch_add(1, Ordering::SeqCst);
    let answer = client.try_send(request).await;
    live.in_flight.fetch_sub(1, Ordering::SeqCst);
    live.answered.fetch_add(1, Ordering::SeqCst);
    let outcome = match answer {
        Ok(answer) => Outcome::of(&answer, user, coupon),
        Err(error) => Outcome::Broken(format!("{error:?}")),
    };
    Attempt { user, began, ended: live.elapsed(), outcome }
}

impl Outcome {
    fn of(answer: &Answer, user: u64, coupon: u64) -> Self {
        let body: Value = serde_json::from_str(&answer.text).unwrap_or_default();
        let own = |receipt: &Value| {
            check_receipt(receipt, user, coupon);
            receipt.clone()
        };
        match (answer.status, body["code"].as_str()) {
            (200, None) => Self::Issued(own(&body)),
            (202, None) if body["status"] == "PENDING" => Self::Pending,
            (409, Some("COUPON_ALREADY_ISSUED")) => Self::Already(own(&body["receipt"])),
            (409, Some("COUPON_SOLD_OUT")) => Self::SoldOut,
            (status @ (502..=504), Some(_)) => Self::Unavailable(status),
            _ => Self::Wrong(answer.status, answer.text.clone()),
        }
    }

    fn is_final(&self) -> bool {
        matches!(self, Self::Issued(_) | Self::Already(_) | Self::SoldOut)
    }

    fn receipt(&self) -> Option<&Value> {
        match self {
            Self::Issued(receipt) | Self::Already(receipt) => Some(receipt),
            _ => None,
        }
    }
}

/// Everything that was asked and said.
#[derive(Clone, Debug)]
pub struct Record {
    pub attempts: Vec<Attempt>,
}

impl Record {
    /// The users who were told that the coupon is theirs, with their places.
    ///
    /// # Panics
    /// When a user was given two different receipts, or two users share an issue id or a place.
    pub fn winners(&self) -> BTreeMap<u64, u64> {
        let mut receipts = BTreeMap::new();
        for attempt in &self.attempts {
            if let Some(receipt) = attempt.outcome.receipt() {
                let before = receipts.insert(attempt.user, receipt);
                assert!(before.is_none_or(|before| before == receipt), "{before:?}, then {receipt}");
            }
        }
        for member in ["issueId", "place"] {
            let different: BTreeSet<_> =
                receipts.values().map(|receipt| receipt[member].to_string()).collect();
            assert_eq!(different.len(), receipts.len(), "two users share an {member}");
        }
        let place = |receipt: &Value| receipt["place"].as_u64().unwrap_or_default();
        receipts.into_iter().map(|(user, receipt)| (user, place(receipt))).collect()
    }

    /// When the last of the winners first heard of it, on the load's clock.
    pub fn last_win(&self) -> Duration {
        let mut first = BTreeMap::new();
        for attempt in self.attempts.iter().filter(|attempt| attempt.outcome.receipt().is_some()) {
            let heard = first.entry(attempt.user).or_insert(attempt.ended);
            *heard = attempt.ended.min(*heard);
        }
        first.into_values().max().unwrap_or_default()
    }

    pub fn count(&self, which: impl Fn(&Outcome) -> bool) -> usize {
        self.attempts.iter().filter(|attempt| which(&attempt.outcome)).count()
    }

    /// Attempts that got no useful answer.
    pub fn failed(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts.iter().filter(|attempt| {
            matches!(attempt.outcome, Outcome::Unavailable(_) | Outcome::Broken(_) | Outcome::Wrong(..))
        })
    }

    /// A few failures, for a message.
    pub fn sample(&self) -> Vec<&Attempt> {
        self.failed().take(5).collect()
    }

    /// One line of counts.
    pub fn summary(&self) -> String {
        format!(
            "{} attempts: {} issued, {} already, {} pending, {} sold out, {} unavailable, {} broken, {} wrong",
            self.attempts.len(),
            self.count(|o| matches!(o, Outcome::Issued(_))),
            self.count(|o| matches!(o, Outcome::Already(_))),
            self.count(|o| matches!(o, Outcome::Pending)),
            self.count(|o| matches!(o, Outcome::SoldOut)),
            self.count(|o| matches!(o, Outcome::Unavailable(_))),
            self.count(|o| matches!(o, Outcome::Broken(_))),
            self.count(|o| matches!(o, Outcome::Wrong(..))),
        )
    }
}
