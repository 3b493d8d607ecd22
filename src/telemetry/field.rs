//! The fields of a log line as text.
//!
//! What is promised: a line is one line, and a value is one value, whatever a caller wrote into it. Control characters,
//! line breaks, and characters that change the order or the look of what follows are written as escapes, in messages as
//! in fields, however the call site hands a value over. A value that could be taken for several fields is quoted.

use std::fmt::{self, Debug};

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

/// Writes fields as `name=value`, and the message as it is.
#[derive(Debug)]
pub(super) struct PlainFields;

impl<'w> FormatFields<'w> for PlainFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut list = FieldList {
            writer,
            begun: false,
            end: Ok(()),
        };
        fields.record(&mut list);
        list.end
    }
}

struct FieldList<'w> {
    writer: Writer<'w>,
    begun: bool,
    end: fmt::Result,
}

impl FieldList<'_> {
    fn put(&mut self, name: &str, value: &str) {
        if self.end.is_ok() {
            self.end = self.try_put(name, value);
        }
    }

    fn try_put(&mut self, name: &str, value: &str) -> fmt::Result {
        if std::mem::replace(&mut self.begun, true) {
            self.writer.write_char(' ')?;
        }
        if name == "message" {
            return escaped(value, &mut self.writer);
        }
        write!(self.writer, "{}=", name.strip_prefix("r#").unwrap_or(name))?;
        if is_one_word(value) || is_quoted(value) {
            escaped(value, &mut self.writer)
        } else {
            write!(self.writer, "{value:?}")
        }
    }
}

impl Visit for FieldList<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        let value = if field.name() == "message" {
            value.to_owned()
        } else {
            format!("{value:?}")
        };
        self.put(field.name(), &value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field.name(), &format!("{value:?}"));
    }
}

/// A value that needs no quotes to be told from what follows.
fn is_one_word(value: &str) -> bool {
    !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '='))
}

/// A value that stands in quotes of its own, with none but escaped ones inside.
fn is_quoted(value: &str) -> bool {
    let Some(inside) = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
    else {
        return false;
    };
    let mut escape = false;
    let broken = inside.chars().any(|c| {
        let bare_quote = c == '"' && !escape;
        escape = c == '\\' && !escape;
        bare_quote
    });
    !broken && !escape
}

/// Writes a text with escapes for what is not plainly visible.
fn escaped(text: &str, out: &mut impl fmt::Write) -> fmt::Result {
    for c in text.chars() {
        if is_visible(c) {
            out.write_char(c)?;
        } else {
            write!(out, "{}", c.escape_debug())?;
        }
    }
    Ok(())
}

/// True if a character is visible and does not change the display of others.
pub(super) fn is_visible(c: char) -> bool {
    // Quotes and backslashes are plain characters here; `escape_debug` is asked about all others.
    matches!(c, ' '..='~') || (!c.is_ascii() && c.escape_debug().len() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(name: &str, value: &str) -> String {
        let mut text = String::new();
        let mut list = FieldList {
            writer: Writer::new(&mut text),
            begun: false,
            end: Ok(()),
        };
        list.put(name, value);
        list.end.expect("a text takes all");
        text
    }

    #[test]
    fn s19_no_value_makes_a_line_a_field_or_a_colour_of_its_own() {
        for (value, written) in [
            ("agent/A-1", "destination=agent/A-1"),
            ("a\nINFO forged", r#"destination="a\nINFO forged""#),
            (
                "a audit=\"source.enrol\"",
                r#"destination="a audit=\"source.enrol\"""#,
            ),
            ("\u{1b}[31m", r"destination=\u{1b}[31m"),
            (
                "a\u{202e}b\u{9b}c\u{7f}",
                r"destination=a\u{202e}b\u{9b}c\u{7f}",
            ),
            ("a\u{2028}b", "destination=\"a\\u{2028}b\""),
            ("", "destination=\"\""),
            ("\"a\" b=\"c\"", r#"destination="\"a\" b=\"c\"""#),
            (r#""a \" b""#, r#"destination="a \" b""#),
            (r#""a\""#, r#"destination="\"a\\\"""#),
            ("käse", "destination=käse"),
        ] {
            assert_eq!(put("destination", value), written, "{value:?}");
        }
        assert_eq!(
            put("message", "it said \"no\"\r\n\u{1b}[2J"),
            r#"it said "no"\r\n\u{1b}[2J"#
        );
        assert_eq!(put("r#as", "dead"), "as=dead");
    }
}
