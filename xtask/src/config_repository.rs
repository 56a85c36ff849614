//! The bare git repository that the config server reads: `config-repo/` of the work tree plus the addresses of this
//! run, as a commit.
//!
//! A commit is added only when what would be imported changed, so commits that a user pushed stay in force.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::interrupt::Interrupt;
use crate::servers::sql::USER;
use crate::servers::{kafka, redis};
use crate::state::{Folder, Ports};

/// E-mail of the first admin of a local run.
pub(crate) const ADMIN_EMAIL: &str = "admin@firstcome.example";
/// The gateway's claims are many in a local load run and the trace UI is small; a request that comes with a sampled
/// `traceparent` is traced in any case.
const SAMPLE_RATIO: f64 = 0.01;

/// Returns the commit that is in force.
pub(crate) fn import(source: &Path, folder: &Folder, ports: &Ports, interrupt: &Interrupt) -> Result<String> {
    let repository = folder.config_git();
    if !repository.join("HEAD").exists() {
        fs::create_dir_all(&repository)?;
        git(interrupt, &repository, None, &["init", "--quiet", "--bare", "--initial-branch=main"])?;
    }
    let work = folder.run().join("config");
    write(source, &work, ports)?;
    let run = |arguments: &[&str]| git(interrupt, &repository, Some(&work), arguments);
    run(&["add", "--all", "--force", "."])?;
    let tree = run(&["write-tree"])?;
    let imported =
        run(&["rev-parse", "--quiet", "--verify", "refs/firstcome/imported^{tree}"]).unwrap_or_default();
    let head = run(&["rev-parse", "--quiet", "--verify", "refs/heads/main"]).ok();
    if let Some(head) = &head
        && imported == tree
    {
        return Ok(head.clone());
    }
    let mut arguments = vec!["commit-tree", &tree, "-m", "Import config-repo with the addresses of this run"];
    if let Some(head) = &head {
        arguments.extend(["-p", head]);
    }
    let commit = run(&arguments)?;
    run(&["update-ref", "refs/heads/main", &commit])?;
    run(&["update-ref", "refs/firstcome/imported", &commit])?;
    Ok(commit)
}

/// Appends to a file of a run, as a commit on top of what was imported.
pub(crate) fn append(folder: &Folder, name: &str, text: &str, interrupt: &Interrupt) -> Result<()> {
    let (repository, work) = (folder.config_git(), folder.run().join("config"));
    let before = fs::read_to_string(work.join(name)).with_context(|| format!("read {name}"))?;
    fs::write(work.join(name), before + text)?;
    let run = |arguments: &[&str]| git(interrupt, &repository, Some(&work), arguments);
    run(&["add", "--force", name])?;
    let tree = run(&["write-tree"])?;
    let commit = run(&["commit-tree", &tree, "-p", "refs/heads/main", "-m", &format!("Change {name}")])?;
    run(&["update-ref", "refs/heads/main", &commit]).map(drop)
}

/// What is imported, as files: a process can take its settings from there, too.
pub(crate) fn write(source: &Path, work: &Path, ports: &Ports) -> Result<()> {
    if work.exists() {
        fs::remove_dir_all(work)?;
    }
    fs::create_dir_all(work)?;
    copy(source, work).with_context(|| format!("copy {}", source.display()))?;
    for (name, text) in local_files(ports) {
        fs::write(work.join(name), text)?;
    }
    Ok(())
}

