//! How often a password may be proved in vain. Invariants: of all failures that are ever told as such, no more than the
//! limit are told in its time, however many instances and requests take part; whether an account exists changes neither
//! answer nor time; one address alone can keep nobody out at another (docs/adr/0009).
//!
//! A failure is paid from three buckets, that of the account at this address, of the account, and of the address; each
//! holds so many failures and fills again evenly. With one of them empty, nothing is checked.

use std::collections::HashMap;
use std::time::Duration;

use aws_lc_rs::hmac;
use platform::config::IdentitySettings;
use platform::identity::ClientAddress;
use sqlx::MySqlPool;

use crate::config::LoginSettings;
use crate::error::{ApiError, is_deadlock};
use crate::store::failures::{self, Bucket, Levels};

/// Rows are locked in one order, so a second deadlock in a row is next to impossible.
const TRIES: usize = 3;
/// Sets our digests apart from whatever else is signed with the same secret.
const PURPOSE: &[u8] = b"firstcome login failures v1";

/// So many failures at once, and all of them again after so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit {
    /// In which one failure is regained.
    each_ms: u64,
    /// In which all are.
    all_ms: u64,
}

impl Limit {
    fn new(failures: u32, regained_in: Duration) -> Self {
        let each_ms = u64::try_from(regained_in.as_millis()).unwrap_or(u64::MAX) / u64::from(failures.max(1));
        Self { each_ms, all_ms: each_ms.saturating_mul(u64::from(failures)) }
    }

    /// Milliseconds until one more failure can be paid; 0 if it can be now. `full_ms` is when all are regained.
    fn wait_ms(self, full_ms: u64, now_ms: u64) -> u64 {
        self.after_failure(full_ms, now_ms).saturating_sub(now_ms.saturating_add(self.all_ms))
    }

    fn after_failure(self, full_ms: u64, now_ms: u64) -> u64 {
        full_ms.max(now_ms).saturating_add(self.each_ms)
    }
}

/// Knows the limits, and names the buckets. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Throttle {
    key: hmac::Key,
    account_at_address: Limit,
    account: Limit,
    address: Limit,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    bucket: Bucket,
    limit: Limit,
}

/// One attempt to prove the password of one account.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    account_at_address: Count,
    account: Count,
    /// None where nobody says from where it came: all such attempts would share one bucket.
    address: Option<Count>,
    /// 0 if there is no such account: then the same questions are asked for nobody.
    user: u64,
}

impl Throttle {
    #[must_use]
    pub fn new(login: &LoginSettings, identity: &IdentitySettings) -> Self {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, identity.secret.expose().as_bytes());
        let derived = hmac::sign(&secret, PURPOSE);
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()),
            account_at_address: Limit::new(login.account_address_failures, login.account_address_regain),
            account: Limit::new(login.account_failures, login.account_regain),
            address: Limit::new(login.address_failures, login.address_regain),
        }
    }

    /// `account` is what was given as its address, in the one form in which it would be found; it need not exist.
    #[must_use]
    pub fn attempt(&self, account: &str, user: Option<u64>, client: ClientAddress) -> Attempt {
        let network = client.network();
        let count = |limit, parts: &[&[u8]]| Count { bucket: self.digest(parts), limit };
        let place = network.as_deref().unwrap_or_default();
        Attempt {
            account_at_address: count(
                self.account_at_address,
                &[b"account at address", account.as_bytes(), place],
            ),
            account: count(self.account, &[b"account", account.as_bytes()]),
            address: network.as_deref().map(|place| count(self.address, &[b"address", place])),
            user: user.unwrap_or_default(),
        }
    }

    fn digest(&self, parts: &[&[u8]]) -> Bucket {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            // Lengths first, so that no two lists look alike.
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut bucket = Bucket::default();
        bucket.copy_from_slice(context.sign().as_ref());
        bucket
    }
}

impl Attempt {
    /// The address, as logins remember it.
    #[must_use]
    pub fn client(&self) -> Option<Bucket> {
        self.address.map(|count| count.bucket)
    }

    /// Whether a password may be checked. To be asked before, so that nothing is hashed in vain; and once more after a
    /// right one, or of many that are tried at once the right one would be told however many failed before it.
    ///
    /// # Errors
    /// `Throttled`.
    pub async fn admit(&self, pool: &MySqlPool, now_ms: u64) -> Result<(), ApiError> {
        let levels = failures::levels(pool, &self.buckets(true)).await?;
        let everywhere = wait_ms([self.account], &levels, now_ms);
        let here = wait_ms(self.here(), &levels, now_ms);
        // Strangers can use up what the account may fail; where its owner was before, that does not count.
        if here == 0 && everywhere > 0 && self.is_known(pool).await? {
            return Ok(());
        }
        refuse(here.max(everywhere))
    }

    /// Counts a failure. An error means that it must not be told: others have used up the limit meanwhile.
    ///
    /// # Errors
    /// `Throttled`.
    pub async fn failed(&self, pool: &MySqlPool, now_ms: u64) -> Result<(), ApiError> {
        let counts_everywhere = !self.is_known(pool).await?;
        for _ in 1..TRIES {
            match self.count(pool, now_ms, counts_everywhere).await {
                Err(error) if is_deadlock(&error) => {}
                counted => return refuse(counted?),
            }
        }
        refuse(self.count(pool, now_ms, counts_everywhere).await?)
    }

