//! What tokens are believed.

use std::time::Duration;

use jsonwebtoken::Algorithm;
use platform::config::{Problems, Secret, duration};
use serde::{Deserialize, Deserializer, Serialize};

use crate::auth::jwks::Place;
use crate::routes::uri::TargetUri;

/// RFC 7518, 3.2: an HS256 key has at least the size of the hash.
const HS256_MIN_BYTES: usize = 32;
/// The user service keeps the end of a login for a minute longer than its last token lives.
const MAX_LEEWAY: Duration = Duration::from_mins(1);
/// And for so long, and that minute, if it did not make the login's tokens.
const MAX_LIFETIME: Duration = Duration::from_hours(24);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub enum JwtAlgorithm {
    EdDSA,
    ES256,
    ES384,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    HS256,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct JwtSettings {
    /// `iss` that a token must have.
    pub issuer: String,
    /// One of them must be in a token's `aud`.
    #[serde(deserialize_with = "one_or_many")]
    pub audience: Vec<String>,
    /// What a token may be signed with; a token that names another is refused.
    #[serde(default = "defaults::algorithms")]
    pub algorithms: Vec<JwtAlgorithm>,
    /// Whether the header must say `typ: at+jwt` (RFC 9068); `JWT` or nothing will not do then.
    #[serde(default)]
    pub require_at_jwt: bool,
    /// The key set of all algorithms but HS256: `lb://service/path`, `http://host:port/path` or `https://`.
    #[serde(default = "defaults::jwks_uri")]
    pub jwks_uri: String,
    /// How often the key set is fetched without need.
    #[serde(default = "defaults::jwks_refresh", with = "duration")]
    pub jwks_refresh: Duration,
    /// How often it is fetched at most when tokens name keys that are not known.
    #[serde(default = "defaults::jwks_min_interval", with = "duration")]
    pub jwks_min_interval: Duration,
    /// The key of HS256 tokens, at least 32 bytes.
    #[serde(default)]
    pub hs256_secret: Secret,
    /// How far clocks may differ, in whole seconds; at most 60, and 30 where a token may live for 24 h.
    #[serde(default = "defaults::leeway", with = "duration")]
    pub leeway: Duration,
    /// How long a token may live, from `iat` to `exp` (without `iat`, from now on), in whole seconds; at most 24 h.
    #[serde(default = "defaults::max_lifetime", with = "duration")]
    pub max_lifetime: Duration,
    /// Verified tokens kept, each some 800 bytes.
    #[serde(default = "defaults::cache_capacity")]
    pub cache_capacity: usize,
}

mod defaults {
    use std::time::Duration;

    use super::JwtAlgorithm;

    /// What the user service signs with.
    pub(super) fn algorithms() -> Vec<JwtAlgorithm> {
        vec![JwtAlgorithm::EdDSA]
    }

    pub(super) fn jwks_uri() -> String {
        "lb://user-service/.well-known/jwks.json".to_owned()
    }

    /// A key is published long before its first use, so this only bounds how long a withdrawn one lives.
    pub(super) fn jwks_refresh() -> Duration {
        Duration::from_secs(300)
    }

    /// Rubbish tokens cost the user service at most this rate.
    pub(super) fn jwks_min_interval() -> Duration {
        Duration::from_secs(10)
    }

    /// Hosts with working time synchronisation differ by far less.
    pub(super) fn leeway() -> Duration {
        Duration::from_secs(5)
    }

    /// As long as the ends of logins allow.
    pub(super) fn max_lifetime() -> Duration {
        super::MAX_LIFETIME
    }

    /// About 80 MB when full.
    pub(super) fn cache_capacity() -> usize {
        100_000
    }
}

/// What a gateway without tokens has: it believes none.
impl Default for JwtSettings {
    fn default() -> Self {
        Self {
            issuer: String::new(),
            audience: Vec::new(),
            algorithms: Vec::new(),
            require_at_jwt: false,
            jwks_uri: String::new(),
            jwks_refresh: defaults::jwks_refresh(),
            jwks_min_interval: defaults::jwks_min_interval(),
            hs256_secret: Secret::default(),
            leeway: defaults::leeway(),
            max_lifetime: defaults::max_lifetime(),
            cache_capacity: defaults::cache_capacity(),
        }
    }
}

impl JwtAlgorithm {
    /// Of those that a file may name; HS256 is not among them.
    pub const ASYMMETRIC: [Self; 9] = [
        Self::EdDSA,
        Self::ES256,
        Self::ES384,
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
    ];

    pub fn algorithm(self) -> Algorithm {
        match self {
            Self::EdDSA => Algorithm::EdDSA,
            Self::ES256 => Algorithm::ES256,
            Self::ES384 => Algorithm::ES384,
            Self::RS256 => Algorithm::RS256,
            Self::RS384 => Algorithm::RS384,
            Self::RS512 => Algorithm::RS512,
            Self::PS256 => Algorithm::PS256,
            Self::PS384 => Algorithm::PS384,
            Self::PS512 => Algorithm::PS512,
            Self::HS256 => Algorithm::HS256,
        }
    }
}

impl JwtSettings {
    /// Whether tokens are verified with the shared secret, and with nothing else.
    pub fn is_shared_secret(&self) -> bool {
        self.algorithms.contains(&JwtAlgorithm::HS256)
    }

    /// Whether tokens are verified with the keys of a set.
    pub fn has_key_set(&self) -> bool {
        !self.algorithms.is_empty() && !self.is_shared_secret()
    }

    /// Where the key set is: what names no set itself names its issuer.
    pub fn place(&self) -> Place {
        if self.jwks_uri.is_empty() {
            Place::Issuer(self.issuer.clone())
        } else {
            Place::KeySet(self.jwks_uri.clone())
        }
    }

    pub fn validate(&self, problems: &mut Problems) {
        if self.issuer.is_empty() {
            problems.add("jwt.issuer", "must not be empty");
        }
        if self.audience.is_empty() || self.audience.iter().any(String::is_empty) {
            problems.add("jwt.audience", "must not be empty");
        }
        if self.algorithms.is_empty() {
            problems.add("jwt.algorithms", "must name at least one algorithm");
        }
        if self.is_shared_secret() {
            // Who can do both can be talked into taking a public key, which everybody has, for the secret.
            if self.algorithms.iter().any(|algorithm| *algorithm != JwtAlgorithm::HS256) {
                problems
                    .add("jwt.algorithms", "must be HS256 alone, or algorithms of public keys without HS256");
            }
            if self.hs256_secret.expose().len() < HS256_MIN_BYTES {
                problems
                    .add("jwt.hs256-secret", format!("must have at least {HS256_MIN_BYTES} bytes for HS256"));
            }
        } else {
            match TargetUri::parse(&self.jwks_uri) {
                Ok((TargetUri::Nowhere, _)) => {
                    problems.add("jwt.jwks-uri", "must be lb://, http:// or https://");
                }
                Ok(_) => {}
                Err(problem) => problems.add("jwt.jwks-uri", problem),
            }
        }
        // Beyond these a token would come back to life when the end of its login is forgotten. The leeway is given to a
        // token's whole life and to its end.
        let longest = self.max_lifetime.saturating_add(self.leeway.saturating_mul(2));
        if self.leeway > MAX_LEEWAY {
            problems.add("jwt.leeway", "must be at most 60s: the ends of logins are remembered no longer");
        } else if self.max_lifetime <= MAX_LIFETIME && longest > MAX_LIFETIME + MAX_LEEWAY {
            problems.add("jwt.leeway", "must, twice and with jwt.max-lifetime, be at most 24h and 60s");
        }
        if self.max_lifetime.is_zero() {
            problems.add("jwt.max-lifetime", "must be more than 0");
        }
        if self.max_lifetime > MAX_LIFETIME {
            problems
                .add("jwt.max-lifetime", "must be at most 24h: the ends of logins are remembered no longer");
        }
    }
}

/// One text, or a list of them.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Written::deserialize(deserializer)? {
        Written::One(text) => vec![text],
        Written::Many(list) => list,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems_of(change: &serde_json::Value) -> Vec<String> {
        let mut settings = json!({"issuer": "i", "audience": "a"});
        for (key, value) in change.as_object().unwrap() {
            settings[key] = value.clone();
        }
        let settings: JwtSettings = serde_json::from_value(settings).unwrap();
        let mut problems = Problems::default();
        settings.validate(&mut problems);
        problems.iter().map(str::to_owned).collect()
    }

    #[test]
    fn a_shared_secret_and_public_keys_do_not_go_together() {
        let secret = "0123456789abcdef0123456789abcdef";
        assert!(problems_of(&json!({})).is_empty());
        assert!(problems_of(&json!({"algorithms": ["RS256", "ES256"], "audience": ["a", "b"]})).is_empty());
        assert!(problems_of(&json!({"algorithms": ["HS256"], "hs256-secret": secret})).is_empty());
        for other in JwtAlgorithm::ASYMMETRIC {
            let mixed = problems_of(&json!({"algorithms": ["HS256", other], "hs256-secret": secret}));
            assert!(mixed[0].starts_with("jwt.algorithms: must be HS256 alone"), "{other:?}: {mixed:?}");
        }
    }

    #[test]
    fn no_token_may_outlive_the_memory_of_its_logins_end() {
        let leeway = "jwt.leeway: must be at most 60s: the ends of logins are remembered no longer";
        let both = "jwt.leeway: must, twice and with jwt.max-lifetime, be at most 24h and 60s";
        let lifetime = "jwt.max-lifetime: must be at most 24h: the ends of logins are remembered no longer";
        let cases: [(u64, &str, &[&str]); 6] = [
            (30, "24h", &[]),
            (60, "23h", &[]),
            (31, "24h", &[both]),
            (61, "1h", &[leeway]),
            (5, "86401s", &[lifetime]),
            (600, "7d", &[leeway, lifetime]),
        ];
        for (seconds, max_lifetime, problems) in cases {
            let change = json!({"leeway": format!("{seconds}s"), "max-lifetime": max_lifetime});
            assert_eq!(problems_of(&change), problems, "{change}");
        }
    }

    #[test]
    fn what_would_check_nothing_is_refused() {
        for (change, path) in [
            (json!({"algorithms": []}), "jwt.algorithms"),
            (json!({"algorithms": ["HS256"], "hs256-secret": "short"}), "jwt.hs256-secret"),
            (json!({"issuer": ""}), "jwt.issuer"),
            (json!({"audience": []}), "jwt.audience"),
            (json!({"audience": ["a", ""]}), "jwt.audience"),
            (json!({"jwks-uri": "no://op"}), "jwt.jwks-uri"),
            (json!({"max-lifetime": "0s"}), "jwt.max-lifetime"),
        ] {
            let problems = problems_of(&change);
            assert!(problems.len() == 1 && problems[0].starts_with(path), "{change}: {problems:?}");
        }
    }
}
