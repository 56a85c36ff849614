//! Small programs that a bare machine lacks: make for librdkafka's own build, curl for the lines that are printed to be
//! copied. They are unpacked into the cache folder and come last on the PATH of what is started with them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};

use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::servers::debian::{Release, library_path, unpack};
use crate::servers::fetch::{Fetch, advice, on_path};

/// Folders of programs that were gotten.
static GOTTEN: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// What a build needs. `.cargo/config.toml` leaves librdkafka's C++ half out, so a C compiler and make are enough.
pub(crate) fn for_builds(interrupt: &Interrupt, progress: &Progress) -> Result<()> {
    if on_path("cc").is_none() {
        bail!("cc not found: install a C compiler (Debian, Ubuntu: apt install gcc libc6-dev)");
    }
    obtain("make", interrupt, progress)
}

/// What the end-to-end tests run.
pub(crate) fn for_tests(interrupt: &Interrupt, progress: &Progress) -> Result<()> {
    obtain("curl", interrupt, progress)
}

/// Gives a command the PATH that has them.
pub(crate) fn with_path(command: &mut Command) {
    let gotten = GOTTEN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if !gotten.is_empty() {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(std::env::split_paths(&path).chain(gotten));
        command.env("PATH", path.unwrap_or_default());
    }
}

fn obtain(name: &str, interrupt: &Interrupt, progress: &Progress) -> Result<()> {
    if on_path(name).is_some() {
        return Ok(());
    }
    let fetch = Fetch::new(interrupt.clone(), progress.clone())?;
    let gotten = fetch.folder(name, name, |folder, step| {
        unpack(&fetch, Release::Host, &[name], folder, step)?;
        interrupt.run(
            Command::new(folder.join("usr/bin").join(name))
                .arg("--version")
                .env("LD_LIBRARY_PATH", library_path(folder)),
        )?;
        Ok(())
    });
    let root = advice(gotten, name, &format!("Debian, Ubuntu: apt install {name}"))?;
    write_start(&root, name)?;
    GOTTEN.lock().unwrap_or_else(PoisonError::into_inner).push(root.join("start"));
    Ok(())
}

/// A script that finds the libraries that were unpacked beside the program.
fn write_start(root: &Path, name: &str) -> Result<()> {
    let script = root.join("start").join(name);
    if !script.exists() {
        fs::create_dir_all(root.join("start"))?;
        let text = format!(
            "#!/bin/sh\nLD_LIBRARY_PATH='{}' exec '{}' \"$@\"\n",
            library_path(root),
            root.join("usr/bin").join(name).display()
        );
        fs::write(&script, text)?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}