fn git(interrupt: &Interrupt, repository: &Path, work: Option<&Path>, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("git");
    command.arg("--git-dir").arg(repository);
    if let Some(work) = work {
        command.arg("--work-tree").arg(work).current_dir(work);
    }
    // Neither the user's hooks and signing keys nor a surrounding repository have a say.
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"] {
        command.env_remove(name);
    }
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
    for role in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{role}_NAME"), "xtask").env(format!("GIT_{role}_EMAIL"), "xtask@localhost");
    }
    Ok(interrupt.run(command.args(arguments))?.trim().to_owned())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir_all(&target)?;
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn local_files(ports: &Ports) -> Vec<(&'static str, String)> {
    let port = |name: &str| ports.get(name).copied().unwrap_or_default();
    let sentinels: Vec<String> =
        redis::SENTINELS.iter().map(|name| format!("\"127.0.0.1:{}\"", port(name))).collect();
    let telemetry = match ports.get("zipkin") {
        Some(port) => format!(
            "telemetry:\n  exporter: zipkin\n  endpoint: \"http://127.0.0.1:{port}/api/v2/spans\"\n  sample-ratio: {SAMPLE_RATIO}\n"
        ),
        None => String::new(),
    };
    let application = format!(
        "# The addresses of a local run, written by cargo xtask.\n\
         server:\n  address: 127.0.0.1\n  port: 0\nadmin:\n  address: 127.0.0.1\n  port: 0\n\
         consul:\n  url: \"http://127.0.0.1:{}\"\n{telemetry}\
         mysql:\n  host: 127.0.0.1\n  port: {}\n  username: {USER}\n\
         redis:\n  sentinels: [{}]\n  master: {}\n\
         kafka:\n  bootstrap-servers: \"{}\"\n  replication-factor: {}\n",
        port("consul"),
        port("mysql"),
        sentinels.join(", "),
        redis::MASTER,
        kafka::bootstrap_servers(ports),
        kafka::of_run(ports).len(),
    );
    vec![
        ("application-local.yml", application),
        (
            "gateway-local.yml",
            format!(
                "server:\n  port: {}\nroute-enabled:\n  noop: true # for measuring\n\
                 trace:\n  trust-client-sampling: true # for the call that `up` prints\n",
                port("gateway")
            ),
        ),
        ("user-service-local.yml", format!("first-admin:\n  email: {ADMIN_EMAIL}\n")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pushed_commits_stay_until_the_source_changes() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::new(&temporary.path().join("state")).unwrap();
        folder.create().unwrap();
        let source = temporary.path().join("config-repo");
        fs::create_dir_all(&source).unwrap();
        fs::write(source.join("application.yml"), "a: 1\n").unwrap();
        let interrupt = Interrupt::default();
        let ports = Ports::from([("gateway".to_owned(), 8080)]);
        let first = import(&source, &folder, &ports, &interrupt).unwrap();
        assert_eq!(import(&source, &folder, &ports, &interrupt).unwrap(), first);

        let repository = folder.config_git();
        let tree = format!("{first}^{{tree}}");
        let pushed =
            git(&interrupt, &repository, None, &["commit-tree", &tree, "-p", &first, "-m", "by hand"])
                .unwrap();
        git(&interrupt, &repository, None, &["update-ref", "refs/heads/main", &pushed]).unwrap();
        assert_eq!(import(&source, &folder, &ports, &interrupt).unwrap(), pushed);

        fs::write(source.join("application.yml"), "a: 2\n").unwrap();
        let later = import(&source, &folder, &ports, &interrupt).unwrap();
        assert_ne!(later, pushed);
        let text = git(&interrupt, &repository, None, &["show", "main:application.yml"]).unwrap();
        assert_eq!(text, "a: 2");
        let gateway = git(&interrupt, &repository, None, &["show", "main:gateway-local.yml"]).unwrap();
        assert!(gateway.contains("8080"));

        append(&folder, "gateway-local.yml", "b: 3\n", &interrupt).unwrap();
        let gateway = git(&interrupt, &repository, None, &["show", "main:gateway-local.yml"]).unwrap();
        assert!(gateway.contains("8080") && gateway.ends_with("b: 3"), "{gateway}");
        let before = git(&interrupt, &repository, None, &["rev-parse", "main^"]).unwrap();
        assert_eq!(before, later);
    }
}
