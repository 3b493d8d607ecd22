//! The named values that a mapping took from an event, and where each came from.

use serde::{Deserialize, Serialize};

/// A parameter's name, as the upstream's hosted webhook calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Name {
    /// The text that the agent is told.
    Prompt,
    /// The conversation.
    TaskId,
    /// The id of the speaker.
    UserId,
    /// The mail address of the speaker.
    UserEmail,
    /// The given name of the speaker.
    UserFirstName,
    /// The family name of the speaker.
    UserLastName,
}

impl Name {
    /// Every name, in the order of display.
    pub const ALL: [Self; 6] = [
        Self::Prompt,
        Self::TaskId,
        Self::UserId,
        Self::UserEmail,
        Self::UserFirstName,
        Self::UserLastName,
    ];

    /// The name as it stands in queries, bodies and configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::TaskId => "task_id",
            Self::UserId => "user_id",
            Self::UserEmail => "user_email",
            Self::UserFirstName => "user_first_name",
            Self::UserLastName => "user_last_name",
        }
    }

    /// The parameter of this name, if there is one.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|name| name.as_str() == text)
    }
}

/// Origin of a parameter's value, strongest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// `fixed`: the operator's word, which nothing overrules.
    Fixed,
    /// `params_mapping`, at this path.
    Mapping(String),
    /// A prompt template: the operator's, or else the one of the provider's file.
    Template,
    /// The query.
    Query,
    /// The body's own field of this name.
    Body,
    /// The configured default.
    Default,
    /// The whole event, because nothing else gave a prompt.
    Event,
}

/// On whose word a value stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backing {
    /// Nobody's: whoever brought the request could have written it, or have changed it on the way.
    Unproved,
    /// The sender's: what proves the request covers it.
    Proved,
    /// The operator's own.
    Operator,
}

impl Backing {
    /// A stable word for display.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unproved => "unproved",
            Self::Proved => "proved",
            Self::Operator => "operator",
        }
    }
}

/// One parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Param {
    /// Its name.
    pub name: Name,
    /// Its value, as text; numbers keep their digits.
    pub value: String,
    /// Origin of the value.
    pub origin: Origin,
    /// Origins of weaker values that were passed over, in order of strength.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub over: Vec<Origin>,
}

/// Notes on how an event's bytes were read as text. The bytes themselves are kept as they came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TextNotes {
    /// The character set that they were read in, where it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub charset: Option<String>,
    /// Bytes that are no text in that character set stand as U+FFFD.
    #[serde(skip_serializing_if = "is_false")]
    pub replaced: bool,
    /// Escapes of half a character stand as U+FFFD.
    #[serde(skip_serializing_if = "is_false")]
    pub halves: bool,
    /// NUL characters in a value that was taken stand as U+FFFD.
    #[serde(skip_serializing_if = "is_false")]
    pub nul: bool,
    /// Escapes in the query that are no UTF-8 stand as U+FFFD.
    #[serde(skip_serializing_if = "is_false")]
    pub query: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde wants it so
const fn is_false(flag: &bool) -> bool {
    !*flag
}

impl TextNotes {
    /// True without any note.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// True if something was lost between the bytes and the text.
    pub const fn has_loss(&self) -> bool {
        self.replaced || self.halves || self.nul || self.query
    }

    /// These and those.
    #[must_use]
    pub fn and(self, other: &Self) -> Self {
        Self {
            charset: self.charset.or_else(|| other.charset.clone()),
            replaced: self.replaced || other.replaced,
            halves: self.halves || other.halves,
            nul: self.nul || other.nul,
            query: self.query || other.query,
        }
    }

    /// The notes in sentences.
    pub fn sentences(&self) -> Vec<String> {
        let mut all = Vec::new();
        let set = self.charset.as_deref().unwrap_or("UTF-8");
        if self.charset.is_some() {
            all.push(format!("The body was read as {set}."));
        }
        if self.replaced {
            all.push(format!(
                "The body has bytes that are not valid {set}; they were read as U+FFFD."
            ));
        }
        if self.halves {
            all.push(
                "The body has escapes for half a character; they were read as U+FFFD.".to_owned(),
            );
        }
        if self.nul {
            all.push("A value has a NUL character; it was read as U+FFFD.".to_owned());
        }
        if self.query {
            all.push(
                "The query has escapes that are not valid UTF-8; they were read as U+FFFD."
                    .to_owned(),
            );
        }
        all
    }
}

/// The named values of one event, and what has to be said of its text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredParams", into = "StoredParams")]
pub struct Params {
    list: Vec<Param>,
    notes: TextNotes,
}

/// Named values as they are stored: the list alone where there is nothing to say of the text.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum StoredParams {
    Plain(Vec<Param>),
    Noted { params: Vec<Param>, text: TextNotes },
}

impl From<StoredParams> for Params {
    fn from(written: StoredParams) -> Self {
        match written {
            StoredParams::Plain(list) => Self {
                list,
                notes: TextNotes::default(),
            },
            StoredParams::Noted { params, text } => Self {
                list: params,
                notes: text,
            },
        }
    }
}

impl From<Params> for StoredParams {
    fn from(Params { list, notes }: Params) -> Self {
        if notes.is_empty() {
            Self::Plain(list)
        } else {
            Self::Noted {
                params: list,
                text: notes,
            }
        }
    }
}

impl Params {
    /// From a list; a name stands in it at most once.
    pub fn new(list: Vec<Param>) -> Self {
        debug_assert!(
            list.iter()
                .enumerate()
                .all(|(i, p)| list[..i].iter().all(|q| q.name != p.name))
        );
        Self {
            list,
            notes: TextNotes::default(),
        }
    }

    /// The same, with what has to be said of the text they were taken from.
    #[must_use]
    pub fn noted(mut self, notes: TextNotes) -> Self {
        self.notes = notes;
        self
    }

    /// The notes on the text that they were taken from.
    pub const fn notes(&self) -> &TextNotes {
        &self.notes
    }

    /// A value by name.
    pub fn get(&self, name: Name) -> Option<&str> {
        self.list
            .iter()
            .find(|param| param.name == name)
            .map(|param| param.value.as_str())
    }

    /// All of them, in order of display.
    pub fn iter(&self) -> std::slice::Iter<'_, Param> {
        self.list.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_stored_beside_the_values_and_old_rows_have_none() {
        let param = Param {
            name: Name::Prompt,
            value: "x".into(),
            origin: Origin::Body,
            over: Vec::new(),
        };
        let plain = Params::new(vec![param]);
        let old = r#"[{"name":"prompt","value":"x","origin":"body"}]"#;
        assert_eq!(serde_json::to_string(&plain).unwrap(), old);
        assert_eq!(serde_json::from_str::<Params>(old).unwrap(), plain);
        let noted = plain.noted(TextNotes {
            halves: true,
            charset: Some("Shift_JIS".into()),
            ..TextNotes::default()
        });
        let written = serde_json::to_string(&noted).unwrap();
        assert!(
            written.ends_with(r#""text":{"charset":"Shift_JIS","halves":true}}"#),
            "{written}"
        );
        assert_eq!(serde_json::from_str::<Params>(&written).unwrap(), noted);
        assert_eq!(noted.notes().sentences().len(), 2);
        assert_eq!(
            serde_json::from_str::<Params>("[]").unwrap(),
            Params::default()
        );
    }
}
