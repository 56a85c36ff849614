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
        let at = crate::clock::rfc3339(crate::clock::now_ms());
        let meta = event.metadata();
        let trace = Trace::innermost();
        match self.format {
            LogFormat::Json => {
                write!(
                    line,
                    "{{\"timestamp\":\"{at}\",\"level\":\"{}\",\"logger\":\"{}\"",
                    meta.level(),
                    meta.target()
                )?;
                line.push_str(&self.origin);
                if let Some(trace) = trace {
                    write!(line, ",\"trace_id\":\"{}\",\"span_id\":\"{}\"", trace.trace_id, trace.span_id)?;
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
                write!(line, "{at} \x1b[{colour}m{:5}\x1b[0m {}", meta.level().as_str(), meta.target())?;
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
        let _ = write!(self.0, ",\"{}\":{value}", field.name());
    }

    fn text(&mut self, field: &Field, value: &str) {
        let _ = write!(self.0, ",\"{}\":", field.name());
        write_json(self.0, value);
    }
}

/// A JSON string, as in RFC 8259, section 7.
fn write_json(line: &mut String, value: &str) {
    line.push('"');
    for c in value.chars() {
        match c {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            c if c < ' ' => {
                let _ = write!(line, "\\u{:04x}", u32::from(c));
            }
            c => line.push(c),
        }
    }
    line.push('"');
}

impl Visit for JsonFields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() { self.raw(field, value) } else { self.text(field, &value.to_string()) }
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
        let text = format!("{value:?}");
        // Settings and other values that are JSON already stay so.
        let structured = field.name() == "settings" && text.starts_with('{');
        if structured { self.raw(field, text) } else { self.text(field, &text) }
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
        write_json(&mut line, "a\"b\\c\nd\u{1}쿠폰");
        assert_eq!(line, r#""a\"b\\c\nd\u0001쿠폰""#);
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), "a\"b\\c\nd\u{1}쿠폰");
    }
}
