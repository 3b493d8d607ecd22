//! The exact bytes a provider signs: a template, compiled once, fed part by part to whatever takes the bytes.
//!
//! The body is never copied on its way: `{body}` hands on the slice that came in. A part that is absent refuses the
//! request, unless the template says otherwise (`{json?:x}`, `[…]`).

use std::borrow::Cow;

use super::document::Json;
use super::field::{Field, RequestView};
use super::keys::mac::{Algorithm, Key, RunningDigest, crc32};
use crate::config::section::nearest;
use crate::config::{Located, Place, Problems};

/// What a template may refer to besides the request: the operator's values.
pub(crate) struct TemplateSetup<'s> {
    /// The names that the file declares with `config = […]`.
    pub(crate) declared: Vec<String>,
    /// The source's values by name.
    pub(crate) values: &'s [(Located<String>, Located<String>)],
    /// Whether `server.public_url` is set.
    pub(crate) has_public_url: bool,
    /// Where the source begins, for what its operator has to add.
    pub(crate) source: &'s Place,
    /// Where problems go.
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

/// What a placeholder stands for.
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

/// What is done to a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    Digest(Algorithm),
    Hmac(Algorithm),
    Crc32,
    Hex,
    Base64,
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

/// What a template is filled from.
#[derive(Clone, Copy)]
pub(crate) struct Context<'c, 'r> {
    pub(crate) request: &'c RequestView<'r>,
    /// The item of an `each` list.
    pub(crate) item: Option<&'c Json>,
    /// The other keys of the signature list.
    pub(crate) fields: &'c [(String, Vec<u8>)],
    /// The time stamp, as received.
    pub(crate) ts: Option<&'c [u8]>,
    /// The key being tried.
    pub(crate) key: Option<&'c Key>,
}

impl<'c> Context<'c, '_> {
    /// The text at a place, signature keys included.
    pub(crate) fn text(&self, field: &Field) -> Result<Option<Cow<'c, [u8]>>, String> {
        match field {
            Field::Signature(key) => {
                let mut found = self.fields.iter().filter(|(name, _)| name == key);
                let first = found.next();
                // A key that stands there twice has no one value.
                Ok(first
                    .filter(|_| found.next().is_none())
                    .map(|(_, value)| Cow::Borrowed(value.as_slice())))
            }
            field => self.request.text(field, self.item),
        }
    }

    fn value(&self, value: &Placeholder) -> Result<Option<Cow<'c, [u8]>>, String> {
        let received = self.request.received;
        Ok(match value {
            Placeholder::Field(field) => self.text(field)?,
            Placeholder::FieldOrEmpty(field) => Some(self.text(field)?.unwrap_or_default()),
            Placeholder::Ts => self.ts.map(Cow::Borrowed),
            Placeholder::Secret => self.key.map(|key| Cow::Borrowed(key.expose())),
            Placeholder::Method => Some(Cow::Borrowed(received.method.as_str().as_bytes())),
            Placeholder::Path => Some(Cow::Borrowed(received.target.as_bytes())),
            Placeholder::Url => Some(Cow::Borrowed(received.url.as_bytes())),
            Placeholder::UrlBase => {
                let base = received
                    .url
                    .split_once('?')
                    .map_or(received.url.as_str(), |(base, _)| base);
                Some(Cow::Borrowed(base.as_bytes()))
            }
            Placeholder::UrlWithPort => Some(Cow::Owned(with_port(&received.url).into_bytes())),
            Placeholder::FormSorted => {
                let mut pairs: Vec<&(Vec<u8>, Vec<u8>)> = self.request.form()?.iter().collect();
                pairs.sort_unstable();
                pairs.dedup();
                Some(Cow::Owned(
                    pairs.iter().flat_map(|(name, value)| [name, value]).fold(
                        Vec::new(),
                        |mut all, bytes| {
                            all.extend_from_slice(bytes);
                            all
                        },
                    ),
                ))
            }
            Placeholder::QuerySorted => {
                let mut pairs: Vec<&str> = received
                    .query()
                    .split('&')
                    .filter(|pair| !pair.is_empty())
                    .collect();
                pairs.sort_unstable_by_key(|pair| pair.split_once('=').unwrap_or((pair, "")));
                Some(Cow::Owned(pairs.join("&").into_bytes()))
            }
            Placeholder::QueryLast => {
                let query = received.query();
                Some(Cow::Borrowed(
                    query
                        .rsplit_once('&')
                        .map_or(query, |(_, last)| last)
                        .as_bytes(),
                ))
            }
            Placeholder::HeaderListed(name) => self.listed(name),
        })
    }

    /// `name:value` of the headers that a header lists, sorted, joined by `;`.
    fn listed(&self, name: &http::HeaderName) -> Option<Cow<'c, [u8]>> {
        let mut lines = self.request.header_lines(name);
        let list = std::str::from_utf8(lines.next()?).ok()?;
        if lines.next().is_some() || list.split(',').count() > 64 {
            return None;
        }
        let mut pairs = Vec::new();
        for name in list.split(',') {
            let name = http::HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
            let value = self
                .request
                .text(&Field::Header(name.clone()), None)
                .ok()??;
            pairs.push([name.as_str().as_bytes(), b":", &value].concat());
        }
        pairs.sort_unstable();
        Some(Cow::Owned(pairs.join(&b";"[..])))
    }
}

