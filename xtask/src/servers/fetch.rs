//! The cache folder of gotten programs. A program appears in it in one step (made beside, then renamed), so a cut
//! download is never mistaken for a whole one; one run gets a thing at a time.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};

use crate::interrupt::Interrupt;
use crate::progress::{Progress, Step};

pub(crate) struct Fetch {
    cache: PathBuf,
    pub(crate) interrupt: Interrupt,
    progress: Progress,
    /// apt works on one private state folder at a time.
    apt: Mutex<()>,
}

impl Fetch {
    pub(crate) fn new(interrupt: Interrupt, progress: Progress) -> Result<Self> {
        let cache = match (
            std::env::var_os("FIRSTCOME_CACHE"),
            std::env::var_os("XDG_CACHE_HOME"),
            std::env::var_os("HOME"),
        ) {
            (Some(own), _, _) => PathBuf::from(own),
            (None, Some(cache), _) => PathBuf::from(cache).join("firstcome"),
            (None, None, Some(home)) => PathBuf::from(home).join(".cache/firstcome"),
            _ => anyhow::bail!("neither FIRSTCOME_CACHE nor HOME is set: where shall downloads go?"),
        };
        let cache = std::path::absolute(cache)?;
        fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
        Ok(Self { cache, interrupt, progress, apt: Mutex::default() })
    }

    pub(crate) fn cache(&self) -> &Path {
        &self.cache
    }

    /// `make` fills the folder it is given; what it made is kept under `name`.
    pub(crate) fn folder(
        &self,
        name: &str,
        what: &str,
        make: impl FnOnce(&Path, &Step) -> Result<()>,
    ) -> Result<PathBuf> {
        let target = self.cache.join(name);
        if target.is_dir() {
            return Ok(target);
        }
        let step = self.progress.step(what);
        step.say("waiting for another run that gets it");
        let lock = File::options().create(true).append(true).open(self.cache.join(format!("{name}.lock")))?;
        self.interrupt.wait_until(|| match lock.try_lock() {
            Ok(()) => Some(Ok(())),
            Err(fs::TryLockError::WouldBlock) => None,
            Err(fs::TryLockError::Error(error)) => Some(Err(error)),
        })??;
        if target.is_dir() {
            step.clear();
            return Ok(target);
        }
        let partial = self.cache.join(format!("{name}.partial"));
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        fs::create_dir_all(&partial)?;
        let made = make(&partial, &step);
        if made.is_err() {
            step.clear();
            let _ = fs::remove_dir_all(&partial);
        }
        made?;
        fs::rename(&partial, &target)?;
        step.done("gotten");
        Ok(target)
    }

    /// One apt command at a time.
    pub(crate) fn with_apt<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let _one = self.apt.lock().unwrap_or_else(PoisonError::into_inner);
        self.interrupt.check()?;
        work()
    }
}

/// Looks where programs of this kind live, on PATH or beside it.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// The first `X.Y` in a program's answer to `--version`.
pub(crate) fn version_in(text: &str) -> Option<(u32, u32)> {
    text.split(|c: char| !c.is_ascii_digit() && c != '.').find_map(|word| {
        let mut parts = word.split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    })
}

/// The whole system where none of its servers can be had, as `compose/README.md` says it.
const DOCKER_WAY: &str =
    "compose/make-secrets.sh && docker compose -f compose/compose.yaml up --build --wait";

/// The one line for where a thing can't be gotten.
pub(crate) fn advice<T>(result: Result<T>, what: &str, install: &str) -> Result<T> {
    result.map_err(|error| {
        if error.to_string() == "interrupted" {
            return error;
        }
        error.context(format!(
            "{what} is neither on PATH nor could it be gotten; install it ({install}), or run everything in Docker: `{DOCKER_WAY}`"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(version_in("Redis server v=7.0.15 sha=00000000:0"), Some((7, 0)));
        assert_eq!(version_in("mariadbd  Ver 10.11.14-MariaDB-0+deb12u2 for debian"), Some((10, 11)));
        assert_eq!(version_in("openjdk version \"17.0.15\" 2025-04-15"), Some((17, 0)));
        assert_eq!(version_in("Consul v1.8.7"), Some((1, 8)));
        assert_eq!(version_in("none"), None);
    }

    #[test]
    fn the_docker_way_is_that_of_its_readme() {
        let error = advice::<()>(Err(anyhow::anyhow!("no network")), "Redis", "apt").unwrap_err().to_string();
        let (_, way) = error.rsplit_once("in Docker: ").unwrap();
        let readme = include_str!("../../../compose/README.md");
        let lines: Vec<&str> = way.trim_matches('`').split(" && ").collect();
        assert!(readme.contains(&format!("```sh\n{}\n```", lines.join("\n"))), "{way}");
    }

    #[test]
    fn a_cut_download_is_begun_anew() {
        let cache = tempfile::tempdir().unwrap();
        let fetch = Fetch {
            cache: cache.path().to_owned(),
            interrupt: Interrupt::default(),
            progress: Progress::new(),
            apt: Mutex::default(),
        };
        fs::create_dir_all(cache.path().join("thing.partial")).unwrap();
        fs::write(cache.path().join("thing.partial/half"), "x").unwrap();
        assert!(fetch.folder("thing", "thing", |_, _| anyhow::bail!("cut")).is_err());
        let made =
            fetch.folder("thing", "thing", |folder, _| Ok(fs::write(folder.join("whole"), "x")?)).unwrap();
        assert!(made.join("whole").is_file());
        assert!(!made.join("half").exists());
        let again = fetch.folder("thing", "thing", |_, _| anyhow::bail!("not needed")).unwrap();
        assert_eq!(again, made);
    }
}
