//! What is read from where.

use config_server::repository::Repository;

use crate::support::{Git, serve, settings};

#[tokio::test]
async fn a_commit_is_seen_at_once_and_an_old_one_stays() {
    let git = Git::new(&[("application.yml", "a: 1\n")]);
    let first = git.run(&["rev-parse", "HEAD"]);
    git.run(&["tag", "--annotate", "--message=one", "v1"]);
    git.run(&["push", "--quiet", "origin", "v1"]);
    let server = git.server().await;
    assert_eq!(server.value("/web/default", "a").await, 1);

    let second = git.commit(&[("application.yml", "a: 2\n"), ("web.yml", "b: 3\n")]);
    let (_, body) = server.get("/web/default").await;
    assert_eq!(body["version"], second.as_str());
    assert_eq!(server.value("/web/default", "a").await, 2);
    assert_eq!(server.value("/web/default", "b").await, 3);
    for label in [first.as_str(), &first[..7], "v1", "refs(_)tags(_)v1", "nothing,v1"] {
        let path = format!("/web/default/{label}");
        assert_eq!(server.value(&path, "a").await, 1, "{label}");
        let (_, body) = server.get(&path).await;
        assert_eq!(body["version"], first.as_str(), "{label}");
    }
    // Packed objects and refs are found as well, by a reader that runs already.
    let third = git.commit(&[("application.yml", "a: 3\n")]);
    git.run(&["--git-dir", &git.bare(), "gc", "--quiet"]);
    assert_eq!(server.value("/web/default", "a").await, 3);
    assert_eq!(server.value(&format!("/web/default/{}", &third[..8]), "a").await, 3);
    // Back to an older commit.
    git.run(&["push", "--quiet", "--force", "origin", &format!("{first}:main")]);
    assert_eq!(server.value("/web/default", "a").await, 1);
}

#[tokio::test]
async fn nothing_but_commits_is_served() {
    let git = Git::new(&[("application.yml", "a: 1\n")]);
    let secret = git.folder().join("secret.yml");
    std::fs::write(&secret, "a: stolen\n").unwrap();
    std::os::unix::fs::symlink(&secret, git.work().join("link.yml")).unwrap();
    std::fs::create_dir(git.work().join("folder.yml")).unwrap();
    std::fs::write(git.work().join("folder.yml/x"), "a: inner\n").unwrap();
    git.commit(&[]);
    // Not committed.
    std::fs::write(git.work().join("application.yml"), "a: draft\n").unwrap();
    for place in [git.bare(), git.work().display().to_string()] {
        let (server, _) = serve(&place, git.folder()).await;
        for name in ["web", "link", "folder"] {
            assert_eq!(server.value(&format!("/{name}/default"), "a").await, 1, "{place} {name}");
        }
    }
}

#[tokio::test]
async fn what_is_no_repository_is_refused() {
    let git = Git::new(&[]);
    for place in ["/nonexistent/firstcome", &git.folder().display().to_string()] {
        let error = Repository::open(&settings(place, git.folder())).await.unwrap_err();
        assert_eq!(error.to_string(), format!("{place} is no git repository"));
    }
}

#[tokio::test]
async fn a_reader_that_was_killed_is_replaced() {
    let git = Git::new(&[("application.yml", "a: 1\n")]);
    let server = git.server().await;
    assert_eq!(server.value("/web/default", "a").await, 1);
    let bare = std::fs::canonicalize(git.bare()).unwrap();
    let mut killed = 0;
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).into_owned();
        if command.contains("cat-file") && command.contains(&bare.display().to_string()) {
            let pid = entry.file_name().into_string().unwrap();
            let kill = format!("kill -KILL {pid}"); // the shell's own: a bare machine has no such program
            assert!(std::process::Command::new("sh").args(["-c", &kill]).status().unwrap().success());
            killed += 1;
        }
    }
    assert_eq!(killed, 1);
    let second = git.commit(&[("application.yml", "a: 2\n")]);
    assert_eq!(server.get("/web/default").await.1["version"], second.as_str());
}

#[tokio::test]
async fn many_ask_at_once_and_some_give_up() {
    let git = Git::new(&[("application.yml", "a: 1\n")]);
    let server = git.server().await;
    let paths: Vec<String> = (0..50).map(|index| format!("/app{index}/default")).collect();
    let asked = paths.iter().enumerate().map(|(index, path)| {
        let server = &server;
        async move {
            if index % 3 == 0 {
                // Dropped in the middle, most of them.
                let _ = tokio::time::timeout(std::time::Duration::from_micros(50), server.get(path)).await;
            } else {
                assert_eq!(server.value(path, "a").await, 1);
            }
        }
    });
    futures_util::future::join_all(asked).await;
    assert_eq!(server.value("/web/default", "a").await, 1);
}
