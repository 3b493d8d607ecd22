//! Scheme: a `[verify]` table compiled, with the secrets of one source.
//!
//! No provider's name stands here. Every problem of a table is noted with its place; a table with a problem yields no
//! scheme.

pub(crate) mod algorithm;
pub(crate) mod binding;
pub(crate) mod compile;
pub(crate) mod confirmation;
pub(crate) mod items;
pub(crate) mod key_material;
pub(crate) mod mechanism;
pub(crate) mod secret_strength;
pub(crate) mod signed;

use self::confirmation::Confirmation;
use self::mechanism::Mechanism;
use super::challenge::signing_oracle::SigningOracle;
use super::inputs::SchemeInputs;
use super::keys::mac::Key;
use super::lint::{self, WeakReasons};
use super::request::body_kinds::BodyKinds;
use super::request::condition::{FieldCondition, conditions};
use super::request::field::{DocumentPlace, Field};
use super::request::inflate::Compressed;
use super::signature::places::SignaturePlace;
use super::template::parse::TemplateSetup;
use crate::config::{Located, Problems, Section, Table, Value as Toml};

/// A compiled scheme, with the secrets of one source.
#[derive(Debug)]
pub struct Scheme {
    /// The places of the provider's own id of an event, as written.
    pub event_id: Vec<Located<String>>,
    /// The places of its event type, as written.
    pub event_type: Vec<Located<String>>,
    pub(crate) document: DocumentPlace,
    /// The kinds of body that events have.
    pub(crate) bodies: BodyKinds,
    /// The signed bytes of a compressed body; none where compressed bodies are not taken.
    pub(crate) compressed: Option<Compressed>,
    /// The status for a request that is not proved, where the provider wants another than ours.
    pub(crate) reject_status: Option<u16>,
    pub(crate) confirm: Option<Confirmation>,
    pub(crate) base: Mechanism,
    /// The first variant whose conditions a request meets takes the place of the base.
    pub(crate) variants: Vec<(Vec<(Field, FieldCondition)>, Mechanism)>,
}

/// The mechanism of a variant, and the conditions that choose it.
type Variant = (Vec<(Field, FieldCondition)>, Mechanism);

/// Keys that belong to the whole table, not to a variant.
const WHOLE: [&str; 10] = [
    "variant",
    "config",
    "event_id",
    "event_type",
    "document",
    "body",
    "body_kind",
    "weak",
    "reject_status",
    "confirm",
];

impl Scheme {
    /// Compiles a section. `name` is its dotted path.
    pub(crate) fn compile(table: &Table, name: &str, given: &SchemeInputs<'_>) -> Option<Self> {
        let section = Section::new(table, name, given.problems);
        let setup = given.setup(given.declared(&section));
        let document = document(&section);
        let bodies = BodyKinds::read(&section);
        let weak = WeakReasons::read(&section);
        let event_id = section.texts("event_id").unwrap_or_default();
        let event_type = section.texts("event_type").unwrap_or_default();
        let compressed = section
            .one_of(
                "body",
                &[
                    ("as-received", Compressed::AsReceived),
                    ("decompressed", Compressed::Inflated),
                ],
            )
            .map(|word| word.value);
        let reject_status = refusal_status(&section, "reject_status").flatten();
        let confirm = match section.section("confirm") {
            Some(table) => Some(Confirmation::read(&table)?),
            None => None,
        };
        let base = Mechanism::read(&section, &setup, given);
        let mut variants = Some(Vec::new());
        for variant in section.sections("variant") {
            let read = variant_of(variant, (table, name), base.as_ref(), &setup, given);
            variants = variants.zip(read).map(|(mut all, variant)| {
                all.push(variant);
                all
            });
        }
        let scheme = Self {
            event_id,
            event_type,
            document: document?,
            bodies: bodies?,
            compressed,
            reject_status,
            confirm,
            base: base?,
            variants: variants?,
        };
        lint::look(&scheme, &weak?, section.place(), given.problems).then_some(scheme)
    }

    /// Adds the texts that handshakes have signed with its secrets for any caller. Where bodies may be of any kind, that is a
    /// problem: a caller could have an event signed.
    pub(crate) fn beside(
        mut self,
        asked: Vec<SigningOracle>,
        verify: &Table,
        problems: &Problems,
    ) -> Option<Self> {
        if asked.is_empty() {
            return Some(self);
        }
        if self.bodies.any() {
            problems.error_hint(
                &verify.place,
                "its handshake signs for any caller, and bodies of events may be of any kind",
                "say what the provider's events are: body_kind = \"json-object\", \"json\", \"form\" or \"xml\"",
            );
            return None;
        }
        let variants = self.variants.iter_mut().map(|(_, way)| way);
        for way in std::iter::once(&mut self.base).chain(variants) {
            match way {
                Mechanism::Signed(signed) => signed.asked.clone_from(&asked),
                Mechanism::Jwt(jwt) => jwt.asked.clone_from(&asked),
                Mechanism::Token(..)
                | Mechanism::Basic(_)
                | Mechanism::Certificate(_)
                | Mechanism::Ask(_)
                | Mechanism::Open => {}
            }
        }
        Some(self)
    }

