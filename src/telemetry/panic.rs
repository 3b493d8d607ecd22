//! Panics as lines of the log. What a panic says may hold what a caller sent; the library's own report would put it on a
//! terminal as it is.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, PanicHookInfo};

/// Longest message of a panic that is logged, in bytes.
const LONGEST: usize = 2048;

/// Has panics logged from now on.
pub(super) fn log() {
    panic::set_hook(Box::new(|bug| {
        tell(bug);
        // Nothing comes after the end of this one, and what waits to be written would be lost with it.
        if std::thread::current().name() == Some("main") {
            super::log::flush();
        }
    }));
}

fn tell(bug: &PanicHookInfo<'_>) {
    let place = bug.location().map(ToString::to_string);
    let trace = Backtrace::capture();
    let trace = (trace.status() == BacktraceStatus::Captured).then(|| trace.to_string());
    let thread = std::thread::current();
    tracing::error!(
        thread = thread.name(),
        place,
        cause = said(bug.payload()),
        trace,
        "a bug: a panic"
    );
}

/// Message of a panic.
fn said(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text");
    let end = (0..=LONGEST.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_panic_says_is_text_and_bounded() {
        let caught = panic::catch_unwind(|| panic!("{}", "\u{e9}".repeat(LONGEST))).unwrap_err();
        assert_eq!(said(&*caught).len(), LONGEST);
        assert_eq!(said(&"a text"), "a text");
        assert_eq!(said(&4711), "no text");
    }
}
