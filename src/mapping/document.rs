//! A request as one document: its body, its query and its form.
//!
//! The content of a body decides about its kind, because senders often declare a wrong type. The document is always JSON: a
//! form, urlencoded or in parts, is an object of texts (or the object in its field `payload`), any other text is one string,
//! an empty body is null. Bytes that are invalid in their character set become U+FFFD, and the notes say so; the event is
//! not lost for such a character.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell};
use std::ops::Range;

use serde_json::{Map, Value};

use super::label::Label;
use super::path::Path;
use super::value::cleared;
use crate::config::QueryUse;
use crate::json::{self, DEPTH, Dotted, JsonFault, NODES, PieceRanges, Projection};
use crate::model::{ENROL, Name, Received, Refusal, TakenForm, TextNotes};
use crate::text;
pub(super) use crate::text::fields::FormFields;
use crate::text::fields::{self, TooManyFields};

/// A request after it was read.
#[derive(Debug)]
pub(super) struct ParsedRequest<'a> {
    /// The request itself.
    pub(super) request: &'a Received,
    /// The query's fields.
    pub(super) query: FormFields<'a>,
    /// The form's fields, where the body is one.
    pub(super) form: FormFields<'a>,
    /// Rule for parameters of the query.
    pub(super) counts: QueryUse,
    /// Claims of the signed token, as JSON.
    pub(super) claims: Option<&'a [u8]>,
    notes: TextNotes,
    has_nul: Cell<bool>,
    json: Cow<'a, str>,
    found: PieceRanges,
    tree: OnceCell<Value>,
}

impl<'a> ParsedRequest<'a> {
    /// Reads a request and follows `paths` on the way. `taken` is the form that its body was made of while it came in.
    pub(super) fn read(
        request: &'a Received,
        paths: &[Dotted],
        taken: Option<&'a TakenForm>,
    ) -> Result<Self, Refusal> {
        let (mut query, notes) =
            fields::query(request.query()).map_err(|error| too_many("query", error))?;
        // This parameter belongs to the handshake that brought the source's secret, and is not part of the event.
        query.retain(|(name, _)| name != ENROL);
        let mut document = ParsedBody::of(request, paths)?;
        if let Some(taken) = taken {
            document.form = borrowed(&taken.fields);
            document.notes = taken.notes.clone();
        }
        let ParsedBody {
            json,
            found,
            form,
            notes: of_body,
        } = document;
        let has_nul = Cell::new(false);
        Ok(Self {
            request,
            query,
            form,
            counts: QueryUse::Allow,
            claims: None,
            notes: notes.and(&of_body),
            has_nul,
            json,
            found,
            tree: OnceCell::new(),
        })
    }

    /// Notes about the reading of the request.
    pub(super) fn notes(&self) -> TextNotes {
        TextNotes {
            nul: self.has_nul.get(),
            ..self.notes.clone()
        }
    }

    /// A value that is kept, with U+FFFD for each NUL.
    pub(super) fn cleared(&self, value: String) -> String {
        self.has_nul.set(self.has_nul.get() || value.contains('\0'));
        cleared(value)
    }

    /// Original bytes of a text in which characters were lost, to tell two such texts apart.
    pub(super) fn behind(&self) -> [&[u8]; 2] {
        let body: &[u8] = if self.notes.replaced || self.notes.halves {
            &self.request.body
        } else {
            b""
        };
        [
            body,
            if self.notes.query {
                self.request.query().as_bytes()
            } else {
                b""
            },
        ]
    }

    /// The document as JSON text.
    pub(super) fn document(&self) -> &str {
        &self.json
    }

    /// The piece of the document at a dotted path, by the path's number, as it stands.
    pub(super) fn piece(&self, path: usize) -> Option<&str> {
        self.found
            .get(path)?
            .clone()
            .and_then(|range: Range<usize>| self.json.get(range))
    }

