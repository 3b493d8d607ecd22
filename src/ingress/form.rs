//! Multipart bodies: text parts as fields, files into the store, all under their bounds.
//!
//! The form reader has no bounds of its own where it matters: it counts neither parts nor the bytes of their heads, and
//! it is content when a body ends at its last boundary. Here the body is read to its end before anything is said of it.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use multer::{Constraints, Field, Multipart, SizeLimit};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::dropin::Gate;
use super::flow::{Broken, FLOWING, Flow, FlowStream, Unread};
use super::held::Hold;
use super::{Bounds, Ingress};
use crate::attachment::{Files, StoreError, Whole};
use crate::config::Intake;
use crate::model::attachment::{MAX_NAME, cleaned_name, cleaned_type};
use crate::model::{Refusal, Timestamp};

/// The most parts.
const PARTS: usize = 100;

/// The largest text field, and all of them together.
const FIELD: usize = 1024 * 1024;
const TEXT: usize = 4 * FIELD;

/// The most headers of a part, and their bytes.
const PART_HEADERS: usize = 16;
const PART_HEAD: usize = 8 * 1024;

/// The longest boundary (RFC 2046, 5.1.1).
const BOUNDARY: usize = 70;

/// The text parts of a body, in order.
pub type Parts = Vec<(String, String)>;

/// What a body held. Its files are whole, and nobody's until they are placed.
pub(super) struct Form {
    pub(super) fields: Parts,
    pub(super) files: Vec<Whole>,
}

