//! Multipart bodies: text parts as fields, files into the store, all under their bounds.
//!
//! The body is read to its end before anything is said of it.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde_json::Value;

use super::body_stream::{BodyStream, FLOWING};
use super::memory_limit::MemoryPermit;
use crate::attachment::{Files, Incoming, StagedFile};
use crate::config::FileRules;
use crate::model::attachment::{MAX_NAME, cleaned_name, cleaned_type};
use crate::model::{Refusal, TakenForm, Timestamp};
use crate::run::store_refusal;
use crate::text::fields::{self, PartFields};
use crate::text::multipart::{MultipartPiece, MultipartReader, PartFault, PartHead};
use crate::text::{self, Charset};

pub(super) use crate::text::multipart::is_form as is_multipart;

/// The largest text field, and all of them together.
const FIELD: usize = 1024 * 1024;
const TEXT: usize = 4 * FIELD;

/// The text parts of a body, in order.
pub(super) type TextFields = Vec<(String, String)>;

/// Contents of a form. Its files are whole, and belong to nothing until they are placed.
#[derive(Default)]
pub(super) struct Form {
    pub(super) text: TakenForm,
    pub(super) files: Vec<StagedFile>,
}

/// Rule for the files of a form.
#[derive(Clone, Copy)]
pub(super) enum FilePolicy<'f> {
    /// Files are refused, for this reason.
    Refused(&'static str),
    /// Files are taken in.
    Taken(&'f Files, &'f FileRules, Timestamp),
    /// Files are taken in once their sender's key is known to be good.
    Gated(
        &'f (dyn FileGate + Sync),
        &'f Files,
        &'f FileRules,
        Timestamp,
    ),
}

/// Gate between the store and files of a caller whose key is not proved.
pub(super) trait FileGate {
    /// Opens if the upstream knows the caller's key.
    fn open(&self) -> BoxFuture<'_, Result<(), Refusal>>;
}

impl<'f> FilePolicy<'f> {
    /// The policy behind the gate, which is asked at the first file.
    async fn opened(self) -> Result<Self, Refusal> {
        match self {
            Self::Gated(gate, files, rules, until) => {
                gate.open().await?;
                Ok(FilePolicy::Taken(files, rules, until))
            }
            open => Ok(open),
        }
    }
}

/// Reads a form to the end of its body.
pub(super) async fn take(
    content_type: &str,
    body: &mut BodyStream<'_>,
    taking: FilePolicy<'_>,
) -> Result<Form, Refusal> {
    let mut reader = MultipartReader::new(content_type).map_err(refusal)?;
    let memory = body.memory();
    memory.grow(FLOWING)?;
    let mut taker = Taker {
        taking,
        memory,
        fields: PartFields::default(),
        length: 0,
        files: Vec::new(),
        now: CurrentPart::None,
    };
    while let Some(bytes) = body.next().await? {
        reader.feed(bytes);
        while let Some(piece) = reader.piece().map_err(refusal)? {
            match piece {
                MultipartPiece::Head(head) => taker.begin(&head)?,
                MultipartPiece::Bytes(bytes) => taker.take(bytes).await?,
                MultipartPiece::End => taker.end().await?,
            }
        }
    }
    reader.end().map_err(refusal)?;
    let (fields, notes) = taker.fields.end(text::declared(content_type).as_deref());
    Ok(Form {
        text: TakenForm { fields, notes },
        files: taker.files,
    })
}

/// A form that is being taken in.
struct Taker<'f> {
    taking: FilePolicy<'f>,
    memory: &'f MemoryPermit,
    fields: PartFields,
    /// The bytes of all text parts.
    length: usize,
    files: Vec<StagedFile>,
    now: CurrentPart,
}

/// The part that is being read.
enum CurrentPart {
    None,
    /// A text: its name, its bytes, its own character set.
    Text(String, Vec<u8>, Option<Charset>),
    /// A file of which nothing has come yet: its name and its type.
    Named(String, Option<String>),
    File(Box<Incoming>),
}

