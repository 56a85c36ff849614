//! What must never be seen in a log or an answer: everything secret that the tests made or met.

use std::sync::{PoisonError, RwLock};

/// Shorter ones would be found by chance.
const SHORTEST: usize = 8;

static MET: RwLock<Vec<String>> = RwLock::new(Vec::new());

/// Notes a secret and gives it back.
pub fn met(secret: impl Into<String>) -> String {
    let secret = secret.into();
    let mut met = MET.write().unwrap_or_else(PoisonError::into_inner);
    met.push(secret.clone());
    // A token may be cut: its signature alone is worth hiding, too.
    if secret.starts_with("eyJ") {
        met.extend(secret.rsplit('.').next().map(str::to_owned));
    }
    met.retain(|secret| secret.len() >= SHORTEST);
    secret
}

/// What is secret in a text: a number, as this is said in logs.
pub fn seen_in(text: &str) -> Option<String> {
    if has_jwt(text) {
        return Some("a JWT".to_owned());
    }
    let met = MET.read().unwrap_or_else(PoisonError::into_inner);
    met.iter().position(|secret| text.contains(secret)).map(|number| format!("secret {number}"))
}

/// A password that occurs nowhere else.
pub fn password() -> String {
    met(format!("pw-{}", uuid::Uuid::new_v4().simple()))
}

/// "eyJ" begins the base64 of `{"`, in the header and in the claims.
fn has_jwt(text: &str) -> bool {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')))
        .any(|word| word.contains("eyJ") && word.contains(".eyJ"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_met_is_seen_and_a_token_always() {
        let password = password();
        assert!(seen_in(&format!("a {password} b")).is_some());
        let token = met("eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl");
        assert_eq!(seen_in(&token).as_deref(), Some("a JWT"));
        assert!(seen_in("a c2lnbmF0dXJl b").is_some());
        met("short");
        assert_eq!(seen_in("short, eyJ alone"), None);
    }
}
