//! Debian packages without installing them: downloaded by the host's apt under a private configuration and unpacked
//! into a folder, as any user. Mirrors are those of the host's own source lists, which differ in Debian and Ubuntu.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::fetch::{Fetch, on_path};
use crate::progress::Step;

/// Whose packages to take.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Release {
    /// The host's own; its C library is used.
    Host,
    /// Another release of the host's distribution, from the mirror that the host names; brings its own C library.
    Other { debian: Option<&'static str>, ubuntu: Option<&'static str> },
}

/// Downloads the packages with all that they depend on, and unpacks them into `folder`.
pub(crate) fn unpack(
    fetch: &Fetch,
    release: Release,
    packages: &[&str],
    folder: &Path,
    step: &Step,
) -> Result<()> {
    for tool in ["apt-get", "dpkg"] {
        on_path(tool).with_context(|| format!("no {tool} here"))?;
    }
    let archives = fetch.with_apt(|| {
        let apt = Apt::prepare(fetch, release)?;
        step.say("reading the package lists");
        apt.update_if_old(fetch)?;
        step.say(&format!("downloading {}", packages.join(", ")));
        apt.download(fetch, packages, &folder.join("archives"))
    })?;
    step.say("unpacking");
    for archive in &archives {
        let name = archive.file_name().unwrap_or_default().to_string_lossy();
        if matches!(release, Release::Host) && name.starts_with("libc6_") {
            continue;
        }
        fetch.interrupt.run(Command::new("dpkg").arg("-x").arg(archive).arg(folder))?;
    }
    fs::remove_dir_all(folder.join("archives"))?;
    Ok(())
}

struct Apt {
    state: PathBuf,
    options: Vec<String>,
}

impl Apt {
    /// A private apt folder with an empty status file: whatever the host has installed makes no difference.
    fn prepare(fetch: &Fetch, release: Release) -> Result<Self> {
        let (name, line) = match release {
            Release::Host => ("host", None),
            Release::Other { debian, ubuntu } => {
                let host = Source::of_host()?;
                let name = if host.is_ubuntu() { ubuntu } else { debian };
                let name = name.context("no release of this distribution has it")?;
                (name, Some(host.line(name)))
            }
        };
        let state = fetch.cache().join("apt").join(name);
        for folder in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(state.join(folder))?;
        }
        fs::write(state.join("status"), "")?;
        let at = |path: &str| state.join(path).display().to_string();
        let mut options = vec![
            format!("Dir::State={}", state.display()),
            format!("Dir::State::lists={}", at("lists")),
            format!("Dir::State::status={}", at("status")),
            format!("Dir::Cache={}", at("cache")),
            "APT::Install-Recommends=false".to_owned(),
            "APT::Sandbox::User=".to_owned(),
            "APT::Get::Assume-Yes=true".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "Debug::NoLocking=true".to_owned(),
        ];
        if let Some(line) = line {
            fs::write(state.join("sources.list"), line)?;
            options.push(format!("Dir::Etc::sourcelist={}", at("sources.list")));
            options.push("Dir::Etc::sourceparts=/dev/null".to_owned());
        }
        Ok(Self { state, options })
    }

    fn command(&self) -> Command {
        let mut command = Command::new("apt-get");
        command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
        for option in &self.options {
            command.arg("-o").arg(option);
        }
        command
    }

    /// Lists older than a day may name packages that are gone from the mirror.
    fn update_if_old(&self, fetch: &Fetch) -> Result<()> {
        let stamp = self.state.join("updated");
        let age = fs::metadata(&stamp).and_then(|it| it.modified()).ok().and_then(|it| it.elapsed().ok());
        if age.is_some_and(|age| age.as_secs() < 24 * 3600) {
            return Ok(());
        }
        // A third-party source of the host may fail; what matters is whether the packages can be had.
        let updated = fetch.interrupt.run(self.command().arg("update"));
        fetch.interrupt.check()?;
        if updated.is_ok() {
            fs::write(stamp, "")?;
        }
        Ok(())
    }

    fn download(&self, fetch: &Fetch, packages: &[&str], archives: &Path) -> Result<Vec<PathBuf>> {
        fs::create_dir_all(archives.join("partial"))?;
        let mut command = self.command();
        command.arg("-o").arg(format!("Dir::Cache::archives={}", archives.display()));
        fetch.interrupt.run(command.args(["install", "--download-only"]).args(packages))?;
        let files = fs::read_dir(archives)?.filter_map(|entry| entry.ok().map(|entry| entry.path()));
        let files: Vec<_> = files.filter(|path| path.extension().is_some_and(|it| it == "deb")).collect();
        if files.is_empty() {
            bail!("apt-get downloaded nothing");
        }
        Ok(files)
    }
}

