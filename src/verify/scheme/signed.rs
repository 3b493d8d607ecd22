//! Signature over a text of the request, compiled.

use super::algorithm::AlgorithmChoice;
use super::binding::{binds_body, equalities, without};
use super::items::SignedItems;
use super::key_material::{KeyMaterial, SigningMethod};
use crate::config::{Located, Place, Section};
use crate::model::Strength;
use crate::verify::challenge::signing_oracle::SigningOracle;
use crate::verify::inputs::SchemeInputs;
use crate::verify::judge::tolerance::Tolerance;
use crate::verify::keys::mac::Algorithm;
use crate::verify::request::field::Field;
use crate::verify::signature::Grammar;
use crate::verify::template::parse::TemplateSetup;
use crate::verify::template::{ContentTemplate, Placeholder};

/// A signature over a text of the request, and the conditions beside it.
#[derive(Debug)]
pub(crate) struct Signed {
    pub(crate) keys: KeyMaterial,
    pub(crate) algorithm: AlgorithmChoice,
    pub(crate) grammar: Grammar,
    pub(crate) contents: Vec<ContentTemplate>,
    pub(crate) stamp: Option<TimestampField>,
    pub(crate) equal: Vec<(ContentTemplate, ContentTemplate)>,
    /// Fields that must not hold a text, because it stands between them in what is signed.
    pub(crate) without: Vec<(Field, Vec<u8>)>,
    pub(crate) each: Option<SignedItems>,
    pub(crate) strength: Strength,
    /// The texts that handshakes have signed with the same secrets for any caller.
    pub(crate) asked: Vec<SigningOracle>,
    /// True if each signed text belongs to one request: it holds the body, or another value of the request than a time.
    pub(crate) is_of_one: bool,
}

/// Place of the time, and its tolerance.
#[derive(Debug)]
pub(crate) struct TimestampField {
    pub(crate) from: Field,
    pub(crate) window: Tolerance,
}

impl TimestampField {
    /// Reads `timestamp`; the outer none where its table cannot be read.
    fn read(section: &Section<'_>) -> Option<Option<Self>> {
        let Some(stamp) = section.section("timestamp") else {
            return Some(None);
        };
        let from = stamp
            .required_text(
                "from",
                "name the field that holds the time, for example \"signature:t\"",
            )
            .and_then(|text| Field::parse(&text, section.problems()));
        let window = Tolerance::read(&stamp);
        from.map(|from| Some(Self { from, window }))
    }
}

impl Signed {
    /// Reads the keys of `[verify]` that have to do with signatures.
    pub(super) fn read(
        method: SigningMethod,
        section: &Section<'_>,
        setup: &TemplateSetup<'_>,
        given: &SchemeInputs<'_>,
    ) -> Option<Self> {
        let algorithm = AlgorithmChoice::read(section);
        let grammar = Grammar::read(section, setup);
        let stamp = TimestampField::read(section);
        let written = signed_content(section);
        let contents = ContentTemplate::compile_all(&written, setup);
        let equal = equalities(section, setup);
        let without = without(section);
        let each = SignedItems::read(section);
        let algorithms: Vec<Algorithm> = algorithm
            .as_ref()
            .map(|choice| choice.all().collect())
            .unwrap_or_default();
        let keys = KeyMaterial::read(method, &algorithms, section, setup, given);
        let (stamp, contents, equal, grammar) = (stamp?, contents?, equal?, grammar?);
        let texts = contents.iter().zip(&written);
        let sound = !written.is_empty() & agree(method, texts, stamp.as_ref(), &grammar, section);
        let strength = if binds_body(&contents, &equal) {
            Strength::Signed
        } else {
            Strength::Origin
        };
        let is_of_one =
            strength == Strength::Signed || contents.iter().all(ContentTemplate::is_of_one);
        let (algorithm, each, keys, without) = (algorithm?, each?, keys?, without?);
        sound.then_some(Self {
            keys,
            algorithm,
            grammar,
            contents,
            stamp,
            equal,
            without,
            each,
            strength,
            asked: Vec::new(),
            is_of_one,
        })
    }
}

/// Reads `signed_content`; without it the body is signed.
fn signed_content(section: &Section<'_>) -> Vec<Located<String>> {
    let written = section.texts("signed_content").unwrap_or_else(|| {
        vec![Located {
            value: "{body}".into(),
            place: section.place().clone(),
        }]
    });
    if written.is_empty() {
        let what = format!("{} is empty", section.path("signed_content"));
        section.problems().error(section.place(), what);
    }
    written
}

/// Reports texts that ask for what the method, the time or the grammar does not give. True: they ask for nothing of it.
fn agree<'t>(
    method: SigningMethod,
    texts: impl Iterator<Item = (&'t ContentTemplate, &'t Located<String>)>,
    stamp: Option<&TimestampField>,
    grammar: &Grammar,
    section: &Section<'_>,
) -> bool {
    let mut sound = true;
    let mut fault = |place: &Place, what: &str| {
        sound = false;
        section.problems().error(place, what);
    };
    for (template, text) in texts {
        if method == SigningMethod::Plain && !template.holds_secret() {
            fault(
                &text.place,
                "a plain digest without {secret} in its text can be made by anybody",
            );
        }
        if matches!(method, SigningMethod::KeyPair(_))
            && template.any(&|value| *value == Placeholder::Secret)
        {
            fault(
                &text.place,
                "a secret stands here, and a scheme with a key pair has none",
            );
        }
        if stamp.is_none() && template.any(&|value| *value == Placeholder::Ts) {
            fault(
                &text.place,
                "{ts} stands here, and no timestamp says where it comes from",
            );
        }
        let listed = |value: &Placeholder| matches!(value, Placeholder::Field(Field::Signature(_)));
        if !grammar.has_fields() && template.any(&listed) {
            fault(
                &text.place,
                "{signature:…} stands here, and neither pair nor positional names other keys",
            );
        }
    }
    let is_listed = stamp.is_some_and(|stamp| matches!(stamp.from, Field::Signature(_)));
    if is_listed && !grammar.has_fields() {
        fault(
            section.place(),
            "the time comes from signature:…, and neither pair nor positional names other keys",
        );
    }
    sound
}
