//! Which events, as typed: the words of the admin API as options.

use anyhow::{Context as _, anyhow};
use clap::Args;
use clap::builder::PossibleValuesParser;
use form_urlencoded::Serializer;
use serde_json::Value;

use super::super::print;
use crate::config::unit;
use crate::inbox::words::FilterWords;
use crate::model::{State, Timestamp};

/// Which events.
#[derive(Debug, Args)]
pub(super) struct FilterArgs {
    /// Only of this source
    #[arg(long, value_name = "NAME")]
    pub(super) source: Option<String>,
    /// Only with a delivery in this state
    #[arg(long, value_parser = PossibleValuesParser::new(State::ALL.map(State::as_str)))]
    pub(super) state: Option<String>,
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
    /// Only received since: a time like 2026-01-31T12:00:00Z, or how long ago, like 2h or 30min
    #[arg(long, value_name = "TIME")]
    pub(super) since: Option<String>,
    /// Only received before: a time, or how long ago
    #[arg(long, value_name = "TIME")]
    pub(super) until: Option<String>,
    /// Only what the source's filter held back (true), or only the rest (false)
    #[arg(long, value_name = "true|false")]
    pub(super) filtered: Option<bool>,
}

impl FilterArgs {
    /// As the admin API takes them; what cannot be meant is said before anything is asked.
    pub(super) fn words(&self, now: Timestamp) -> anyhow::Result<FilterWords> {
        let time = |option: &str, text: &Option<String>| {
            let Some(text) = text else { return Ok(None) };
            let time = time(text, now).with_context(|| {
                format!("{option} cannot be \"{}\"; write 2026-01-31T12:00:00Z, 2h or 30min", print::line(text))
            })?;
            anyhow::Ok(Some(time.to_string()))
        };
        let words = FilterWords {
            source: self.source.clone(),
            state: self.state.clone(),
            event_type: self.event_type.clone(),
            thread: self.thread.clone(),
            dedup: self.dedup.clone(),
            destination: self.destination.clone(),
            text: self.text.clone(),
            since: time("--since", &self.since)?,
            until: time("--until", &self.until)?,
            filtered: self.filtered,
        };
        words.filter().map_err(|why| anyhow!("{why}"))?;
        Ok(words)
    }

    /// Whether any is given.
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
        self.filtered.is_some() || texts.iter().any(|text| text.is_some())
    }
}

/// Adds words to a query.
pub(super) fn append(query: &mut Serializer<'_, String>, words: &FilterWords) -> anyhow::Result<()> {
    let Value::Object(words) = serde_json::to_value(words)? else { return Ok(()) };
    for (key, value) in &words {
        match value {
            Value::String(text) => query.append_pair(key, text),
            other => query.append_pair(key, &other.to_string()),
        };
    }
    Ok(())
}

/// A time as written, or that long before now.
fn time(text: &str, now: Timestamp) -> Option<Timestamp> {
    Timestamp::parse(text).or_else(|| unit::duration(text).map(|ago| now - ago))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_time_or_how_long_ago() {
        let now = Timestamp::from_seconds(1_800_000_000);
        assert_eq!(time("2h", now), Some(Timestamp::from_seconds(1_800_000_000 - 7_200)));
        assert_eq!(time("30min", now), Some(Timestamp::from_seconds(1_800_000_000 - 1_800)));
        assert_eq!(time("2026-01-31T14:00:00+02:00", now), Timestamp::parse("2026-01-31T12:00:00Z"));
        assert_eq!(time("yesterday", now), None);
    }
}
