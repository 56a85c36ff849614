//! Which passwords are taken, after NIST SP 800-63B: long enough, none that every attacker tries first, nothing about
//! composition. Invariant: a password is judged, hashed and checked in one form of Unicode, so that it is the same on
//! every keyboard.

use std::collections::HashSet;
use std::sync::LazyLock;

use platform::config::Secret;
use unicode_normalization::UnicodeNormalization as _;

use crate::email::Email;

/// Shortest and longest password, in code points after normalisation.
pub const MIN_LENGTH: usize = 8;
pub const MAX_LENGTH: usize = 128;
/// Of an address' parts, shorter ones are in too many words to mean anything.
const SHORTEST_WORD: usize = 3;
/// As it is said; passwords are compared without what is no letter.
const SERVICE_NAME: &str = "firstcome";

/// The commonest of those that have leaked anywhere, lower case, one a line.
static BREACHED: LazyLock<HashSet<&'static str>> = LazyLock::new(|| BREACHED_LINES.lines().collect());
const BREACHED_LINES: &str = include_str!("breached.txt");

/// Why a password is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weakness {
    /// With the length that was given, in code points.
    TooShort(usize),
    TooLong(usize),
    Breached,
    /// It is the account's address or the service's name, with digits and signs around at most.
    Obvious,
}

impl Weakness {
    /// The rule and the fix, in English.
    #[must_use]
    pub fn english(self) -> String {
        match self {
            Self::TooShort(length) => format!(
                "must have {MIN_LENGTH} to {MAX_LENGTH} characters, this one has {length}; use a longer password"
            ),
            Self::TooLong(length) => format!(
                "must have {MIN_LENGTH} to {MAX_LENGTH} characters, this one has {length}; use a shorter password"
            ),
            Self::Breached => {
                "is one of the commonest that have leaked elsewhere; use another, such as a few words in a row".to_owned()
            }
            Self::Obvious => {
                "is little more than your e-mail address or the name of this service; use another, such as a few words \
                 in a row"
                    .to_owned()
            }
        }
    }

    /// The rule and the fix, in Korean.
    #[must_use]
    pub fn korean(self) -> String {
        match self {
            Self::TooShort(length) => format!(
                "비밀번호는 {MIN_LENGTH}자 이상 {MAX_LENGTH}자 이하입니다(입력: {length}자). 더 긴 비밀번호를 사용하세요."
            ),
            Self::TooLong(length) => format!(
                "비밀번호는 {MIN_LENGTH}자 이상 {MAX_LENGTH}자 이하입니다(입력: {length}자). 더 짧은 비밀번호를 사용하세요."
            ),
            Self::Breached => {
                "다른 곳에서 유출된 흔한 비밀번호입니다. 단어 몇 개를 이어 쓰는 등 다른 비밀번호를 사용하세요.".to_owned()
            }
            Self::Obvious => {
                "이메일 주소나 서비스 이름과 거의 같은 비밀번호입니다. 단어 몇 개를 이어 쓰는 등 다른 비밀번호를 사용하세요."
                    .to_owned()
            }
        }
    }
}

/// Canonical composition (NFC), as RFC 8265, section 4.2.2, has it: one letter may come as one code point or as two,
/// depending on the system it is typed on. ASCII stays as it is.
#[must_use]
pub fn normalised(password: &Secret) -> Secret {
    Secret::from(password.expose().nfc().collect::<String>())
}

/// What speaks against a new password, for an account of this address, if one was given that is one.
pub fn check(password: &Secret, email: Option<&Email>) -> Result<(), Weakness> {
    let password = normalised(password);
    let text = password.expose();
    let length = text.chars().count();
    if length < MIN_LENGTH {
        return Err(Weakness::TooShort(length));
    }
    if length > MAX_LENGTH {
        return Err(Weakness::TooLong(length));
    }
    let lower = text.to_lowercase();
    if BREACHED.contains(lower.as_str()) {
        return Err(Weakness::Breached);
    }
    if is_obvious(&lower, email) { Err(Weakness::Obvious) } else { Ok(()) }
}

