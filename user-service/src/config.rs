//! The service's settings. Invariant: what passed [`Settings::validate`] can start the service; every problem is
//! reported at once, and none shows a secret.

use std::time::Duration;

use platform::config::{
    AdminSettings, Common, ConsulSettings, IdentitySettings, MysqlSettings, Problems, RedisSettings, Secret,
    ServerSettings, Settings, TelemetrySettings,
};
use serde::{Deserialize, Serialize};

pub use self::login::LoginSettings;
use crate::email::Email;
use crate::keys::KeySet;
use crate::password::rules;

mod login;

/// Issuer and audience of access tokens, as the gateway expects them by default.
const ISSUER: &str = "firstcome";
/// A token that leaks is useless after this, also if nobody ends its login; for so long are revocations remembered.
const ACCESS_TTL: Duration = Duration::from_secs(15 * 60);
/// Two weeks without a visit end a login.
const REFRESH_TTL: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// Longer ones would have to be remembered too long, once they are called back.
const MAX_ACCESS_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// At about 20 ms a hash and two cores this queue is worked off in 5 s, half of the default request timeout.
const MAX_WAITING: usize = 512;
/// Half of the threads that the runtime keeps for blocking work, and 4.75 GiB of memory.
const MOST_PARALLELISM: usize = 256;
/// As many as `server.max-connections` lets in by default.
const MOST_WAITING: usize = 10_000;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct UserSettings {
    pub server: ServerSettings,
    pub admin: AdminSettings,
    pub consul: ConsulSettings,
    pub telemetry: TelemetrySettings,
    pub mysql: MysqlSettings,
    pub redis: RedisSettings,
    pub identity: IdentitySettings,
    pub token: TokenSettings,
    pub login: LoginSettings,
    pub password: PasswordSettings,
    pub first_admin: FirstAdminSettings,
}

/// Access and refresh tokens.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct TokenSettings {
    pub issuer: String,
    pub audience: String,
    #[serde(with = "platform::config::duration")]
    pub access_ttl: Duration,
    #[serde(with = "platform::config::duration")]
    pub refresh_ttl: Duration,
    /// Path of the keys: a private JWK Set, as `couponctl keys` makes and rotates it. Read again whenever it changes.
    pub key_store: String,
}

impl Default for TokenSettings {
    fn default() -> Self {
        Self {
            issuer: ISSUER.to_owned(),
            audience: ISSUER.to_owned(),
            access_ttl: ACCESS_TTL,
            refresh_ttl: REFRESH_TTL,
            key_store: String::new(),
        }
    }
}

/// The pool that hashes passwords.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct PasswordSettings {
    /// Hashes at once, 19 MiB each, at most 256; 0 is the number of cores.
    pub parallelism: usize,
    /// Requests that may wait for their turn, at most 10,000; beyond that the answer is 503 at once.
    pub max_waiting: usize,
}

impl Default for PasswordSettings {
    fn default() -> Self {
        Self { parallelism: 0, max_waiting: MAX_WAITING }
    }
}

impl PasswordSettings {
    /// `parallelism`, with 0 resolved.
    #[must_use]
    pub fn slots(&self) -> usize {
        match self.parallelism {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            slots => slots,
        }
    }

    fn validate(&self, problems: &mut Problems) {
        if self.parallelism > MOST_PARALLELISM {
            problems.add(
                "password.parallelism",
                format_args!(
                    "must be at most {MOST_PARALLELISM}, is {}; each hash takes 19 MiB and a core, so give 0 for one \
                     per core",
                    self.parallelism
                ),
            );
        }
        if self.max_waiting > MOST_WAITING {
            problems.add(
                "password.max-waiting",
                format_args!(
                    "must be at most {MOST_WAITING}, is {}; who waits longer than server.request-timeout gets 503 all \
                     the same, so give {MAX_WAITING} or what the cores hash in that time",
                    self.max_waiting
                ),
            );
        }
    }
}

/// The account that can make others administrators; created at start if there is none and its address is not in use.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct FirstAdminSettings {
    /// Empty: none is created.
    pub email: String,
    pub password: Secret,
}

impl Settings for UserSettings {
    fn common(&self) -> Common<'_> {
        Common { server: &self.server, admin: &self.admin, consul: &self.consul, telemetry: &self.telemetry }
    }

    fn validate(&self, problems: &mut Problems) {
        self.mysql.validate(problems);
        self.redis.validate(problems);
        self.identity.validate(problems);
        self.token.validate(problems);
        self.login.validate(problems);
        self.password.validate(problems);
        self.first_admin.validate(problems);
    }
}

