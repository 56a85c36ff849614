//! Where a mirror is fetched from. Invariant: the address holds no password, so it may be shown and be an argument of
//! git; user and password reach git by its environment alone, which other users of the machine can't read.

use platform::config::Secret;
use tokio::process::Command;

/// Answers git's question for a password. The shell's arguments name the variables, not what is in them.
const HELPER: &str = r#"!f() { test "$1" != get || printf 'username=%s\npassword=%s\n' "$REMOTE_USER" "$REMOTE_PASSWORD"; }; f"#;

/// Why a URL can't be used. Says nothing of what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error(
        "the URL can be read in two ways: write / and @ in a user or password as %2F and %40, and @ in a path as %40"
    )]
    Ambiguous,
    #[error("user and password of the URL must be text without control characters")]
    Undecodable,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Remote {
    address: String,
    credentials: Option<Credentials>,
}

#[derive(Clone, Debug, PartialEq)]
struct Credentials {
    /// `https://host:port`: whoever the host redirects to gets nothing.
    scope: String,
    user: String,
    password: Option<Secret>,
}

impl Remote {
    pub(super) fn parse(url: &str) -> Result<Self, AddressError> {
        let plain = Self { address: url.to_owned(), credentials: None };
        let Some((scheme, rest)) = url.split_once("://") else { return Ok(plain) };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        // `user:pass/word@host`, or `host:8080/@`: nobody can tell.
        if authority.contains(':') && path.contains('@') {
            return Err(AddressError::Ambiguous);
        }
        let Some((login, host)) = authority.rsplit_once('@') else { return Ok(plain) };
        let (user, password) = login.split_once(':').map_or((login, None), |(user, it)| (user, Some(it)));
        if !["http", "https"].contains(&scheme) {
            // Such as ssh, which takes a user and asks nobody for a password.
            return Ok(Self { address: format!("{scheme}://{user}@{host}{path}"), credentials: None });
        }
        Ok(Self {
            address: format!("{scheme}://{host}{path}"),
            credentials: Some(Credentials {
                scope: format!("{scheme}://{host}"),
                user: decoded(user)?,
                password: password.map(decoded).transpose()?.map(Secret::new),
            }),
        })
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Lets a git that asks this remote know who is asking.
    pub(super) fn log_in(&self, command: &mut Command) {
        let Some(Credentials { scope, user, password }) = &self.credentials else { return };
        let mut settings = vec![(format!("credential.{scope}.username"), user.as_str())];
        if let Some(password) = password {
            // Helpers that the machine has are asked no more: they would store the password.
            settings.push(("credential.helper".to_owned(), ""));
            settings.push((format!("credential.{scope}.helper"), HELPER));
            command.env("REMOTE_USER", user).env("REMOTE_PASSWORD", password.expose());
        }
        command.env("GIT_CONFIG_COUNT", settings.len().to_string());
        for (index, (key, value)) in settings.into_iter().enumerate() {
            command
                .env(format!("GIT_CONFIG_KEY_{index}"), key)
                .env(format!("GIT_CONFIG_VALUE_{index}"), value);
        }
    }
}

/// Percent-decoded; a `%` that begins no code stands for itself, as in git.
fn decoded(text: &str) -> Result<String, AddressError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let code = after.get(..2).and_then(|code| std::str::from_utf8(code).ok());
        let code = code.filter(|_| *first == b'%').and_then(|code| u8::from_str_radix(code, 16).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    // A line break would be a line of its own to git.
    let text = String::from_utf8(bytes).map_err(|_| AddressError::Undecodable)?;
    if text.contains(char::is_control) { Err(AddressError::Undecodable) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Address, user and password.
    fn parts(url: &str) -> (String, Option<(String, Option<String>)>) {
        let remote = Remote::parse(url).unwrap();
        let shown = format!("{remote:?}");
        assert!(!shown.contains("hunter") && !remote.address.contains("hunter"), "{shown}");
        let login = remote.credentials.map(|it| (it.user, it.password.map(|it| it.expose().to_owned())));
        (remote.address, login)
    }

    fn login(user: &str, password: &str) -> Option<(String, Option<String>)> {
        Some((user.to_owned(), Some(password.to_owned())))
    }

    #[test]
    fn user_and_password_leave_the_address() {
        let address = || "https://example.org/team/config.git".to_owned();
        assert_eq!(
            parts("https://user:hunter2@example.org/team/config.git"),
            (address(), login("user", "hunter2"))
        );
        assert_eq!(
            parts("https://us%40er:hunter%2F2%25%zz@example.org/team/config.git"),
            (address(), login("us@er", "hunter/2%%zz"))
        );
        assert_eq!(
            parts("https://user:hunter@2:@example.org/team/config.git"),
            (address(), login("user", "hunter@2:"))
        );
        assert_eq!(
            parts("https://user@example.org/team/config.git"),
            (address(), Some(("user".to_owned(), None)))
        );
        // Nobody asks for this one.
        assert_eq!(parts("ssh://git:hunter2@example.org/a"), ("ssh://git@example.org/a".to_owned(), None));
    }

    #[test]
    fn other_places_stay_as_they_are() {
        for url in [
            "https://example.org/a@b",
            "https://[::1]:8443/a",
            "file:///srv/a@b.git",
            "git@example.org:a/b.git",
        ] {
            assert_eq!(parts(url), (url.to_owned(), None));
        }
    }

    #[test]
    fn what_may_be_a_password_is_no_part_of_an_address() {
        for url in [
            "https://user:hun/ter2@example.org/config.git",
            "https://user:80/hunter2@example.org/config.git",
            "https://user:hun?ter2@example.org/config.git",
            "https://user:hunt@er/2@example.org/config.git",
        ] {
            assert_eq!(Remote::parse(url), Err(AddressError::Ambiguous), "{url}");
        }
        assert_eq!(Remote::parse("https://user:a%0Ab@example.org/"), Err(AddressError::Undecodable));
        assert_eq!(Remote::parse("https://user:%ff@example.org/"), Err(AddressError::Undecodable));
    }
}
