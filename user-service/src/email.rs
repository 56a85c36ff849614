//! E-mail addresses. Invariant: an [`Email`] is normalised (no surrounding white space, lower case) and plausible,
//! so two spellings of one mailbox are one account.

use std::fmt;

use garde::i18n::InvalidEmail;
use garde::rules::email::parse_email;

/// The longest address that fits a mail path of 256 octets with its angle brackets (RFC 5321, 4.5.3.1.3).
pub const MAX_LENGTH: usize = 254;

/// A normalised address: ASCII, lower case, at most [`MAX_LENGTH`] characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Email(String);

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmailError {
    Empty,
    /// With the length that was given, in characters.
    TooLong(usize),
    MissingAt,
    /// The part before the `@` is longer than 64 characters (RFC 5321, 4.5.3.1.1).
    LocalPartTooLong,
    LocalPart,
    Domain,
}

impl Email {
    /// Trims, lower-cases and checks.
    pub fn parse(text: &str) -> Result<Self, EmailError> {
        let text = text.trim();
        let length = text.chars().count();
        if length > MAX_LENGTH {
            return Err(EmailError::TooLong(length));
        }
        let text = text.to_lowercase();
        parse_email(&text).map_err(|error| match error {
            InvalidEmail::Empty => EmailError::Empty,
            InvalidEmail::MissingAt => EmailError::MissingAt,
            InvalidEmail::UserLengthExceeded => EmailError::LocalPartTooLong,
            InvalidEmail::InvalidUser => EmailError::LocalPart,
            // A wrong domain, and whatever a later version of the check may distinguish.
            _ => EmailError::Domain,
        })?;
        Ok(Self(text))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl EmailError {
    /// The limit and the fix, in English.
    #[must_use]
    pub fn english(self) -> String {
        match self {
            Self::Empty => "must not be empty; give an address such as name@example.com".to_owned(),
            Self::TooLong(length) => {
                format!(
                    "must be at most {MAX_LENGTH} characters, this one has {length}; use a shorter address"
                )
            }
            Self::MissingAt => "has no @; give an address such as name@example.com".to_owned(),
            Self::LocalPartTooLong => {
                "must have at most 64 characters before the @; use a shorter address".to_owned()
            }
            Self::LocalPart => {
                "may have only unaccented letters, digits and .!#$%&'*+/=?^_`{|}~- before the @; \
                 give an address such as name@example.com"
                    .to_owned()
            }
            Self::Domain => {
                "has no valid domain after the @; give an address such as name@example.com".to_owned()
            }
        }
    }

    /// The limit and the fix, in Korean.
    #[must_use]
    pub fn korean(self) -> String {
        match self {
            Self::Empty => "이메일을 입력하세요(예: name@example.com).".to_owned(),
            Self::TooLong(length) => {
                format!("이메일은 최대 {MAX_LENGTH}자입니다(입력: {length}자). 더 짧은 주소를 사용하세요.")
            }
            Self::MissingAt => "이메일에 @가 없습니다(예: name@example.com).".to_owned(),
            Self::LocalPartTooLong => "이메일의 @ 앞부분은 최대 64자입니다. 더 짧은 주소를 사용하세요.".to_owned(),
            Self::LocalPart => {
                "이메일의 @ 앞에는 영문자, 숫자와 .!#$%&'*+/=?^_`{|}~- 만 쓸 수 있습니다(예: name@example.com)."
                    .to_owned()
            }
            Self::Domain => "이메일의 @ 뒤 도메인이 올바르지 않습니다(예: name@example.com).".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_mailbox_are_one_address() {
        for spelling in ["kim@example.com", "  Kim@Example.COM\t", "KIM@EXAMPLE.COM\n"] {
            assert_eq!(
                Email::parse(spelling).map(|email| email.to_string()),
                Ok("kim@example.com".to_owned())
            );
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_its_reason() {
        let long_local = format!("{}@example.com", "a".repeat(65));
        for (text, error) in [
            ("", EmailError::Empty),
            ("   ", EmailError::Empty),
            ("kim", EmailError::MissingAt),
            ("@example.com", EmailError::LocalPart),
            ("김@example.com", EmailError::LocalPart),
            ("kim park@example.com", EmailError::LocalPart),
            ("kim\0@example.com", EmailError::LocalPart),
            ("kim@", EmailError::Domain),
            ("kim@-example.com", EmailError::Domain),
            ("kim@exa mple.com", EmailError::Domain),
            ("kim@example.com@example.com", EmailError::Domain),
            (long_local.as_str(), EmailError::LocalPartTooLong),
        ] {
            assert_eq!(Email::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn the_length_limit_is_254_characters() {
        let tail = "e".repeat(63);
        let domain = format!("{tail}.{tail}.{}", "e".repeat(61));
        let exactly = format!("{}@{domain}", "a".repeat(MAX_LENGTH - domain.len() - 1));
        assert_eq!(exactly.len(), MAX_LENGTH);
        assert!(Email::parse(&exactly).is_ok());
        assert_eq!(Email::parse(&format!("{exactly}e")), Err(EmailError::TooLong(MAX_LENGTH + 1)));
    }
}
