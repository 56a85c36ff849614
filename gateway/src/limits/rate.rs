//! How many requests a caller may send to a route: the filter RequestRateLimiter, with Spring's settings, headers and
//! refill, on Redis.
//!
//! Invariants: Redis is never waited for longer than [`PATIENCE`], and nobody is refused because it is away: then each
//! gateway counts for itself, by the same rate. Who has been refused costs Redis nothing until his bucket is filled
//! again, which is at the next whole second.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::digest;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use parking_lot::Mutex;
use platform::http::problem::Problem;
use platform::identity::network;
use platform::lifecycle::{BoxError, Lifecycle};
use platform::redis::Redis;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// Checked into Redis on every new connection.
pub const SCRIPT: &str = include_str!("token_bucket.lua");

/// A Redis that is later is away.
const PATIENCE: Duration = Duration::from_millis(100);
/// After a late or failed call nobody asks for this long.
const REST: Duration = Duration::from_secs(1);
/// Buckets in one call: a fraction of a millisecond of Redis's time.
const BATCH: usize = 256;
/// Requests that may wait for a call; beyond it they count as if Redis were away.
const MOST_WAITING: usize = 8_192;
/// Callers that are remembered here; beyond it all are forgotten, which lets each have one bucket more.
const MOST_REMEMBERED: usize = 100_000;
/// Bytes of a caller's key; longer ones stand as their digest.
const LONGEST_KEY: usize = 64;

const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const REPLENISH_RATE: HeaderName = HeaderName::from_static("x-ratelimit-replenish-rate");
const BURST_CAPACITY: HeaderName = HeaderName::from_static("x-ratelimit-burst-capacity");
const REQUESTED_TOKENS: HeaderName = HeaderName::from_static("x-ratelimit-requested-tokens");

/// Whose requests are counted together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyBy {
    /// The token's subject.
    Principal,
    /// The client's address; of IPv6 the /64, which is one subscriber's to change.
    Address,
    Path,
    Header(HeaderName),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateSettings {
    /// Tokens that come back each second, at least 1.
    pub rate: u32,
    /// Tokens that a bucket holds; 0 lets nobody through.
    pub capacity: u32,
    /// Tokens that a request takes.
    pub requested: u32,
    pub key: KeyBy,
    /// Whether a request without a key is refused, and with what.
    pub deny_empty_key: bool,
    pub empty_key_status: StatusCode,
    /// Of a refusal.
    pub status: StatusCode,
}

impl KeyBy {
    /// Whose tokens a request takes; `None` if nothing tells. `client` is where it comes from.
    pub fn of<B>(&self, user: Option<&str>, client: Option<IpAddr>, request: &Request<B>) -> Option<String> {
        let key = match self {
            Self::Principal => user.map(str::to_owned),
            Self::Address => client.map(|client| network(client).to_string()),
            Self::Path => Some(request.uri().path().to_owned()),
            Self::Header(name) => {
                request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
            }
        };
        key.filter(|key| !key.is_empty())
    }
}

/// Counts for all routes of this gateway.
#[derive(Debug)]
pub struct RateLimiter {
    asking: Option<mpsc::Sender<Asking>>,
    here: Mutex<HashMap<String, Here>>,
}

/// What is known of a caller without asking.
#[derive(Debug, Clone, Copy)]
enum Here {
    /// Redis said no, and will until then.
    Refused { until: Instant, remaining: i64 },
    /// Counted here while Redis is away.
    Counted { tokens: f64, at: Instant },
}

struct Asking {
    key: String,
    settings: (u32, u32, u32),
    answer: oneshot::Sender<Answered>,
}

#[derive(Debug, Clone, Copy)]
struct Answered {
    allowed: bool,
    remaining: i64,
    /// Until the bucket is filled again.
    next_second: Duration,
}

/// What a limiter decided, for the headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    /// -1 while Redis is away.
    pub remaining: i64,
}

impl RateLimiter {
    /// Without a Redis each gateway counts for itself.
    #[must_use]
    pub fn new(redis: Option<Redis>, lifecycle: &Lifecycle) -> Self {
        let asking = redis.map(|redis| {
            let (sender, receiver) = mpsc::channel(MOST_WAITING);
            let stop = lifecycle.background_stop();
            lifecycle.spawn("rate limits", serve(redis, receiver, stop));
            sender
        });
        Self { asking, here: Mutex::default() }
    }

