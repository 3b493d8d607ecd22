//! A request as one document: what its body means, its query, its form.
//!
//! The kind of a body is judged by what it is rather than by what it calls itself, because senders get the type wrong.
//! Whatever the kind, the document is JSON: a form is an object of texts (or the object in its field `payload`), other
//! text is one text, an empty body is null.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::ops::Range;

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::path::{Dotted, Path};
use super::scan::{self, DEPTH, Fault, Found, NODES, Wanted};
use crate::config::QueryUse;
use crate::model::{ENROL, Name, Received, Refusal};

/// The most fields of a form or a query.
const FIELDS: usize = 1_000;

/// Fields of a form or a query, in order.
pub(super) type Fields<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// A request, read.
#[derive(Debug)]
pub(super) struct View<'a> {
    /// The request itself.
    pub(super) request: &'a Received,
    /// The query's fields.
    pub(super) query: Fields<'a>,
    /// The form's fields, where the body is one.
    pub(super) form: Fields<'a>,
    /// Which parameters of the query count.
    pub(super) counts: QueryUse,
    /// What the signed token said, as JSON.
    pub(super) claims: Option<&'a [u8]>,
    json: Cow<'a, str>,
    found: Found,
    tree: OnceCell<Value>,
}

impl<'a> View<'a> {
    /// Reads a request and follows `paths` on the way.
    pub(super) fn read(request: &'a Received, paths: &[Dotted]) -> Result<Self, Refusal> {
        let mut query = fields(request.query(), "query")?;
        // It opened the window in which the source's secret was brought, and says nothing of the event.
        query.retain(|(name, _)| name != ENROL);
        let mut form = Vec::new();
        let (json, found) = document(request, paths, &mut form)?;
        Ok(Self { request, query, form, counts: QueryUse::Allow, claims: None, json, found, tree: OnceCell::new() })
    }

    /// The piece of the document at a dotted path, by the path's number, as it stands.
    pub(super) fn piece(&self, path: usize) -> Option<&str> {
        self.found.get(path)?.clone().and_then(|range: Range<usize>| self.json.get(range))
    }

    /// The JSON of what a path leads to.
    pub(super) fn find(&self, path: &Path) -> Result<Option<Cow<'_, str>>, Refusal> {
        match path {
            Path::Dotted(number) => Ok(self.piece(*number).map(Cow::Borrowed)),
            Path::Json(path) => match path.select(self.tree()?) {
                Ok(nodes) => Ok(nodes.first().map(|node| Cow::Owned(node.to_string()))),
                Err(_) => Err(Refusal::Unmappable("a JSONPath takes too many steps in this body".into())),
            },
        }
    }

    /// The document as a tree.
    pub(super) fn tree(&self) -> Result<&Value, Refusal> {
        if let Some(tree) = self.tree.get() {
            return Ok(tree);
        }
        let tree = scan::tree(&self.json).map_err(refusal)?;
        Ok(self.tree.get_or_init(|| tree))
    }

    /// The document as a tree, as far as it is wanted. `members` are the paths of what is wanted of it at its top.
    pub(super) fn part(&self, wanted: &Wanted, members: &[usize]) -> Result<Cow<'_, Value>, Refusal> {
        let list = match wanted {
            Wanted::All => return self.tree().map(Cow::Borrowed),
            Wanted::Members(list) => list,
        };
        if !self.json.trim_ascii_start().starts_with('{') {
            return scan::part(&self.json, wanted).map(Cow::Owned).map_err(refusal);
        }
        // The one pass over the document has found where they stand.
        let mut map = Map::new();
        for ((name, below), path) in list.iter().zip(members) {
            if let Some(piece) = self.piece(*path) {
                map.insert(name.clone(), scan::part(piece, below).map_err(refusal)?);
            }
        }
        Ok(Cow::Owned(map.into()))
    }

    /// Whether there is no body at all.
    pub(super) fn is_blank(&self) -> bool {
        self.request.body.trim_ascii().is_empty()
    }

    /// A claim of the signed token, where it is a text or a number.
    pub(super) fn claim(&self, name: &str) -> Option<String> {
        let claims: Map<String, Value> = serde_json::from_slice(self.claims?).ok()?;
        match claims.get(name)? {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// A field of the query; of several the last.
    pub(super) fn in_query(&self, name: &str) -> Option<&str> {
        last(&self.query, name)
    }

    /// The fields of the query that count.
    pub(super) fn counted_query(&self) -> impl Iterator<Item = (&str, &str)> {
        let counts = |name: &str| match self.counts {
            QueryUse::Allow => true,
            QueryUse::Sealed => Name::parse(name).is_some(),
            QueryUse::Ignore => false,
        };
        self.query.iter().filter(move |(name, _)| counts(name)).map(|(name, value)| (&**name, &**value))
    }

    /// A field of the query that counts; of several the last.
    pub(super) fn in_counted_query(&self, name: &str) -> Option<&str> {
        self.counted_query().filter(|(key, _)| *key == name).last().map(|(_, value)| value)
    }

    /// A field of the form; of several the last.
    pub(super) fn in_form(&self, name: &str) -> Option<&str> {
        last(&self.form, name)
    }
}

fn last<'f>(fields: &'f Fields<'_>, name: &str) -> Option<&'f str> {
    fields.iter().rev().find(|(key, _)| key == name).map(|(_, value)| &**value)
}

/// What the content type says, as far as it matters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Label {
    Json,
    Form,
    Multipart,
    Other,
}

