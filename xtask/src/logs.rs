//! `logs [-f] NAME`. What was written before a log is replaced is printed, however short its time was; Ctrl-C is the
//! usual end of following, so it is a success.

use std::fs::{self, File};
use std::io::Seek as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::interrupt::Interrupt;
use crate::state::Folder;

/// How often a log that is followed is looked at.
const ASK_EVERY: Duration = Duration::from_millis(100);

pub(crate) fn print(folder: &Folder, name: Option<&str>, follow: bool) -> Result<ExitCode> {
    let Some(name) = name else {
        for name in names(folder)? {
            println!("{name}");
        }
        return Ok(ExitCode::SUCCESS);
    };
    let path = folder.log(name);
    let Ok(file) = File::open(&path) else {
        let names = names(folder)?.join(", ");
        bail!("{name} has no log that can be read in {}; there are {names}", folder.logs().display());
    };
    let interrupt = if follow { Some(Interrupt::install()?) } else { None };
    let mut output = std::io::stdout().lock();
    // Whoever reads this may have had enough.
    let _ = copy(file, &path, interrupt.as_ref(), &mut output);
    Ok(ExitCode::SUCCESS)
}

/// To the end, or with an interrupt until that comes.
fn copy(
    mut file: File,
    path: &Path,
    interrupt: Option<&Interrupt>,
    output: &mut impl std::io::Write,
) -> std::io::Result<()> {
    let mut next = None;
    loop {
        std::io::copy(&mut file, output)?;
        output.flush()?;
        if interrupt.is_none_or(Interrupt::requested) {
            return Ok(());
        }
        if let Some(next) = next.take() {
            // What was written before the change has been read now.
            file = next;
            continue;
        }
        std::thread::sleep(ASK_EVERY);
        // A new run begins a new file under the same name, or the same file anew.
        next = File::open(path).ok().filter(|now| !same(&file, now));
        if file.metadata()?.len() < file.stream_position()? {
            file.rewind()?;
        }
    }
}

fn same(one: &File, other: &File) -> bool {
    let id = |file: &File| file.metadata().map(|it| (it.dev(), it.ino())).ok();
    id(one) == id(other)
}

fn names(folder: &Folder) -> Result<Vec<String>> {
    let entries =
        fs::read_dir(folder.logs()).with_context(|| format!("no logs in {}", folder.root().display()))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".log").map(str::to_owned))
        .collect();
    names.sort();
    Ok(names)
}
