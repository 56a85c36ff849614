//! The git command line. Objects come from one long-lived `git cat-file --batch`, which sees new refs and packs by
//! itself. Invariant: an exchange that did not end is never followed by another with the same child.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;

/// For one object of a local repository, with much to spare.
const READ_LIMIT: Duration = Duration::from_secs(5);
/// What would lead git elsewhere than to the given folder, or change what objects are.
const STRAY_VARIABLES: [&str; 8] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_COMMON_DIR",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
];

#[derive(Debug, thiserror::Error)]
pub enum GitError {
    #[error("can't run git: {0}")]
    Run(#[source] std::io::Error),
    #[error("git gave no usable answer: {0}")]
    Exchange(#[source] std::io::Error),
    #[error("git did not answer in time")]
    Late,
    #[error("object {0} is missing or damaged")]
    Incomplete(String),
    #[error("git {command} failed: {message}")]
    Failed { command: &'static str, message: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Commit,
    Tree,
    Blob,
    Tag,
}

#[derive(Debug)]
pub(super) struct Object {
    pub(super) id: String,
    pub(super) kind: Kind,
    /// At most as much as was asked for.
    pub(super) data: Vec<u8>,
}

/// A `git` that looks at the given repository and at nothing else.
pub(super) fn command(folder: &Path) -> Command {
    let mut command = Command::new("git");
    for variable in STRAY_VARIABLES {
        command.env_remove(variable);
    }
    command
        .arg("--git-dir")
        .arg(folder)
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_NO_REPLACE_OBJECTS", "1")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Reads objects by name, one at a time.
#[derive(Debug)]
pub(super) struct ObjectReader {
    folder: PathBuf,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    /// Killed when dropped.
    _child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl ObjectReader {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, running: Mutex::new(None) }
    }

    /// None if there is no such object. `name` must not hold a line break.
    pub(super) async fn read(&self, name: &str, limit: usize) -> Result<Option<Object>, GitError> {
        let mut running = self.running.lock().await;
        // Taken out, so that it is gone if this future is dropped in the middle.
        if let Some(mut old) = running.take() {
            // It may have been killed since the last time; then a new one is asked.
            if let Ok(Ok(object)) = tokio::time::timeout(READ_LIMIT, old.exchange(name, limit)).await {
                *running = Some(old);
                return Ok(object);
            }
            tracing::warn!("the git reader broke and is started anew");
        }
        let mut new = Running::start(&self.folder)?;
        let object = tokio::time::timeout(READ_LIMIT, new.exchange(name, limit))
            .await
            .map_err(|_| GitError::Late)?
            .map_err(GitError::Exchange)?;
        *running = Some(new);
        Ok(object)
    }
}

impl Running {
    fn start(folder: &Path) -> Result<Self, GitError> {
        let mut child = command(folder)
            .args(["cat-file", "--batch"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(GitError::Run)?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (requests, answers) =
            pipes.ok_or_else(|| GitError::Run(std::io::ErrorKind::BrokenPipe.into()))?;
        Ok(Self { _child: child, requests, answers: BufReader::new(answers) })
    }

    async fn exchange(&mut self, name: &str, limit: usize) -> std::io::Result<Option<Object>> {
        self.requests.write_all(format!("{name}\n").as_bytes()).await?;
        let mut header = String::new();
        if self.answers.read_line(&mut header).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let header = header.trim_end_matches('\n');
        if header.ends_with(" missing") || header.ends_with(" ambiguous") {
            return Ok(None);
        }
        let (id, kind, size) = parse_header(header).ok_or(std::io::ErrorKind::InvalidData)?;
        let wanted = size.min(limit as u64);
        let mut data = Vec::new();
        (&mut self.answers).take(wanted).read_to_end(&mut data).await?;
        // The rest, and the line break after it.
        let mut rest = (&mut self.answers).take(size - wanted + 1);
        let skipped = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
        if data.len() as u64 != wanted || skipped != size - wanted + 1 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Some(Object { id, kind, data }))
    }
}

fn parse_header(header: &str) -> Option<(String, Kind, u64)> {
    let mut parts = header.split(' ');
    let id = parts.next()?.to_owned();
    let kind = match parts.next()? {
        "commit" => Kind::Commit,
        "tree" => Kind::Tree,
        "blob" => Kind::Blob,
        "tag" => Kind::Tag,
        _ => return None,
    };
    let size = parts.next()?.parse().ok()?;
    Some((id, kind, size))
}
