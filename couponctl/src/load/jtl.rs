//! JMeter's result file, so that `jmeter -g` draws its dashboard from these results. All times in ms.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

pub(crate) const HEADER: &str = "timeStamp,elapsed,label,responseCode,responseMessage,threadName,dataType,success,\
failureMessage,bytes,sentBytes,grpThreads,allThreads,URL,Latency,IdleTime,Connect";

#[derive(Debug)]
pub(crate) struct Jtl {
    file: Mutex<BufWriter<File>>,
}

/// One line. The order of the fields is the header's.
#[derive(Debug)]
pub(crate) struct Sample<'a> {
    /// Unix time of the start, which is the due time of an open arrival.
    pub(crate) timestamp: u64,
    pub(crate) elapsed: u64,
    pub(crate) label: &'a str,
    pub(crate) code: &'a str,
    pub(crate) message: &'a str,
    pub(crate) connection: usize,
    pub(crate) success: bool,
    pub(crate) failure: &'a str,
    pub(crate) bytes: usize,
    pub(crate) sent_bytes: usize,
    /// Requests in flight, which is what JMeter's busy threads are.
    pub(crate) in_flight: u64,
    pub(crate) url: &'a str,
    pub(crate) latency: u64,
    pub(crate) connect: u64,
}

impl Jtl {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let create = || {
            let mut file = BufWriter::with_capacity(256 << 10, File::create(path)?);
            writeln!(file, "{HEADER}")?;
            Ok::<_, io::Error>(file)
        };
        let file = create().with_context(|| format!("cannot write the results to {}", path.display()))?;
        Ok(Self { file: Mutex::new(file) })
    }

    pub(crate) fn write(&self, sample: &Sample<'_>) -> io::Result<()> {
        let mut line = Vec::with_capacity(192);
        format(sample, &mut line)?;
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line)
    }

    pub(crate) fn flush(&self) -> io::Result<()> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}

fn format(sample: &Sample<'_>, line: &mut Vec<u8>) -> io::Result<()> {
    let Sample { timestamp, elapsed, connection, success, bytes, sent_bytes, in_flight, .. } = sample;
    write!(line, "{timestamp},{elapsed},")?;
    text(sample.label, line);
    line.push(b',');
    text(sample.code, line);
    line.push(b',');
    text(sample.message, line);
    write!(line, ",couponctl 1-{connection},text,{success},")?;
    text(sample.failure, line);
    write!(line, ",{bytes},{sent_bytes},{in_flight},{in_flight},")?;
    text(sample.url, line);
    writeln!(line, ",{},0,{}", sample.latency, sample.connect)
}

/// Quoted only where it must be; a line's end would end the line, so it becomes a space.
fn text(value: &str, line: &mut Vec<u8>) {
    let value = value.replace(['\r', '\n'], " ");
    if value.contains([',', '"']) {
        line.push(b'"');
        line.extend_from_slice(value.replace('"', "\"\"").as_bytes());
        line.push(b'"');
    } else {
        line.extend_from_slice(value.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_headers_fields() {
        let sample = Sample {
            timestamp: 1_800_000_000_000,
            elapsed: 12,
            label: "claim",
            code: "200",
            message: "OK",
            connection: 3,
            success: true,
            failure: "",
            bytes: 321,
            sent_bytes: 456,
            in_flight: 7,
            url: "http://127.0.0.1:8080/coupon-issues",
            latency: 11,
            connect: 1,
        };
        let mut line = Vec::new();
        format(&sample, &mut line).unwrap();
        let line = String::from_utf8(line).unwrap();
        assert_eq!(
            line,
            "1800000000000,12,claim,200,OK,couponctl 1-3,text,true,,321,456,7,7,\
             http://127.0.0.1:8080/coupon-issues,11,0,1\n"
        );
        assert_eq!(line.split(',').count(), HEADER.split(',').count());
        assert_eq!(HEADER.split(',').count(), 17);
    }

    #[test]
    fn commas_quotes_and_line_ends_cannot_break_a_line() {
        let mut line = Vec::new();
        text("say \"a, b\"\r\nc", &mut line);
        assert_eq!(String::from_utf8(line).unwrap(), "\"say \"\"a, b\"\"  c\"");
    }
}
