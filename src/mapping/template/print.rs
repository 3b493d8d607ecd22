//! Printing of values into a template: fenced, spelled as JSON, and bounded.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{AutoEscape, Error, ErrorKind, Output, State};

use crate::mapping::fence::{CUT, EXPLAINED, Fence};
use crate::mapping::number;
use crate::mapping::value::head;

/// The longest prompt, in bytes, without the sentence on its marks.
const LONGEST: usize = 64 * 1024 - EXPLAINED;

/// Prints a value into a template.
pub(super) fn format(
    out: &mut Output<'_>,
    state: &mut State<'_, '_>,
    value: &Value,
) -> Result<(), Error> {
    let text = match value.as_str() {
        Some(text) => Cow::Borrowed(text),
        None => Cow::Owned(spelled(state, value)?),
    };
    if value.is_safe() || matches!(state.auto_escape(), AutoEscape::None) {
        return Ok(out.write_str(&text)?);
    }
    state.consume_fuel(u64::try_from(text.len() / 64).unwrap_or(u64::MAX))?;
    let scope = state.lookup(Fence::NAME);
    let fence = scope.as_ref().and_then(Value::downcast_object_ref::<Fence>);
    let fence = fence
        .ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "a value cannot be marked here"))?;
    Ok(out.write_str(&fence.around(&text))?)
}

/// A value as text: as JSON says it, but nothing for null and strings without quotes.
fn spelled(state: &State<'_, '_>, value: &Value) -> Result<String, Error> {
    let mut text = String::new();
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => {}
        _ => json(state, value, &mut text, 0)?,
    }
    Ok(text)
}

/// Writes a value as compact JSON, up to what a block can show.
fn json(state: &State<'_, '_>, value: &Value, out: &mut String, depth: u32) -> Result<(), Error> {
    state.consume_fuel(1)?;
    if depth > crate::json::DEPTH {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            "the value nests too deep",
        ));
    }
    if let Some(digits) = number::digits(value) {
        out.push_str(digits);
        return Ok(());
    }
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => {
            let _ = write!(out, "{value}");
        }
        ValueKind::Seq | ValueKind::Iterable => {
            out.push('[');
            for (position, item) in value.try_iter()?.enumerate() {
                if position > 0 {
                    out.push(',');
                }
                json(state, &item, out, depth + 1)?;
            }
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            for (position, key) in value.try_iter()?.enumerate() {
                if position > 0 {
                    out.push(',');
                }
                out.push_str(&quoted(&key.to_string()));
                out.push(':');
                json(state, &value.get_item(&key)?, out, depth + 1)?;
            }
            out.push('}');
        }
        _ => {
            let text = value.to_string();
            state.consume_fuel(u64::try_from(text.len() / 64).unwrap_or(u64::MAX))?;
            out.push_str(&quoted(&text));
        }
    }
    Ok(())
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The filter `tojson`. Unlike the engine's own, what it makes is still a stranger's word.
pub(super) fn tojson(state: &State<'_, '_>, value: &Value, rest: Kwargs) -> Result<Value, Error> {
    rest.assert_all_used()?;
    let mut text = String::new();
    json(state, value, &mut text, 0)?;
    Ok(Value::from(text))
}

/// Text that takes no more than [`LONGEST`] bytes, and then says that it was cut. A value that does not fit is cut
/// inside its fence.
#[derive(Debug, Default)]
pub(super) struct Bounded {
    text: String,
    full: bool,
}

impl Bounded {
    /// True if the text was cut.
    pub(super) const fn is_full(&self) -> bool {
        self.full
    }

    /// The printed text.
    pub(super) fn into_text(self) -> String {
        self.text
    }
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = std::str::from_utf8(bytes).map_err(io::Error::other)?;
        let room = LONGEST.saturating_sub(self.text.len());
        if piece.len() <= room {
            self.text.push_str(piece);
            return Ok(bytes.len());
        }
        self.full = true;
        let end = Fence::end_of(piece);
        self.text
            .push_str(head(piece, room.min(end.unwrap_or(room))));
        self.text.push_str(CUT);
        if let Some(end) = end {
            self.text.push_str(&piece[end..]);
        }
        Err(io::Error::other("the text is full"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
