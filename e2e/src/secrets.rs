//! What must never be seen in a log: everything secret that the tests made or met.

use std::sync::Mutex;

static MET: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Notes a secret and gives it back.
pub fn met(secret: impl Into<String>) -> String {
    let secret = secret.into();
    MET.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(secret.clone());
    secret
}

/// All that were noted in this run.
pub fn all() -> Vec<String> {
    MET.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
}

/// A password that occurs nowhere else.
pub fn password() -> String {
    met(format!("pw-{}", uuid::Uuid::new_v4().simple()))
}
