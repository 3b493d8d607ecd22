//! The `to` table of `[reply]`: names of an address and the places of an event that they are read from.

use super::TextPair;
use crate::config::node::{Node, Value};
use crate::config::problem::{Located, Place};
use crate::config::section::Section;

/// One name of an address.
#[derive(Clone, Debug)]
pub struct AddressConfig {
    /// The name, which templates use.
    pub name: Located<String>,
    /// Candidates in order. The first one that has a value counts.
    pub candidates: Vec<AddressCandidate>,
}

/// A possible value of a name.
#[derive(Clone, Debug)]
pub struct AddressCandidate {
    /// Place of the candidate in the file.
    pub place: Place,
    /// Place of the value in an event.
    pub from: Option<Located<String>>,
    /// The value itself, where it is a fixed text.
    pub is: Option<Located<String>>,
    /// Places and patterns that must all fit.
    pub when: Vec<TextPair>,
    /// Values that count as absent.
    pub not: Vec<Located<String>>,
}

/// Reads the table: its names, and the names that are secret.
pub(super) fn read(section: &Section<'_>) -> (Vec<AddressConfig>, Vec<Located<String>>) {
    let Some(table) = section.section("to") else {
        if !section.has("to") {
            section.problems().error_hint(
                section.place(),
                format!("{} does not say where an answer goes", section.name()),
                "name places of the event: to.chat = \"json:message.chat.id\"",
            );
        }
        return (Vec::new(), Vec::new());
    };
    let secret = table.texts("secret").unwrap_or_default();
    let names: Vec<_> = table.keys().filter(|(name, _)| *name != "secret").collect();
    let mut all = Vec::new();
    for (name, place) in names {
        let Some(node) = table.node(name) else {
            continue;
        };
        let items = match &node.value {
            Value::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        all.push(AddressConfig {
            name: Located {
                value: name.to_owned(),
                place: place.clone(),
            },
            candidates: items
                .iter()
                .filter_map(|item| candidate(&table, name, item))
                .collect(),
        });
    }
    (all, secret)
}

fn candidate(table: &Section<'_>, name: &str, item: &Node) -> Option<AddressCandidate> {
    match &item.value {
        Value::Text(text) => Some(AddressCandidate {
            place: item.place.clone(),
            from: Some(Located {
                value: text.clone(),
                place: item.place.clone(),
            }),
            is: None,
            when: Vec::new(),
            not: Vec::new(),
        }),
        Value::Table(inner) => {
            let section = Section::new(inner, table.path(name), table.problems());
            let (from, is) = (section.text("from"), section.text("is"));
            if from.is_some() == is.is_some() {
                let what = format!("{} needs one of from and is", section.name());
                let hint = "from is a place of the event, is a fixed text";
                table.problems().error_hint(&item.place, what, hint);
            }
            Some(AddressCandidate {
                place: item.place.clone(),
                from,
                is,
                when: section.text_table("when").unwrap_or_default(),
                not: section.texts("not").unwrap_or_default(),
            })
        }
        other => {
            let what = format!(
                "{} must be a place of the event or a table, not {}",
                table.path(name),
                other.kind()
            );
            table.problems().error(&item.place, what);
            None
        }
    }
}
