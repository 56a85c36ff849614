//! `logs [-f] NAME`.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::state::Folder;

pub(crate) fn print(folder: &Folder, name: Option<&str>, follow: bool) -> Result<ExitCode> {
    let Some(name) = name else {
        for name in names(folder)? {
            println!("{name}");
        }
        return Ok(ExitCode::SUCCESS);
    };
    let path = folder.log(name);
    let mut file = File::open(&path).with_context(|| {
        let names = names(folder).unwrap_or_default().join(", ");
        format!("{name} has no log in {}; there are {names}", folder.logs().display())
    })?;
    let mut buffer = vec![0; 64 * 1024];
    let mut output = std::io::stdout().lock();
    loop {
        match file.read(&mut buffer)? {
            0 if !follow => return Ok(ExitCode::SUCCESS),
            0 => {
                std::thread::sleep(Duration::from_millis(100));
                // A new run begins a new file under the same name.
                if fs::metadata(&path).is_ok_and(|now| !same(&file, &now))
                    && let Ok(next) = File::open(&path)
                {
                    file = next;
                    file.rewind()?;
                }
            }
            count => {
                if output.write_all(&buffer[..count]).and_then(|()| output.flush()).is_err() {
                    return Ok(ExitCode::SUCCESS);
                }
            }
        }
    }
}

fn same(file: &File, now: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    file.metadata().is_ok_and(|before| before.ino() == now.ino() && before.dev() == now.dev())
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
