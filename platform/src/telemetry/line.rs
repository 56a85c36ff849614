//! One event, one line: JSON for machines, or a readable one for a terminal. Spans are not looked at, so that logging
//! does not make anybody pay for them: the trace comes from the task.

use std::cell::RefCell;
use std::fmt::{self, Write as _};

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::writer;
use crate::config::LogFormat;
use crate::http::trace::Trace;

pub(super) struct Lines {
    format: LogFormat,
    /// `,"service":"...","instance":"..."`, the same in each line.
    origin: String,
}

impl Lines {
    pub(super) fn new(format: LogFormat, service: &str, instance: &str) -> Self {
        let origin = format!(",\"service\":{},\"instance\":{}", Value::from(service), Value::from(instance));
        Self { format, origin }
    }

    fn write(&self, event: &Event<'_>, line: &mut String) -> fmt::Result {
        let meta = event.metadata();
        let trace = Trace::innermost();
        match self.format {
            LogFormat::Json => {
                line.push_str("{\"timestamp\":\"");
                write_time(line);
                for part in
                    ["\",\"level\":\"", meta.level().as_str(), "\",\"logger\":\"", meta.target(), "\""]
                {
                    line.push_str(part);
                }
                line.push_str(&self.origin);
                if let Some(trace) = trace {
                    let text = trace.text();
                    let text = std::str::from_utf8(&text).unwrap_or_default();
                    let ids = (text.get(3..35).unwrap_or_default(), text.get(36..52).unwrap_or_default());
                    for part in [",\"trace_id\":\"", ids.0, "\",\"span_id\":\"", ids.1, "\""] {
                        line.push_str(part);
                    }
                }
                event.record(&mut JsonFields(line));
                line.push_str("}\n");
            }
            LogFormat::Pretty => {
                let colour = match *meta.level() {
                    Level::ERROR => "31",
                    Level::WARN => "33",
                    Level::INFO => "32",
                    _ => "34",
                };
                write_time(line);
                write!(line, " \x1b[{colour}m{:5}\x1b[0m {}", meta.level().as_str(), meta.target())?;
                let mut fields = PrettyFields::default();
                event.record(&mut fields);
                write!(line, " {}{}", fields.message, fields.others)?;
                if let Some(trace) = trace {
                    write!(line, " \x1b[2mtrace_id={}\x1b[0m", trace.trace_id)?;
                }
                line.push('\n');
            }
        }
        Ok(())
    }
}

thread_local! {
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };
    /// The last second that was written, and its text.
    static SECOND: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

/// RFC 3339 with milliseconds. A line costs the calendar only if it is the first of its second.
fn write_time(line: &mut String) {
    let now = crate::clock::now_ms();
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != now / 1000 {
            *second = now / 1000;
            *text = crate::clock::rfc3339(*second * 1000);
        }
        line.push_str(text.strip_suffix("000Z").unwrap_or_default());
        let _ = write!(line, "{:03}Z", now % 1000);
    });
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        // A value that logs while it is formatted would meet itself here: it gets a line of its own.
        LINE.with(|kept| {
            let mut line =
                kept.try_borrow_mut().map(|mut line| std::mem::take(&mut *line)).unwrap_or_default();
            line.clear();
            if self.write(event, &mut line).is_ok() {
                writer::write(line.as_bytes(), *event.metadata().level() == Level::ERROR);
            }
            if let Ok(mut kept) = kept.try_borrow_mut() {
                *kept = line;
            }
        });
    }
}

/// Fields as members. Names are identifiers of ours; values are escaped.
struct JsonFields<'a>(&'a mut String);

impl JsonFields<'_> {
    fn raw(&mut self, field: &Field, value: impl fmt::Display) {
        self.name(field);
        let _ = write!(self.0, "{value}");
    }

    fn text(&mut self, field: &Field, value: impl fmt::Display) {
        self.name(field);
        self.0.push('"');
        let _ = write!(Escaped(self.0), "{value}");
        self.0.push('"');
    }

    fn name(&mut self, field: &Field) {
        for part in [",\"", field.name(), "\":"] {
            self.0.push_str(part);
        }
    }
}

/// The inside of a JSON string, as in RFC 8259, section 7.
struct Escaped<'a>(&'a mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        // What is escaped is ASCII, a character of one byte.
        while let Some(at) = rest.bytes().position(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
            self.0.push_str(&rest[..at]);
            match rest.as_bytes()[at] {
                b'\n' => self.0.push_str("\\n"),
                b'\r' => self.0.push_str("\\r"),
                b'\t' => self.0.push_str("\\t"),
                byte if byte < b' ' => write!(self.0, "\\u{byte:04x}")?,
                byte => self.0.extend(['\\', char::from(byte)]),
            }
            rest = &rest[at + 1..];
        }
        self.0.push_str(rest);
        Ok(())
    }
}

impl Visit for JsonFields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() { self.raw(field, value) } else { self.text(field, value) }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.raw(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.raw(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.raw(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Settings are JSON already and stay so.
        if field.name() == "settings" {
            let text = format!("{value:?}");
            if text.starts_with('{') {
                return self.raw(field, text);
            }
        }
        self.text(field, format_args!("{value:?}"));
    }
}

#[derive(Default)]
struct PrettyFields {
    message: String,
    others: String,
}

impl Visit for PrettyFields {
    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = if field.name() == "message" {
            self.message.write_str(value)
        } else {
            write!(self.others, " {}={value}", field.name())
        };
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.others, " {}={value:?}", field.name())
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_is_one_line_of_json() {
        let mut line = String::new();
        Escaped(&mut line).write_str("a\"b\\c\nd\u{1}쿠폰").unwrap();
        assert_eq!(line, r#"a\"b\\c\nd\u0001쿠폰"#);
        assert_eq!(serde_json::from_str::<String>(&format!("\"{line}\"")).unwrap(), "a\"b\\c\nd\u{1}쿠폰");
    }

    #[test]
    fn the_time_is_the_clocks() {
        let before = crate::clock::now_ms();
        let mut line = String::new();
        write_time(&mut line);
        let written = crate::clock::parse_rfc3339(&line).unwrap();
        assert!((before..=crate::clock::now_ms()).contains(&written), "{line}");
        assert_eq!(line.len(), "2026-11-21T10:00:00.000Z".len());
    }
}
