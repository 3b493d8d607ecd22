//! Coverage of a proof: the parts of a request that nobody could have changed on the way.
//!
//! It is a property of the configured source, so that an operator can read it before an event comes. Of several
//! mechanisms only the coverage that all of them share counts.

use http::HeaderName;

use crate::model::Strength;
use crate::verify::request::field::{Field, steps};
use crate::verify::scheme::Scheme;
use crate::verify::scheme::mechanism::Mechanism;
use crate::verify::scheme::signed::Signed;
use crate::verify::template::{ContentTemplate, Placeholder};

impl Scheme {
    /// True if the proof covers a place, as `event_id` and `event_type` name it.
    pub fn covers(&self, place: &str) -> bool {
        let (kind, name) = place.split_once(':').unwrap_or((place, ""));
        self.ways().all(|way| match way {
            Mechanism::Open
            | Mechanism::Certificate(_)
            | Mechanism::Ask(_)
            | Mechanism::Basic(_)
            | Mechanism::Token(..) => false,
            Mechanism::Jwt(jwt) => match kind {
                "claim" => true,
                "query" => jwt
                    .claims
                    .iter()
                    .any(|(_, template)| template.always(&|value| is_target(value))),
                "header" => false,
                _ => jwt.strength == Strength::Signed,
            },
            Mechanism::Signed(signed) => signed.covers(kind, name),
        })
    }
}

impl Signed {
    fn covers(&self, kind: &str, name: &str) -> bool {
        let all = |is: &dyn Fn(&Placeholder) -> bool| {
            self.contents
                .iter()
                .all(|content: &ContentTemplate| content.always(is))
        };
        let holds = |field: Field| all(&|value| *value == Placeholder::Field(field.clone()));
        let body =
            || self.strength == Strength::Signed || all(&|value| *value == Placeholder::FormSorted);
        match kind {
            "header" => HeaderName::from_bytes(name.as_bytes()).is_ok_and(|name| {
                let times = self
                    .stamp
                    .as_ref()
                    .is_some_and(|stamp| stamp.from == Field::Header(name.clone()));
                holds(Field::Header(name)) || (times && all(&|value| *value == Placeholder::Ts))
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

/// True if the whole query is part of it.
fn is_target(value: &Placeholder) -> bool {
    matches!(
        value,
        Placeholder::Url | Placeholder::UrlWithPort | Placeholder::Path | Placeholder::QuerySorted
    )
}
