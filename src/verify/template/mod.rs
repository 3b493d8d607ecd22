//! Template of the exact bytes that a provider signs, compiled once.
//!
//! The body is never copied on its way: `{body}` hands on the slice that came in. A part that is absent refuses the
//! request, unless the template says otherwise (`{json?:x}`, `[…]`).

pub(crate) mod keyed;
pub(crate) mod parse;
pub(crate) mod render;

use super::keys::mac::Algorithm;
use super::request::field::Field;

/// A compiled template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ContentTemplate(Vec<TemplatePart>);

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TemplatePart {
    Text(Vec<u8>),
    Value(Placeholder),
    /// A value, or several one after the other, through filters.
    Filtered(Vec<TemplatePart>, Vec<Filter>),
    /// Left out when something in it is absent or empty.
    Section(Vec<TemplatePart>),
}

/// Value that a placeholder stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Placeholder {
    Field(Field),
    /// The same, but empty where it is absent.
    FieldOrEmpty(Field),
    Ts,
    Secret,
    Method,
    Path,
    Url,
    UrlBase,
    UrlWithPort,
    FormSorted,
    QuerySorted,
    /// The last pair of the query, as it was sent.
    QueryLast,
    HeaderListed(http::HeaderName),
}

/// Filter of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    Digest(Algorithm),
    Hmac(Algorithm),
    Crc32,
    Hex,
    Base64,
}

impl ContentTemplate {
    /// The position of the body, for a check that does not hold it. The inner none: the body is not part of the text. The
    /// outer none: it is there twice, under a filter or in a section, or another value `is_of_body`.
    pub(crate) fn body_at(
        &self,
        is_of_body: &dyn Fn(&Placeholder) -> bool,
    ) -> Option<Option<usize>> {
        let is_body = |part: &TemplatePart| {
            matches!(part, TemplatePart::Value(Placeholder::Field(Field::Body)))
        };
        let at = self.0.iter().position(is_body);
        let others = self
            .0
            .iter()
            .enumerate()
            .filter(|(number, _)| Some(*number) != at);
        let asks = others
            .into_iter()
            .any(|(_, part)| any(std::slice::from_ref(part), is_of_body));
        (!asks).then_some(at)
    }

    /// The text, when it depends on nothing in the request.
    pub(crate) fn fixed(&self) -> Option<String> {
        let mut all = Vec::new();
        for part in &self.0 {
            let TemplatePart::Text(text) = part else {
                return None;
            };
            all.extend_from_slice(text);
        }
        String::from_utf8(all).ok()
    }

    /// The parts of the template.
    pub(crate) fn parts(&self) -> &[TemplatePart] {
        &self.0
    }

    /// True if some value in it meets `is`.
    pub(crate) fn any(&self, is: &dyn Fn(&Placeholder) -> bool) -> bool {
        any(&self.0, is)
    }

    /// True if it holds a value that differs between requests of one sender, besides the time.
    pub(crate) fn is_of_one(&self) -> bool {
        self.any(&|value| {
            matches!(
                value,
                Placeholder::Field(_)
                    | Placeholder::FieldOrEmpty(_)
                    | Placeholder::FormSorted
                    | Placeholder::QuerySorted
                    | Placeholder::HeaderListed(_)
            )
        })
    }

    /// True if the secret is always part of it.
    pub(crate) fn holds_secret(&self) -> bool {
        let is = |value: &Placeholder| *value == Placeholder::Secret;
        self.0.iter().any(|part| {
            !matches!(part, TemplatePart::Section(_)) && any(std::slice::from_ref(part), &is)
        })
    }

    /// True if it always holds the whole body, as it is or by a digest.
    pub(crate) fn holds_body(&self) -> bool {
        self.0.iter().any(|part| match part {
            TemplatePart::Value(Placeholder::Field(Field::Body)) => true,
            TemplatePart::Filtered(of, filters) => {
                !filters.contains(&Filter::Crc32)
                    && of.iter().any(|part| {
                        matches!(part, TemplatePart::Value(Placeholder::Field(Field::Body)))
                    })
            }
            _ => false,
        })
    }

    /// True if a value of this kind is always part of it, as it is or by a digest.
    pub(crate) fn always(&self, is: &dyn Fn(&Placeholder) -> bool) -> bool {
        self.0.iter().any(|part| match part {
            TemplatePart::Value(value) => is(value),
            TemplatePart::Filtered(of, filters) => {
                !filters.contains(&Filter::Crc32)
                    && of
                        .iter()
                        .any(|part| matches!(part, TemplatePart::Value(value) if is(value)))
            }
            TemplatePart::Text(_) | TemplatePart::Section(_) => false,
        })
    }

    /// True if it always holds this very value, as it is.
    pub(crate) fn holds(&self, value: &Placeholder) -> bool {
        self.0
            .iter()
            .any(|part| matches!(part, TemplatePart::Value(held) if held == value))
    }

    /// The places whose text it always holds.
    pub(crate) fn fields(&self) -> Vec<&Field> {
        fn collect<'p>(parts: &'p [TemplatePart], into: &mut Vec<&'p Field>) {
            for part in parts {
                match part {
                    TemplatePart::Value(Placeholder::Field(field)) => into.push(field),
                    TemplatePart::Filtered(of, _) => collect(of, into),
                    _ => {}
                }
            }
        }
        let mut all = Vec::new();
        collect(&self.0, &mut all);
        all
    }

    /// The one place whose text it is.
    pub(crate) fn as_field(&self) -> Option<&Field> {
        match self.as_value() {
            Some(Placeholder::Field(field)) => Some(field),
            _ => None,
        }
    }

    /// The one value it is made of, when it is that and nothing more.
    pub(crate) fn as_value(&self) -> Option<&Placeholder> {
        match self.0.as_slice() {
            [TemplatePart::Value(value)] => Some(value),
            _ => None,
        }
    }
}

fn any(parts: &[TemplatePart], is: &dyn Fn(&Placeholder) -> bool) -> bool {
    parts.iter().any(|part| match part {
        TemplatePart::Text(_) => false,
        TemplatePart::Value(value) => is(value),
        TemplatePart::Filtered(of, filters) => {
            (filters.iter().any(|f| matches!(f, Filter::Hmac(_))) && is(&Placeholder::Secret))
                || any(of, is)
        }
        TemplatePart::Section(of) => any(of, is),
    })
}
