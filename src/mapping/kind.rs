//! Kinds of events that a provider's file tells apart: kinds with an answer of their own, and kinds that run no agent
//! because no human wrote them.

use super::document::ParsedRequest;
use super::filter::matches;
use super::path::Paths;
use super::thread::KeySource;
use crate::config::{self, Ack, Problems, Provider, Runs};
use crate::model::Refusal;

/// The kinds of a provider, in the order of its file. The first kind that fits an event counts.
#[derive(Debug, Default)]
pub(super) struct Kinds(Vec<KindRule>);

#[derive(Debug)]
struct KindRule {
    when: Vec<(KeySource, FieldTest)>,
    any: Vec<KeySource>,
    /// Rule that filters such an event out.
    filtered: Option<String>,
    ack: Option<Ack>,
}

#[derive(Debug)]
enum FieldTest {
    Present,
    Absent,
    OneOf(Vec<String>),
}

/// Consequences of an event's kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OfKind {
    /// Rule that filters the event out.
    pub(super) filtered: Option<String>,
    /// Answer to the sender.
    pub(super) ack: Option<Ack>,
}

impl Kinds {
    /// Compiles a provider's kinds and reports mistakes. With `humans_only`, an event that no human wrote runs no agent.
    pub(super) fn compile(
        provider: Option<&Provider>,
        humans_only: bool,
        paths: &mut Paths,
        problems: &Problems,
    ) -> Option<Self> {
        let written = provider.map_or(&[][..], |provider| &provider.kinds);
        // All kinds are compiled, so that every mistake is reported.
        let compiled: Vec<_> = written
            .iter()
            .map(|kind| KindRule::compile(kind, humans_only, paths, problems))
            .collect();
        compiled.into_iter().collect::<Option<Vec<_>>>().map(Self)
    }

    /// Finds the kind of an event.
    pub(super) fn of(&self, view: &ParsedRequest<'_>) -> Result<OfKind, Refusal> {
        for kind in &self.0 {
            if kind.is_met(view)? {
                return Ok(OfKind {
                    filtered: kind.filtered.clone(),
                    ack: kind.ack.clone(),
                });
            }
        }
        Ok(OfKind::default())
    }
}

impl KindRule {
    fn compile(
        written: &config::Kind,
        humans_only: bool,
        paths: &mut Paths,
        problems: &Problems,
    ) -> Option<Self> {
        let conditions: Vec<_> = written
            .when
            .iter()
            .map(|(place, text)| {
                let want = match text.as_str() {
                    "*" => FieldTest::Present,
                    "!" => FieldTest::Absent,
                    texts => FieldTest::OneOf(texts.split('|').map(str::to_owned).collect()),
                };
                KeySource::compile(place, paths, problems).map(|part| (part, want))
            })
            .collect();
        let filtered = match written.runs {
            Runs::Never => Some(format!("kind: {}", written.name)),
            Runs::Unless if humans_only => Some(format!("humans_only: {}", written.name)),
            Runs::Unless | Runs::Always => None,
        };
        let any: Vec<_> = written
            .any
            .iter()
            .map(|place| KeySource::compile(place, paths, problems))
            .collect();
        let when = conditions.into_iter().collect::<Option<Vec<_>>>()?;
        let any = any.into_iter().collect::<Option<Vec<_>>>()?;
        Some(Self {
            when,
            any,
            filtered,
            ack: written.ack.clone(),
        })
    }

    fn is_met(&self, view: &ParsedRequest<'_>) -> Result<bool, Refusal> {
        for (part, want) in &self.when {
            if !want.is_met(part, view)? {
                return Ok(false);
            }
        }
        for part in &self.any {
            if part.is_there(view)? {
                return Ok(true);
            }
        }
        Ok(self.any.is_empty())
    }
}

impl FieldTest {
    fn is_met(&self, part: &KeySource, view: &ParsedRequest<'_>) -> Result<bool, Refusal> {
        Ok(match self {
            Self::Present => part.is_there(view)?,
            Self::Absent => !part.is_there(view)?,
            Self::OneOf(patterns) => part
                .read(view)?
                .is_some_and(|text| patterns.iter().any(|pattern| matches(pattern, &text))),
        })
    }
}