    /// The JSON of what a path leads to.
    pub(super) fn find(&self, path: &Path) -> Result<Option<Cow<'_, str>>, Refusal> {
        match path {
            Path::Dotted(number) => Ok(self.piece(*number).map(Cow::Borrowed)),
            Path::Json(path) => match path.select(self.tree()?) {
                Ok(nodes) => Ok(nodes.first().map(|node| Cow::Owned(node.to_string()))),
                Err(_) => Err(Refusal::Unmappable(
                    "a JSONPath takes too many steps in this body".into(),
                )),
            },
        }
    }

    /// The document as a tree.
    pub(super) fn tree(&self) -> Result<&Value, Refusal> {
        if let Some(tree) = self.tree.get() {
            return Ok(tree);
        }
        let tree = json::tree(&self.json).map_err(refusal)?;
        Ok(self.tree.get_or_init(|| tree))
    }

    /// The wanted part of the document as a tree. `members` has the path of each wanted top-level member.
    pub(super) fn part(
        &self,
        wanted: &Projection,
        members: &[usize],
    ) -> Result<Cow<'_, Value>, Refusal> {
        let list = match wanted {
            Projection::All => return self.tree().map(Cow::Borrowed),
            Projection::Members(list) => list,
        };
        if !self.json.trim_ascii_start().starts_with('{') {
            return json::part(&self.json, wanted)
                .map(Cow::Owned)
                .map_err(refusal);
        }
        // The one pass over the document has found where they stand.
        let mut map = Map::new();
        for ((name, below), path) in list.iter().zip(members) {
            if let Some(piece) = self.piece(*path) {
                map.insert(name.clone(), json::part(piece, below).map_err(refusal)?);
            }
        }
        Ok(Cow::Owned(map.into()))
    }

    /// True if the body is empty or blank.
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
        self.query
            .iter()
            .filter(move |(name, _)| counts(name))
            .map(|(name, value)| (&**name, &**value))
    }

    /// A field of the query that counts; of several the last.
    pub(super) fn in_counted_query(&self, name: &str) -> Option<&str> {
        self.counted_query()
            .filter(|(key, _)| *key == name)
            .last()
            .map(|(_, value)| value)
    }

    /// A field of the form; of several the last.
    pub(super) fn in_form(&self, name: &str) -> Option<&str> {
        last(&self.form, name)
    }
}

fn last<'f>(fields: &'f FormFields<'_>, name: &str) -> Option<&'f str> {
    fields
        .iter()
        .rev()
        .find(|(key, _)| key == name)
        .map(|(_, value)| &**value)
}

/// A body after it was read.
struct ParsedBody<'a> {
    json: Cow<'a, str>,
    found: PieceRanges,
    form: FormFields<'a>,
    notes: TextNotes,
}

impl<'a> ParsedBody<'a> {
    fn of(request: &'a Received, paths: &[Dotted]) -> Result<Self, Refusal> {
        let written = request
            .headers
            .get(http::header::CONTENT_TYPE)
            .map(|line| text::header(line.as_bytes()));
        let written = written.as_deref().unwrap_or_default();
        let label = Label::of(written);
        let body = &request.body[..];
        match label {
            Label::Parts => return Self::of_parts(written, body, paths),
            Label::Multipart => {
                return Err(Refusal::Unsupported(
                    "this source takes no such multipart bodies".into(),
                ));
            }
            _ => {}
        }
        if body.trim_ascii().is_empty() {
            return Self::made(&Value::Null, paths);
        }
        let declared = text::declared(written);
        let read = text::json(body, declared.as_deref());
        if label == Label::Json || read.text.trim_ascii_start().starts_with(['{', '[']) {
            match json::extract_noting(&read.text, paths) {
                Ok((found, halves)) => {
                    let notes = TextNotes {
                        halves,
                        ..read.notes
                    };
                    return Ok(Self {
                        json: read.text,
                        found,
                        form: Vec::new(),
                        notes,
                    });
                }
                Err(JsonFault::Syntax(_)) if label != Label::Json => {}
                Err(fault) => return Err(refusal(fault)),
            }
        }
        match label {
            Label::Form => {
                let raw = fields::split(body).map_err(|error| too_many("form", error))?;
                let (form, notes) = fields::form(raw, declared.as_deref());
                Self::of_form(form, notes, paths)
            }
            Label::Binary if std::str::from_utf8(body).is_err() => Err(Refusal::Unsupported(
                "the body is neither JSON nor a form nor a text".into(),
            )),
            _ => {
                let read = text::plain(body, declared.as_deref());
                Ok(Self {
                    notes: read.notes,
                    ..Self::made(&Value::from(read.text), paths)?
                })
            }
        }
    }

    fn of_parts(content_type: &str, body: &[u8], paths: &[Dotted]) -> Result<Self, Refusal> {
        let form = fields::in_parts(content_type, body)
            .map_err(|fault| Refusal::Malformed(fault.to_string()))?;
        if form.files > 0 {
            return Err(Refusal::Unsupported(
                "this source takes no files; files = true has it take them".into(),
            ));
        }
        let owned = form
            .fields
            .into_iter()
            .map(|(name, value)| (Cow::Owned(name), Cow::Owned(value)));
        Self::of_form(owned.collect(), form.notes, paths)
    }