    /// Takes tokens of the caller's bucket, if it has them.
    pub async fn decide(&self, route: &str, key: &str, settings: &RateSettings) -> Decision {
        // Spring's names, so that both can stand side by side while one replaces the other.
        let key = format!("request_rate_limiter.{{{route}.{}}}", short(key));
        if let Some(remaining) = self.refused(&key) {
            return Decision { allowed: false, remaining };
        }
        match self.ask(&key, settings).await {
            Some(Answered { allowed: true, remaining, .. }) => Decision { allowed: true, remaining },
            Some(Answered { remaining, next_second, .. }) => {
                self.remember(key, Here::Refused { until: Instant::now() + next_second, remaining });
                Decision { allowed: false, remaining }
            }
            None => Decision { allowed: self.count(key, settings), remaining: -1 },
        }
    }

    fn refused(&self, key: &str) -> Option<i64> {
        match self.here.lock().get(key) {
            Some(Here::Refused { until, remaining }) if *until > Instant::now() => Some(*remaining),
            _ => None,
        }
    }

    fn remember(&self, key: String, what: Here) {
        let mut here = self.here.lock();
        make_room(&mut here, &key);
        here.insert(key, what);
    }

    async fn ask(&self, key: &str, settings: &RateSettings) -> Option<Answered> {
        let (answer, answered) = oneshot::channel();
        let settings = (settings.rate, settings.capacity, settings.requested);
        self.asking.as_ref()?.try_send(Asking { key: key.to_owned(), settings, answer }).ok()?;
        timeout(PATIENCE, answered).await.ok()?.ok()
    }

    /// By this gateway's own clock, in fractions of seconds.
    fn count(&self, key: String, settings: &RateSettings) -> bool {
        let (capacity, now) = (f64::from(settings.capacity), Instant::now());
        let mut here = self.here.lock();
        let tokens = match here.get(&key) {
            Some(Here::Counted { tokens, at }) => {
                (tokens + now.duration_since(*at).as_secs_f64() * f64::from(settings.rate)).min(capacity)
            }
            _ => capacity,
        };
        let allowed = tokens >= f64::from(settings.requested);
        let tokens = if allowed { tokens - f64::from(settings.requested) } else { tokens };
        make_room(&mut here, &key);
        here.insert(key, Here::Counted { tokens, at: now });
        allowed
    }
}

fn make_room(here: &mut HashMap<String, Here>, key: &str) {
    if here.len() >= MOST_REMEMBERED && !here.contains_key(key) {
        here.clear();
    }
}

/// A client may choose what it is counted by, but not how much of it is remembered.
fn short(key: &str) -> Cow<'_, str> {
    if key.len() <= LONGEST_KEY {
        return Cow::Borrowed(key);
    }
    let digest = digest::digest(&digest::SHA256, key.as_bytes());
    Cow::Owned(digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Whoever asks while a call is under way shares the next one.
async fn serve(
    redis: Redis,
    mut asking: mpsc::Receiver<Asking>,
    stop: CancellationToken,
) -> Result<(), BoxError> {
    let script = ::redis::Script::new(SCRIPT);
    let mut batch = Vec::with_capacity(BATCH);
    let mut rest_until = Instant::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            count = asking.recv_many(&mut batch, BATCH) => if count == 0 {
                stop.cancelled().await;
                return Ok(());
            },
        }
        let answers = if rest_until <= Instant::now() { call(&redis, &script, &batch).await } else { None };
        if answers.is_none() && rest_until <= Instant::now() {
            metrics::counter!("firstcome_gateway_rate_limiter_away_total").increment(1);
            rest_until = Instant::now() + REST;
        }
        let mut answers = answers.into_iter().flatten();
        for asked in batch.drain(..) {
            // Without an answer the sender is dropped, and the request counts for itself.
            if let Some(answer) = answers.next() {
                let _ = asked.answer.send(answer);
            }
        }
    }
}