fn label(request: &Received) -> Label {
    let written = request.header("content-type").unwrap_or("");
    let essence = written.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/x-www-form-urlencoded" => Label::Form,
        "application/json" | "text/json" => Label::Json,
        other if other.ends_with("+json") => Label::Json,
        other if other.starts_with("multipart/") => Label::Multipart,
        _ => Label::Other,
    }
}

fn document<'a>(
    request: &'a Received,
    paths: &[Dotted],
    form: &mut Fields<'a>,
) -> Result<(Cow<'a, str>, Found), Refusal> {
    let label = label(request);
    let body = &request.body[..];
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    if label == Label::Multipart {
        return Err(Refusal::Unsupported(
            "this source takes no multipart bodies; files = true has it take them".into(),
        ));
    }
    let Some(first) = first else { return nothing(paths) };
    let looks = label == Label::Json || matches!(first, b'{' | b'[');
    let text = match std::str::from_utf8(body) {
        Ok(text) => text,
        Err(error) if looks => {
            return Err(Refusal::Malformed(format!("the body is not UTF-8 from byte {} on", error.valid_up_to())));
        }
        Err(_) => return Err(Refusal::Unsupported("the body is neither JSON nor a form nor UTF-8 text".into())),
    };
    if looks {
        match scan::extract(text, paths) {
            Ok(found) => return Ok((Cow::Borrowed(text), found)),
            Err(Fault::Syntax(_)) if label != Label::Json => {}
            Err(fault) => return Err(refusal(fault)),
        }
    }
    if label == Label::Form {
        *form = fields(text, "form")?;
        if let Some((_, payload)) = form.iter().rev().find(|(key, _)| key == "payload")
            && payload.trim_ascii_start().starts_with('{')
        {
            match scan::extract(payload, paths) {
                Ok(found) => return Ok((payload.clone(), found)),
                Err(Fault::Syntax(_)) => {}
                Err(fault) => return Err(refusal(fault)),
            }
        }
        return made(&object(form), paths);
    }
    made(&Value::from(text), paths)
}

fn nothing<'a>(paths: &[Dotted]) -> Result<(Cow<'a, str>, Found), Refusal> {
    Ok((Cow::Borrowed("null"), scan::extract("null", paths).map_err(refusal)?))
}

fn made<'a>(value: &Value, paths: &[Dotted]) -> Result<(Cow<'a, str>, Found), Refusal> {
    let json = value.to_string();
    let found = scan::extract(&json, paths).map_err(refusal)?;
    Ok((Cow::Owned(json), found))
}

/// Fields as an object of texts; a repeated one becomes a list.
pub(super) fn object(fields: &Fields<'_>) -> Value {
    let mut map = Map::new();
    for (key, value) in fields {
        match map.get_mut(&**key) {
            None => {
                map.insert(key.to_string(), Value::from(&**value));
            }
            Some(Value::Array(list)) => list.push(Value::from(&**value)),
            Some(one) => *one = Value::Array(vec![one.take(), Value::from(&**value)]),
        }
    }
    Value::Object(map)
}

/// Splits an urlencoded text. Unlike a browser's reading, what does not decode to UTF-8 is refused, so that no two
/// ids fall together.
pub(super) fn fields<'a>(text: &'a str, what: &str) -> Result<Fields<'a>, Refusal> {
    let mut list = Vec::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        if list.len() == FIELDS {
            return Err(Refusal::Malformed(format!("the {what} has more than {FIELDS} fields")));
        }
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        match (decoded(key), decoded(value)) {
            (Some(key), Some(value)) => list.push((key, value)),
            _ => return Err(Refusal::Malformed(format!("the {what} does not decode to UTF-8"))),
        }
    }
    Ok(list)
}

fn decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|byte| matches!(byte, b'+' | b'%')) {
        return Some(Cow::Borrowed(text));
    }
    let blanks = text.replace('+', " ");
    percent_decode_str(&blanks).decode_utf8().ok().map(|text| Cow::Owned(text.into_owned()))
}

