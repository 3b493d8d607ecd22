//! Templates of calls: `/bot{token}/sendMessage`, `Bearer {token}`, `"{chat}"`.
//!
//! `{name}` stands for a value, `{name?}` for one that may be absent, `{key.25}` for the first 25 characters of the key,
//! and `{+name}` in a target for a value whose slashes are kept (reserved expansion of RFC 6570). `{{` and `}}` are braces.
//! A filled value is encoded by the place where it stands, so that no value can change the structure around it.

mod body;
mod text;

pub(crate) use body::BodyTemplate;
pub(crate) use text::{FillEncoding, TextTemplate};

use serde_json::Value;

use crate::model::Timestamp;

/// Value that a template names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// The text of a part.
    Text,
    /// The same words without markup.
    Plain,
    /// The text of a part while it has markup.
    Markup,
    /// Marks of the text, as the channel takes them.
    Entities,
    /// The text as HTML.
    Html,
    /// The texts of all parts of the call.
    Texts,
    /// Number of the part, from 1.
    Part,
    /// Number of parts.
    Parts,
    /// The key of the call, or its first characters.
    Key(Option<usize>),
    /// The id of the message that is changed.
    Sent,
    /// The token of the source.
    Token,
    /// Status of the run.
    Status,
    /// Id of the event.
    EventId,
    /// Time before which a message was surely not there.
    Since(SinceForm),
    /// Time of the call.
    Now,
    /// A name of the address or of the source's values.
    Named(String),
}

/// Form in which a time is filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SinceForm {
    /// As RFC 3339.
    Date,
    /// Seconds since 1970.
    Seconds,
    /// Milliseconds since 1970.
    Millis,
}

impl SinceForm {
    /// The time in this form.
    pub(crate) fn of(self, time: Timestamp) -> Value {
        match self {
            Self::Date => Value::String(time.to_string()),
            Self::Seconds => Value::from(time.seconds()),
            Self::Millis => Value::from(time.millis()),
        }
    }
}

/// Names that are not free for an address or for values.
const BUILT_IN: [(&str, Slot); 16] = [
    ("text", Slot::Text),
    ("markup", Slot::Markup),
    ("plain", Slot::Plain),
    ("entities", Slot::Entities),
    ("html", Slot::Html),
    ("texts", Slot::Texts),
    ("part", Slot::Part),
    ("parts", Slot::Parts),
    ("key", Slot::Key(None)),
    ("sent", Slot::Sent),
    ("token", Slot::Token),
    ("status", Slot::Status),
    ("event_id", Slot::EventId),
    ("since", Slot::Since(SinceForm::Date)),
    ("since_s", Slot::Since(SinceForm::Seconds)),
    ("since_ms", Slot::Since(SinceForm::Millis)),
];

impl Slot {
    /// Reads the name of a value; nothing for a name that is not known.
    fn read(name: &str, known: &[&str]) -> Option<Self> {
        if let Some(count) = name.strip_prefix("key.") {
            let count = count
                .parse()
                .ok()
                .filter(|count| (8..=32).contains(count))?;
            return Some(Self::Key(Some(count)));
        }
        if name == "now" {
            return Some(Self::Now);
        }
        let built_in = BUILT_IN.iter().find(|(word, _)| *word == name);
        built_in
            .map(|(_, slot)| slot.clone())
            .or_else(|| known.contains(&name).then(|| Self::Named(name.to_owned())))
    }

    /// True if a name has a meaning of its own in templates.
    pub(crate) fn is_built_in(name: &str) -> bool {
        name == "now" || name.contains('.') || BUILT_IN.iter().any(|(word, _)| *word == name)
    }

    /// True if the value belongs to one part of an answer.
    pub(crate) const fn is_of_part(&self) -> bool {
        matches!(
            self,
            Self::Text | Self::Markup | Self::Plain | Self::Entities | Self::Html | Self::Part
        )
    }

    /// Name of the value in sentences.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Key(_) => "key",
            Self::Now => "now",
            Self::Named(name) => name,
            slot => BUILT_IN
                .iter()
                .find(|(_, known)| known == slot)
                .map_or("", |(name, _)| *name),
        }
    }
}

/// A value to be filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlotUse {
    pub(crate) slot: Slot,
    /// True if its absence leaves it out.
    pub(crate) is_optional: bool,
    /// True if slashes of the value are kept in a target.
    pub(crate) keeps_slashes: bool,
}

/// Source of the values that templates are filled from.
pub(crate) trait Values {
    /// The value of a slot; nothing where it is absent. `part` is the place of a part among those of the call.
    fn value(&self, slot: &Slot, part: usize) -> Option<Value>;

    /// Number of parts that the call carries.
    fn parts(&self) -> usize;
}

/// The reason why a template cannot be filled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FillError {
    /// A value that must be there is absent.
    #[error("there is no value for {{{0}}}")]
    Missing(String),
    /// A value cannot stand where its name stands: a path that leads up, a control character in a header.
    #[error("the value of {{{0}}} cannot stand where it stands")]
    Unfit(String),
}

/// Parses the names of a template against those that are known, and reports by a sentence.
pub(crate) struct TemplateNames<'n> {
    /// Names of the address and of the source's values.
    pub(crate) known: Vec<&'n str>,
}

impl TemplateNames<'_> {
    /// Reads what stands between two braces.
    fn slot(&self, written: &str) -> Result<SlotUse, String> {
        let (name, keeps_slashes) = match written.strip_prefix('+') {
            Some(name) => (name, true),
            None => (written, false),
        };
        let (name, is_optional) = match name.strip_suffix('?') {
            Some(name) => (name, true),
            None => (name, false),
        };
        let slot = Slot::read(name, &self.known).ok_or_else(|| {
            let mut names: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
            names.extend(&self.known);
            let shown: String = name.chars().take(40).flat_map(char::escape_debug).collect();
            format!(
                "nothing is called {{{shown}}} here; known are {}",
                names.join(", ")
            )
        })?;
        Ok(SlotUse {
            slot,
            is_optional,
            keeps_slashes,
        })
    }
}
