//! A filter of events in words: as the admin API takes it, and as a job keeps it.
//!
//! Everything in it is read strictly and bounded. What cannot be read is said in a sentence and never passed over, so
//! that a misspelt filter does not fit everything.

use super::EventFilter;
use crate::model::{DeliveryState, Destination, FilterWords, Timestamp};

/// The longest name of a source, and the longest value of any other word.
const MAX_NAME: usize = 64;
const MAX_WORD: usize = 1024;

/// The longest text to search for.
const MAX_TEXT: usize = 200;

impl FilterWords {
    /// As the inbox wants it, its page still to be said; or a sentence on what cannot be read.
    pub fn filter(&self) -> Result<EventFilter, String> {
        let time = |key: &str, text: &Option<String>| {
            read(text.as_deref(), Timestamp::parse, || {
                format!(
                    "{key} must be a time like 2026-01-31T12:00:00Z (in an address, write + as %2B)."
                )
            })
        };
        let word = |key: &str, text: &Option<String>, most: usize| {
            let good = |text: &str| is_word(text, most).then(|| text.to_owned());
            read(text.as_deref(), good, || {
                format!("{key} must be a text of at most {most} bytes.")
            })
        };
        let filter = EventFilter {
            source: read(
                self.source.as_deref(),
                |text| is_word(text, MAX_NAME).then(|| text.to_owned()),
                || "source must be the name of a source.".into(),
            )?,
            event_type: word("type", &self.event_type, MAX_WORD)?,
            thread: word("thread", &self.thread, MAX_WORD)?,
            dedup: word("dedup", &self.dedup, MAX_WORD)?,
            destination: read(self.destination.as_deref(), destination, || {
                "destination must be like agent/ID or workflow/ID.".into()
            })?,
            text: read(
                self.text.as_deref(),
                |text| {
                    (is_word(text, MAX_TEXT) && text.chars().any(char::is_alphanumeric))
                        .then(|| text.to_owned())
                },
                || format!("text must be words, {MAX_TEXT} bytes at most."),
            )?,
            state: read(self.state.as_deref(), DeliveryState::parse, || {
                format!(
                    "state must be one of {}.",
                    DeliveryState::ALL.map(DeliveryState::as_str).join(", ")
                )
            })?,
            open: self.open,
            filtered: self.filtered,
            since: time("since", &self.since)?,
            until: time("until", &self.until)?,
            ..EventFilter::default()
        };
        match (filter.since, filter.until) {
            (Some(since), Some(until)) if since >= until => {
                Err("since must be before until.".into())
            }
            _ => Ok(filter),
        }
    }

    /// True if it leaves anything out.
    pub const fn restricts(&self) -> bool {
        self.source.is_some()
            || self.state.is_some()
            || self.event_type.is_some()
            || self.thread.is_some()
            || self.dedup.is_some()
            || self.destination.is_some()
            || self.text.is_some()
            || self.since.is_some()
            || self.until.is_some()
            || matches!(self.open, Some(true))
            || matches!(self.filtered, Some(true))
    }
}

/// A destination as an operator writes it.
pub fn destination(text: &str) -> Option<Destination> {
    text.parse()
        .ok()
        .filter(|to: &Destination| is_word(&to.id, MAX_WORD))
}

/// No engine can look for a NUL.
fn is_word(text: &str, most: usize) -> bool {
    !text.is_empty() && text.len() <= most && !text.contains('\0')
}

fn read<T>(
    text: Option<&str>,
    parse: impl FnOnce(&str) -> Option<T>,
    complaint: impl FnOnce() -> String,
) -> Result<Option<T>, String> {
    match text {
        None => Ok(None),
        Some(text) => parse(text).map(Some).ok_or_else(complaint),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<EventFilter, String> {
        let words: FilterWords = serde_json::from_str(text).map_err(|error| error.to_string())?;
        words.filter()
    }

    #[test]
    fn words_become_a_filter_and_keep_their_form() {
        let text = r#"{"source":"a","state":"dead","type":"x.y","destination":"agent/a1","since":"2026-01-31T12:00:00Z"}"#;
        let filter = read(text).expect("a filter");
        assert_eq!(
            (filter.source.as_deref(), filter.state),
            (Some("a"), Some(DeliveryState::Dead))
        );
        assert_eq!(filter.destination, "agent/a1".parse().ok());
        let words: FilterWords = serde_json::from_str(text).expect("words");
        assert_eq!(serde_json::to_string(&words).expect("text"), text);
        assert!(words.restricts());
        assert!(
            !FilterWords {
                filtered: Some(false),
                ..FilterWords::default()
            }
            .restricts()
        );
    }

    #[test]
    fn t102_what_cannot_be_meant_is_said() {
        let long = format!(r#"{{"thread":"{}"}}"#, "a".repeat(1025));
        for wrong in [
            r#"{"state":"accepted"}"#,
            r#"{"sate":"dead"}"#,
            r#"{"source":""}"#,
            r#"{"source":"a\u0000"}"#,
            r#"{"type":""}"#,
            r#"{"text":"\"*"}"#,
            r#"{"destination":"a1"}"#,
            r#"{"destination":"agent/"}"#,
            r#"{"destination":"robot/1"}"#,
            r#"{"since":"yesterday"}"#,
            r#"{"since":"2026-01-31T12:00:00Z","until":"2026-01-31T12:00:00Z"}"#,
            r#"{"filtered":"no"}"#,
            r#"{"limit":1}"#,
            &long,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
