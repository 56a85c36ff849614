//! A mirror of a repository elsewhere. Invariant: a password is neither stored in the mirror, nor shown, nor an argument
//! of git; a failed fetch leaves what was there.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use super::git::{GitError, command};
use super::remote::Remote;

/// A first fetch of a configuration repository is small; longer is a connection that hangs.
const FETCH_LIMIT: Duration = Duration::from_secs(60);
/// Branches and tags, but not the thousands of pull requests that some hosts keep under `refs/`.
const REFSPECS: [&str; 2] = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];

#[derive(Debug)]
pub(super) struct Mirror {
    remote: Remote,
    folder: PathBuf,
}

/// `scheme://...`, or the `user@host:path` of ssh.
pub(super) fn is_url(place: &str) -> bool {
    let scp = place.split_once(':').is_some_and(|(host, _)| host.contains('@') && !host.contains('/'));
    place.contains("://") || scp
}

impl Mirror {
    /// Makes the mirror or takes the one that is there, and fetches.
    pub(super) async fn open(remote: Remote, data_folder: &Path) -> Result<Self, GitError> {
        std::fs::create_dir_all(data_folder).map_err(GitError::Run)?;
        let data_folder = std::fs::canonicalize(data_folder).map_err(GitError::Run)?;
        let folder = data_folder.join(folder_name(remote.address()));
        let mirror = Self { remote, folder };
        let is_new = !mirror.folder.join("HEAD").is_file();
        if is_new {
            mirror.git("init", &["init", "--quiet", "--bare", "--template="]).await?;
        }
        match mirror.fetch().await {
            Err(error) if is_new => {
                // Half a mirror would pass for a whole one at the next start.
                let _ = std::fs::remove_dir_all(&mirror.folder);
                Err(error)
            }
            Err(error) => {
                tracing::warn!(%error, "not fetched; the mirror of the last time is served");
                Ok(mirror)
            }
            Ok(()) => Ok(mirror),
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// As it may be shown.
    pub(super) fn address(&self) -> &str {
        self.remote.address()
    }

    pub(super) async fn fetch(&self) -> Result<(), GitError> {
        // No automatic cleaning: a commit that a branch has left must stay readable by its id.
        let quiet =
            ["-c", "gc.auto=0", "-c", "maintenance.auto=false", "fetch", "--quiet", "--prune", "--no-tags"];
        let arguments: Vec<&str> = quiet.into_iter().chain(["--", self.address()]).chain(REFSPECS).collect();
        self.git("fetch", &arguments).await?;
        let listed = self.git("ls-remote", &["ls-remote", "--symref", "--", self.address(), "HEAD"]).await?;
        // `ref: refs/heads/main<TAB>HEAD`
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let head = listed.lines().find_map(|line| line.strip_prefix("ref: ")?.strip_suffix("\tHEAD"));
        if let Some(head) = head.filter(|head| head.starts_with("refs/heads/")) {
            self.git("symbolic-ref", &["symbolic-ref", "HEAD", head]).await?;
        }
        Ok(())
    }

    async fn git(&self, name: &'static str, arguments: &[&str]) -> Result<Output, GitError> {
        let mut command = command(&self.folder);
        self.remote.log_in(&mut command);
        let run = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).output();
        let output = tokio::time::timeout(FETCH_LIMIT, run)
            .await
            .map_err(|_| GitError::Late)?
            .map_err(GitError::Run)?;
        if output.status.success() {
            return Ok(output);
        }
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(GitError::Failed { command: name, message })
    }
}

/// A readable name, one for each URL.
fn folder_name(url: &str) -> String {
    // FNV-1a: the same in every build.
    let hash = url.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let last =
        url.trim_end_matches('/').rsplit(['/', ':']).next().unwrap_or_default().trim_end_matches(".git");
    let last: String = last.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(40).collect();
    format!("{last}-{hash:016x}.git")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_apart() {
        for url in [
            "https://example.org/a.git",
            "ssh://git@example.org/a",
            "file:///srv/a.git",
            "git@example.org:a/b.git",
        ] {
            assert!(is_url(url), "{url}");
        }
        for path in ["/srv/a.git", "config.git", "./a@b/c:d", "../x"] {
            assert!(!is_url(path), "{path}");
        }
    }

    #[test]
    fn folders_are_named_after_their_address() {
        assert!(folder_name("https://example.org/team/config.git").starts_with("config-"));
        assert_ne!(
            folder_name("https://example.org/a/config.git"),
            folder_name("https://example.org/b/config.git")
        );
    }
}