async fn call(redis: &Redis, script: &::redis::Script, batch: &[Asking]) -> Option<Vec<Answered>> {
    let mut invocation = script.prepare_invoke();
    for Asking { key, settings: (rate, capacity, requested), .. } in batch {
        invocation.key(format!("{key}.tokens")).key(format!("{key}.timestamp"));
        invocation.arg(*rate).arg(*capacity).arg(*requested);
    }
    let answer: Vec<i64> = redis
        .attempt("rate limits", PATIENCE, async |connection| invocation.invoke_async(connection).await)
        .await?;
    let (micros, pairs) = answer.split_last()?;
    let next_second = Duration::from_micros(1_000_000_u64.saturating_sub(u64::try_from(*micros).ok()?));
    let answered =
        pairs.chunks_exact(2).map(|pair| Answered { allowed: pair[0] == 1, remaining: pair[1], next_second });
    let answered: Vec<_> = answered.collect();
    (answered.len() == batch.len()).then_some(answered)
}

impl Decision {
    /// Of every answer that a limiter let through or refused.
    pub fn write(self, settings: &RateSettings, headers: &mut HeaderMap) {
        headers.insert(REMAINING, HeaderValue::from(self.remaining));
        headers.insert(REPLENISH_RATE, HeaderValue::from(settings.rate));
        headers.insert(BURST_CAPACITY, HeaderValue::from(settings.capacity));
        headers.insert(REQUESTED_TOKENS, HeaderValue::from(settings.requested));
    }
}

impl RateSettings {
    #[must_use]
    pub fn refusal(&self) -> Problem {
        let problem = if self.status == StatusCode::TOO_MANY_REQUESTS {
            Problem::rate_limited()
        } else {
            Problem::new(self.status, "RATE_LIMITED", "Too many requests; please try again soon.")
                .korean("요청이 너무 많습니다. 잠시 후 다시 시도해 주세요.")
        };
        problem.retry_after(1)
    }

    /// For a request that has nothing to be counted by.
    #[must_use]
    pub fn no_key(&self) -> Problem {
        Problem::new(
            self.empty_key_status,
            "RATE_LIMIT_KEY_MISSING",
            "The request has nothing that it could be counted by.",
        )
        .korean("요청을 셀 수 있는 기준이 없습니다.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(rate: u32, capacity: u32) -> RateSettings {
        RateSettings {
            rate,
            capacity,
            requested: 1,
            key: KeyBy::Principal,
            deny_empty_key: true,
            empty_key_status: StatusCode::FORBIDDEN,
            status: StatusCode::TOO_MANY_REQUESTS,
        }
    }

    async fn allowed(limiter: &RateLimiter, key: &str, settings: &RateSettings, times: usize) -> usize {
        let mut allowed = 0;
        for _ in 0..times {
            allowed += usize::from(limiter.decide("r", key, settings).await.allowed);
        }
        allowed
    }

    #[tokio::test(start_paused = true)]
    async fn without_redis_each_gateway_counts_for_itself() {
        let limiter = RateLimiter::new(None, &Lifecycle::new());
        let five = settings(2, 5);
        assert_eq!(limiter.decide("r", "kim", &five).await, Decision { allowed: true, remaining: -1 });
        assert_eq!(allowed(&limiter, "kim", &five, 100).await, 4, "the burst");
        assert_eq!(allowed(&limiter, "lee", &five, 100).await, 5, "another caller");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(allowed(&limiter, "kim", &five, 100).await, 2, "the rate");
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(allowed(&limiter, "kim", &five, 100).await, 5, "no more than the burst");
        assert_eq!(
            allowed(&limiter, "park", &settings(1, 0), 3).await,
            0,
            "a capacity of 0 lets nobody through"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded() {
        let limiter = RateLimiter::new(None, &Lifecycle::new());
        for user in 0..MOST_REMEMBERED + 10 {
            limiter.count(user.to_string(), &settings(1, 1));
        }
        assert!(limiter.here.lock().len() <= MOST_REMEMBERED);
    }

    #[test]
    fn a_caller_chooses_its_key_but_not_its_length() {
        assert_eq!(short(&"k".repeat(LONGEST_KEY)), "k".repeat(LONGEST_KEY));
        let (one, two) = (format!("1{}", "k".repeat(10_000)), format!("2{}", "k".repeat(10_000)));
        assert_eq!((short(&one).len(), short(&two).len()), (64, 64));
        assert_ne!(short(&one), short(&two));
    }
}
