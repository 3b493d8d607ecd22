//! The user of a call, as the upstream wants one.
//!
//! Everything here was chosen by somebody outside: a name becomes one short line, and an id or an address has no control
//! characters in it. Control characters are replaced and not left out, so that one user never becomes another.

use percent_encoding::utf8_percent_encode;
use serde::{Deserialize, Serialize};

use super::path::ESCAPED;
use crate::model::{Name, Params};

/// The longest part of a name, a type or an id that stands in one line, in characters.
const MAX_LINE: usize = 200;

/// The user of an event, as far as its params tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum User {
    /// A user with an id and an address, which the upstream asks for.
    Known(UserDetails),
    /// A user of whom only a name is known.
    Named(String),
    /// An event without a user.
    Unknown,
}

/// `input.user` of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserDetails {
    /// The user's id, or the address where there is no id.
    pub id: String,
    /// The user's address, or one that is made from the id.
    pub email: String,
    /// The first name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_name: Option<String>,
    /// The last name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_name: Option<String>,
}

impl User {
    /// Reads the user from an event's params. `email_template` makes an address from an id.
    pub(super) fn of(params: &Params, email_template: &str) -> Self {
        let known = |name| params.get(name).filter(|value| !value.is_empty());
        let plain = |text: &str| text.replace(char::is_control, "\u{fffd}");
        let (first, last) = (known(Name::UserFirstName), known(Name::UserLastName));
        let (id, email) = match (known(Name::UserId), known(Name::UserEmail)) {
            (Some(id), Some(email)) => (plain(id), plain(email)),
            (Some(id), None) => {
                let escaped = utf8_percent_encode(id, ESCAPED).to_string();
                (plain(id), email_template.replace("{id}", &escaped))
            }
            (None, Some(email)) => (plain(email), plain(email)),
            (None, None) => {
                let names: Vec<&str> = [first, last].into_iter().flatten().collect();
                let name = one_line(&names.join(" "));
                return match name.is_empty() {
                    true => Self::Unknown,
                    false => Self::Named(name),
                };
            }
        };
        Self::Known(UserDetails {
            id,
            email,
            first_name: first.map(one_line),
            last_name: last.map(one_line),
        })
    }

    /// The details that the upstream gets: an id and an address, or nothing.
    pub(super) fn details(self) -> Option<UserDetails> {
        match self {
            Self::Known(user) => Some(user),
            Self::Named(_) | Self::Unknown => None,
        }
    }

    /// The name of a user of whom nothing else is known.
    pub(super) fn bare_name(&self) -> Option<&str> {
        match self {
            Self::Named(name) => Some(name),
            Self::Known(_) | Self::Unknown => None,
        }
    }
}

/// A text from outside as one short line: control characters become blanks, and blanks in a row become one.
pub(super) fn one_line(text: &str) -> String {
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_LINE)
        .collect();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}