    /// Forgets the failures of this account at this address (NIST SP 800-63B, on rate limiting). Those of the account
    /// stay, or a stranger would have them anew whenever its owner logs in; and those of the address, or he would by
    /// logging in himself.
    pub async fn succeeded(&self, pool: &MySqlPool) -> Result<(), sqlx::Error> {
        let bucket = self.account_at_address.bucket;
        // Seldom is there anything to forget, and then nothing is written.
        if failures::levels(pool, &[bucket]).await?.is_empty() {
            return Ok(());
        }
        failures::forget(pool, bucket).await
    }

    /// Milliseconds until it could be counted; 0 if it was.
    async fn count(
        &self,
        pool: &MySqlPool,
        now_ms: u64,
        counts_everywhere: bool,
    ) -> Result<u64, sqlx::Error> {
        let mut transaction = pool.begin().await?;
        let levels = failures::lock(&mut transaction, &self.buckets(counts_everywhere), now_ms).await?;
        let counts = || self.here().chain(counts_everywhere.then_some(self.account));
        let wait = wait_ms(counts(), &levels, now_ms);
        if wait > 0 {
            // Nothing is paid, so nobody can lengthen the time by going on.
            transaction.rollback().await?;
            return Ok(wait);
        }
        let raised = counts().map(|Count { bucket, limit }| {
            let full_ms = levels.get(&bucket).copied().unwrap_or_default();
            (bucket, limit.after_failure(full_ms, now_ms))
        });
        failures::raise(&mut transaction, &raised.collect::<HashMap<_, _>>()).await?;
        transaction.commit().await?;
        Ok(0)
    }

    /// What counts at this address alone.
    fn here(&self) -> impl Iterator<Item = Count> {
        std::iter::once(self.account_at_address).chain(self.address)
    }

    /// In the order in which they are locked.
    fn buckets(&self, everywhere: bool) -> Vec<Bucket> {
        let counts = self.here().chain(everywhere.then_some(self.account));
        let mut buckets: Vec<_> = counts.map(|count| count.bucket).collect();
        buckets.sort_unstable();
        buckets
    }

    async fn is_known(&self, pool: &MySqlPool) -> Result<bool, sqlx::Error> {
        match self.client() {
            Some(client) => failures::is_known(pool, self.user, client).await,
            None => Ok(false),
        }
    }
}

fn wait_ms(counts: impl IntoIterator<Item = Count>, levels: &Levels, now_ms: u64) -> u64 {
    let waits = counts.into_iter().map(|Count { bucket, limit }| {
        limit.wait_ms(levels.get(&bucket).copied().unwrap_or_default(), now_ms)
    });
    waits.max().unwrap_or_default()
}

fn refuse(wait_ms: u64) -> Result<(), ApiError> {
    match wait_ms {
        0 => Ok(()),
        wait_ms => Err(ApiError::Throttled(u32::try_from(wait_ms.div_ceil(1000)).unwrap_or(u32::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    #[test]
    fn so_many_failures_at_once_and_then_one_after_the_other() {
        let limit = Limit::new(10, Duration::from_secs(600));
        let mut full = 0;
        for _ in 0..10 {
            assert_eq!(limit.wait_ms(full, NOW), 0);
            full = limit.after_failure(full, NOW);
        }
        assert_eq!(full, NOW + 600_000);
        assert_eq!(limit.wait_ms(full, NOW), 60_000);
        assert_eq!(limit.wait_ms(full, NOW + 59_999), 1);
        assert_eq!(limit.wait_ms(full, NOW + 60_000), 0);
        assert_eq!(limit.wait_ms(limit.after_failure(full, NOW + 60_000), NOW + 60_000), 60_000);
        assert_eq!(limit.wait_ms(full, NOW + 600_000), 0);
    }

    #[test]
    fn buckets_are_told_apart() {
        let identity = IdentitySettings { secret: "a secret of at least thirty-two bytes".into() };
        let throttle = Throttle::new(&LoginSettings::default(), &identity);
        let client = |text: &str| ClientAddress(Some(text.parse().unwrap()));
        let one = throttle.attempt("kim@example.com", Some(7), client("192.0.2.7"));
        let buckets = |attempt: &Attempt| attempt.buckets(true);
        assert_eq!(buckets(&one).len(), 3);
        let again = throttle.attempt("kim@example.com", None, client("192.0.2.7"));
        assert_eq!(buckets(&one), buckets(&again), "whether the account exists makes no difference");
        let elsewhere = throttle.attempt("kim@example.com", Some(7), client("192.0.2.8"));
        assert_eq!(buckets(&one).iter().filter(|it| buckets(&elsewhere).contains(it)).count(), 1);
        let other = throttle.attempt("lee@example.com", Some(8), client("192.0.2.7"));
        assert_eq!(buckets(&one).iter().filter(|it| buckets(&other).contains(it)).count(), 1);
        let nowhere = throttle.attempt("kim@example.com", Some(7), ClientAddress(None));
        assert_eq!((buckets(&nowhere).len(), nowhere.client()), (2, None));
        // A secret of another installation gives other digests.
        let identity = IdentitySettings { secret: "another secret of thirty-two bytes!".into() };
        let foreign = Throttle::new(&LoginSettings::default(), &identity);
        let foreign = foreign.attempt("kim@example.com", Some(7), client("192.0.2.7"));
        assert!(buckets(&foreign).iter().all(|it| !buckets(&one).contains(it)));
    }
}
