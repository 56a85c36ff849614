//! A repository that is elsewhere.

use config_server::repository::Repository;

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