impl TokenSettings {
    fn validate(&self, problems: &mut Problems) {
        if self.issuer.is_empty() {
            problems.add("token.issuer", "must not be empty");
        }
        if self.audience.is_empty() {
            problems.add("token.audience", "must not be empty");
        }
        if self.access_ttl < Duration::from_secs(1) || self.access_ttl > MAX_ACCESS_TTL {
            problems.add("token.access-ttl", "must be between 1s and 24h");
        }
        if self.refresh_ttl <= self.access_ttl {
            problems.add("token.refresh-ttl", "must be longer than token.access-ttl");
        }
        if self.key_store.is_empty() {
            problems.add(
                "token.key-store",
                "is missing: give the path of a key store, made by `couponctl keys new --store PATH`",
            );
        } else if let Err(error) = KeySet::open(&self.key_store) {
            problems.add("token.key-store", error);
        }
    }
}

impl FirstAdminSettings {
    fn validate(&self, problems: &mut Problems) {
        if self.email.is_empty() {
            return;
        }
        let email = Email::parse(&self.email);
        if let Err(error) = email {
            problems.add("first-admin.email", error.english());
        }
        if let Err(weakness) = rules::check(&self.password, email.ok().as_ref()) {
            problems.add("first-admin.password", weakness.english());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::keys::tests::{RFC_8037_KEY, store_of};

    fn problems(change: impl FnOnce(&mut UserSettings)) -> Vec<String> {
        let mut settings = UserSettings::default();
        settings.mysql.database = "firstcome_users".to_owned();
        settings.identity.secret = Secret::from("a secret of at least thirty-two bytes");
        let mut store = tempfile::NamedTempFile::new().unwrap();
        store.write_all(store_of(&[(RFC_8037_KEY, "signing")]).as_bytes()).unwrap();
        settings.token.key_store = store.path().to_str().unwrap().to_owned();
        change(&mut settings);
        let mut problems = Problems::default();
        settings.validate(&mut problems);
        problems.iter().map(str::to_owned).collect()
    }

    #[test]
    fn the_defaults_need_only_their_secrets() {
        assert_eq!(problems(|_| {}), Vec::<String>::new());
    }

    #[test]
    fn all_problems_are_told_at_once_and_none_shows_a_secret() {
        let found = problems(|settings| {
            settings.token.issuer.clear();
            settings.token.access_ttl = Duration::from_secs(100_000);
            settings.token.refresh_ttl = Duration::from_secs(5);
            std::fs::write(&settings.token.key_store, "{\"keys\": [{\"d\": \"hidden-1\"").unwrap();
            settings.first_admin.email = "kim".to_owned();
            settings.first_admin.password = Secret::from("hidden");
        });
        let text = found.join("\n");
        assert!(!text.contains("hidden"), "{text}");
        let paths: Vec<_> = found.iter().filter_map(|line| line.split(':').next()).collect();
        assert_eq!(
            paths,
            [
                "token.issuer",
                "token.access-ttl",
                "token.refresh-ttl",
                "token.key-store",
                "first-admin.email",
                "first-admin.password",
            ]
        );
    }

    #[test]
    fn too_many_hashes_are_refused_with_limit_and_fix() {
        let settings = |parallelism, max_waiting| {
            problems(|settings| settings.password = PasswordSettings { parallelism, max_waiting })
        };
        assert_eq!(settings(256, 10_000), Vec::<String>::new());
        let text = settings(257, 10_001).join("\n");
        assert!(text.contains("password.parallelism: must be at most 256, is 257; "), "{text}");
        assert!(text.contains("password.max-waiting: must be at most 10000, is 10001; "), "{text}");
        assert!(text.contains("give 0") && text.contains("give 512"), "{text}");
        assert_eq!(settings(usize::MAX, usize::MAX).len(), 2);
    }

    #[test]
    fn the_settings_show_no_secret() {
        let mut settings = UserSettings::default();
        settings.first_admin.password = Secret::from("hidden-1");
        let shown = format!("{settings:?}{}", serde_json::to_string(&settings).unwrap());
        assert!(!shown.contains("hidden-1"), "{shown}");
    }
}