/// An address with the port that its scheme implies written out.
fn with_port(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    match (has_port, scheme) {
        (false, "https") => format!("{scheme}://{authority}:443{path}"),
        (false, "http") => format!("{scheme}://{authority}:80{path}"),
        _ => url.to_owned(),
    }
}

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

    /// Feeds the bytes, part by part. An error names what is absent or unreadable.
    pub(crate) fn feed(
        &self,
        context: &Context<'_, '_>,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), String> {
        feed(&self.0, context, take)
    }

    /// Where the body stands, for whoever has it not at hand: the inner none where it stands nowhere; the outer one
    /// where it stands twice, under a filter or in a section, or where something else is asked for that `is_of_body`.
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

    /// Feeds what stands before the body; without one, everything.
    pub(crate) fn feed_before(
        &self,
        body: Option<usize>,
        context: &Context<'_, '_>,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), String> {
        feed(&self.0[..body.unwrap_or(self.0.len())], context, take)
    }

    /// Feeds what stands behind the body.
    pub(crate) fn feed_behind(
        &self,
        body: Option<usize>,
        context: &Context<'_, '_>,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), String> {
        feed(body.map_or(&[], |body| &self.0[body + 1..]), context, take)
    }

    /// The bytes in one piece.
    pub(crate) fn bytes(&self, context: &Context<'_, '_>) -> Result<Vec<u8>, String> {
        let mut all = Vec::new();
        self.feed(context, &mut |bytes| all.extend_from_slice(bytes))?;
        Ok(all)
    }

    /// The same; a text that is the body and nothing else is not copied.
    pub(crate) fn message<'c>(&self, context: &Context<'c, '_>) -> Result<Cow<'c, [u8]>, String> {
        match self.as_value() {
            Some(Placeholder::Field(Field::Body)) => {
                Ok(Cow::Borrowed(&context.request.received.body))
            }
            _ => self.bytes(context).map(Cow::Owned),
        }
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

    /// Its pieces.
    pub(crate) fn parts(&self) -> &[TemplatePart] {
        &self.0
    }

    /// Whether some value in it is asked for by `is`.
    pub(crate) fn any(&self, is: &dyn Fn(&Placeholder) -> bool) -> bool {
        any(&self.0, is)
    }

    /// Whether it holds more of the request than a time and what every request of its sender says.
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

    /// Whether the secret is always part of it.
    pub(crate) fn holds_secret(&self) -> bool {
        let is = |value: &Placeholder| *value == Placeholder::Secret;
        self.0.iter().any(|part| {
            !matches!(part, TemplatePart::Section(_)) && any(std::slice::from_ref(part), &is)
        })
    }

    /// Whether it always holds the whole body, as it is or by a digest.
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

    /// Whether a value of this kind is always part of it, as it is or by a digest.
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

    /// Whether it always holds this very value, as it is.
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
    /// whatever `field` says, and everything else but fixed text for anything.
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

fn feed(
    parts: &[TemplatePart],
    context: &Context<'_, '_>,
    take: &mut dyn FnMut(&[u8]),
) -> Result<(), String> {
    for part in parts {
        match part {
            TemplatePart::Text(text) => take(text),
            TemplatePart::Value(Placeholder::Field(Field::Body)) => {
                take(&context.request.received.body)
            }
            TemplatePart::Value(value) => match context.value(value)? {
                Some(bytes) => take(&bytes),
                None => return Err(format!("{} is missing", name(value))),
            },
            TemplatePart::Filtered(of, filters) => take(&filtered(of, filters, context)?),
            TemplatePart::Section(of) => {
                if filled(of, context)? {
                    feed(of, context, take)?;
                }
            }
        }
    }
    Ok(())
}

/// Whether everything in a section is there and not empty.
fn filled(parts: &[TemplatePart], context: &Context<'_, '_>) -> Result<bool, String> {
    for part in parts {
        let full = match part {
            TemplatePart::Text(_) => true,
            TemplatePart::Value(value) => {
                context.value(value)?.is_some_and(|bytes| !bytes.is_empty())
            }
            TemplatePart::Filtered(of, _) | TemplatePart::Section(of) => filled(of, context)?,
        };
        if !full {
            return Ok(false);
        }
    }
    Ok(true)
}

fn filtered(
    of: &[TemplatePart],
    filters: &[Filter],
    context: &Context<'_, '_>,
) -> Result<Vec<u8>, String> {
    let begin = |filter: &Filter| match filter {
        Filter::Digest(algorithm) => Ok(Some(RunningDigest::plain(*algorithm))),
        Filter::Hmac(algorithm) => match context.key {
            Some(key) => Ok(Some(key.hmac(*algorithm))),
            None => Err("a secret is missing".to_owned()),
        },
        _ => Ok(None),
    };
    let mut rest = filters.iter();
    // A digest that comes first is fed part by part, so that a body under it is not copied.
    let mut bytes = match filters.first().map(begin).transpose()?.flatten() {
        Some(mut digest) => {
            rest.next();
            feed(of, context, &mut |bytes| digest.take(bytes))?;
            digest.finish().as_bytes().to_vec()
        }
        None => {
            let mut all = Vec::new();
            feed(of, context, &mut |bytes| all.extend_from_slice(bytes))?;
            all
        }
    };
    for filter in rest {
        bytes = match filter {
            Filter::Crc32 => crc32(&bytes).to_string().into_bytes(),
            Filter::Hex => hex::encode(&bytes).into_bytes(),
            Filter::Base64 => {
                base64::Engine::encode(&base64::prelude::BASE64_STANDARD, &bytes).into_bytes()
            }
            digest => match begin(digest)? {
                Some(mut running) => {
                    running.take(&bytes);
                    running.finish().as_bytes().to_vec()
                }
                None => bytes,
            },
        };
    }
    Ok(bytes)
}

/// A value's name in sentences.
fn name(value: &Placeholder) -> String {
    match value {
        Placeholder::Field(field) | Placeholder::FieldOrEmpty(field) => field.to_string(),
        Placeholder::HeaderListed(name) => format!("a header that {name} lists"),
        Placeholder::Ts => "the time stamp".into(),
        _ => "a part of the signed text".into(),
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
                        .map_err(|_| Some(format!("\"{}\" is no name of a header", show(name))))?,
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
