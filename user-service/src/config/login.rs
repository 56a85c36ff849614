//! How often a password may be wrong. The defaults' reasons are worked out in docs/adr/0009.

use std::time::Duration;

use platform::config::Problems;
use serde::{Deserialize, Serialize};

/// More slips than anybody makes in a row who knows his password.
const ACCOUNT_ADDRESS_FAILURES: u32 = 10;
/// One more each 36 minutes, 40 a day: less than half of what the account regains, so one address, or two, can't use up
/// what the account may fail at others.
const ACCOUNT_ADDRESS_REGAIN: Duration = Duration::from_secs(6 * 60 * 60);
/// What NIST SP 800-63B (on rate limiting) lets an account fail in a row.
const ACCOUNT_FAILURES: u32 = 100;
/// One more each quarter of an hour. An account is never locked for good, which would be a stranger's to do.
const ACCOUNT_REGAIN: Duration = Duration::from_secs(24 * 60 * 60);
/// An office or a school behind one address on a Monday morning.
const ADDRESS_FAILURES: u32 = 100;
/// Whoever tries leaked passwords of many accounts from one address tries 2,400 a day in place of some millions.
const ADDRESS_REGAIN: Duration = Duration::from_secs(60 * 60);

/// Of an account: what NIST allows. Of an address: where counting would be no limit any more.
const MOST_ACCOUNT_FAILURES: u32 = 100;
const MOST_ADDRESS_FAILURES: u32 = 100_000;
/// Below, a failure is regained faster than a password is hashed; above, counts would be kept for ever.
const SHORTEST_REGAIN: Duration = Duration::from_secs(60);
const LONGEST_REGAIN: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// So many wrong passwords at once, regained evenly within the time beside it: of an account at one address, of an account
/// at all addresses together, and of an address for all accounts together.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct LoginSettings {
    pub account_address_failures: u32,
    #[serde(with = "platform::config::duration")]
    pub account_address_regain: Duration,
    pub account_failures: u32,
    #[serde(with = "platform::config::duration")]
    pub account_regain: Duration,
    pub address_failures: u32,
    #[serde(with = "platform::config::duration")]
    pub address_regain: Duration,
}

impl Default for LoginSettings {
    fn default() -> Self {
        Self {
            account_address_failures: ACCOUNT_ADDRESS_FAILURES,
            account_address_regain: ACCOUNT_ADDRESS_REGAIN,
            account_failures: ACCOUNT_FAILURES,
            account_regain: ACCOUNT_REGAIN,
            address_failures: ADDRESS_FAILURES,
            address_regain: ADDRESS_REGAIN,
        }
    }
}

impl LoginSettings {
    pub(super) fn validate(&self, problems: &mut Problems) {
        let before = problems.iter().count();
        for (name, failures, most) in [
            ("account-address-failures", self.account_address_failures, MOST_ACCOUNT_FAILURES),
            ("account-failures", self.account_failures, MOST_ACCOUNT_FAILURES),
            ("address-failures", self.address_failures, MOST_ADDRESS_FAILURES),
        ] {
            if failures == 0 || failures > most {
                problems.add(
                    &format!("login.{name}"),
                    format_args!("must be between 1 and {most}, is {failures}"),
                );
            }
        }
        for (name, regain) in [
            ("account-address-regain", self.account_address_regain),
            ("account-regain", self.account_regain),
            ("address-regain", self.address_regain),
        ] {
            if regain < SHORTEST_REGAIN || regain > LONGEST_REGAIN {
                problems.add(&format!("login.{name}"), "must be between 1m and 30d");
            }
        }
        if problems.iter().count() == before && !self.one_address_leaves_the_account_open() {
            problems.add(
                "login.account-address-failures",
                "with login.account-address-regain must be less than login.account-failures with login.account-regain, \
                 both at once and in the long run; else one address can keep the owner out at all others",
            );
        }
    }

    fn one_address_leaves_the_account_open(&self) -> bool {
        let here = u128::from(self.account_address_failures) * self.account_regain.as_millis();
        let everywhere = u128::from(self.account_failures) * self.account_address_regain.as_millis();
        self.account_address_failures < self.account_failures && here < everywhere
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(change: impl FnOnce(&mut LoginSettings)) -> String {
        let mut settings = LoginSettings::default();
        change(&mut settings);
        let mut problems = Problems::default();
        settings.validate(&mut problems);
        problems.to_string()
    }

    #[test]
    fn limits_that_are_none_are_refused() {
        assert_eq!(problems(|_| {}), "");
        let text = problems(|it| {
            it.account_address_failures = 0;
            it.account_failures = 101;
            it.address_regain = Duration::from_secs(1);
        });
        for line in [
            "login.account-address-failures: must be between 1 and 100, is 0",
            "login.account-failures: must be between 1 and 100, is 101",
            "login.address-regain: must be between 1m and 30d",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }

    /// Guard: with such settings a stranger at one address locks everybody out of an account.
    #[test]
    fn one_address_must_not_be_able_to_use_up_an_account() {
        let refused = |text: String| text.contains("can keep the owner out");
        assert!(refused(problems(|it| it.account_address_failures = 100)));
        assert!(refused(problems(|it| it.account_address_regain = Duration::from_secs(2 * 60 * 60))));
        assert!(refused(problems(|it| it.account_regain = LONGEST_REGAIN)));
        assert!(!refused(problems(|it| it.account_address_regain = Duration::from_secs(3 * 60 * 60))));
    }
}