fn is_obvious(lower: &str, email: Option<&Email>) -> bool {
    let local = email.map(|email| email.as_str().split('@').next().unwrap_or_default()).unwrap_or_default();
    let mut words = vec![SERVICE_NAME.to_owned(), letters(local)];
    words.extend(local.split(|c: char| !c.is_alphabetic()).map(str::to_owned));
    words.retain(|word| word.chars().count() >= SHORTEST_WORD);
    // The longest first, so that a part does not spoil the whole.
    words.sort_by_key(|word| std::cmp::Reverse(word.len()));
    let all = letters(lower);
    let rest = words.iter().fold(all.clone(), |rest, word| rest.replace(word.as_str(), ""));
    let of_words = !all.is_empty() && rest.is_empty();
    // Some addresses are numbers.
    of_words || (!local.is_empty() && plain(lower) == plain(local))
}

fn letters(text: &str) -> String {
    text.chars().filter(|c| c.is_alphabetic()).collect()
}

fn plain(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(password: &str, email: &str) -> Result<(), Weakness> {
        check(&Secret::from(password), Email::parse(email).ok().as_ref())
    }

    #[test]
    fn the_list_is_as_it_is_looked_up() {
        assert!(BREACHED.len() >= 500, "{}", BREACHED.len());
        assert_eq!(BREACHED.len(), BREACHED_LINES.lines().count(), "none is there twice");
        for line in BREACHED_LINES.lines() {
            assert!(line.chars().count() >= MIN_LENGTH, "{line} is too short anyway");
            assert_eq!(line, line.nfc().collect::<String>().to_lowercase());
        }
    }

    #[test]
    fn what_everybody_tries_first_is_refused_however_it_is_written() {
        for password in ["password", "PassWord1", "12345678", "QWERTYUIOP", "iloveyou1", "lo\u{308}senord"] {
            assert_eq!(checked(password, "kim@example.com"), Err(Weakness::Breached), "{password}");
        }
        // Composition is nobody's business.
        for password in ["correct horse", "        ", "ñandú ñandú", "비밀번호비밀번호", "zzzzzzzzz"]
        {
            assert_eq!(checked(password, "kim@example.com"), Ok(()), "{password}");
        }
    }

    #[test]
    fn the_address_and_the_service_are_no_secret() {
        for (password, email) in [
            ("kimberley-park", "Kimberley.Park@example.com"),
            ("ParkKimberley99!", "kimberley.park@example.com"),
            ("kimberley2026", "kimberley.park@example.com"),
            ("kim12345!", "kim@example.com"),
            ("Firstcome2026", "kim@example.com"),
            ("first-come-kim", "kim@example.com"),
            ("FirstcomeFirstcome", "no address"),
            ("20261130", "2026.1130@example.com"),
        ] {
            assert_eq!(checked(password, email), Err(Weakness::Obvious), "{password} {email}");
        }
        for (password, email) in [
            ("first come, first served", "ada@firstcome.example"),
            ("kimono, silk and tea", "kim@example.com"),
            ("19283746", "kim@example.com"),
            ("abacus abacus", "ab@example.com"),
            ("20261131", "2026.1130@example.com"),
        ] {
            assert_eq!(checked(password, email), Ok(()), "{password} {email}");
        }
    }

    #[test]
    fn the_length_is_that_of_code_points_in_one_form() {
        assert_eq!(checked(&"e\u{301}".repeat(7), "x"), Err(Weakness::TooShort(7)));
        assert_eq!(checked(&"e\u{301}".repeat(128), "x"), Ok(()));
        assert_eq!(checked(&"😀".repeat(129), "x"), Err(Weakness::TooLong(129)));
    }

    #[test]
    fn one_form_and_ascii_as_it_is() {
        let form = |text: &str| normalised(&Secret::from(text)).expose().to_owned();
        assert_eq!(form("caf\u{e9}"), form("cafe\u{301}"));
        assert_eq!(form("각"), form("\u{1100}\u{1161}\u{11a8}"));
        assert_eq!(form("correct horse \t ~"), "correct horse \t ~");
        assert_ne!(form("ﬁ"), form("fi"), "compatibility is not sameness");
    }
}
