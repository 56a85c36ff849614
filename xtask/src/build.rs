//! Builds our binaries by cargo, with progress, and learns from it where they lie.

use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::tools;

/// Packages whose binaries a running stack needs.
pub(crate) const PACKAGES: [&str; 6] =
    ["config-server", "user-service", "coupon-service", "issue-service", "gateway", "couponctl"];

const ISSUE_SERVICE: &str = "issue-service";
/// The same with failpoints and removable guards: a program of its own beside the real one.
const ISSUE_SERVICE_WITH_FAULTS: &str = "issue-service-faults";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Release,
    Debug,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Binaries {
    paths: BTreeMap<String, PathBuf>,
    commit: Option<String>,
    /// The issue service is the one with failpoints and removable guards.
    pub(crate) with_faults: bool,
}

impl Binaries {
    pub(crate) fn path(&self, name: &str) -> Result<&Path> {
        self.paths.get(name).map(PathBuf::as_path).with_context(|| format!("cargo built no binary {name}"))
    }

    /// What they were built from, as [`commit_of`] says it.
    pub(crate) fn commit(&self) -> Option<&str> {
        self.commit.as_deref()
    }
}

/// The folder of the workspace.
pub(crate) fn workspace() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    own.parent().map_or(own.clone(), Path::to_path_buf)
}

/// The commit of a work tree; `+` where files that git knows have changed since. None where there is no git.
fn commit_of(tree: &Path) -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).current_dir(tree).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() { commit } else { format!("{commit}+") })
}

/// Whether two commits that the work tree knows differ in documents alone. Of a changed tree nobody knows what it was.
pub(crate) fn same_code(tree: &Path, one: &str, other: &str) -> bool {
    let differ = || {
        let mut git = Command::new("git");
        git.args(["diff", "--quiet", "--end-of-options", one, other, "--"]);
        git.args([".", ":(exclude)docs", ":(exclude)*.md"]).current_dir(tree);
        git.stdout(Stdio::null()).stderr(Stdio::null());
        git.status().map_or(true, |status| !status.success())
    };
    let changed = one.ends_with('+') || other.ends_with('+');
    !changed && (one == other || !differ())
}

/// cargo in this workspace.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    tools::with_path(&mut command);
    command
}

/// The binaries of a running stack. `with_faults`: the issue service is the one with failpoints and removable guards.
pub(crate) fn build(
    profile: Profile,
    with_faults: bool,
    interrupt: &Interrupt,
    progress: &Progress,
) -> Result<Binaries> {
    let mut command = cargo();
    command.args(["build", "--message-format=json-render-diagnostics"]);
    for package in PACKAGES {
        // The binary of the same name; a package may have tools besides.
        let binary =
            if with_faults && package == ISSUE_SERVICE { ISSUE_SERVICE_WITH_FAULTS } else { package };
        command.args(["--bin", binary]);
    }
    let packages: &[&str] = match profile {
        Profile::Release => {
            command.arg("--release");
            command.args(PACKAGES.iter().flat_map(|package| ["--package", package]));
            &PACKAGES
        }
        Profile::Debug => {
            // With a test among them, dependencies have the features that tests ask of them: those that
            // `cargo xtask test` has compiled are not compiled again.
            command.args(["--workspace", "--test", "child"]);
            &[]
        }
    };
    if with_faults {
        command.arg(format!("--features={ISSUE_SERVICE}/fault-injection"));
    }
    let total = packages_in_tree(interrupt, packages).unwrap_or(0);
    let text = match profile {
        Profile::Release => "release binaries",
        Profile::Debug => "debug binaries",
    };
    let mut binaries = run(&command, total, text, interrupt, progress)?.binaries;
    if with_faults {
        let path = binaries.path(ISSUE_SERVICE_WITH_FAULTS)?.to_owned();
        binaries.paths.insert(ISSUE_SERVICE.to_owned(), path);
        binaries.with_faults = true;
    }
    for package in PACKAGES {
        binaries.path(package)?;
    }
    Ok(binaries)
}

