//! Proving a password. Invariant: no handler checks one but here, so each failure is counted, and the answer takes the
//! same time whether the account exists or not.

use platform::config::Secret;
use platform::identity::ClientAddress;

use crate::app::AppState;
use crate::error::ApiError;
use crate::store::Credentials;
use crate::throttle::Attempt;

/// Whether `password` is the account's, and the attempt as it was counted. `name` is what was given as its e-mail address,
/// normalised; without an account nothing is ever right.
///
/// # Errors
/// `Throttled` where too many have failed; it is not told then whether this one was right.
pub async fn prove(
    state: &AppState,
    name: &str,
    account: Option<&Credentials>,
    password: Secret,
    client: ClientAddress,
) -> Result<(bool, Attempt), ApiError> {
    let attempt = state.throttle.attempt(name, account.map(|account| account.user), client);
    attempt.admit(&state.pool, state.clock.now_ms()).await?;
    let stored = account.map(|account| account.password_hash.clone());
    let right = state.passwords.verify(stored, password).await?;
    if right {
        attempt.admit(&state.pool, state.clock.now_ms()).await?;
        attempt.succeeded(&state.pool).await?;
    } else {
        attempt.failed(&state.pool, state.clock.now_ms()).await?;
    }
    Ok((right, attempt))
}
