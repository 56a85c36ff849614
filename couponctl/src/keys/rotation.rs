//! One rotation: the next key signs, the one that signed stays published, a new next one is made. Invariant: unless it is
//! forced, no token that may be in use is refused because of it, and no verifier meets a key that it could not know.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Key, Status, Store};
use crate::clock;
use crate::terminal;

/// Clocks differ and gateways forgive it (`jwt.leeway`, 5 s); a token that was being made when the key changed counts
/// from some moments later; the user service looks at the store each second.
const LEEWAY: Duration = Duration::from_secs(60);
/// Verifiers may keep the key set for 5 minutes (its `Cache-Control`, and `jwt.jwks-refresh` of the gateway).
const PUBLICATION: Duration = Duration::from_secs(300);

/// What speaks against a rotation now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// The key would not be published any more, and tokens that it signed live until then.
    InUse {
        kid: String,
        until_ms: u64,
    },
    /// It would sign before every verifier has seen it; they have by then.
    TooNew {
        kid: String,
        until_ms: u64,
    },
    NoNext,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse { kid, until_ms } => write!(
                f,
                "tokens that the previous key {kid} signed may be in use until {} and would be refused from now on",
                terminal::time(*until_ms)
            ),
            Self::TooNew { kid, until_ms } => write!(
                f,
                "the next key {kid} was published a moment ago; some verifiers may not know it before {}",
                terminal::time(*until_ms)
            ),
            Self::NoNext => {
                write!(f, "there is no next key; a new one would sign before any verifier knows it")
            }
        }
    }
}

pub(super) fn obstacles(store: &Store, access_ttl: Duration, now_ms: u64) -> Result<Vec<Obstacle>> {
    let mut obstacles = Vec::new();
    for key in &store.keys {
        let since = clock::parse(&key.since)
            .with_context(|| format!("the key {:?} has no time as its since", key.kid))?;
        let until = |wait| since.saturating_add(clock::whole_ms(wait));
        let kid = key.kid.clone();
        match key.status {
            Status::Previous if until(access_ttl + LEEWAY) > now_ms => {
                obstacles.push(Obstacle::InUse { kid, until_ms: until(access_ttl + LEEWAY) });
            }
            Status::Next if until(PUBLICATION) > now_ms => {
                obstacles.push(Obstacle::TooNew { kid, until_ms: until(PUBLICATION) });
            }
            _ => {}
        }
    }
    if store.keys.iter().all(|key| key.status != Status::Next) {
        obstacles.push(Obstacle::NoNext);
    }
    Ok(obstacles)
}

/// The store after it. Keys that were previous before are gone.
pub(super) fn rotate(store: &Store, now_ms: u64) -> Result<Store> {
    let former = store.signing()?;
    let signing = match store.keys.iter().find(|key| key.status == Status::Next) {
        Some(next) => next.turned(Status::Signing, now_ms),
        None => Key::make(Status::Signing, now_ms)?,
    };
    let next = Key::make(Status::Next, now_ms)?;
    Ok(Store { keys: vec![signing, next, former.turned(Status::Previous, now_ms)] })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(900);
    const BEGIN: u64 = 1_800_000_000_000;

    fn store() -> Store {
        Store {
            keys: vec![Key::make(Status::Signing, BEGIN).unwrap(), Key::make(Status::Next, BEGIN).unwrap()],
        }
    }

    fn kids(store: &Store) -> Vec<(&str, &str)> {
        store.keys.iter().map(|key| (key.kid.as_str(), key.status.as_str())).collect()
    }

    #[test]
    fn each_key_is_next_then_signs_then_is_previous_and_goes() {
        let first = store();
        let second = rotate(&first, BEGIN + 1).unwrap();
        let [(signing, _), (next, _)] = kids(&first)[..] else { panic!("two keys") };
        assert_eq!(kids(&second)[0], (next, "signing"));
        assert_eq!(kids(&second)[2], (signing, "previous"));
        assert_ne!(second.keys[1].kid, next, "and a new one");
        let third = rotate(&second, BEGIN + 2).unwrap();
        assert_eq!(kids(&third)[2], (next, "previous"));
        assert!(kids(&third).iter().all(|(kid, _)| *kid != signing), "its tokens are long dead");
        assert!(third.keys.iter().all(|key| key.since == "2027-01-15T08:00:00.002Z"));
    }

    /// Guard: without it, two rotations in a row refuse every token that is in use.
    #[test]
    fn a_rotation_waits_until_the_last_one_is_over() {
        let first = store();
        let at = |store: &Store, after: u64| obstacles(store, TTL, BEGIN + after * 1000).unwrap();
        let next = first.keys[1].kid.clone();
        assert_eq!(at(&first, 299), [Obstacle::TooNew { kid: next, until_ms: BEGIN + 300_000 }]);
        assert_eq!(at(&first, 300), []);

        let second = rotate(&first, BEGIN + 300_000).unwrap();
        let kinds = |after| at(&second, after).len();
        assert_eq!((kinds(300), kinds(599), kinds(600), kinds(1259), kinds(1260)), (2, 2, 1, 1, 0));
        let said = at(&second, 1259)[0].to_string();
        assert!(said.contains(&first.keys[0].kid) && said.contains("would be refused"), "{said}");
        // Where tokens live longer, it waits longer.
        assert_eq!(obstacles(&second, 2 * TTL, BEGIN + 1_260_000).unwrap().len(), 1);
    }

    #[test]
    fn a_store_without_a_next_key_says_so() {
        let mut store = store();
        store.keys.pop();
        assert_eq!(obstacles(&store, TTL, BEGIN).unwrap(), [Obstacle::NoNext]);
        assert_eq!(rotate(&store, BEGIN).unwrap().keys.len(), 3);
    }
}
