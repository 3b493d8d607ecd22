//! Compilation of one call: its method, target, headers, query and body.

use http::{HeaderName, Method};

use super::SpecCompiler;
use crate::channel::spec::{CallTemplate, ChannelBody, TargetTemplate};
use crate::channel::template::{BodyTemplate, Slot, SlotUse, TextTemplate};
use crate::config::reply::{CallConfig, TextPair};
use crate::config::{Located, Place};

/// Kind of a call, which decides the values that it may name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum CallKind {
    Send,
    Edit,
    Check,
    Sign,
}

impl CallKind {
    const fn allows(self, slot: &Slot) -> bool {
        match slot {
            Slot::Named(_) | Slot::Token | Slot::EventId | Slot::Now => true,
            Slot::Sent => !matches!(self, Self::Send),
            Slot::Key(_) => !matches!(self, Self::Sign),
            Slot::Since(_) => matches!(self, Self::Check),
            Slot::Text
            | Slot::Markup
            | Slot::Plain
            | Slot::Entities
            | Slot::Html
            | Slot::Part
            | Slot::Parts
            | Slot::Status => matches!(self, Self::Send | Self::Edit),
            Slot::Texts => matches!(self, Self::Send),
        }
    }
}

impl SpecCompiler<'_> {
    pub(super) fn text(&self, text: &Located<String>, kind: CallKind) -> Option<TextTemplate> {
        let parsed = TextTemplate::parse(text, &self.names);
        let template = parsed
            .map_err(|what| self.problems.error(&text.place, what))
            .ok()?;
        self.are_allowed(template.slots(), kind, &text.place)
            .then_some(template)
    }

    fn are_allowed<'s>(
        &self,
        slots: impl Iterator<Item = &'s SlotUse>,
        kind: CallKind,
        place: &Place,
    ) -> bool {
        let mut all = true;
        for of in slots.filter(|of| !kind.allows(&of.slot)) {
            let what = format!("{{{}}} has no value in this call", of.slot.name());
            self.problems.error(place, what);
            all = false;
        }
        all
    }

    fn pairs(&self, pairs: &[TextPair], kind: CallKind) -> Option<Vec<(String, TextTemplate)>> {
        let pair = |(name, text): &TextPair| Some((name.value.clone(), self.text(text, kind)?));
        // Collected first, so that every pair is looked at.
        let all: Vec<_> = pairs.iter().map(pair).collect();
        all.into_iter().collect()
    }

    pub(super) fn call(
        &self,
        written: &CallConfig,
        kind: CallKind,
        usual: Method,
    ) -> Option<CallTemplate> {
        let method = match &written.method {
            None => Some(usual),
            Some(method) => ["GET", "POST", "PUT", "PATCH", "DELETE"]
                .contains(&method.as_str())
                .then(|| method.parse().ok())
                .flatten()
                .or_else(|| {
                    let what = format!("no call is made by {}", method.escape_debug());
                    let hint = "write GET, POST, PUT, PATCH or DELETE";
                    self.problems.error_hint(&method.place, what, hint);
                    None
                }),
        };
        let target = self.target(&written.target, kind);
        let header = |(name, value): &TextPair| {
            let known = HeaderName::try_from(name.value.as_str());
            let known = known.map_err(|_| {
                let what = format!("{:?} is no name of a header", name.value);
                self.problems.error(&name.place, what);
            });
            let value = self.text(value, kind);
            Some((known.ok()?, value?))
        };
        let headers: Vec<_> = written.headers.iter().map(header).collect();
        let query = self.pairs(&written.query, kind);
        let body = self.body(written, kind);
        Some(CallTemplate {
            method: method?,
            target: target?,
            headers: headers.into_iter().collect::<Option<_>>()?,
            query: query?,
            body: body?,
        })
    }

    fn body(&self, written: &CallConfig, kind: CallKind) -> Option<ChannelBody> {
        let Some(node) = &written.body else {
            let form = self.pairs(&written.form, kind)?;
            return Some(match form.is_empty() {
                true => ChannelBody::Empty,
                false => ChannelBody::Form(form),
            });
        };
        let template = BodyTemplate::parse(node, &self.names)
            .map_err(|(place, what)| self.problems.error(&place, what))
            .ok()?;
        self.are_allowed(template.slots().into_iter(), kind, &node.place)
            .then_some(ChannelBody::Json(template))
    }

    /// A target begins with a slash and stands below `api`, or begins with a name whose value is the address itself.
    fn target(&self, written: &Located<String>, kind: CallKind) -> Option<TargetTemplate> {
        let template = self.text(written, kind)?;
        let wrong = |what: &str, hint: &str| {
            self.problems.error_hint(&written.place, what, hint);
            None
        };
        if let Some(of) = template.slots().find(|of| of.is_optional) {
            let what = format!("{{{}}} in a target cannot be absent", of.slot.name());
            let hint = "write it without ?, and a way with when for events that have it";
            return wrong(&what, hint);
        }
        if template.begins_with("/") {
            if self.written.api.is_none() && !self.written.is_api_of_source {
                return wrong("a target below api needs an api", "set reply.api");
            }
            if template.has_fixed(&['?', '#']) {
                return wrong(
                    "a target is a path alone",
                    "write its query as a table: query = { … }",
                );
            }
            return Some(TargetTemplate::Below(template));
        }
        match template.split_first() {
            Some((base, rest)) if matches!(base.slot, Slot::Named(_)) => {
                if self.written.hosts.is_empty() {
                    let hint = "set reply.hosts to the hosts that such an address may have";
                    return wrong("an address that comes with an event needs hosts", hint);
                }
                // Without the slash it would make another host of the address.
                if !rest.is_empty() && !rest.begins_with("/") {
                    let hint = "write a slash behind the address";
                    return wrong("something stands directly behind the address", hint);
                }
                Some(TargetTemplate::At {
                    base: base.clone(),
                    rest,
                })
            }
            _ => wrong(
                "a target begins with a slash or with the name of an address",
                "write the path below api",
            ),
        }
    }
}