impl Taker<'_> {
    fn begin(&mut self, head: &PartHead) -> Result<(), Refusal> {
        if let Some((name, is_replaced)) = head.file_name(self.fields.charset()) {
            if name.len() > MAX_NAME {
                return Err(Refusal::Malformed("the name of a file is too long".into()));
            }
            self.fields.note(is_replaced);
            self.now = CurrentPart::Named(name, head.content_type.clone());
            return Ok(());
        }
        match head.name(self.fields.charset()) {
            Some((name, is_replaced)) if !name.is_empty() && name.len() <= MAX_NAME => {
                self.fields.note(is_replaced);
                self.now = CurrentPart::Text(name, Vec::new(), head.charset());
                Ok(())
            }
            _ => Err(Refusal::Malformed(
                "a part of the body has no good name".into(),
            )),
        }
    }

    async fn take(&mut self, bytes: Bytes) -> Result<(), Refusal> {
        self.now = match std::mem::replace(&mut self.now, CurrentPart::None) {
            CurrentPart::Named(name, kind) => {
                self.taking = self.taking.opened().await?;
                CurrentPart::File(Box::new(
                    file(self.taking, self.files.len(), &name, kind.as_deref()).await?,
                ))
            }
            now => now,
        };
        match (&mut self.now, self.taking) {
            (CurrentPart::Text(_, value, _), _) => {
                value.extend_from_slice(&bytes);
                self.length += bytes.len();
                if value.len() > FIELD || self.length > TEXT {
                    return Err(Refusal::TooLarge(FIELD as u64));
                }
                self.memory.grow(FLOWING + self.length as u64)
            }
            (CurrentPart::File(incoming), FilePolicy::Taken(_, intake, _)) => {
                append(incoming, intake, bytes).await
            }
            _ => Ok(()),
        }
    }

    async fn end(&mut self) -> Result<(), Refusal> {
        let incoming = match std::mem::replace(&mut self.now, CurrentPart::None) {
            CurrentPart::Text(name, value, charset) => {
                self.fields.push(name, value, charset);
                return Ok(());
            }
            // Browsers send this for a file field that was left empty.
            CurrentPart::Named(name, _) if name.is_empty() => return Ok(()),
            CurrentPart::Named(name, kind) => {
                self.taking = self.taking.opened().await?;
                file(self.taking, self.files.len(), &name, kind.as_deref()).await?
            }
            CurrentPart::File(incoming) => *incoming,
            CurrentPart::None => return Ok(()),
        };
        if let FilePolicy::Taken(_, _, until) = self.taking {
            self.files
                .push(incoming.end(until).await.map_err(store_refusal)?);
        }
        Ok(())
    }
}

/// Begins one more file where there are so many.
async fn file(
    taking: FilePolicy<'_>,
    number: usize,
    name: &str,
    kind: Option<&str>,
) -> Result<Incoming, Refusal> {
    match taking {
        FilePolicy::Refused(why) => Err(Refusal::NotYet(why)),
        FilePolicy::Gated(..) => Err(Refusal::Internal("a gate that was opened is shut".into())),
        FilePolicy::Taken(_, intake, _) if number == intake.max_files => Err(Refusal::Malformed(
            format!("the body has more than {} files", intake.max_files),
        )),
        FilePolicy::Taken(files, intake, _) => begin(files, intake, name, kind).await,
    }
}

/// Begins a file, if its kind is taken.
pub(super) async fn begin(
    files: &Files,
    intake: &FileRules,
    name: &str,
    kind: Option<&str>,
) -> Result<Incoming, Refusal> {
    let (shown, essence) = (cleaned_name(name), cleaned_type(kind));
    if !intake.accepts(&shown, &essence) {
        return Err(Refusal::FileKind(format!(
            "files of the type {essence} are not in the list accept"
        )));
    }
    files.begin(name, kind).await.map_err(store_refusal)
}

/// Takes the next bytes of a file.
pub(super) async fn append(
    incoming: &mut Incoming,
    intake: &FileRules,
    bytes: Bytes,
) -> Result<(), Refusal> {
    if incoming.size() + bytes.len() as u64 > intake.max_file {
        return Err(Refusal::FileTooLarge(intake.max_file));
    }
    incoming.take(bytes).await.map_err(store_refusal)
}

