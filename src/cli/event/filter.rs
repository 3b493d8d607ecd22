//! Filters of events as options, in the words of the admin API.

use clap::Args;
use clap::builder::PossibleValuesParser;
use form_urlencoded::Serializer;
use serde_json::Value;

use super::super::{since, usage};
use crate::model::FilterWords;
use crate::model::{DeliveryState, Timestamp};

/// Options that choose events.
#[derive(Debug, Args)]
pub(super) struct FilterArgs {
    /// Only of this source
    #[arg(long, value_name = "NAME")]
    pub(super) source: Option<String>,
    /// Only where the last delivery is in this state
    #[arg(long, value_parser = states())]
    pub(super) state: Option<String>,
    /// Only what needs attention: the last delivery is dead, could not be mapped, or nobody can tell whether it ran
    #[arg(long)]
    pub(super) open: bool,
    /// Only of this type
    #[arg(long = "type", value_name = "TYPE")]
    pub(super) event_type: Option<String>,
    /// Only of this conversation
    #[arg(long, value_name = "NAME")]
    pub(super) thread: Option<String>,
    /// Only with this key of the provider's
    #[arg(long, value_name = "KEY")]
    pub(super) dedup: Option<String>,
    /// Only with a delivery to this destination, like agent/ID
    #[arg(long, value_name = "DESTINATION")]
    pub(super) destination: Option<String>,
    /// Only with these words in the body (inbox.search)
    #[arg(long, value_name = "WORDS")]
    pub(super) text: Option<String>,
    /// Only received since: a time like 2026-01-31T12:00:00Z, a date, or how long ago, like 2h
    #[arg(long, value_name = "TIME")]
    pub(super) since: Option<String>,
    /// Only received before: a time, a date, or how long ago
    #[arg(long, value_name = "TIME")]
    pub(super) until: Option<String>,
    /// Only what the source's filter held back (true), or only the rest (false)
    #[arg(long, value_name = "true|false")]
    pub(super) filtered: Option<bool>,
}

impl FilterArgs {
    /// As the admin API takes them; what cannot be meant is said before anything is asked.
    pub(super) fn words(&self, now: Timestamp) -> anyhow::Result<FilterWords> {
        let time = |option: &str, text: &Option<String>| match text {
            Some(text) => since(option, text, now).map(|time| Some(time.to_string())),
            None => Ok(None),
        };
        let words = FilterWords {
            source: self.source.clone(),
            // In lists what is leased is said to be running.
            state: self
                .state
                .as_deref()
                .map(|state| if state == "running" { "leased" } else { state }.to_owned()),
            event_type: self.event_type.clone(),
            thread: self.thread.clone(),
            dedup: self.dedup.clone(),
            destination: self.destination.clone(),
            text: self.text.clone(),
            since: time("--since", &self.since)?,
            until: time("--until", &self.until)?,
            filtered: self.filtered,
            open: self.open.then_some(true),
        };
        words.filter().map_err(usage)?;
        Ok(words)
    }

    /// True if any option is given.
    pub(super) fn is_given(&self) -> bool {
        let texts = [
            &self.source,
            &self.state,
            &self.event_type,
            &self.thread,
            &self.dedup,
            &self.destination,
            &self.text,
            &self.since,
            &self.until,
        ];
        self.open || self.filtered.is_some() || texts.iter().any(|text| text.is_some())
    }
}

/// The states as typed.
fn states() -> PossibleValuesParser {
    PossibleValuesParser::new(DeliveryState::ALL.map(|state| {
        if state == DeliveryState::Leased {
            "running"
        } else {
            state.as_str()
        }
    }))
}

/// Adds words to a query.
pub(super) fn append(
    query: &mut Serializer<'_, String>,
    words: &FilterWords,
) -> anyhow::Result<()> {
    let Value::Object(words) = serde_json::to_value(words)? else {
        return Ok(());
    };
    for (key, value) in &words {
        match value {
            Value::String(text) => query.append_pair(key, text),
            other => query.append_pair(key, &other.to_string()),
        };
    }
    Ok(())
}