/// What becomes of files.
#[derive(Clone, Copy)]
pub(super) enum Taking<'f> {
    /// They are refused, for this reason.
    Refused(&'static str),
    /// They are read and forgotten.
    Forgotten,
    /// They are taken in.
    Taken(&'f Files, &'f Intake, Timestamp),
    /// They are taken in once the upstream has said that it knows their sender's key.
    Gated(&'f Gate<'f>, &'f Ingress, (&'f Files, &'f Intake, Timestamp)),
}

impl<'f> Taking<'f> {
    /// Where files go: asked at the first one.
    async fn opened(self) -> Result<Self, Refusal> {
        match self {
            Self::Gated(gate, ingress, (files, intake, until)) => {
                gate.open(ingress).await?;
                Ok(Taking::Taken(files, intake, until))
            }
            open => Ok(open),
        }
    }
}

/// Whether a type is that of a form in parts.
pub fn is_multipart(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or("").trim();
    essence.eq_ignore_ascii_case("multipart/form-data")
}

/// The fields of a body that is here already; files are passed over.
pub async fn read(content_type: &str, body: Bytes) -> Result<Parts, Refusal> {
    let bounds = Bounds::of_held(body.len() as u64);
    let mut flow = Flow::new(Body::from(body), bounds, Hold::none().into());
    Ok(take(content_type, &mut flow, Taking::Forgotten).await?.fields)
}

/// Reads a form to the end of its body.
pub(super) async fn take(content_type: &str, flow: &mut Flow, taking: Taking<'_>) -> Result<Form, Refusal> {
    let boundary = multer::parse_boundary(content_type)
        .ok()
        .filter(|boundary| (1..=BOUNDARY).contains(&boundary.len()))
        .ok_or_else(|| Refusal::Malformed("the multipart body has no good boundary".into()))?;
    let (unread, hold) = (flow.unread(), flow.held());
    hold.grow(FLOWING)?;
    let form = flow.feed(|stream| parts(boundary, stream, (unread, hold), taking)).await?;
    flow.finish().await?;
    Ok(form)
}

async fn parts(
    boundary: String,
    stream: FlowStream,
    (unread, hold): (Unread, Arc<Hold>),
    mut taking: Taking<'_>,
) -> Result<Form, Refusal> {
    // The bounds are ours: see `Flow` and below.
    let size = SizeLimit::new().whole_stream(u64::MAX).per_field(u64::MAX);
    let mut reader = Multipart::with_constraints(stream, boundary, Constraints::new().size_limit(size));
    let mut form = Form { fields: Parts::new(), files: Vec::new() };
    let (mut seen, mut text) = (0, 0);
    while let Some(mut part) = reader.next_field().await.map_err(|error| refusal(&error))? {
        unread.read();
        seen += 1;
        if seen > PARTS {
            return Err(Refusal::Malformed(format!("the body has more than {PARTS} parts")));
        }
        let head: usize = part.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if part.headers().len() > PART_HEADERS || head > PART_HEAD {
            return Err(Refusal::Malformed("the head of a part is too large".into()));
        }
        let next = async |part: &mut Field<'_>| {
            let piece = part.chunk().await.map_err(|error| refusal(&error))?;
            unread.read();
            Ok::<_, Refusal>(piece)
        };
        if let Some(given) = file_name(&part) {
            if given.len() > MAX_NAME {
                return Err(Refusal::Malformed("the name of a file is too long".into()));
            }
            let first = next(&mut part).await?;
            // What browsers send for a file that nobody chose.
            if given.is_empty() && first.is_none() {
                continue;
            }
            let kind = part.headers().get(http::header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
            let kind = kind.map(str::to_owned);
            taking = taking.opened().await?;
            match taking {
                Taking::Refused(why) => return Err(Refusal::NotYet(why)),
                Taking::Forgotten => while next(&mut part).await?.is_some() {},
                Taking::Gated(..) => return Err(Refusal::Internal("a gate that was opened is shut".into())),
                Taking::Taken(files, intake, until) => {
                    if form.files.len() == intake.max_files {
                        return Err(Refusal::Malformed(format!("the body has more than {} files", intake.max_files)));
                    }
                    let mut incoming = begin(files, intake, &given, kind.as_deref()).await?;
                    let mut piece = first;
                    while let Some(bytes) = piece {
                        grown(&mut incoming, intake, bytes).await?;
                        piece = next(&mut part).await?;
                    }
                    form.files.push(incoming.end(until).await.map_err(unkept)?);
                }
            }
            continue;
        }
        let name = match part.name() {
            Some(name) if !name.is_empty() && name.len() <= MAX_NAME => name.to_owned(),
            _ => return Err(Refusal::Malformed("a part of the body has no good name".into())),
        };
        let mut value = Vec::new();
        while let Some(piece) = next(&mut part).await? {
            value.extend_from_slice(&piece);
            if value.len() > FIELD || text + value.len() > TEXT {
                return Err(Refusal::TooLarge(FIELD as u64));
            }
            hold.grow(FLOWING + (text + value.len()) as u64)?;
        }
        text += value.len();
        let value =
            String::from_utf8(value).map_err(|_| Refusal::Malformed("a text field of the body is not UTF-8".into()))?;
        form.fields.push((name, value));
    }
    Ok(form)
}

/// Begins a file, if its kind is taken.
pub(super) async fn begin(
    files: &Files,
    intake: &Intake,
    name: &str,
    kind: Option<&str>,
) -> Result<crate::attachment::Incoming, Refusal> {
    let (shown, essence) = (cleaned_name(name), cleaned_type(kind));
    if !intake.accepts(&shown, &essence) {
        return Err(Refusal::FileKind(format!("files of the type {essence} are not in the list accept")));
    }
    files.begin(name, kind).await.map_err(unkept)
}

/// Takes the next bytes of a file.
pub(super) async fn grown(
    incoming: &mut crate::attachment::Incoming,
    intake: &Intake,
    bytes: Bytes,
) -> Result<(), Refusal> {
    if incoming.size() + bytes.len() as u64 > intake.max_file {
        return Err(Refusal::FileTooLarge(intake.max_file));
    }
    incoming.take(bytes).await.map_err(unkept)
}

/// Why a file could not be kept.
pub(super) fn unkept(error: StoreError) -> Refusal {
    match error {
        StoreError::NoSpace => Refusal::NoSpace,
        error => Refusal::Store(error.to_string()),
    }
}

/// What a part's sender calls its file; none where the part is no file. The extended form stands in for a plain one
/// that is missing.
fn file_name(part: &Field<'_>) -> Option<String> {
    if let Some(name) = part.file_name() {
        return Some(name.to_owned());
    }
    let disposition = part.headers().get(http::header::CONTENT_DISPOSITION)?.as_bytes();
    let disposition = String::from_utf8_lossy(disposition);
    let (_, value) = disposition.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("filename*").then(|| ((), value.trim().trim_matches('"').to_owned()))
    })?;
    let encoded = value.splitn(3, '\'').nth(2).unwrap_or(&value);
    Some(percent_decode_str(encoded).decode_utf8_lossy().into_owned())
}

