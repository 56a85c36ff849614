//! HTTP/2 by hand (RFC 9113): frames as they are, headers without compression (RFC 7541, 6.2.2).

use super::Raw;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// CANCEL, RFC 9113, 7.
pub const CANCEL: [u8; 4] = [0, 0, 0, 8];

/// How a connection begins: the preface and empty settings.
pub fn preface() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[])].concat()
}

/// # Panics
/// When the payload is longer than a length of three bytes says.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).ok().filter(|length| *length < 1 << 24);
    let length = length.unwrap_or_else(|| panic!("{} bytes in a frame", payload.len())).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A block of headers, each one literally.
pub fn block(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(0);
        for text in [name, value] {
            length(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// RFC 7541, 5.1, with a prefix of seven bits.
fn length(block: &mut Vec<u8>, mut number: usize) {
    let byte = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
    if number < 127 {
        block.push(byte(number));
        return;
    }
    block.push(127);
    number -= 127;
    while number >= 128 {
        block.push(byte(number % 128 + 128));
        number /= 128;
    }
    block.push(byte(number));
}

/// The headers that every request has, and more.
pub fn request(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut headers =
        vec![(":method", method), (":scheme", "http"), (":authority", "gateway"), (":path", path)];
    headers.extend_from_slice(more);
    block(&headers)
}

/// A frame that was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// The whole frames in what was heard.
pub fn frames(mut heard: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let [a, b, c, kind, flags, s, t, u, v, rest @ ..] = heard {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let Some(payload) = rest.get(..length) else { break };
        let stream = u32::from_be_bytes([*s, *t, *u, *v]);
        frames.push(Frame { kind: *kind, flags: *flags, stream, payload: payload.to_vec() });
        heard = &rest[length..];
    }
    frames
}

impl Raw {
    /// Waits until a stream has ended, well or not; false if the connection has instead.
    ///
    /// # Panics
    /// When neither happens.
    pub async fn stream_ends(&mut self, stream: u32) -> bool {
        let ends = |frame: &Frame| match frame.kind {
            RST_STREAM => frame.stream == stream,
            HEADERS | DATA => frame.stream == stream && frame.flags & END_STREAM != 0,
            _ => false,
        };
        loop {
            if frames(&self.heard).iter().any(ends) {
                return true;
            }
            if !self.hear().await {
                return false;
            }
        }
    }

    /// Everything that was heard in the body of a stream's answer.
    pub fn data(&self, stream: u32) -> String {
        let frames = frames(&self.heard);
        let bodies = frames.iter().filter(|frame| frame.kind == DATA && frame.stream == stream);
        bodies.map(|frame| String::from_utf8_lossy(&frame.payload).into_owned()).collect()
    }
}