/// The service that is measured, what measures it, and what else is needed: all binaries of these packages.
pub(crate) fn build_benchmarks(
    packages: &[&str],
    interrupt: &Interrupt,
    progress: &Progress,
) -> Result<Binaries> {
    let mut command = cargo();
    command.args(["build", "--message-format=json-render-diagnostics", "--release", "--bins"]);
    command.args(packages.iter().flat_map(|package| ["--package", package]));
    let total = packages_in_tree(interrupt, packages).unwrap_or(0);
    Ok(run(&command, total, "release binaries", interrupt, progress)?.binaries)
}

/// Everything of the workspace with its tests, in the dev profile.
pub(crate) fn build_all(interrupt: &Interrupt, progress: &Progress) -> Result<Built> {
    let mut command = cargo();
    command.args(["build", "--workspace", "--all-targets", "--message-format=json-render-diagnostics"]);
    let total = packages_in_tree(interrupt, &[]).unwrap_or(0);
    run(&command, total, "debug binaries and tests", interrupt, progress)
}

/// What a build left.
#[derive(Debug, Default)]
pub(crate) struct Built {
    pub(crate) binaries: Binaries,
    /// Package and path of each test program.
    tests: Vec<(String, PathBuf)>,
}

impl Built {
    pub(crate) fn tests_of(&self, package: &str) -> Vec<PathBuf> {
        self.tests.iter().filter(|(of, _)| of == package).map(|(_, path)| path.clone()).collect()
    }
}

fn run(
    command: &Command,
    total: u64,
    text: &str,
    interrupt: &Interrupt,
    progress: &Progress,
) -> Result<Built> {
    let step = progress.bar("build", total);
    let mut tool = interrupt.spawn(command, (Stdio::piped(), Stdio::piped()))?;
    let stderr = tool.child.stderr.take().map(|pipe| {
        std::thread::spawn(move || {
            let lines = BufReader::new(pipe).lines().map_while(std::io::Result::ok);
            let quiet = |line: &String| {
                let line = line.trim_start();
                !["Compiling", "Finished", "Downloaded", "Downloading", "Blocking"]
                    .iter()
                    .any(|it| line.starts_with(it))
            };
            lines.filter(quiet).collect::<Vec<_>>().join("\n")
        })
    });
    let mut seen = HashSet::new();
    let mut built = Built::default();
    // Asked once: the tree may change while the binaries run.
    built.binaries.commit = commit_of(&workspace());
    if let Some(pipe) = tool.child.stdout.take() {
        for line in BufReader::new(pipe).lines() {
            let Ok(message) = serde_json::from_str::<Value>(&line?) else { continue };
            let Some(artifact) = Artifact::in_message(&message) else { continue };
            seen.insert(message["package_id"].as_str().unwrap_or_default().to_owned());
            let crates = u64::try_from(seen.len())?;
            if crates >= total {
                step.say(
                    "all crates are compiled; programs are optimized and linked, which takes some minutes",
                );
            } else if message["fresh"] != true {
                step.say(&format!("{crates} of about {total} crates: {}", artifact.name));
            }
            step.position(crates);
            match artifact.executable {
                Some(path) if artifact.test => built.tests.push((artifact.package, path)),
                Some(path) => {
                    built.binaries.paths.insert(artifact.name, path);
                }
                None => {}
            }
        }
    }
    let status = tool.child.wait()?;
    let errors = stderr.and_then(|thread| thread.join().ok()).unwrap_or_default();
    step.clear();
    interrupt.check()?;
    if !status.success() {
        bail!("the build failed\n{errors}");
    }
    step.done(text);
    Ok(built)
}

/// A compiled target.
#[derive(Debug, PartialEq, Eq)]
struct Artifact {
    package: String,
    name: String,
    test: bool,
    executable: Option<PathBuf>,
}

impl Artifact {
    fn in_message(message: &Value) -> Option<Self> {
        if message["reason"] != "compiler-artifact" {
            return None;
        }
        // `path+file:///x/gateway#0.1.0` or `path+file:///x/folder#name@0.1.0`
        let id = message["package_id"].as_str().unwrap_or_default();
        let (place, version) = id.split_once('#').unwrap_or((id, ""));
        let package = match version.split_once('@') {
            Some((name, _)) => name,
            None => place.rsplit('/').next().unwrap_or_default(),
        };
        Some(Self {
            package: package.to_owned(),
            name: message["target"]["name"].as_str()?.to_owned(),
            test: message["profile"]["test"] == true,
            executable: message["executable"].as_str().map(PathBuf::from),
        })
    }
}