/// Fields as the JSON that an event is kept with: the object in a field `payload` where there is one, as senders of
/// JSON beside a file have it; else an object of texts, with a repeated field as a list; empty without fields.
pub(super) fn document(fields: &TextFields) -> Bytes {
    if fields.is_empty() {
        return Bytes::new();
    }
    let pairs = || {
        fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    };
    if let Some(payload) = fields::payload(pairs())
        && serde_json::from_str::<serde::de::IgnoredAny>(payload).is_ok()
    {
        return payload.to_owned().into();
    }
    Value::from(fields::object(pairs())).to_string().into()
}

fn refusal(fault: PartFault) -> Refusal {
    Refusal::Malformed(fault.to_string())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::super::BodyLimits;
    use super::*;

    async fn parse(body: &str) -> Result<TextFields, Refusal> {
        let memory = MemoryPermit::none();
        let mut stream = BodyStream::new(
            Body::from(body.to_owned()),
            BodyLimits::of_held(body.len() as u64),
            &memory,
        );
        let form = take(
            "multipart/form-data; boundary=x",
            &mut stream,
            FilePolicy::Refused("no"),
        )
        .await?;
        Ok(form.text.fields)
    }

    fn part(head: &str, text: &str) -> String {
        format!("--x\r\nContent-Disposition: form-data; {head}\r\n\r\n{text}\r\n")
    }

    #[tokio::test]
    async fn text_parts_are_fields_in_order() {
        let body = format!(
            "{}{}--x--\r\n",
            part("name=\"prompt\"", "Look\r\nhere"),
            part("name=b", "é")
        );
        let wanted = [
            ("prompt".to_owned(), "Look\r\nhere".to_owned()),
            ("b".to_owned(), "é".to_owned()),
        ];
        assert_eq!(parse(&body).await.unwrap(), wanted);
        assert!(
            is_multipart("Multipart/Form-Data; boundary=x") && !is_multipart("multipart/mixed")
        );
    }

    #[tokio::test]
    async fn a9_a_file_is_refused_where_files_are_not_taken_and_one_that_nobody_chose_is_ignored() {
        let refused = Err(Refusal::NotYet("no"));
        assert_eq!(
            parse(&format!(
                "{}--x--",
                part("name=\"f\"; filename=\"a.pdf\"", "%PDF")
            ))
            .await,
            refused
        );
        assert_eq!(
            parse(&format!(
                "{}--x--",
                part("name=\"f\"; filename=\"a.pdf\"", "")
            ))
            .await,
            refused
        );
        assert_eq!(
            parse(&format!("{}--x--", part("name=\"f\"; filename=\"\"", "x"))).await,
            refused
        );
        for none in [
            "filename=\"\"",
            "filename=",
            "filename=\"\"\r\nContent-Type: application/octet-stream",
        ] {
            assert_eq!(
                parse(&format!(
                    "{}--x--",
                    part(&format!("name=\"f\"; {none}"), "")
                ))
                .await,
                Ok(TextFields::new())
            );
        }
    }

    #[tokio::test]
    async fn t85_t86_invalid_names_and_too_much_are_refused() {
        for wrong in [
            part("name=\"\"", "1") + "--x--",
            "--x\r\n\r\n1\r\n--x--".into(),
            part("name=a", "1"),
        ] {
            assert!(
                matches!(parse(&wrong).await, Err(Refusal::Malformed(_))),
                "{wrong:?}: {:?}",
                parse(&wrong).await
            );
        }
        let long = part(&format!("name={}", "n".repeat(256)), "1") + "--x--";
        assert!(matches!(parse(&long).await, Err(Refusal::Malformed(_))));
        let large = part("name=a", &"1".repeat(1024 * 1024 + 1)) + "--x--";
        assert!(matches!(parse(&large).await, Err(Refusal::TooLarge(_))));
        let much = part("name=a", &"1".repeat(1024 * 1024)).repeat(4);
        assert!(parse(&(much.clone() + "--x--")).await.is_ok());
        assert!(matches!(
            parse(&(much + &part("name=a", "1") + "--x--")).await,
            Err(Refusal::TooLarge(_))
        ));
    }
}
