//! Tokens that were verified, by their hash, until they expire.
//!
//! Invariants: only verified tokens get in, so nobody can fill it with rubbish; it holds at most its
//! capacity; a hit takes one short lock of one shard. Within a shard the oldest goes first, which is about
//! the order in which tokens of equal lifetime expire, so no clock or list is kept for it.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use aws_lc_rs::digest;
use parking_lot::Mutex;

use super::Verified;

/// Enough that two workers seldom meet, few enough that each shard's bound is close to its share.
const SHARDS: usize = 32;

/// SHA-256 of the token: nobody can make a second token of the same hash, so the token need not be kept.
pub type TokenHash = [u8; 32];

pub fn hash(token: &str) -> TokenHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    hash
}

#[derive(Debug)]
pub struct TokenCache {
    shards: Box<[Mutex<Shard>]>,
    capacity_of_shard: usize,
}

#[derive(Debug, Default)]
struct Shard {
    tokens: HashMap<TokenHash, Arc<Verified>, BuildHasherDefault<AlreadyHashed>>,
    oldest_first: VecDeque<TokenHash>,
}

impl TokenCache {
    /// `capacity` in tokens; 0 keeps none.
    pub fn new(capacity: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            capacity_of_shard: capacity.div_ceil(SHARDS),
        }
    }

    pub fn get(&self, hash: &TokenHash, now_ms: u64) -> Option<Arc<Verified>> {
        let shard = self.shard(hash).lock();
        shard.tokens.get(hash).filter(|verified| verified.is_valid(now_ms)).cloned()
    }

    pub fn insert(&self, hash: TokenHash, verified: Arc<Verified>, now_ms: u64) {
        if self.capacity_of_shard == 0 {
            return;
        }
        let mut shard = self.shard(&hash).lock();
        while shard.oldest_first.len() >= self.capacity_of_shard || shard.oldest_is_expired(now_ms) {
            if let Some(oldest) = shard.oldest_first.pop_front() {
                shard.tokens.remove(&oldest);
            }
        }
        // Two requests with one new token may both have verified it.
        if shard.tokens.insert(hash, verified).is_none() {
            shard.oldest_first.push_back(hash);
        }
    }

    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().tokens.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, hash: &TokenHash) -> &Mutex<Shard> {
        &self.shards[usize::from(hash[31]) % SHARDS]
    }
}

impl Shard {
    fn oldest_is_expired(&self, now_ms: u64) -> bool {
        let oldest = self.oldest_first.front().and_then(|hash| self.tokens.get(hash));
        oldest.is_some_and(|verified| !verified.is_valid(now_ms))
    }
}

/// The key is a hash already; its first bytes do for the map.
#[derive(Debug, Default)]
struct AlreadyHashed(u64);

impl Hasher for AlreadyHashed {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_ne_bytes(*first);
        }
    }

    /// The length of the array comes first.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use platform::identity::Identity;

    use super::*;

    fn verified(valid_until_ms: u64) -> Arc<Verified> {
        let identity = Identity { user: 7, ..Identity::default() };
        Arc::new(Verified::new(identity, Vec::new(), valid_until_ms))
    }

    #[test]
    fn a_token_is_found_until_it_expires() {
        let cache = TokenCache::new(100);
        cache.insert(hash("a"), verified(1_000), 0);
        assert!(cache.get(&hash("a"), 999).is_some());
        assert!(cache.get(&hash("a"), 1_000).is_none());
        assert!(cache.get(&hash("b"), 0).is_none());
    }

    #[test]
    fn it_never_holds_more_than_its_capacity_and_forgets_the_oldest() {
        let cache = TokenCache::new(10 * SHARDS);
        for n in 0..10_000 {
            cache.insert(hash(&n.to_string()), verified(1_000), 0);
        }
        assert_eq!(cache.len(), 10 * SHARDS);
        assert!(cache.get(&hash("9999"), 0).is_some());
        assert!(cache.get(&hash("0"), 0).is_none());
    }

    #[test]
    fn the_expired_make_room_by_and_by() {
        let cache = TokenCache::new(1_000_000);
        for n in 0..1_000 {
            cache.insert(hash(&n.to_string()), verified(1_000), 0);
        }
        for n in 1_000..2_000 {
            cache.insert(hash(&n.to_string()), verified(9_000), 2_000);
        }
        assert_eq!(cache.len(), 1_000);
    }

    #[test]
    fn the_same_token_twice_is_one() {
        let cache = TokenCache::new(100);
        for _ in 0..50 {
            cache.insert(hash("a"), verified(1_000), 0);
        }
        assert_eq!(cache.len(), 1);
        assert!(TokenCache::new(0).is_empty());
    }
}