/// Fields as the JSON that an event is kept with: the object in a field `payload` where there is one, as senders of
/// JSON beside a file have it; else an object of texts, a repeated one as a list; nothing where there are none.
pub(super) fn document(fields: &Parts) -> Bytes {
    if fields.is_empty() {
        return Bytes::new();
    }
    if let Some((_, payload)) = fields.iter().rev().find(|(name, _)| name == "payload")
        && payload.trim_ascii_start().starts_with('{')
        && serde_json::from_str::<serde::de::IgnoredAny>(payload).is_ok()
    {
        return payload.clone().into();
    }
    let mut map = Map::new();
    for (name, value) in fields {
        let value = Value::from(value.as_str());
        match map.get_mut(name) {
            None => drop(map.insert(name.clone(), value)),
            Some(Value::Array(all)) => all.push(value),
            Some(one) => *one = Value::Array(vec![one.take(), value]),
        }
    }
    Value::from(map).to_string().into()
}

fn refusal(error: &multer::Error) -> Refusal {
    if let multer::Error::StreamReadFailed(cause) = error
        && let Some(Broken(refusal)) = cause.downcast_ref::<Broken>()
    {
        return refusal.clone();
    }
    Refusal::Malformed("the multipart body is badly made or not whole".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn parse(body: &str) -> Result<Parts, Refusal> {
        read("multipart/form-data; boundary=x", Bytes::copy_from_slice(body.as_bytes())).await
    }

    fn part(head: &str, text: &str) -> String {
        format!("--x\r\nContent-Disposition: form-data; {head}\r\n\r\n{text}\r\n")
    }

    #[tokio::test]
    async fn text_parts_are_fields_in_order() {
        let body = format!("{}{}--x--\r\n", part("name=\"prompt\"", "Look\r\nhere"), part("name=b", "é"));
        let wanted = [("prompt".to_owned(), "Look\r\nhere".to_owned()), ("b".to_owned(), "é".to_owned())];
        assert_eq!(parse(&body).await.unwrap(), wanted);
        assert!(is_multipart("Multipart/Form-Data; boundary=x") && !is_multipart("multipart/mixed"));
    }

    #[tokio::test]
    async fn a_file_is_told_that_it_is_not_taken() {
        let body = format!("{}--x--", part("name=\"f\"; filename=\"a.pdf\"", "%PDF"));
        let mut flow = Flow::new(Body::from(body), Bounds::of_held(1 << 20), Hold::none().into());
        let taken = take("multipart/form-data; boundary=x", &mut flow, Taking::Refused("no")).await;
        assert_eq!(taken.err(), Some(Refusal::NotYet("no")));
        let none = format!("{}--x--", part("name=\"f\"; filename=\"\"", ""));
        assert_eq!(parse(&none).await, Ok(Parts::new()));
    }

    #[tokio::test]
    async fn t85_t86_bad_boundaries_cut_bodies_and_too_much_are_refused() {
        let whole = part("name=a", "1");
        for wrong in
            [whole.clone(), "--x\r\n\r\n".into(), "nothing".into(), String::new(), part("name=\"\"", "1") + "--x--"]
        {
            assert!(matches!(parse(&wrong).await, Err(Refusal::Malformed(_))), "{wrong:?}: {:?}", parse(&wrong).await);
        }
        for kind in ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=\"\""] {
            assert!(matches!(read(kind, Bytes::from_static(b"--\r\n")).await, Err(Refusal::Malformed(_))), "{kind}");
        }
        assert!(parse(&(whole.repeat(100) + "--x--")).await.is_ok());
        assert!(matches!(parse(&(whole.repeat(101) + "--x--")).await, Err(Refusal::Malformed(_))));
        let long = part(&format!("name={}", "n".repeat(256)), "1") + "--x--";
        assert!(matches!(parse(&long).await, Err(Refusal::Malformed(_))));
        let head =
            format!("--x\r\nA: {}\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--x--", "a".repeat(9000));
        assert!(matches!(parse(&head).await, Err(Refusal::Malformed(_))));
        let large = part("name=a", &"1".repeat(1024 * 1024 + 1)) + "--x--";
        assert!(matches!(parse(&large).await, Err(Refusal::TooLarge(_))));
    }
}