    /// The keys, in the order of the configuration.
    pub(crate) fn keys(&self) -> &[Key] {
        self.base.keys()
    }

    /// The places where callers show the secret itself.
    pub(crate) fn shown(&self) -> impl Iterator<Item = &SignaturePlace> {
        self.ways().flat_map(Mechanism::shown)
    }

    /// The places of signatures.
    pub(crate) fn spelled(&self) -> impl Iterator<Item = &SignaturePlace> {
        self.ways().flat_map(|way| match way {
            Mechanism::Signed(signed) => signed.grammar.places.list.as_slice(),
            _ => &[],
        })
    }

    /// True if every mechanism is a signature.
    pub fn is_signed(&self) -> bool {
        self.ways()
            .all(|way| matches!(way, Mechanism::Signed(_) | Mechanism::Jwt(_)))
    }

    /// True if its file names an id of events, or every mechanism has a time.
    pub(crate) fn names_or_times(&self) -> bool {
        let timed = |way: &Mechanism| match way {
            Mechanism::Signed(signed) => signed.stamp.is_some(),
            Mechanism::Jwt(_) => true,
            _ => false,
        };
        !self.event_id.is_empty() || self.ways().all(timed)
    }

    /// Every mechanism, the base first.
    pub(crate) fn ways(&self) -> impl Iterator<Item = &Mechanism> {
        std::iter::once(&self.base).chain(self.variants.iter().map(|(_, way)| way))
    }
}

/// Reads a variant: the base table with the variant's keys laid over it.
fn variant_of(
    variant: Section<'_>,
    (table, name): (&Table, &str),
    base: Option<&Mechanism>,
    setup: &TemplateSetup<'_>,
    given: &SchemeInputs<'_>,
) -> Option<Variant> {
    let when = chosen(&variant);
    // Read as a section of its own, so that a problem in it is reported as it would be in the base.
    let mut merged = table.clone();
    let mut over = variant.into_table();
    over.entries.retain(|(key, ..)| key != "when");
    merged.lay(over);
    let merged = Section::new(&merged, name, given.problems);
    for key in WHOLE {
        merged.has(key);
    }
    let mechanism = Mechanism::read(&merged, setup, given);
    let mut sound = true;
    if let (Some(Mechanism::Open), false) = (&mechanism, matches!(base, Some(Mechanism::Open))) {
        let what = "a variant that checks nothing would let in whoever chooses it";
        given.problems.error(merged.place(), what);
        sound = false;
    }
    let asks = |mechanism: Option<&Mechanism>| matches!(mechanism, Some(Mechanism::Ask(_)));
    if mechanism.is_some() && (asks(mechanism.as_ref()) || asks(base)) {
        let what = "a source that asks another service has no variants: the service sees the whole request";
        given.problems.error(merged.place(), what);
        sound = false;
    }
    when.zip(mechanism).filter(|_| sound)
}

/// Reads what chooses a variant: a field that is there, or a table of fields and what stands there.
fn chosen(variant: &Section<'_>) -> Option<Vec<(Field, FieldCondition)>> {
    if let Some(Toml::Table(table)) = variant.node("when").map(|node| &node.value)
        && !table.entries.is_empty()
    {
        return conditions(variant);
    }
    let hint = "name the field whose presence chooses it, for example \"query:bodySHA256\"";
    let text = variant.required_text("when", hint)?;
    Field::parse(&text, variant.problems()).map(|field| vec![(field, FieldCondition::Present)])
}

/// Reads the status of a refusal; the outer none where the table has a wrong one.
pub(crate) fn refusal_status(section: &Section<'_>, key: &str) -> Option<Option<u16>> {
    let Some(status) = section.integer(key) else {
        return Some(None);
    };
    let good = u16::try_from(status.value)
        .ok()
        .filter(|code| (400..500).contains(code));
    if good.is_none() {
        let what = format!("{} must be from 400 to 499", section.path(key));
        section.problems().error(&status.place, what);
    }
    good.map(Some)
}

fn document(section: &Section<'_>) -> Option<DocumentPlace> {
    let Some(written) = section.text("document") else {
        return Some(DocumentPlace::Body);
    };
    let field = written
        .strip_prefix("multipart:")
        .filter(|field| !field.is_empty());
    if field.is_none() && written.value != "body" {
        section.problems().error(
            &written.place,
            format!(
                "{} must be \"body\" or \"multipart:\" and the name of a form part",
                section.path("document")
            ),
        );
        return None;
    }
    Some(field.map_or(DocumentPlace::Body, |field| {
        DocumentPlace::Multipart(field.to_owned())
    }))
}
