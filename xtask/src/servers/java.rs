//! Java and Maven: those of the host, or Debian's packages unpacked into the cache folder.
//!
//! An unpacked Java lacks what its packages make while they are installed: links that point into the host's root
//! become relative, and the store of trusted certificates is written here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Program;
use super::debian::{Release, library_path, unpack};
use super::fetch::{Fetch, advice, on_path, version_in};

const PACKAGE: &str = "openjdk-17-jre-headless";
/// Named in full: the short name would be looked up in the repository first.
pub(crate) const PLUGIN: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1";
const TRUST: &str = "cacerts.jks";

pub(crate) struct Tools {
    pub(crate) java: Program,
    maven: Program,
    /// Of an unpacked Maven, which has no store of trusted certificates.
    root: Option<PathBuf>,
}

pub(crate) fn obtain(fetch: &Fetch) -> Result<Tools> {
    let host_java = match on_path("java") {
        Some(path) => new_enough(fetch, &path).then(|| Program::found(path)),
        None => None,
    };
    let host_maven = on_path("mvn").map(Program::found);
    if let (Some(java), Some(maven)) = (&host_java, &host_maven) {
        return Ok(Tools { java: java.clone(), maven: maven.clone(), root: None });
    }
    let gotten = fetch.folder("java", "Java and Maven", |folder, step| {
        // The one of these that the release has.
        let jre = [PACKAGE, "openjdk-21-jre-headless", "openjdk-25-jre-headless"];
        let mut result = Ok(());
        for package in jre {
            result = unpack(fetch, Release::Host, &[package, "maven"], folder, step);
            fetch.interrupt.check()?;
            if result.is_ok() {
                break;
            }
        }
        result?;
        step.say("making it movable");
        make_links_relative(folder, folder)?;
        let tools = unpacked(folder)?;
        fetch.interrupt.run(tools.maven.command().arg("--version")).map(drop)
    });
    let root =
        advice(gotten, "Java 17 with Maven", "Debian, Ubuntu: apt install openjdk-17-jre-headless maven")?;
    let tools = unpacked(&root)?;
    // Maven of the host may have settings for the host's network: it is taken where it has a Java.
    Ok(Tools { java: host_java.unwrap_or(tools.java), ..tools })
}

fn new_enough(fetch: &Fetch, java: &Path) -> bool {
    let answer = Command::new(java).arg("-version").output();
    let Ok(answer) = answer else { return false };
    fetch.interrupt.check().is_ok() && version_in(&String::from_utf8_lossy(&answer.stderr)) >= Some((17, 0))
}

fn unpacked(root: &Path) -> Result<Tools> {
    let home = fs::read_dir(root.join("usr/lib/jvm"))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.join("bin/java").is_file())
        .context("the package brings no bin/java")?;
    let libraries = ("LD_LIBRARY_PATH".to_owned(), library_path(root));
    let java =
        Program { path: home.join("bin/java"), leading: Vec::new(), environment: vec![libraries.clone()] };
    let maven = Program {
        path: PathBuf::from("bash"),
        leading: vec![root.join("usr/share/maven/bin/mvn").display().to_string()],
        environment: vec![
            ("JAVA_HOME".to_owned(), home.display().to_string()),
            ("MAVEN_HOME".to_owned(), root.join("usr/share/maven").display().to_string()),
        ],
    };
    Ok(Tools { java, maven, root: Some(root.to_owned()) })
}

/// Absolute links that mean a file of the unpacked tree.
fn make_links_relative(root: &Path, folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_symlink() {
            let target = fs::read_link(&path)?;
            if let Ok(inside) = target.strip_prefix("/")
                && (root.join(inside).exists() || root.join(inside).is_symlink())
            {
                let depth = folder.strip_prefix(root)?.components().count();
                let up: PathBuf = std::iter::repeat_n("..", depth).collect();
                fs::remove_file(&path)?;
                std::os::unix::fs::symlink(up.join(inside), &path)?;
            }
        } else if path.is_dir() {
            make_links_relative(root, &path)?;
        }
    }
    Ok(())
}

