//! A repository that is elsewhere.

use std::sync::atomic::Ordering;

use config_server::repository::Repository;

use crate::locked::Locked;
use crate::support::{Git, serve, settings};

#[tokio::test]
async fn a_url_is_mirrored_and_fetched() {
    let git = Git::new(&[("application.yml", "a: 1\n")]);
    let first = git.run(&["rev-parse", "HEAD"]);
    let url = format!("file://{}", git.bare());
    let (server, repository) = serve(&url, git.folder()).await;
    assert_eq!(repository.uri(), url);
    assert_eq!(server.value("/web/default", "a").await, 1);

    git.commit(&[("application.yml", "a: 2\n")]);
    assert_eq!(server.value("/web/default", "a").await, 1);
    repository.fetch().await.unwrap();
    assert_eq!(server.value("/web/default", "a").await, 2);

    // The default branch of the remote changes, and the old one goes.
    git.run(&["checkout", "--quiet", "-b", "next"]);
    git.commit(&[("application.yml", "a: 3\n")]);
    git.run(&["--git-dir", &git.bare(), "symbolic-ref", "HEAD", "refs/heads/next"]);
    git.run(&["push", "--quiet", "origin", "--delete", "main"]);
    repository.fetch().await.unwrap();
    assert_eq!(server.value("/web/default", "a").await, 3);
    assert_eq!(server.get("/web/default/main").await.0, 404);
    assert_eq!(server.value(&format!("/web/default/{first}"), "a").await, 1);
}

#[tokio::test]
async fn without_its_remote_the_mirror_goes_on() {
    let git = Git::new(&[("application.yml", "a: 1\n")]);
    let url = format!("file://{}", git.bare());
    let (_, repository) = serve(&url, git.folder()).await;
    std::fs::rename(git.bare(), git.folder().join("away")).unwrap();
    assert!(repository.fetch().await.is_err());
    // Also after a new start.
    let (server, _) = serve(&url, git.folder()).await;
    assert_eq!(server.value("/web/default", "a").await, 1);
}

#[tokio::test]
async fn a_remote_that_never_answered_is_an_error_without_its_password() {
    let git = Git::new(&[]);
    // Nobody listens on port 1.
    let url = "http://user:hunter2@127.0.0.1:1/config.git";
    let error = Repository::open(&settings(url, git.folder())).await.unwrap_err().to_string();
    assert!(error.contains("git fetch failed") && !error.contains("hunter2"), "{error}");
}

#[tokio::test]
async fn a_password_reaches_the_remote_and_no_argument() {
    let git = Git::new(&[("application.yml", "a: 1\n")]);
    git.run(&["--git-dir", &git.bare(), "update-server-info"]);
    let remote = Locked::open(git.bare(), "kim", "s3sam@/%");
    let url = format!("http://kim:s3sam%40%2F%25@{}/config.git", remote.address);
    let (server, repository) = serve(&url, git.folder()).await;
    assert_eq!(server.value("/web/default/main", "a").await, 1);
    assert_eq!(*remote.seen.lock().unwrap(), Vec::<String>::new(), "arguments with the password");
    assert_eq!(repository.uri(), format!("http://{}/config.git", remote.address));
    assert!(remote.let_in.load(Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn a_password_that_can_not_be_told_from_a_path_is_refused() {
    let git = Git::new(&[]);
    let url = "http://user:hun/ter2@127.0.0.1:1/config.git";
    let error = Repository::open(&settings(url, git.folder())).await.unwrap_err().to_string();
    assert!(error.contains("%2F") && !error.contains("hun") && !error.contains("ter2"), "{error}");
}