/// The mirror of the host's distribution.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    mirror: String,
    signed_by: Option<String>,
}

impl Source {
    fn of_host() -> Result<Self> {
        let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
        files.extend(
            fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|it| it.path()),
        );
        let texts = files.iter().filter_map(|file| Some((file, fs::read_to_string(file).ok()?)));
        for (file, text) in texts {
            let found = match file.extension().and_then(|it| it.to_str()) {
                Some("sources") => Self::in_deb822(&text),
                Some("list") => Self::in_lines(&text),
                _ => None,
            };
            if let Some(found) = found {
                return Ok(found);
            }
        }
        bail!("the host's apt names no mirror of Debian or Ubuntu")
    }

    fn is_mirror(url: &str) -> bool {
        let url = url.trim_end_matches('/');
        ["/debian", "/ubuntu", "/ubuntu-ports"].iter().any(|end| url.ends_with(end))
    }

    fn is_ubuntu(&self) -> bool {
        !self.mirror.trim_end_matches('/').ends_with("/debian")
    }

    /// One line: `deb [signed-by=KEY] URL SUITE COMPONENTS`.
    fn in_lines(text: &str) -> Option<Self> {
        text.lines().find_map(|line| {
            let rest = line.trim().strip_prefix("deb ")?.trim_start();
            let (options, rest) = match rest.strip_prefix('[') {
                Some(inside) => inside.split_once(']')?,
                None => ("", rest),
            };
            let mirror = rest.split_whitespace().next()?;
            let signed_by = options.split_whitespace().find_map(|it| it.strip_prefix("signed-by="));
            Self::is_mirror(mirror)
                .then(|| Self { mirror: mirror.to_owned(), signed_by: signed_by.map(str::to_owned) })
        })
    }

    /// Stanzas of `Key: value` (deb822).
    fn in_deb822(text: &str) -> Option<Self> {
        let stanzas = text.split("\n\n");
        stanzas.into_iter().find_map(|stanza| {
            let field = |name: &str| {
                stanza.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
            };
            let mirror = field("URIs")?.split_whitespace().find(|mirror| Self::is_mirror(mirror))?;
            let signed_by = field("Signed-By").filter(|it| it.starts_with('/'));
            Some(Self { mirror: mirror.to_owned(), signed_by: signed_by.map(str::to_owned) })
        })
    }

    fn line(&self, release: &str) -> String {
        // The host's keyring package holds the keys of all current releases.
        let key = self.signed_by.as_ref().map(|key| format!("[signed-by={key}] ")).unwrap_or_default();
        let components = if self.is_ubuntu() { "main universe" } else { "main" };
        format!("deb {key}{} {release} {components}\n", self.mirror)
    }
}

/// Folders of libraries in an unpacked tree, for LD_LIBRARY_PATH or a loader's `--library-path`.
pub(crate) fn library_path(root: &Path) -> String {
    let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
    ["usr/lib", "lib"].map(|lib| root.join(lib).join(&triple).display().to_string()).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_in_both_formats() {
        let lines = "# deb http://no/debian x main\ndeb https://other/apt stable main\n\
                     deb [arch=amd64 signed-by=/k.gpg] http://mirror/debian/ bookworm main\n";
        let expected =
            Source { mirror: "http://mirror/debian/".to_owned(), signed_by: Some("/k.gpg".to_owned()) };
        assert_eq!(Source::in_lines(lines), Some(expected));
        let stanzas = "Types: deb\n# x\nURIs: http://mirror/debian-security\nSuites: s\n\nTypes: deb\n\
                       URIs: http://mirror/debian\nSuites: bookworm\nSigned-By: /k.gpg\n";
        let found = Source::in_deb822(stanzas).unwrap();
        assert_eq!(found.line("sid"), "deb [signed-by=/k.gpg] http://mirror/debian sid main\n");
        let ubuntu = Source::in_deb822("URIs: http://archive/ubuntu/\nSuites: noble\n").unwrap();
        assert_eq!(ubuntu.line("jammy"), "deb http://archive/ubuntu/ jammy main universe\n");
        assert_eq!(Source::in_deb822("URIs: http://archive/other\n"), None);
    }
}