    fn of_form(form: FormFields<'a>, notes: TextNotes, paths: &[Dotted]) -> Result<Self, Refusal> {
        if let Some(payload) = fields::payload(form.iter().map(|(name, value)| (&**name, &**value)))
        {
            match json::extract_noting(payload, paths) {
                Ok((found, halves)) => {
                    let json = Cow::Owned(payload.to_owned());
                    return Ok(Self {
                        json,
                        found,
                        form,
                        notes: TextNotes { halves, ..notes },
                    });
                }
                Err(JsonFault::Syntax(_)) => {}
                Err(fault) => return Err(refusal(fault)),
            }
        }
        let document = Self::made(&object(&form), paths)?;
        Ok(Self {
            form,
            notes,
            ..document
        })
    }

    fn made(value: &Value, paths: &[Dotted]) -> Result<Self, Refusal> {
        let json = value.to_string();
        let found = json::extract(&json, paths).map_err(refusal)?;
        Ok(Self {
            json: Cow::Owned(json),
            found,
            form: Vec::new(),
            notes: TextNotes::default(),
        })
    }
}

fn borrowed(fields: &[(String, String)]) -> FormFields<'_> {
    fields
        .iter()
        .map(|(name, value)| (Cow::Borrowed(name.as_str()), Cow::Borrowed(value.as_str())))
        .collect()
}

/// Fields as an object of texts; a repeated one becomes a list.
pub(super) fn object(form: &FormFields<'_>) -> Value {
    fields::object(form.iter().map(|(name, value)| (&**name, &**value))).into()
}

pub(super) fn too_many(what: &str, error: TooManyFields) -> Refusal {
    Refusal::Malformed(format!("the {what} cannot be read: {error}"))
}

