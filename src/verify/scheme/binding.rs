//! Bindings of a request beside its signed text: values that must equal, texts that fields must not hold.

use crate::config::{Located, Place, Section, Value as Toml};
use crate::verify::request::field::Field;
use crate::verify::template::parse::TemplateSetup;
use crate::verify::template::{ContentTemplate, Placeholder};

/// True if every byte of the body is proved: each signed text holds it, or an equality compares a digest of it with a value
/// that each signed text holds.
pub(super) fn binds_body(
    contents: &[ContentTemplate],
    equal: &[(ContentTemplate, ContentTemplate)],
) -> bool {
    if contents.iter().all(ContentTemplate::holds_body) {
        return true;
    }
    let signed = |template: &ContentTemplate| {
        template.as_value().is_some_and(|value| {
            contents.iter().all(|content| {
                content.holds(value)
                    || matches!(value, Placeholder::Field(Field::Query(_)))
                        && [
                            Placeholder::Url,
                            Placeholder::UrlWithPort,
                            Placeholder::Path,
                            Placeholder::QuerySorted,
                        ]
                        .iter()
                        .any(|whole| content.holds(whole))
            })
        })
    };
    equal
        .iter()
        .any(|(a, b)| (a.holds_body() && signed(b)) || (b.holds_body() && signed(a)))
}

/// Reads `without`, a table of fields and the text that each does not hold.
pub(super) fn without(section: &Section<'_>) -> Option<Vec<(Field, Vec<u8>)>> {
    let mut all = Some(Vec::new());
    for (field, text) in section.text_table("without").unwrap_or_default() {
        if text.is_empty() {
            section.problems().error(
                &text.place,
                format!("{} has an empty text in it", section.path("without")),
            );
            all = None;
        }
        all = all
            .zip(Field::parse(&field, section.problems()))
            .map(|(mut all, field)| {
                all.push((field, text.value.into_bytes()));
                all
            });
    }
    all
}

/// Reads `equal`, a list of pairs of templates.
pub(super) fn equalities(
    section: &Section<'_>,
    setup: &TemplateSetup<'_>,
) -> Option<Vec<(ContentTemplate, ContentTemplate)>> {
    let Some(node) = section.node("equal") else {
        return Some(Vec::new());
    };
    let wrong = |place: &Place| {
        section.problems().error_hint(
            place,
            format!("{} must be a list of pairs of texts", section.path("equal")),
            "for example equal = [[\"{query:digest}\", \"{body|sha256|hex}\"]]",
        );
    };
    let Toml::List(pairs) = &node.value else {
        wrong(&node.place);
        return None;
    };
    let mut all = Some(Vec::with_capacity(pairs.len()));
    for pair in pairs {
        let texts: Vec<Located<String>> = match &pair.value {
            Toml::List(sides) => sides
                .iter()
                .filter_map(|side| match &side.value {
                    Toml::Text(text) => Some(Located {
                        value: text.clone(),
                        place: side.place.clone(),
                    }),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        };
        let [a, b] = texts.as_slice() else {
            wrong(&pair.place);
            all = None;
            continue;
        };
        let sides = ContentTemplate::compile(a, setup).zip(ContentTemplate::compile(b, setup));
        all = all.zip(sides).map(|(mut all, sides)| {
            all.push(sides);
            all
        });
    }
    all
}
