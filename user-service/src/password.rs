//! Password hashing. Invariants: at most `parallelism` hashes run at once, off the async threads; a check costs one
//! Argon2id run whether the account exists or not, so that the time to the answer tells nothing; what is hashed and what
//! is checked has the form that [`rules`] judges.

use std::sync::Arc;
use std::time::Duration;

use platform::config::Secret;
use platform::lifecycle::BoxError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use self::argon::Memory;

mod argon;
pub mod rules;

/// Memory that no hash has used for this long, at most twice, is let go.
const IDLE: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// So many hashes wait already that this one would be answered too late.
    #[error("too many password hashes are waiting")]
    Overloaded,
    #[error("password hashing failed: {0}")]
    Hash(#[from] argon2::password_hash::Error),
    #[error("no randomness for a salt")]
    Randomness(#[from] aws_lc_rs::error::Unspecified),
    #[error("the hashing task ended early: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// The bounded pool that hashes and checks passwords.
#[derive(Clone, Debug)]
pub struct Passwords {
    slots: Arc<Semaphore>,
    queue: Arc<Semaphore>,
    memory: Arc<Memory>,
    /// The hash of a password that nobody knows: what an unknown account is checked against.
    dummy: Arc<str>,
}

impl Passwords {
    /// `parallelism` hashes at once (19 MiB each), `max_waiting` more in the queue. Runs Argon2 once.
    pub fn new(parallelism: usize, max_waiting: usize) -> Result<Self, PasswordError> {
        let mut nobody_knows = [0; 32];
        aws_lc_rs::rand::fill(&mut nobody_knows)?;
        let memory = Memory::default();
        let dummy = memory.hash(&nobody_knows)?.into();
        Ok(Self {
            slots: Arc::new(Semaphore::new(parallelism)),
            queue: Arc::new(Semaphore::new(parallelism + max_waiting)),
            memory: Arc::new(memory),
            dummy,
        })
    }

    /// The PHC string to store for a new password.
    pub async fn hash(&self, password: Secret) -> Result<String, PasswordError> {
        let turn = self.turn().await?;
        let memory = Arc::clone(&self.memory);
        tokio::task::spawn_blocking(move || {
            let hash = memory.hash(rules::normalised(&password).expose().as_bytes());
            drop(turn);
            hash
        })
        .await?
    }

    /// Whether `password` is the one behind `stored`; `None` (no such account) costs the same and is never right.
    pub async fn verify(&self, stored: Option<String>, password: Secret) -> Result<bool, PasswordError> {
        let turn = self.turn().await?;
        let (memory, dummy) = (Arc::clone(&self.memory), Arc::clone(&self.dummy));
        tokio::task::spawn_blocking(move || {
            let phc = stored.as_deref().unwrap_or(&dummy);
            let checked = memory.verify(phc, rules::normalised(&password).expose().as_bytes());
            drop(turn);
            Ok(checked? && stored.is_some())
        })
        .await?
    }

    /// Lets go of the memory of hashes when none has run for a while. For as long as the process runs.
    pub async fn rest_when_idle(self, stop: CancellationToken) -> Result<(), BoxError> {
        while tokio::time::timeout(IDLE, stop.cancelled()).await.is_err() {
            self.memory.rest();
        }
        Ok(())
    }

    /// Waits for a slot. The permits move into the blocking task: a client that goes away while its hash runs does
    /// not make room for one more.
    async fn turn(&self) -> Result<(OwnedSemaphorePermit, OwnedSemaphorePermit), PasswordError> {
        let place = Arc::clone(&self.queue).try_acquire_owned().map_err(|_| PasswordError::Overloaded)?;
        // The semaphores are never closed, so this waits and can't fail.
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|_| PasswordError::Overloaded)?;
        Ok((place, slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::from(text)
    }

    #[tokio::test]
    async fn the_right_password_is_right_and_any_other_is_wrong() {
        let passwords = Passwords::new(1, 8).unwrap();
        let stored = passwords.hash(secret("correct horse")).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert!(passwords.verify(Some(stored.clone()), secret("correct horse")).await.unwrap());
        assert!(!passwords.verify(Some(stored.clone()), secret("correct horsf")).await.unwrap());
        assert!(!passwords.verify(None, secret("correct horse")).await.unwrap());
        assert_ne!(
            stored,
            passwords.hash(secret("correct horse")).await.unwrap(),
            "every hash has its own salt"
        );
    }

    #[tokio::test]
    async fn two_ways_to_type_a_letter_are_one_password() {
        let passwords = Passwords::new(1, 8).unwrap();
        let stored = passwords.hash(secret("cafe\u{301} au lait")).await.unwrap();
        assert!(passwords.verify(Some(stored), secret("caf\u{e9} au lait")).await.unwrap());
    }

    /// Guard: with an early `false` for unknown accounts the second time is near zero.
    #[tokio::test]
    async fn an_unknown_account_costs_as_much_as_a_known_one() {
        let passwords = Passwords::new(1, 8).unwrap();
        let stored = passwords.hash(secret("correct horse")).await.unwrap();
        // The shortest of several: a busy machine makes times longer, never shorter, so they draw near in the end.
        let mut shortest = [std::time::Duration::MAX; 2];
        for _ in 0..60 {
            for (index, account) in [Some(stored.clone()), None].into_iter().enumerate() {
                let begin = std::time::Instant::now();
                assert!(!passwords.verify(account, secret("wrong horse")).await.unwrap());
                shortest[index] = shortest[index].min(begin.elapsed());
            }
            let [known, unknown] = shortest;
            if unknown * 3 > known * 2 && known * 3 > unknown * 2 {
                return;
            }
        }
        panic!("known and unknown take {shortest:?}");
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once() {
        let passwords = Passwords::new(1, 0).unwrap();
        let running = passwords.turn().await.unwrap();
        assert!(matches!(passwords.hash(secret("correct horse")).await, Err(PasswordError::Overloaded)));
        drop(running);
        assert!(passwords.hash(secret("correct horse")).await.is_ok());
    }

    #[tokio::test]
    async fn a_client_that_went_away_keeps_its_slot_until_the_hash_is_done() {
        let passwords = Passwords::new(1, 0).unwrap();
        {
            let hash = passwords.hash(secret("correct horse"));
            let gone = tokio::time::timeout(std::time::Duration::from_millis(1), hash).await;
            assert!(gone.is_err(), "Argon2 takes longer than a millisecond");
        }
        assert_eq!(passwords.slots.available_permits(), 0);
        let _slot = passwords.slots.acquire().await.unwrap();
        assert_eq!(passwords.slots.available_permits(), 0);
    }
}
