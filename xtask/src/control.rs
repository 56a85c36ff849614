//! How `down`, `kill`, `restart` and `scale` reach the supervisor of a folder: a Unix socket, one JSON request, lines
//! of text while it works, and one last line of JSON.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::state::Folder;

const SOCKET: &str = "control.sock";
/// A supervisor that lives takes note of `down` at once; the caller has other means for one that does not.
const DOWN_ANSWER: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Request {
    Down,
    Restart(String),
    Kill(String),
    Scale(String, usize),
}

#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    error: Option<String>,
}

/// Answers requests one after another, each by `handle`, which may say lines on the way.
pub(crate) fn serve(
    folder: &Folder,
    handle: impl Fn(Request, &mut dyn FnMut(&str)) -> Result<()> + Send + 'static,
) -> Result<()> {
    let (path, _open) = short_path(folder)?;
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).context("bind the control socket")?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if let Err(error) = answer(&stream, &handle) {
                eprintln!("control: {error:#}");
            }
        }
    });
    Ok(())
}

fn answer(stream: &UnixStream, handle: &impl Fn(Request, &mut dyn FnMut(&str)) -> Result<()>) -> Result<()> {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let request: Request = serde_json::from_str(&line).context("request")?;
    let mut output = stream;
    let result = handle(request, &mut |text| {
        let _ = writeln!(output, " {text}");
    });
    let answer = Answer { error: result.err().map(|error| format!("{error:#}")) };
    writeln!(&mut &*stream, "{}", serde_json::to_string(&answer)?)?;
    Ok(())
}

/// Asks the supervisor and prints what it says.
pub(crate) fn ask(folder: &Folder, request: &Request) -> Result<()> {
    let (path, _open) = short_path(folder)?;
    let stream = UnixStream::connect(&path).context("nothing runs here: start it by `cargo xtask up`")?;
    if *request == Request::Down {
        stream.set_read_timeout(Some(DOWN_ANSWER))?;
    }
    writeln!(&mut &stream, "{}", serde_json::to_string(request)?)?;
    for line in BufReader::new(&stream).lines() {
        let line = line?;
        if let Some(text) = line.strip_prefix(' ') {
            println!("{text}");
            continue;
        }
        return match serde_json::from_str::<Answer>(&line)?.error {
            Some(error) => bail!("{error}"),
            None => Ok(()),
        };
    }
    bail!("the supervisor ended without an answer")
}

/// A path to the socket by way of the open folder: addresses of Unix sockets hold 108 bytes at most.
fn short_path(folder: &Folder) -> Result<(PathBuf, std::fs::File)> {
    let open =
        std::fs::File::open(folder.run()).context("nothing runs here: start it by `cargo xtask up`")?;
    Ok((PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", open.as_raw_fd())), open))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_and_answers_in_a_deep_folder() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::new(&temporary.path().join("long".repeat(40))).unwrap();
        folder.create().unwrap();
        serve(&folder, |request, say| match request {
            Request::Kill(name) => {
                say(&format!("killing {name}"));
                Ok(())
            }
            _ => bail!("no"),
        })
        .unwrap();
        ask(&folder, &Request::Kill("redis-1".to_owned())).unwrap();
        assert_eq!(ask(&folder, &Request::Down).unwrap_err().to_string(), "no");
    }
}
