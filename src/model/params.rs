//! The named values that a mapping took from an event, and where each came from.

use serde::{Deserialize, Serialize};

/// A parameter's name, as the upstream's hosted webhook calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Name {
    /// What the agent is told.
    Prompt,
    /// Which conversation this belongs to.
    TaskId,
    /// Who is speaking: an id.
    UserId,
    /// Who is speaking: an address.
    UserEmail,
    /// Who is speaking: a given name.
    UserFirstName,
    /// Who is speaking: a family name.
    UserLastName,
}

impl Name {
    /// Every name, in the order of display.
    pub const ALL: [Self; 6] =
        [Self::Prompt, Self::TaskId, Self::UserId, Self::UserEmail, Self::UserFirstName, Self::UserLastName];

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

/// Where a parameter's value came from, strongest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// `fixed`: the operator's word, which nothing overrules.
    Fixed,
    /// `params_mapping`, at this path.
    Mapping(String),
    /// The operator's prompt template.
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
    /// Which.
    pub name: Name,
    /// Its value, as text; numbers keep their digits.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
    /// Where a weaker value was found and passed over, in order of strength.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub over: Vec<Origin>,
}

/// The named values of one event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Params(Vec<Param>);

impl Params {
    /// From a list; a name stands in it at most once.
    pub fn new(list: Vec<Param>) -> Self {
        debug_assert!(list.iter().enumerate().all(|(i, p)| list[..i].iter().all(|q| q.name != p.name)));
        Self(list)
    }

    /// A value by name.
    pub fn get(&self, name: Name) -> Option<&str> {
        self.0.iter().find(|param| param.name == name).map(|param| param.value.as_str())
    }

    /// All of them, in order of display.
    pub fn iter(&self) -> std::slice::Iter<'_, Param> {
        self.0.iter()
    }
}