/// The host's trusted certificates, or those of the unpacked package, as DER.
fn certificates(root: &Path) -> Result<Vec<Vec<u8>>> {
    let mut text = fs::read_to_string("/etc/ssl/certs/ca-certificates.crt").unwrap_or_default();
    if text.is_empty() {
        for entry in fs::read_dir(root.join("usr/share/ca-certificates/mozilla"))? {
            text.push_str(&fs::read_to_string(entry?.path())?);
        }
    }
    let found: Vec<Vec<u8>> = pem(&text).collect();
    if found.is_empty() {
        bail!("no trusted certificates here: apt install ca-certificates");
    }
    Ok(found)
}

fn pem(text: &str) -> impl Iterator<Item = Vec<u8>> + '_ {
    text.split("-----BEGIN CERTIFICATE-----").skip(1).filter_map(|part| {
        let body: String = part.split("-----END").next()?.split_whitespace().collect();
        STANDARD.decode(body).ok()
    })
}

/// A Java key store (JKS, version 2) of trusted certificates. Its closing SHA-1 is checked only when a password is
/// given, which a trust store does not need.
fn trust_store(certificates: &[Vec<u8>]) -> Vec<u8> {
    fn length(store: &mut Vec<u8>, length: usize) {
        store.extend(u32::try_from(length).unwrap_or(0).to_be_bytes());
    }
    fn text(store: &mut Vec<u8>, text: &str) {
        store.extend(u16::try_from(text.len()).unwrap_or(0).to_be_bytes());
        store.extend(text.as_bytes());
    }
    let mut store = vec![0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2];
    length(&mut store, certificates.len());
    for (index, certificate) in certificates.iter().enumerate() {
        store.extend([0, 0, 0, 2]);
        text(&mut store, &format!("ca-{index}"));
        store.extend([0; 8]);
        text(&mut store, "X.509");
        length(&mut store, certificate.len());
        store.extend(certificate);
    }
    store.extend([0; 20]);
    store
}

impl Tools {
    /// Runs a goal of Maven quietly, with a local repository of its own that is thrown away afterwards.
    pub(crate) fn maven(&self, fetch: &Fetch, folder: &Path, arguments: &[String]) -> Result<()> {
        let local = folder.join("maven-repository");
        let mut command = self.maven.command();
        command.current_dir(folder).args(["-q", "-B", "-ntp"]);
        command.arg(format!("-Dmaven.repo.local={}", local.display()));
        let trust = folder.join(TRUST);
        if let Some(root) = &self.root {
            // Made anew each time: the host's certificates may have changed since Java was gotten.
            fs::write(&trust, trust_store(&certificates(root)?))?;
            let store = format!("-Djavax.net.ssl.trustStore={}", trust.display());
            command.env("MAVEN_OPTS", format!("{store} -Djavax.net.ssl.trustStoreType=JKS"));
        }
        fetch.interrupt.run(command.args(arguments))?;
        for made in [local, trust].iter().filter(|made| made.exists()) {
            if made.is_dir() { fs::remove_dir_all(made)? } else { fs::remove_file(made)? }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_into_the_root_become_relative() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc/java")).unwrap();
        fs::create_dir_all(root.path().join("usr/lib")).unwrap();
        fs::write(root.path().join("etc/java/file"), "x").unwrap();
        std::os::unix::fs::symlink("/etc/java/file", root.path().join("usr/lib/link")).unwrap();
        std::os::unix::fs::symlink("/nowhere/else", root.path().join("usr/lib/other")).unwrap();
        make_links_relative(root.path(), root.path()).unwrap();
        let link = fs::read_link(root.path().join("usr/lib/link")).unwrap();
        assert_eq!(link, Path::new("../../etc/java/file"));
        assert_eq!(fs::read_link(root.path().join("usr/lib/other")).unwrap(), Path::new("/nowhere/else"));
        assert_eq!(fs::read_to_string(root.path().join("usr/lib/link")).unwrap(), "x");
    }

    #[test]
    fn certificates_of_a_bundle() {
        let text = "# a\n-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n# b\n\
                    -----BEGIN CERTIFICATE-----\nBAUG\n-----END CERTIFICATE-----\n";
        let found: Vec<_> = pem(text).collect();
        assert_eq!(found, [vec![1, 2, 3], vec![4, 5, 6]]);
        assert_eq!(trust_store(&found).len(), 12 + 2 * (4 + 6 + 8 + 7 + 4 + 3) + 20);
    }
}
