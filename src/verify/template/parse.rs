//! Parser of the template notation.

use super::{ContentTemplate, Filter, Placeholder, TemplatePart, any};
use crate::config::section::nearest;
use crate::config::{Located, Place, Problems};
use crate::verify::keys::mac::Algorithm;
use crate::verify::request::field::Field;

/// Names that a template may refer to besides the request: the operator's values.
pub(crate) struct TemplateSetup<'s> {
    /// The names that the file declares with `config = […]`.
    pub(crate) declared: Vec<String>,
    /// The source's values by name.
    pub(crate) values: &'s [(Located<String>, Located<String>)],
    /// True if `server.public_url` is set.
    pub(crate) has_public_url: bool,
    /// The place where the source begins, for problems that its operator mends there.
    pub(crate) source: &'s Place,
    /// The list of problems.
    pub(crate) problems: &'s Problems,
}

impl TemplateSetup<'_> {
    /// The value of `{config:name}`.
    fn value(&self, name: &str, place: &Place) -> Option<String> {
        if !self.declared.iter().any(|known| known == name) {
            let what = format!("{{config:{name}}} is not declared");
            self.problems
                .error_hint(place, what, format!("add it: config = [\"{name}\"]"));
            return None;
        }
        // A declared value that the source does not give is reported where the declaration is read.
        self.values
            .iter()
            .find(|(key, _)| key.value == name)
            .map(|(_, value)| value.value.clone())
    }
}

const FILTERS: [(&str, Filter); 10] = [
    ("sha256", Filter::Digest(Algorithm::Sha256)),
    ("sha1", Filter::Digest(Algorithm::Sha1)),
    ("sha384", Filter::Digest(Algorithm::Sha384)),
    ("sha512", Filter::Digest(Algorithm::Sha512)),
    ("md5", Filter::Digest(Algorithm::Md5)),
    ("hmac-sha256", Filter::Hmac(Algorithm::Sha256)),
    ("hmac-sha1", Filter::Hmac(Algorithm::Sha1)),
    ("crc32", Filter::Crc32),
    ("hex", Filter::Hex),
    ("base64", Filter::Base64),
];

impl ContentTemplate {
    /// Compiles a text. What cannot be compiled is a problem.
    pub(crate) fn compile(written: &Located<String>, setup: &TemplateSetup<'_>) -> Option<Self> {
        let reader = TemplateParser {
            setup,
            place: &written.place,
        };
        match reader.template(&written.value) {
            Ok(parts) => {
                let template = Self(parts);
                if !setup.has_public_url
                    && template.any(&|v| {
                        matches!(
                            v,
                            Placeholder::Url | Placeholder::UrlBase | Placeholder::UrlWithPort
                        )
                    })
                {
                    setup.problems.error_hint(
                        setup.source,
                        "its provider signs the public address, and server.public_url is empty",
                        "set it to what the provider was given, for example public_url = \"https://hooks.example.com\"",
                    );
                    return None;
                }
                Some(template)
            }
            Err(Some(what)) => {
                setup.problems.error(&written.place, what);
                None
            }
            // Reported where it was found.
            Err(None) => None,
        }
    }

    /// Compiles a list; every one of them is looked at, so that all problems come at once.
    pub(crate) fn compile_all<'t>(
        written: impl IntoIterator<Item = &'t Located<String>>,
        setup: &TemplateSetup<'_>,
    ) -> Option<Vec<Self>> {
        let all: Vec<Option<Self>> = written
            .into_iter()
            .map(|text| Self::compile(text, setup))
            .collect();
        all.into_iter().collect()
    }
}

/// Reads the notation. An error is a sentence, or nothing where it was reported already.
struct TemplateParser<'r> {
    setup: &'r TemplateSetup<'r>,
    place: &'r Place,
}

type Read<T> = Result<T, Option<String>>;

