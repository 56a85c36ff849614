//! Takes up a key store that was replaced while the service runs. Invariant: a file that can't be taken changes nothing
//! but what health, log and metrics say: the last good keys go on.

use std::sync::Arc;
use std::time::Duration;

use platform::health::ComponentHandle;
use platform::lifecycle::BoxError;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::{KeySet, Keys, StoreError, store};

/// A rotation is in force everywhere within about this, far below the time for which its keys were published before.
/// The content itself is looked at, a kilobyte: modification times are too coarse for two changes in one moment, and a
/// mounted folder may not tell them.
const INTERVAL: Duration = Duration::from_secs(1);

/// Looks at the file each second until `stop`.
pub async fn follow(
    keys: Arc<Keys>,
    path: String,
    health: ComponentHandle,
    stop: CancellationToken,
) -> Result<(), BoxError> {
    let mut seen = None;
    health.up();
    report(&keys.current(), true);
    loop {
        let reading = path.clone();
        match tokio::task::spawn_blocking(move || store::read(&reading)).await? {
            // A digest, because nothing else here needs to hold private keys in clear.
            Ok(content) => {
                let digest = Some(Sha256::digest(&content));
                if digest != seen {
                    seen = digest;
                    take(&keys, &content, &health);
                }
            }
            Err(error) => {
                // Whatever comes back is looked at, even if it is what was there before.
                if seen.take().is_some() {
                    refuse(&keys, &error, &health);
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

fn take(keys: &Keys, content: &[u8], health: &ComponentHandle) {
    match KeySet::parse(content) {
        Ok(set) => {
            let before = keys.current();
            let (old, new) = (before.signing.kid.clone(), set.signing.kid.clone());
            if old != new {
                tracing::info!(key.id = new, key.before = old, "another key signs from now on");
                if !before.published.keys.iter().any(|key| key.kid == new) {
                    tracing::warn!(
                        key.id = new,
                        "it was not published before; verifiers may not know it yet"
                    );
                }
            }
            report(&set, true);
            keys.replace(set);
            health.up();
        }
        Err(error) => refuse(keys, &error, health),
    }
}

fn refuse(keys: &Keys, error: &StoreError, health: &ComponentHandle) {
    tracing::error!(setting = "token.key-store", %error, "the key store can't be taken; the last good keys go on");
    report(&keys.current(), false);
    health.down(format!("token.key-store: {error}; the last good keys go on"));
}

fn report(set: &KeySet, good: bool) {
    metrics::gauge!("user_key_store_good").set(if good { 1.0 } else { 0.0 });
    metrics::gauge!("user_signing_key_since_timestamp_seconds").set((set.since_ms / 1000) as f64);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use platform::health::Health;

    use super::super::tests::{OTHER_KEY, RFC_8037_KEY, store_of};
    use super::*;

    /// As `couponctl` replaces it.
    fn replace(path: &Path, content: &str) {
        let beside = path.with_extension("new");
        std::fs::write(&beside, content).unwrap();
        std::fs::rename(beside, path).unwrap();
    }

    async fn until(what: &str, mut done: impl FnMut() -> bool) {
        for _ in 0..100 {
            if done() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{what}: not within 10 s");
    }

    #[tokio::test]
    async fn a_new_store_is_taken_up_and_a_bad_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        replace(&path, &store_of(&[(RFC_8037_KEY, "signing"), (OTHER_KEY, "next")]));
        let keys = Arc::new(Keys::new(KeySet::open(path.to_str().unwrap()).unwrap()));
        let health = Health::new().optional_component("keys");
        let stop = CancellationToken::new();
        let following = follow(keys.clone(), path.to_str().unwrap().to_owned(), health.clone(), stop.clone());
        let test = async {
            let first = keys.current().signing.kid.clone();
            // In place, on purpose: half of a file may be seen, and must do no harm.
            std::fs::write(&path, "{\"keys\": [").unwrap();
            until("the bad one is noticed", || !health.is_up()).await;
            assert_eq!(keys.current().signing.kid, first);
            std::fs::remove_file(&path).unwrap();
            tokio::time::sleep(2 * INTERVAL).await;
            assert_eq!(keys.current().signing.kid, first);

            replace(&path, &store_of(&[(RFC_8037_KEY, "previous"), (OTHER_KEY, "signing")]));
            until("the rotation is taken up", || keys.current().signing.kid != first).await;
            until("and health says so", || health.is_up()).await;
            let kids: Vec<_> = keys.current().published.keys.iter().map(|key| key.kid.clone()).collect();
            assert!(kids.len() == 2 && kids.contains(&first), "{kids:?}");
            stop.cancel();
        };
        let (followed, ()) = tokio::join!(following, test);
        followed.unwrap();
    }
}
