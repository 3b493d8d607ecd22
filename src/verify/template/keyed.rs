//! Texts of a template that go under a digest with the secret.

use super::{ContentTemplate, Filter, Placeholder, TemplatePart};
use crate::verify::request::field::Field;

impl ContentTemplate {
    /// The places whose text goes under a digest with the secret.
    pub(crate) fn keyed_fields(&self) -> Vec<&Field> {
        fn collect<'p>(parts: &'p [TemplatePart], keyed: bool, into: &mut Vec<&'p Field>) {
            for part in parts {
                match part {
                    TemplatePart::Value(
                        Placeholder::Field(field) | Placeholder::FieldOrEmpty(field),
                    ) if keyed => into.push(field),
                    TemplatePart::Filtered(of, filters) => {
                        let secret = |part: &TemplatePart| {
                            matches!(part, TemplatePart::Value(Placeholder::Secret))
                        };
                        let keyed = filters
                            .iter()
                            .any(|filter| matches!(filter, Filter::Hmac(_)));
                        collect(of, keyed || of.iter().any(secret), into);
                    }
                    TemplatePart::Section(of) => collect(of, keyed, into),
                    _ => {}
                }
            }
        }
        let mut all = Vec::new();
        collect(&self.0, false, &mut all);
        all
    }

    /// The texts that go under a digest with the secret, each as a regular expression: a place of the request stands for
    /// the expression `field`, and everything else but fixed text for any text.
    pub(crate) fn keyed_texts(&self, field: &str) -> Vec<String> {
        fn pattern(parts: &[TemplatePart], field: &str) -> String {
            let part = |part: &TemplatePart| match part {
                TemplatePart::Text(text) => text
                    .iter()
                    .map(|byte| format!("\\x{byte:02x}"))
                    .collect::<String>(),
                TemplatePart::Value(Placeholder::Field(_)) => format!("(?:{field})"),
                TemplatePart::Value(_) | TemplatePart::Filtered(..) | TemplatePart::Section(_) => {
                    "(?s-u:.*)".to_owned()
                }
            };
            parts.iter().map(part).collect()
        }
        fn collect(parts: &[TemplatePart], field: &str, into: &mut Vec<String>) {
            for part in parts {
                match part {
                    TemplatePart::Filtered(of, filters) => {
                        let secret = |part: &TemplatePart| {
                            matches!(part, TemplatePart::Value(Placeholder::Secret))
                        };
                        let keyed = filters
                            .iter()
                            .position(|filter| matches!(filter, Filter::Hmac(_)));
                        if keyed == Some(0) || (keyed.is_none() && of.iter().any(secret)) {
                            into.push(pattern(of, field));
                        } else if keyed.is_some() {
                            into.push("(?s-u:.*)".to_owned());
                        } else {
                            collect(of, field, into);
                        }
                    }
                    TemplatePart::Section(of) => collect(of, field, into),
                    TemplatePart::Text(_) | TemplatePart::Value(_) => {}
                }
            }
        }
        let mut all = Vec::new();
        collect(&self.0, field, &mut all);
        all
    }
}
