//! On whose behalf a delivery is sent, and how urgent it is: what waits in one queue is shared by these.

use std::fmt;
use std::str::FromStr;

/// On whose behalf a delivery is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Account {
    /// The operator's own: everything that a configured source takes.
    #[default]
    Operator,
    /// A caller with a gateway key, by the name of its table in `[keys]`.
    Key(String),
    /// All callers together whose keys are not the gateway's own.
    Foreign,
}

impl Account {
    /// True if its calls are made with keys that are not the operator's.
    pub const fn is_foreign(&self) -> bool {
        matches!(self, Self::Foreign)
    }
}

/// Urgency of a delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Somebody waits for it.
    Interactive,
    /// The usual.
    #[default]
    Normal,
    /// It may take hours: replays, what was missed, pushes in great numbers.
    Bulk,
}

impl Class {
    /// Every class, the most urgent first.
    pub const ALL: [Self; 3] = [Self::Interactive, Self::Normal, Self::Bulk];

    /// A stable word for storage and display.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Normal => "normal",
            Self::Bulk => "bulk",
        }
    }

    /// The class of this word, if it is one.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == text)
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator => f.write_str("operator"),
            Self::Key(name) => write!(f, "key/{name}"),
            Self::Foreign => f.write_str("foreign"),
        }
    }
}

impl FromStr for Account {
    type Err = super::id::InvalidId;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "operator" => Ok(Self::Operator),
            "foreign" => Ok(Self::Foreign),
            _ => text
                .strip_prefix("key/")
                .map(|name| Self::Key(name.to_owned()))
                .ok_or(super::id::InvalidId),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_and_classes_are_read_as_they_are_written() {
        for account in [
            Account::Operator,
            Account::Foreign,
            Account::Key("ci".into()),
            Account::Key("foreign".into()),
        ] {
            assert_eq!(account.to_string().parse(), Ok(account));
        }
        assert!("ours".parse::<Account>().is_err());
        for class in Class::ALL {
            assert_eq!(Class::parse(class.as_str()), Some(class));
        }
        assert_eq!(Class::parse("urgent"), None);
    }
}
