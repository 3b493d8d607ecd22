//! What a proof covers: which parts of a request nobody could have changed on the way.
//!
//! Said of a source as it is configured, so that it can be told before an event comes. Where there are several ways of
//! proof, only what all of them cover counts.

use http::HeaderName;

use super::Source;
use super::content::{Template, Value};
use super::field::{Field, steps};
use super::scheme::{Scheme, Signed, Way};
use crate::config::{Problems, QueryUse};
use crate::model::{Backing, Name, Origin, Strength};

impl Scheme {
    /// Whether the proof covers a place, as `event_id` and `event_type` name it.
    pub fn covers(&self, place: &str) -> bool {
        let (kind, name) = place.split_once(':').unwrap_or((place, ""));
        self.ways().all(|way| match way {
            Way::Open | Way::Ask(_) | Way::Basic(_) | Way::Token(..) => false,
            Way::Jwt(jwt) => match kind {
                "claim" => true,
                "query" => jwt
                    .claims
                    .iter()
                    .any(|(_, template)| template.always(&|value| is_target(value))),
                "header" => false,
                _ => jwt.strength == Strength::Signed,
            },
            Way::Signed(signed) => signed.covers(kind, name),
        })
    }
}

impl Signed {
    fn covers(&self, kind: &str, name: &str) -> bool {
        let all = |is: &dyn Fn(&Value) -> bool| {
            self.contents
                .iter()
                .all(|content: &Template| content.always(is))
        };
        let holds = |field: Field| all(&|value| *value == Value::Field(field.clone()));
        let body =
            || self.strength == Strength::Signed || all(&|value| *value == Value::FormSorted);
        match kind {
            "header" => HeaderName::from_bytes(name.as_bytes()).is_ok_and(|name| {
                let times = self
                    .stamp
                    .as_ref()
                    .is_some_and(|stamp| stamp.from == Field::Header(name.clone()));
                holds(Field::Header(name)) || (times && all(&|value| *value == Value::Ts))
            }),
            "query" => {
                all(&is_target) || (!name.is_empty() && holds(Field::Query(name.to_owned())))
            }
            "form" => body() || holds(Field::Form(name.to_owned())),
            "json" | "json?" => {
                body() || holds(Field::Form("payload".into())) || holds(Field::Json(steps(name)))
            }
            "claim" => false,
            _ => body() || holds(Field::Form("payload".into())),
        }
    }
}

/// Whether the whole query is part of it.
fn is_target(value: &Value) -> bool {
    matches!(
        value,
        Value::Url | Value::UrlWithPort | Value::Path | Value::QuerySorted
    )
}

impl Source {
    /// On whose word a value stands that came from a place in a request with this strength of proof
    /// ([`Strength::as_str`]).
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

    /// The same of a place.
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

    /// Says what decides at this source though its signature does not cover it.
    pub(super) fn weigh(&self, problems: &Problems) {
        if !self.scheme.is_signed() {
            return;
        }
        let open =
            |place: &str| self.backing_of(Strength::Signed.as_str(), place) == Backing::Unproved;
        let hint =
            "the event cannot be told to be another where the body decides: when = \"body.… == …\"";
        if let (Some(first), true) = (self.config.events.first(), open("event_type")) {
            let from: Vec<&str> = self
                .scheme
                .event_type
                .iter()
                .map(|place| place.value.as_str())
                .collect();
            let what = format!(
                "source {} goes by a type that is read from {}, which is not signed: whoever has a captured request that \
                 never arrived can give it another",
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
