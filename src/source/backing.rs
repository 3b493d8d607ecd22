//! Backing of each value of an event: the operator, the provider's signature, or nothing.

use super::Source;
use crate::config::{Problems, QueryUse};
use crate::model::{Backing, Name, Origin, Strength};

impl Source {
    /// The backing of a value that came from a place in a request with this strength of proof ([`Strength::as_str`]).
    pub fn backing(&self, strength: &str, origin: &Origin) -> Backing {
        let place = match origin {
            Origin::Fixed | Origin::Default => return Backing::Operator,
            Origin::Query if self.config.query == QueryUse::Sealed => return Backing::Operator,
            Origin::Query => "query".to_owned(),
            Origin::Mapping(path) if !path.starts_with('$') => format!("json:{path}"),
            Origin::Mapping(_) | Origin::Body | Origin::Event => "body".to_owned(),
            Origin::Template => {
                let places = self.mapping.places_of_prompt();
                let all = places.iter().map(|place| self.backing_of(strength, place));
                return all.min().unwrap_or(Backing::Operator);
            }
        };
        self.backing_of(strength, &place)
    }

    /// The backing of a place in a request.
    pub fn backing_of(&self, strength: &str, place: &str) -> Backing {
        if place == "event_type" {
            let all = self
                .scheme
                .event_type
                .iter()
                .map(|place| self.backing_of(strength, place));
            return all.min().unwrap_or(Backing::Operator);
        }
        match strength {
            "operator" => Backing::Operator,
            "fetched" if !place.starts_with("query") => Backing::Proved,
            "signed" | "origin" if self.scheme.covers(place) => Backing::Proved,
            _ => Backing::Unproved,
        }
    }

    /// Warns of values that decide at this source although its signature does not cover them.
    pub(super) fn weigh(&self, problems: &Problems) {
        if !self.scheme.is_signed() {
            return;
        }
        let open =
            |place: &str| self.backing_of(Strength::Signed.as_str(), place) == Backing::Unproved;
        let hint = "let the signed body decide, with a condition: when = \"body.… == …\"";
        // A condition over what is signed decides together with the type.
        let is_backed = self.mapping.deciding().iter().any(|(name, places)| {
            *name == "when" && !places.is_empty() && !places.iter().any(|place| open(place))
        });
        if let (Some(first), true, false) =
            (self.config.events.first(), open("event_type"), is_backed)
        {
            let from: Vec<&str> = self
                .scheme
                .event_type
                .iter()
                .map(|place| place.value.as_str())
                .collect();
            let what = format!(
                "source {} goes by a type that is read from {}, which is not signed: a captured request that never arrived \
                 could be sent with another type",
                self.config.name,
                from.join(" and ")
            );
            problems.warn(&first.place, what, hint);
        }
        for (name, places) in self.mapping.deciding() {
            let written = if name == "when" {
                self.config.when.as_ref()
            } else {
                self.config.map.thread.first()
            };
            let places: Vec<&str> = places.into_iter().filter(|place| open(place)).collect();
            if let (Some(written), false) = (written, places.is_empty()) {
                let what = format!(
                    "{name} of source {} goes by {}, not signed",
                    self.config.name,
                    places.join(" and ")
                );
                problems.warn(&written.place, what, hint);
            }
        }
        let known = [Name::UserId, Name::UserEmail, Name::TaskId];
        let said = self
            .config
            .defaults
            .iter()
            .find(|(name, _)| known.iter().any(|known| name.value == known.as_str()));
        if let (Some((name, _)), QueryUse::Allow, true) = (said, self.config.query, open("query")) {
            let what = format!(
                "a query that nobody signs goes before the default of {}",
                name.value
            );
            problems.warn(
                &name.place,
                what,
                "write it under fixed instead, or set query = \"sealed\" or \"ignore\"",
            );
        }
    }
}
