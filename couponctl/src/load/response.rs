//! HTTP/1.1 responses out of bytes: pure, resumable by parsing the grown buffer again.
//!
//! Only what a load client needs: status, the body by length, by chunks or until the end (RFC 9112, 6.3), and
//! whether the connection may be used again. Sizes are bounded.

/// Longest head and body that are read at all.
const MAX_HEAD: usize = 64 << 10;
const MAX_BODY: usize = 1 << 20;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) reason: String,
    pub(crate) body: Vec<u8>,
    pub(crate) keep_alive: bool,
    /// Bytes of the message in the buffer.
    pub(crate) length: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

enum Framing {
    Length(usize),
    Chunked,
    UntilEnd,
}

/// The response at the start of `buffer`; `None` while it is not all there. `ended`: the peer has closed.
pub(crate) fn parse(buffer: &[u8], ended: bool) -> Result<Option<Response>, Malformed> {
    let mut skipped = 0;
    loop {
        let Some(head_length) = head_length(&buffer[skipped..])? else { return Ok(None) };
        let head = &buffer[skipped..skipped + head_length];
        let start = skipped + head_length;
        let head = std::str::from_utf8(head).map_err(|_| Malformed("the head is not text"))?;
        let mut lines = head.split("\r\n");
        let (status, reason, http11) = status_line(lines.next().unwrap_or_default())?;
        if (100..200).contains(&status) {
            skipped = start; // an interim answer: the real one follows
            continue;
        }
        let (framing, keep_alive) = headers(lines, http11)?;
        let framing = if matches!(status, 204 | 304) { Framing::Length(0) } else { framing };
        let rest = &buffer[start..];
        let until_end = matches!(framing, Framing::UntilEnd);
        let body = match framing {
            Framing::Length(length) if length > MAX_BODY => return Err(Malformed("the body is too long")),
            Framing::Length(length) => rest.get(..length).map(|body| (body.to_vec(), length)),
            Framing::Chunked => chunks(rest)?,
            Framing::UntilEnd if rest.len() > MAX_BODY => return Err(Malformed("the body is too long")),
            Framing::UntilEnd => ended.then(|| (rest.to_vec(), rest.len())),
        };
        return Ok(body.map(|(body, length)| Response {
            status,
            reason: reason.to_owned(),
            body,
            keep_alive: keep_alive && !until_end,
            length: start + length,
        }));
    }
}

fn head_length(buffer: &[u8]) -> Result<Option<usize>, Malformed> {
    match buffer.windows(4).take(MAX_HEAD).position(|four| four == b"\r\n\r\n") {
        Some(at) => Ok(Some(at + 4)),
        None if buffer.len() >= MAX_HEAD => Err(Malformed("the head is too long")),
        None => Ok(None),
    }
}

fn status_line(line: &str) -> Result<(u16, &str, bool), Malformed> {
    let mut parts = line.splitn(3, ' ');
    let http11 = match parts.next() {
        Some("HTTP/1.1") => true,
        Some("HTTP/1.0") => false,
        _ => return Err(Malformed("it does not speak HTTP/1")),
    };
    let status = parts.next().unwrap_or_default();
    match status.parse::<u16>() {
        Ok(code) if status.len() == 3 && code >= 100 => Ok((code, parts.next().unwrap_or_default(), http11)),
        _ => Err(Malformed("its status is no number")),
    }
}

fn headers<'a>(lines: impl Iterator<Item = &'a str>, http11: bool) -> Result<(Framing, bool), Malformed> {
    let mut framing = Framing::UntilEnd;
    let mut keep_alive = http11;
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            if !matches!(framing, Framing::Chunked) {
                framing = Framing::Length(value.parse().map_err(|_| Malformed("its length is no number"))?);
            }
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            if !value.eq_ignore_ascii_case("chunked") {
                return Err(Malformed("its transfer encoding is unknown"));
            }
            framing = Framing::Chunked; // goes before any length (RFC 9112, 6.3)
        } else if name.eq_ignore_ascii_case("connection") {
            for option in value.split(',').map(str::trim) {
                if option.eq_ignore_ascii_case("close") {
                    keep_alive = false;
                } else if option.eq_ignore_ascii_case("keep-alive") {
                    keep_alive = true;
                }
            }
        }
    }
    Ok((framing, keep_alive))
}

/// The chunked body and the bytes that it took, trailers included.
fn chunks(buffer: &[u8]) -> Result<Option<(Vec<u8>, usize)>, Malformed> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let Some(line) = line(&buffer[at..]) else { return Ok(None) };
        let text = std::str::from_utf8(line).map_err(|_| Malformed("a chunk's size is no number"))?;
        let digits = text.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(digits, 16).map_err(|_| Malformed("a chunk's size is no number"))?;
        at += line.len() + 2;
        if size == 0 {
            break;
        }
        if size > MAX_BODY || body.len() + size > MAX_BODY {
            return Err(Malformed("the body is too long"));
        }
        let Some(chunk) = buffer.get(at..at + size + 2) else { return Ok(None) };
        if !chunk.ends_with(b"\r\n") {
            return Err(Malformed("a chunk is longer than it said"));
        }
        body.extend_from_slice(&chunk[..size]);
        at += size + 2;
    }
    loop {
        let Some(line) = line(&buffer[at..]) else { return Ok(None) };
        at += line.len() + 2;
        if line.is_empty() {
            return Ok(Some((body, at)));
        }
    }
}

/// Up to the next line's end, without it.
fn line(buffer: &[u8]) -> Option<&[u8]> {
    let at = buffer.windows(2).position(|two| two == b"\r\n")?;
    Some(&buffer[..at])
}

#[cfg(test)]
mod tests;