impl TemplateParser<'_> {
    fn template(&self, text: &str) -> Read<Vec<TemplatePart>> {
        let mut parts = Vec::new();
        let mut section: Option<Vec<TemplatePart>> = None;
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}', '[', ']']) {
            let into = section.as_mut().unwrap_or(&mut parts);
            push_text(into, &rest[..at]);
            let (mark, after) = rest[at..].split_at(1);
            // A doubled mark is the mark itself.
            if after.starts_with(mark) {
                push_text(into, mark);
                rest = &after[1..];
                continue;
            }
            rest = after;
            match mark {
                "{" => {
                    let end = rest
                        .find('}')
                        .ok_or_else(|| Some(format!("\"{}\" has a {{ without }}", show(text))))?;
                    into.push(self.placeholder(&rest[..end])?);
                    rest = &rest[end + 1..];
                }
                "[" if section.is_none() => section = Some(Vec::new()),
                "]" if section.is_some() => {
                    let of = section.take().unwrap_or_default();
                    if !any(&of, &|_| true) {
                        return Err(Some(format!(
                            "\"{}\" has a [section] with nothing that could be absent",
                            show(text)
                        )));
                    }
                    parts.push(TemplatePart::Section(of));
                }
                mark => {
                    return Err(Some(format!(
                        "\"{}\" has a {mark} too many; write it twice to mean it",
                        show(text)
                    )));
                }
            }
        }
        if section.is_some() {
            return Err(Some(format!("\"{}\" has a [ without ]", show(text))));
        }
        push_text(&mut parts, rest);
        Ok(parts)
    }

    fn placeholder(&self, text: &str) -> Read<TemplatePart> {
        let (of, filters) = if text.starts_with('(') {
            let end = text
                .rfind(')')
                .ok_or_else(|| Some(format!("{{{}}} has a ( without )", show(text))))?;
            let mut of = Vec::new();
            for value in text[1..end].split(")(") {
                of.push(
                    match value
                        .strip_prefix('\'')
                        .and_then(|text| text.strip_suffix('\''))
                    {
                        Some(text) => TemplatePart::Text(text.as_bytes().to_vec()),
                        None => self.value(value)?,
                    },
                );
            }
            (of, &text[end + 1..])
        } else {
            let end = text.find('|').unwrap_or(text.len());
            (vec![self.value(&text[..end])?], &text[end..])
        };
        let mut chain = Vec::new();
        if !filters.is_empty() {
            let words = filters
                .strip_prefix('|')
                .ok_or_else(|| Some(format!("{{{}}} cannot be read", show(text))))?;
            for word in words.split('|') {
                match FILTERS.iter().find(|(known, _)| *known == word) {
                    Some((_, filter)) => chain.push(*filter),
                    None => {
                        let near = nearest(word, FILTERS.iter().map(|(known, _)| *known));
                        let hint = near.map_or_else(
                            || format!("known are {}", FILTERS.map(|(known, _)| known).join(", ")),
                            |near| format!("did you mean {near}?"),
                        );
                        self.setup.problems.error_hint(
                            self.place,
                            format!("no filter is called \"{}\"", show(word)),
                            hint,
                        );
                        return Err(None);
                    }
                }
            }
        }
        let mut of = of;
        match (chain.is_empty(), of.len()) {
            (true, 1) => Ok(of.remove(0)),
            _ => Ok(TemplatePart::Filtered(of, chain)),
        }
    }

    fn value(&self, text: &str) -> Read<TemplatePart> {
        let value = match text {
            "ts" => Placeholder::Ts,
            "secret" => Placeholder::Secret,
            "method" => Placeholder::Method,
            "path" => Placeholder::Path,
            "url" => Placeholder::Url,
            "url.base" => Placeholder::UrlBase,
            "url.with-port" => Placeholder::UrlWithPort,
            "form.sorted" => Placeholder::FormSorted,
            "query.sorted" => Placeholder::QuerySorted,
            "query.last" => Placeholder::QueryLast,
            _ => match text.split_once(':') {
                Some(("config", name)) => {
                    return self
                        .setup
                        .value(name, self.place)
                        .map(|v| TemplatePart::Text(v.into_bytes()))
                        .ok_or(None);
                }
                Some(("header.listed", name)) => Placeholder::HeaderListed(
                    http::HeaderName::from_bytes(name.as_bytes())
                        .map_err(|_| Some(format!("invalid header name \"{}\"", show(name))))?,
                ),
                Some((kind, name)) if kind.ends_with('?') => {
                    let field = Field::read(&format!("{}:{name}", &kind[..kind.len() - 1]));
                    Placeholder::FieldOrEmpty(field.ok_or_else(|| Some(unknown(text)))?)
                }
                _ => Placeholder::Field(Field::read(text).ok_or_else(|| Some(unknown(text)))?),
            },
        };
        Ok(TemplatePart::Value(value))
    }
}

fn push_text(parts: &mut Vec<TemplatePart>, text: &str) {
    if text.is_empty() {
        return;
    }
    match parts.last_mut() {
        Some(TemplatePart::Text(before)) => before.extend_from_slice(text.as_bytes()),
        _ => parts.push(TemplatePart::Text(text.as_bytes().to_vec())),
    }
}

fn unknown(text: &str) -> String {
    format!("nothing is called {{{}}} in a template", show(text))
}

fn show(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}
