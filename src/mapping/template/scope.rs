//! Values that a template can use, prepared only as far as the templates of a mapping use them.

use std::borrow::Cow;

use minijinja::value::Value;

use crate::json::{Dotted, Projection};
use crate::mapping::document::ParsedRequest;
use crate::mapping::fence::Fence;
use crate::mapping::number;
use crate::mapping::path::Paths;
use crate::model::{Marks, Param, Refusal};

/// Parts of a request that the templates of a mapping use; no other part is prepared for them.
#[derive(Clone, Debug)]
pub(in crate::mapping) struct Reach {
    pub(super) body: Projection,
    /// The paths of what the body's first members are, as far as they are spoken of.
    members: Vec<usize>,
    pub(super) headers: bool,
    pub(super) query: bool,
}

impl Reach {
    /// Nothing.
    pub(in crate::mapping) const NOTHING: Self = Self {
        body: Projection::NOTHING,
        members: Vec::new(),
        headers: false,
        query: false,
    };
    /// Everything.
    pub(super) const ALL: Self = Self {
        body: Projection::All,
        members: Vec::new(),
        headers: true,
        query: true,
    };

    /// Has them found on the way through the body.
    pub(in crate::mapping) fn find(&mut self, paths: &mut Paths) {
        if let Projection::Members(members) = &self.body {
            self.members = members
                .iter()
                .map(|(name, _)| paths.add(Dotted::of_key(name)))
                .collect();
        }
    }
}

/// Values that a template can use.
#[derive(Clone, Debug)]
pub(in crate::mapping) struct Scope(Vec<(&'static str, Value)>);

impl Scope {
    /// The scope of a request, as far as it is in reach.
    pub(in crate::mapping) fn new(
        view: &ParsedRequest<'_>,
        event_type: Option<&str>,
        reach: &Reach,
        marks: &Marks,
    ) -> Result<Self, Refusal> {
        let mut scope = vec![(
            "body",
            value(view.part(&reach.body, &reach.members)?.as_ref()),
        )];
        if reach.query {
            scope.push(("query", Value::from_pairs(view.counted_query())));
        }
        if reach.headers {
            scope.push(("headers", headers(view)));
        }
        scope.extend(event_type.map(|name| ("event_type", Value::from(name))));
        let fence = Fence::new(
            marks.clone(),
            &view.request.target,
            view.request.body.clone(),
        );
        scope.push((Fence::NAME, fence.into_value()));
        Ok(Self(scope))
    }

    /// This scope with the other parameters added.
    pub(in crate::mapping) fn with(&self, params: &[Param]) -> Self {
        let params = Value::from_pairs(
            params
                .iter()
                .map(|param| (param.name.as_str(), param.value.as_str())),
        );
        let mut scope = self.0.clone();
        scope.push(("params", params));
        Self(scope)
    }

    /// Fence that marks the values in a prompt.
    pub(super) fn fence(&self) -> Option<&Fence> {
        self.0
            .iter()
            .find(|(name, _)| *name == Fence::NAME)?
            .1
            .downcast_object_ref()
    }

    /// The scope as a value for the engine.
    pub(super) fn value(&self) -> Value {
        Value::from_pairs(self.0.iter().cloned())
    }
}

/// Headers by lower-case name, repeated ones joined in one line. Headers that carry secrets are left out.
fn headers(view: &ParsedRequest<'_>) -> Value {
    const SECRET: [&str; 7] = [
        "authorization",
        "cookie",
        "token",
        "secret",
        "api-key",
        "signature",
        "password",
    ];
    let mut list: Vec<(&str, Cow<'_, str>)> = Vec::new();
    for (name, value) in &view.request.headers {
        let name = name.as_str();
        if SECRET.iter().any(|secret| name.contains(secret)) {
            continue;
        }
        let value = crate::text::header(value.as_bytes());
        match list.iter_mut().find(|(known, _)| *known == name) {
            Some((_, line)) => *line = Cow::Owned(format!("{line}, {value}")),
            None => list.push((name, value)),
        }
    }
    Value::from_pairs(list)
}

/// A value of the document for the engine. Numbers print with the digits that they came with.
fn value(of: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match of {
        Json::Null => Value::from(()),
        Json::Bool(yes) => Value::from(*yes),
        Json::String(text) => Value::from(text),
        Json::Array(list) => Value::from(list.iter().map(value).collect::<Vec<_>>()),
        Json::Object(map) => {
            Value::from_pairs(map.iter().map(|(key, of)| (key.as_str(), value(of))))
        }
        Json::Number(number) => number::number(number.as_str()),
    }
}