/// How many packages the build will touch, for the length of the bar.
fn packages_in_tree(interrupt: &Interrupt, packages: &[&str]) -> Result<u64> {
    let mut command = cargo();
    command.args(["tree", "--prefix=none", "--edges=normal,build", "--format={p}"]);
    if packages.is_empty() {
        command.arg("--workspace");
    }
    for package in packages {
        command.args(["--package", package]);
    }
    let text = interrupt.run(&command)?;
    let packages: HashSet<&str> =
        text.lines().filter(|line| !line.is_empty()).map(|line| line.trim_end_matches(" (*)")).collect();
    Ok(u64::try_from(packages.len())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn git(tree: &Path, arguments: &[&str]) {
        let own =
            ["-c", "user.name=Tester", "-c", "user.email=tester@example.org", "-c", "commit.gpgsign=false"];
        let status = Command::new("git").args(own).args(arguments).current_dir(tree).status();
        assert!(status.unwrap().success());
    }

    #[test]
    fn a_changed_tree_is_marked() {
        let folder = tempfile::tempdir().unwrap();
        let git = |arguments: &[&str]| git(folder.path(), arguments);
        assert_eq!(commit_of(folder.path()), None);
        std::fs::write(folder.path().join("a"), "1").unwrap();
        git(&["init", "--quiet"]);
        git(&["add", "a"]);
        git(&["commit", "--quiet", "--message=one"]);
        let clean = commit_of(folder.path()).unwrap();
        assert_eq!(clean.len(), 40);
        std::fs::write(folder.path().join("new"), "unknown to git").unwrap();
        assert_eq!(commit_of(folder.path()).unwrap(), clean);
        std::fs::write(folder.path().join("a"), "2").unwrap();
        assert_eq!(commit_of(folder.path()).unwrap(), format!("{clean}+"));
    }

    #[test]
    fn commits_that_differ_in_documents_alone_are_the_same_code() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path();
        assert!(!same_code(tree, "one", "two"), "without a repository");
        git(tree, &["init", "--quiet"]);
        let commit = |file: &str, text: &str| {
            std::fs::create_dir_all(tree.join(file).parent().unwrap()).unwrap();
            std::fs::write(tree.join(file), text).unwrap();
            git(tree, &["add", "."]);
            git(tree, &["commit", "--quiet", "--message=x"]);
            commit_of(tree).unwrap()
        };
        let first = commit("part/src/main.rs", "1");
        commit("docs/benchmarks/chaos.json", "{}");
        commit("README.md", "read");
        let documents = commit("part/README.md", "read, too");
        assert!(same_code(tree, &first, &documents) && same_code(tree, &documents, &first));
        let code = commit("part/src/main.rs", "2");
        assert!(!same_code(tree, &documents, &code));
        assert!(same_code(tree, "unknown", "unknown"));
        assert!(!same_code(tree, &first, &format!("{documents}+")));
        assert!(!same_code(tree, &format!("{first}+"), &format!("{first}+")));
        assert!(!same_code(tree, &first, &"0".repeat(40)));
        assert!(!same_code(tree, "--help", &first));
    }

    #[test]
    fn artifacts_of_cargo() {
        let message = |id: &str, name: &str, test: bool, executable: Value| {
            Artifact::in_message(
                &json!({"reason": "compiler-artifact", "package_id": id, "target": {"name": name},
                "profile": {"test": test}, "executable": executable}),
            )
        };
        let library = message("registry+https://x#serde@1.0.0", "serde", false, Value::Null).unwrap();
        assert_eq!((library.package.as_str(), library.executable), ("serde", None));
        let binary = message("path+file:///w/gateway#0.1.0", "gateway", false, json!("/t/gateway")).unwrap();
        assert_eq!((binary.package.as_str(), binary.test), ("gateway", false));
        assert_eq!(binary.executable, Some(PathBuf::from("/t/gateway")));
        let test = message("path+file:///w/e2e#0.1.0", "main", true, json!("/t/main-1")).unwrap();
        assert_eq!((test.package.as_str(), test.test), ("e2e", true));
        assert_eq!(Artifact::in_message(&json!({"reason": "build-finished"})), None);
    }
}
