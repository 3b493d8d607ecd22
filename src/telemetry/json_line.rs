//! Log lines as JSON: one object a line, with the time, the level, the message and the fields of an event.
//!
//! The lines are those of tracing-subscriber's own JSON formatter (`flatten_event`), which a test compares. That formatter
//! hands a line over in some eighty small writes, each checked for UTF-8, and was a tenth of the work on a small request.
//! Here a line is built in a buffer that its thread keeps, and handed over once.

use std::cell::RefCell;
use std::fmt::{self, Debug, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Longest buffer that a thread keeps for its next line.
const MAX_KEPT: usize = 16 * 1024;

thread_local! {
    /// The line, and the text of one field before it is escaped.
    static BUFFERS: RefCell<(Vec<u8>, String)> = const { RefCell::new((Vec::new(), String::new())) };
}

/// Writes events as JSON.
#[derive(Debug)]
pub(super) struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        BUFFERS.with(|buffers| match buffers.try_borrow_mut() {
            Ok(mut buffers) => {
                let (line, text) = &mut *buffers;
                write_line(event, line, text, &mut writer)
            }
            // The value of a field logs something itself while it is written.
            Err(_) => write_line(event, &mut Vec::new(), &mut String::new(), &mut writer),
        })
    }
}

fn write_line(
    event: &Event<'_>,
    line: &mut Vec<u8>,
    text: &mut String,
    writer: &mut Writer<'_>,
) -> fmt::Result {
    line.clear();
    text.clear();
    SystemTime.format_time(&mut Writer::new(text))?;
    line.extend_from_slice(b"{\"timestamp\":");
    string(line, text)?;
    line.extend_from_slice(b",\"level\":");
    string(line, event.metadata().level().as_str())?;
    let mut members = Members {
        line,
        text,
        end: Ok(()),
    };
    event.record(&mut members);
    members.end?;
    line.extend_from_slice(b"}\n");
    let written = writer.write_str(std::str::from_utf8(line).map_err(|_| fmt::Error)?);
    line.shrink_to(MAX_KEPT);
    text.shrink_to(MAX_KEPT);
    written
}

/// Writes a JSON string.
fn string(line: &mut Vec<u8>, value: &str) -> fmt::Result {
    serde_json::to_writer(line, value).map_err(|_| fmt::Error)
}

/// Writes the fields of an event as members of an object that has members already.
struct Members<'a> {
    line: &'a mut Vec<u8>,
    text: &'a mut String,
    end: fmt::Result,
}

impl Members<'_> {
    fn put(&mut self, field: &Field, write: impl FnOnce(&mut Self) -> fmt::Result) {
        if self.end.is_ok() {
            self.line.push(b',');
            self.end = string(self.line, field.name()).and_then(|()| {
                self.line.push(b':');
                write(self)
            });
        }
    }

    /// A number, as it prints.
    fn number(&mut self, field: &Field, value: &dyn fmt::Display) {
        self.put(field, |members| {
            members.text.clear();
            write!(members.text, "{value}")?;
            members.line.extend_from_slice(members.text.as_bytes());
            Ok(())
        });
    }
}

impl Visit for Members<'_> {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.number(field, &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field, &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field, &value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, |members| {
            serde_json::to_writer(&mut *members.line, &value).map_err(|_| fmt::Error)
        });
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, |members| string(members.line, value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field, |members| {
            members.text.clear();
            write!(members.text, "{value:?}")?;
            string(members.line, members.text)
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    /// Keeps what is written.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Kept {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    /// The lines of some events, each without its time.
    fn lines(kept: &Kept, subscriber: impl Subscriber + Send + Sync + 'static) -> Vec<String> {
        tracing::subscriber::with_default(subscriber, || {
            let (missing, error): (Option<&str>, _) =
                (None, std::io::Error::other("it \"broke\"\n"));
            tracing::info!(request = %"r\u{1}", missing, count = 7_u64, less = -1, whole = true, "request");
            tracing::error!(%error, part = 0.25, none = f64::NAN, list = ?["a", "b\\"], "{} of {}", 1, 2);
            tracing::warn!("only \u{202e}words\u{7f} and \u{2028}");
            tracing::debug!(empty = "", large = u64::MAX, wide = u128::MAX);
        });
        let text = String::from_utf8(kept.0.lock().clone()).unwrap();
        text.lines()
            .map(|line| {
                let time = line.find(",\"level\"").unwrap();
                assert!(line.starts_with("{\"timestamp\":\"2") && line[..time].ends_with("Z\""));
                line[time..].to_owned()
            })
            .collect()
    }

    #[test]
    fn lines_are_those_of_the_library() {
        let (ours, theirs) = (Kept::default(), Kept::default());
        let builder = || {
            tracing_subscriber::fmt()
                .with_max_level(tracing::Level::TRACE)
                .with_target(false)
        };
        let ours = lines(
            &ours,
            builder()
                .event_format(JsonLine)
                .with_writer(ours.clone())
                .finish(),
        );
        let library = builder().json().flatten_event(true);
        let theirs = lines(&theirs, library.with_writer(theirs.clone()).finish());
        assert_eq!(ours, theirs);
        assert_eq!(ours.len(), 4);
    }
}