pub(super) fn refusal(fault: Fault) -> Refusal {
    match fault {
        Fault::Syntax(at) => Refusal::Malformed(format!("the body is not JSON from byte {at} on")),
        Fault::Depth => Refusal::Malformed(format!("the body nests {DEPTH} deep or deeper")),
        Fault::Nodes => Refusal::Unmappable(format!("the body has more than {NODES} values")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::corpus;
    use super::super::tests::request;
    use super::*;

    fn json(content_type: &str, body: &[u8]) -> Result<String, Refusal> {
        let request = request("/", &[("content-type", content_type)], body);
        View::read(&request, &[]).map(|view| view.json.into_owned())
    }

    #[test]
    fn t59_t60_t62_the_json_suite_is_judged_right() {
        let mut seen = 0;
        for folder in ["test_parsing", "test_transform"] {
            for file in std::fs::read_dir(corpus::path("json-parsing").join(folder)).unwrap() {
                let file = file.unwrap();
                let name = file.file_name().into_string().unwrap();
                let body = std::fs::read(file.path()).unwrap();
                let start = Instant::now();
                let result = json("application/json", &body);
                assert!(start.elapsed() < Duration::from_millis(100), "{name}");
                // The suite's one empty file is no JSON; a request without a body is allowed.
                match &name[..2] {
                    "y_" => assert!(result.is_ok(), "{name}: {result:?}"),
                    "n_" if !body.trim_ascii().is_empty() => {
                        assert!(matches!(result, Err(Refusal::Malformed(_))), "{name}: {result:?}");
                    }
                    _ => {}
                }
                seen += 1;
            }
        }
        assert!(seen > 150, "{seen} files");
    }

    #[test]
    fn t59_deep_bodies_are_refused_at_once_whatever_their_type() {
        let deep = "[".repeat(200_000);
        for label in ["application/json", "text/plain", "application/x-www-form-urlencoded"] {
            let start = Instant::now();
            assert!(matches!(json(label, deep.as_bytes()), Err(Refusal::Malformed(_))));
            assert!(start.elapsed() < Duration::from_millis(50));
        }
        let payload = format!("payload={{\"a\":{deep}");
        assert!(matches!(json("application/x-www-form-urlencoded", payload.as_bytes()), Err(Refusal::Malformed(_))));
        let wide = format!("[{}0]", "0,".repeat(100_000));
        assert!(matches!(json("application/json", wide.as_bytes()), Err(Refusal::Unmappable(_))));
    }

    #[test]
    fn t68_the_kind_is_judged_by_content() {
        let form = "application/x-www-form-urlencoded; charset=utf-8";
        assert_eq!(json(form, b" {\"a\":1}").unwrap(), " {\"a\":1}");
        assert_eq!(json(form, b"{a=1").unwrap(), r#"{"{a":"1"}"#);
        assert_eq!(json("text/plain", b"[hello] there").unwrap(), r#""[hello] there""#);
        assert_eq!(json("", b"hello").unwrap(), r#""hello""#);
        assert_eq!(json("application/cloudevents+json", b"\"x\"").unwrap(), "\"x\"");
        assert_eq!(json("", b" ").unwrap(), "null");
        assert!(matches!(json("APPLICATION/JSON", b"hello"), Err(Refusal::Malformed(_))));
        assert!(matches!(json("multipart/form-data; boundary=x", b""), Err(Refusal::Unsupported(_))));
        assert!(matches!(json("text/plain", b"\xff"), Err(Refusal::Unsupported(_))));
        assert!(matches!(json("text/plain", b"{\"\xff"), Err(Refusal::Malformed(_))));
    }

    #[test]
    fn a_form_is_an_object_and_its_payload_is_the_document() {
        let form = "application/x-www-form-urlencoded";
        assert_eq!(
            json(form, "a=Great service+%C3%A9&b=1&b=2&b=3&c".as_bytes()).unwrap(),
            r#"{"a":"Great service é","b":["1","2","3"],"c":""}"#
        );
        assert_eq!(json(form, b"x=1&payload=%7B%22a%22%3A1%7D").unwrap(), r#"{"a":1}"#);
        assert_eq!(json(form, b"payload=%7Bno").unwrap(), r#"{"payload":"{no"}"#);
        assert!(matches!(json(form, b"a=%ff"), Err(Refusal::Malformed(_))));
    }

    #[test]
    fn t66_a_form_of_too_many_fields_is_refused() {
        let form = "application/x-www-form-urlencoded";
        assert!(json(form, "a[0][b]=1&".repeat(1_000).as_bytes()).is_ok());
        let start = Instant::now();
        assert!(matches!(json(form, "k=&".repeat(200_000).as_bytes()), Err(Refusal::Malformed(_))));
        assert!(start.elapsed() < Duration::from_millis(50));
    }
}
