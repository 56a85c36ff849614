//! The repository as commits. Invariant: a snapshot is one commit and never changes; what a label means is looked up on
//! each request, so that a new commit is seen at once; only regular files at the top of a commit can be read.

mod git;
mod label;
mod mirror;
mod remote;
mod tree;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::RepositorySettings;
use crate::document::MAX_BYTES;
pub use git::GitError;
use git::{Kind, ObjectReader};
use mirror::Mirror;
pub use remote::AddressError;
use remote::Remote;

/// Commits whose list of files is kept. One is in use, and those that somebody pinned.
const MAX_SNAPSHOTS: usize = 64;

/// Why the repository can't be used at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{} is no git repository", .0.display())]
    NoRepository(PathBuf),
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("can't use the repository: {0}")]
    Git(#[from] GitError),
}

/// One commit's files at the top.
#[derive(Debug)]
pub struct Snapshot {
    commit: String,
    /// Name to object id.
    files: HashMap<String, String>,
}

impl Snapshot {
    /// The full id.
    #[must_use]
    pub fn commit(&self) -> &str {
        &self.commit
    }

    /// The id of a file's content, which is the same as long as the content is.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&str> {
        self.files.get(name).map(String::as_str)
    }
}

/// A git repository on this machine, its own or a mirror.
#[derive(Debug)]
pub struct Repository {
    uri: String,
    reader: ObjectReader,
    mirror: Option<Mirror>,
    snapshots: Mutex<HashMap<String, Arc<Snapshot>>>,
}

/// Whether a place is written so that it can be looked for.
///
/// # Errors
/// When it is a URL that can't be used.
pub fn check(place: &str) -> Result<(), AddressError> {
    Remote::parse(place.trim()).map(|_| ())
}

impl Repository {
    /// # Errors
    /// When there is no repository at the place, or a URL can't be fetched and never was.
    pub async fn open(settings: &RepositorySettings) -> Result<Self, OpenError> {
        let place = settings.uri.expose().trim();
        if mirror::is_url(place) {
            let mirror = Mirror::open(Remote::parse(place)?, &settings.data_folder).await?;
            return Ok(Self {
                uri: mirror.address().to_owned(),
                reader: ObjectReader::new(mirror.folder().to_owned()),
                mirror: Some(mirror),
                snapshots: Mutex::default(),
            });
        }
        let missing = || OpenError::NoRepository(PathBuf::from(place));
        let folder = std::fs::canonicalize(place).map_err(|_| missing())?;
        let git_folder = git_folder(&folder).ok_or_else(missing)?;
        Ok(Self {
            uri: format!("file://{}", folder.display()),
            reader: ObjectReader::new(git_folder),
            mirror: None,
            snapshots: Mutex::default(),
        })
    }

    /// The repository's address as it may be shown.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.uri
    }

    #[must_use]
    pub fn is_mirror(&self) -> bool {
        self.mirror.is_some()
    }

    /// Brings a mirror up to date. A folder has nothing to fetch.
    ///
    /// # Errors
    /// When the remote can't be reached; what was there before stays.
    pub async fn fetch(&self) -> Result<(), GitError> {
        match &self.mirror {
            Some(mirror) => mirror.fetch().await,
            None => Ok(()),
        }
    }

    /// The commit that a label means: a branch, a tag, a full name under `refs/`, or a commit id. Without a label it is
    /// the default branch. None if there is no such thing.
    ///
    /// # Errors
    /// When git fails.
    pub async fn snapshot(&self, label: Option<&str>) -> Result<Option<Arc<Snapshot>>, GitError> {
        let candidates = label.map_or_else(|| vec!["HEAD".to_owned()], label::candidates);
        for candidate in candidates {
            // Peels tags. What isn't a commit in the end is missing.
            let Some(commit) = self.reader.read(&format!("{candidate}^{{commit}}"), MAX_BYTES).await? else {
                continue;
            };
            if commit.kind != Kind::Commit {
                continue;
            }
            return self.snapshot_of(commit.id).await.map(Some);
        }
        Ok(None)
    }

    async fn snapshot_of(&self, commit: String) -> Result<Arc<Snapshot>, GitError> {
        if let Some(snapshot) = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner).get(&commit) {
            return Ok(snapshot.clone());
        }
        let tree = self.reader.read(&format!("{commit}^{{tree}}"), MAX_BYTES).await?;
        let tree = tree.ok_or_else(|| GitError::Incomplete(commit.clone()))?;
        let files =
            tree::files(&tree.data, commit.len() / 2).ok_or_else(|| GitError::Incomplete(commit.clone()))?;
        let snapshot = Arc::new(Snapshot { commit: commit.clone(), files });
        let mut snapshots = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
        if snapshots.len() >= MAX_SNAPSHOTS {
            snapshots.clear();
        }
        snapshots.insert(commit, snapshot.clone());
        Ok(snapshot)
    }

    /// The content of a file that a snapshot names.
    ///
    /// # Errors
    /// When git fails.
    pub async fn content(&self, id: &str) -> Result<Vec<u8>, GitError> {
        // One byte more, so that what is too large is seen to be.
        match self.reader.read(id, MAX_BYTES + 1).await? {
            Some(object) => Ok(object.data),
            None => Err(GitError::Incomplete(id.to_owned())),
        }
    }
}

/// The folder itself if it is bare, else its `.git`.
fn git_folder(folder: &Path) -> Option<PathBuf> {
    let is_git = |folder: &Path| folder.join("HEAD").is_file() && folder.join("objects").is_dir();
    if is_git(folder) {
        return Some(folder.to_owned());
    }
    Some(folder.join(".git")).filter(|inner| is_git(inner))
}
