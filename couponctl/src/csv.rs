//! The token file: UTF-8, LF, header `user_id,token`, unquoted, one unique user a line.
//!
//! Read for load, written by `tokens`. It holds secrets: mode 0600, written beside its place and renamed, so
//! that nobody ever reads half of one.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

pub(crate) const HEADER: &str = "user_id,token";

/// Users and their tokens, in one block of memory (a million tokens are 400 MB as they are).
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    text: Vec<u8>,
    rows: Vec<Row>,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    user: u64,
    start: usize,
    end: usize,
}

impl Tokens {
    /// The first `limit` lines of the file.
    pub(crate) fn read(file: &Path, limit: Option<u64>) -> Result<Self> {
        let open =
            File::open(file).with_context(|| format!("cannot open the token file {}", file.display()))?;
        Self::parse(BufReader::with_capacity(1 << 20, open), limit)
            .with_context(|| format!("token file {}", file.display()))
    }

    fn parse(mut input: impl BufRead, limit: Option<u64>) -> Result<Self> {
        let mut line = String::new();
        input.read_line(&mut line).context("line 1")?;
        if line.trim_end() != HEADER {
            bail!("the first line must be the header {HEADER:?}");
        }
        let mut tokens = Self::default();
        let mut number = 1_u64;
        while limit.is_none_or(|limit| tokens.len() < limit) {
            line.clear();
            number += 1;
            if input.read_line(&mut line).with_context(|| format!("line {number}"))? == 0 {
                break;
            }
            let row = line.trim_end();
            if row.is_empty() {
                continue;
            }
            // The line itself is never quoted in an error: it holds a token.
            let Some((user, token)) = row.split_once(',') else { bail!("line {number} has no comma") };
            let Ok(user) = user.parse::<u64>() else { bail!("line {number}: the user id is not a number") };
            if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic() && b != b',' && b != b'"') {
                bail!("line {number}: the token holds characters that no token has");
            }
            let start = tokens.text.len();
            tokens.text.extend_from_slice(token.as_bytes());
            tokens.rows.push(Row { user, start, end: tokens.text.len() });
        }
        tokens.check_unique()?;
        Ok(tokens)
    }

    fn check_unique(&self) -> Result<()> {
        let mut users: Vec<u64> = self.rows.iter().map(|row| row.user).collect();
        users.sort_unstable();
        if let Some(twice) = users.windows(2).find(|pair| pair[0] == pair[1]) {
            bail!("user {} is there twice; one unique user a line", twice[0]);
        }
        Ok(())
    }

    pub(crate) fn len(&self) -> u64 {
        self.rows.len() as u64
    }

    /// User and token of a line, counted from 0.
    pub(crate) fn get(&self, index: u64) -> Option<(u64, &[u8])> {
        let row = self.rows.get(usize::try_from(index).ok()?)?;
        Some((row.user, &self.text[row.start..row.end]))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.rows.iter().map(|row| (row.user, &self.text[row.start..row.end]))
    }
}

/// A token file under construction; without `finish`, nothing remains of it.
#[derive(Debug)]
pub(crate) struct Writer {
    file: Option<BufWriter<File>>,
    temporary: PathBuf,
    place: PathBuf,
}

impl Writer {
    pub(crate) fn create(place: &Path) -> Result<Self> {
        let name = place.file_name().with_context(|| format!("{} is no file name", place.display()))?;
        let temporary =
            place.with_file_name(format!(".{}.{}.part", name.to_string_lossy(), std::process::id()));
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .with_context(|| format!("cannot write {}", place.display()))?;
        let mut file = BufWriter::with_capacity(1 << 20, file);
        writeln!(file, "{HEADER}")?;
        Ok(Self { file: Some(file), temporary, place: place.to_owned() })
    }

    /// Whole lines.
    pub(crate) fn write(&mut self, lines: &[u8]) -> Result<()> {
        if let Some(file) = &mut self.file {
            file.write_all(lines).with_context(|| format!("cannot write {}", self.place.display()))?;
        }
        Ok(())
    }

    /// Puts the file in its place, whole.
    pub(crate) fn finish(mut self) -> Result<()> {
        if let Some(file) = self.file.take() {
            // Not synced to the disk: after a power cut it is made again, and 400 MB would take longer than signing.
            let file = file.into_inner().map_err(std::io::IntoInnerError::into_error);
            file.and_then(|_| fs::rename(&self.temporary, &self.place))
                .with_context(|| format!("cannot write {}", self.place.display()))?;
        }
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // After `finish` it is gone already.
        let _ = fs::remove_file(&self.temporary);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn parse(text: &str) -> Result<Tokens> {
        Tokens::parse(text.as_bytes(), None)
    }

    #[test]
    fn lines_become_users_and_tokens() {
        let tokens = parse("user_id,token\n7,a.b.c\n8,d.e-_f\n").unwrap();
        assert_eq!(tokens.len(), 2);
        assert_eq!(tokens.get(1), Some((8, b"d.e-_f".as_slice())));
        assert_eq!(tokens.get(2), None);
        assert_eq!(Tokens::parse("user_id,token\n7,a\n8,b\n".as_bytes(), Some(1)).unwrap().len(), 1);
    }

    #[test]
    fn what_is_not_a_token_file_is_refused_without_quoting_it() {
        for (text, part) in [
            ("id;token\n", "header"),
            ("user_id,token\nsecret\n", "no comma"),
            ("user_id,token\nx,secret\n", "not a number"),
            ("user_id,token\n1,secret secret\n", "characters"),
            ("user_id,token\n1,\"secret\"\n", "characters"),
            ("user_id,token\n1,secret\n2,b\n1,secret\n", "twice"),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains(part), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_file_appears_whole_and_private_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("tokens.csv");
        let mut dropped = Writer::create(&place).unwrap();
        dropped.write(b"1,a\n").unwrap();
        drop(dropped);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);

        let mut writer = Writer::create(&place).unwrap();
        writer.write(b"1,a\n").unwrap();
        assert!(!place.exists());
        writer.finish().unwrap();
        assert_eq!(fs::read_to_string(&place).unwrap(), "user_id,token\n1,a\n");
        assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