pub(super) fn refusal(fault: JsonFault) -> Refusal {
    match fault {
        JsonFault::Syntax(at) => {
            Refusal::Malformed(format!("the body is not JSON from byte {at} on"))
        }
        JsonFault::Depth => Refusal::Malformed(format!("the body nests {DEPTH} deep or deeper")),
        JsonFault::RepeatedKey => {
            Refusal::Malformed("an object of the body has a key twice".into())
        }
        JsonFault::Nodes => Refusal::Unmappable(format!("the body has more than {NODES} values")),
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
        ParsedRequest::read(&request, &[], None).map(|view| view.json.into_owned())
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
                        assert!(
                            matches!(result, Err(Refusal::Malformed(_))),
                            "{name}: {result:?}"
                        );
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
        for label in [
            "application/json",
            "text/plain",
            "application/x-www-form-urlencoded",
        ] {
            let start = Instant::now();
            assert!(matches!(
                json(label, deep.as_bytes()),
                Err(Refusal::Malformed(_))
            ));
            assert!(start.elapsed() < Duration::from_millis(50));
        }
        let payload = format!("payload={{\"a\":{deep}");
        assert!(matches!(
            json("application/x-www-form-urlencoded", payload.as_bytes()),
            Err(Refusal::Malformed(_))
        ));
        let wide = format!("[{}0]", "0,".repeat(100_000));
        assert!(matches!(
            json("application/json", wide.as_bytes()),
            Err(Refusal::Unmappable(_))
        ));
    }

    #[test]
    fn t68_the_kind_is_judged_by_content() {
        let form = "application/x-www-form-urlencoded; charset=utf-8";
        assert_eq!(json(form, b" {\"a\":1}").unwrap(), " {\"a\":1}");
        assert_eq!(json(form, b"{a=1").unwrap(), r#"{"{a":"1"}"#);
        assert_eq!(
            json("text/plain", b"[hello] there").unwrap(),
            r#""[hello] there""#
        );
        assert_eq!(json("", b"hello").unwrap(), r#""hello""#);
        assert_eq!(
            json("application/cloudevents+json", b"\"x\"").unwrap(),
            "\"x\""
        );
        assert_eq!(json("", b" ").unwrap(), "null");
        assert!(matches!(
            json("APPLICATION/JSON", b"hello"),
            Err(Refusal::Malformed(_))
        ));
        assert!(matches!(
            json("multipart/form-data; boundary=x", b""),
            Err(Refusal::Malformed(_))
        ));
        assert!(matches!(
            json("multipart/mixed; boundary=x", b""),
            Err(Refusal::Unsupported(_))
        ));
        for binary in ["image/png", "application/octet-stream"] {
            assert!(
                matches!(json(binary, b"\x89PNG\xff"), Err(Refusal::Unsupported(_))),
                "{binary}"
            );
            assert_eq!(json(binary, b"{\"a\":1}").unwrap(), r#"{"a":1}"#);
        }
    }

    #[test]
    fn a_form_is_an_object_and_its_payload_is_the_document() {
        let form = "application/x-www-form-urlencoded";
        assert_eq!(
            json(form, "a=Great service+%C3%A9&b=1&b=2&b=3&c".as_bytes()).unwrap(),
            r#"{"a":"Great service é","b":["1","2","3"],"c":""}"#
        );
        assert_eq!(
            json(form, b"x=1&payload=%7B%22a%22%3A1%7D").unwrap(),
            r#"{"a":1}"#
        );
        assert_eq!(
            json(form, b"payload=%7Bno").unwrap(),
            r#"{"payload":"{no"}"#
        );
    }

    fn noted(content_type: &str, body: &[u8]) -> (String, TextNotes) {
        let request = request("/", &[("content-type", content_type)], body);
        let view = ParsedRequest::read(&request, &[], None).unwrap();
        (view.json.to_string(), view.notes())
    }

    #[test]
    fn a3_a4_a5_what_is_not_plain_utf_8_is_read_and_noted() {
        let json = "application/json";
        assert_eq!(
            noted(json, b"\xef\xbb\xbf{\"a\":1}"),
            (r#"{"a":1}"#.into(), TextNotes::default())
        );
        assert_eq!(noted("text/plain", b"\xef\xbb\xbf[1]").0, "[1]");
        let (text, notes) = noted(json, b"{\"a\":\"\xff\"}");
        assert_eq!(
            (text.as_str(), notes.replaced),
            ("{\"a\":\"\u{fffd}\"}", true)
        );
        let (text, notes) = noted(
            "application/json; charset=iso-8859-1",
            b"{\"a\":\"caf\xe9\"}",
        );
        assert_eq!(
            (text.as_str(), notes.charset.as_deref()),
            (r#"{"a":"café"}"#, Some("windows-1252"))
        );
        assert!(noted(json, br#"{"a":"\ud83d"}"#).1.halves);
        assert_eq!(
            noted("text/plain; charset=Shift_JIS", b"\x93\xfa").0,
            "\"日\""
        );
        assert_eq!(noted("text/plain", b"caf\xe9").0, "\"caf\u{fffd}\"");
        let form = "application/x-www-form-urlencoded";
        assert_eq!(
            noted(form, b"text=caf%E9&charset=windows-1252").0,
            r#"{"text":"café","charset":"windows-1252"}"#
        );
        assert_eq!(noted(form, b"a=%ff").0, "{\"a\":\"\u{fffd}\"}");
        let wide: Vec<u8> = "{\"a\":\"é\"}"
            .encode_utf16()
            .flat_map(u16::to_be_bytes)
            .collect();
        assert_eq!(noted(json, &wide).0, "{\"a\":\"é\"}");
    }

    #[test]
    fn a2_a_form_in_parts_is_read_as_one_that_is_not() {
        let body = b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--x\r\nContent-Disposition: form-data; NAME=\"b\"\r\n\r\n2\r\n--x--";
        let request = request(
            "/",
            &[("content-type", "multipart/form-data; boundary=x")],
            body,
        );
        let view = ParsedRequest::read(&request, &[], None).unwrap();
        assert_eq!(
            (&*view.json, view.in_form("b")),
            (r#"{"a":"1","b":"2"}"#, Some("2"))
        );
        let payload =
            b"--x\r\nContent-Disposition: form-data; name=payload\r\n\r\n{\"a\":1}\r\n--x--";
        assert_eq!(
            noted("multipart/form-data; boundary=x", payload).0,
            r#"{"a":1}"#
        );
        let file = b"--x\r\nContent-Disposition: form-data; name=f; filename=a\r\n\r\n1\r\n--x--";
        assert!(matches!(
            json("multipart/form-data; boundary=x", file),
            Err(Refusal::Unsupported(_))
        ));
    }

    #[test]
    fn t66_a_form_of_too_many_fields_is_refused() {
        let form = "application/x-www-form-urlencoded";
        assert!(json(form, "a[0][b]=1&".repeat(1_000).as_bytes()).is_ok());
        let start = Instant::now();
        assert!(matches!(
            json(form, "k=&".repeat(200_000).as_bytes()),
            Err(Refusal::Malformed(_))
        ));
        assert!(start.elapsed() < Duration::from_millis(50));
    }
}
