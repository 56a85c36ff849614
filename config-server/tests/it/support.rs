//! A git repository in a temporary folder, and a server over it.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use config_server::config::RepositorySettings;
use config_server::repository::Repository;
use http_body_util::BodyExt as _;
use platform::config::{Secret, ServerSettings};
use platform::http::server::{Front, layered};
use serde_json::Value;
use tempfile::TempDir;
use tower::ServiceExt as _;

/// A bare repository, and the work tree that commits are made in.
pub(crate) struct Git {
    folder: TempDir,
}

impl Git {
    /// With one commit of the given files on the branch `main`.
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let git = Self { folder: tempfile::tempdir().unwrap() };
        let bare = git.bare();
        run(&git.folder, &["init", "--quiet", "--bare", "--initial-branch=main", &bare]);
        run(&git.folder, &["clone", "--quiet", &bare, "work"]);
        git.run(&["checkout", "--quiet", "-B", "main"]);
        git.commit(files);
        git
    }

    /// The path of the bare repository.
    pub(crate) fn bare(&self) -> String {
        self.folder.path().join("config.git").display().to_string()
    }

    pub(crate) fn work(&self) -> std::path::PathBuf {
        self.folder.path().join("work")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Git in the work tree; its output without the line break.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        run(self.work(), arguments)
    }

    /// Commits the files and pushes; the commit's id.
    pub(crate) fn commit(&self, files: &[(&str, &str)]) -> String {
        for (name, content) in files {
            std::fs::write(self.work().join(name), content).unwrap();
        }
        self.run(&["add", "--all"]);
        self.run(&["commit", "--quiet", "--allow-empty", "--message=change"]);
        self.run(&["push", "--quiet", "origin", "HEAD"]);
        self.run(&["rev-parse", "HEAD"])
    }

    /// A server over the bare repository.
    pub(crate) async fn server(&self) -> Server {
        serve(&self.bare(), self.folder.path()).await.0
    }
}

fn run(folder: impl AsRef<Path>, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(folder)
        .args(["-c", "user.name=Tester", "-c", "user.email=tester@example.org", "-c", "commit.gpgsign=false"])
        .args(arguments)
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE")
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

pub(crate) fn settings(place: &str, folder: &Path) -> RepositorySettings {
    RepositorySettings {
        uri: Secret::new(place),
        data_folder: folder.join("mirrors"),
        fetch_interval: Duration::from_secs(3600),
    }
}

/// A server over any place that git knows.
pub(crate) async fn serve(place: &str, folder: &Path) -> (Server, Arc<Repository>) {
    let repository = Arc::new(Repository::open(&settings(place, folder)).await.unwrap());
    let front = layered(config_server::app::build(repository.clone()), &ServerSettings::default());
    (Server { front, uri: repository.uri().to_owned() }, repository)
}

pub(crate) struct Server {
    front: Front,
    uri: String,
}

impl Server {
    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        let (status, text) = self.sent(path).await;
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    async fn sent(&self, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = self.front.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// The status and body as they are sent, one source a line, with what differs from run to run named instead.
    pub(crate) async fn shown(&self, path: &str, ids: &[(&str, &str)]) -> String {
        let (status, text) = self.sent(path).await;
        let body: Value = serde_json::from_str(&text).unwrap();
        let mut text = text.replace(&self.uri, "REPO");
        let trace = body["traceId"].as_str().into_iter().map(|id| (id, "TRACE"));
        for (id, name) in trace.chain(ids.iter().copied()) {
            text = text.replace(id, name);
        }
        format!("{status}\n{}", text.replace("{\"name\":", "\n{\"name\":").trim())
    }

    /// One value of the first source that has it.
    pub(crate) async fn value(&self, path: &str, key: &str) -> Value {
        let (status, body) = self.get(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        let sources = body["propertySources"].as_array().unwrap();
        sources.iter().find_map(|source| source["source"].get(key)).cloned().unwrap_or(Value::Null)
    }
}
