//! Requests that bring files: taken in while they are authenticated, placed when both are done, kept with their event.
//!
//! Promises: nothing is at its place before the whole body was read and its origin proved; the event is kept after its
//! files are durable, never before; whoever goes away, or is refused, leaves nothing behind.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use http::{HeaderMap, request::Parts};

use super::body_stream::{BodyStream, FLOWING};
use super::dropin::Gate;
use super::form::{self, FilePolicy, Form};
use super::memory_limit::MemoryPermit;
use super::request_log::{Answered, RequestLog};
use super::{BodyLimits, Ingress, receive};
use crate::attachment::{Files, StagedFile};
use crate::config::{FileRules, SourceFiles};
use crate::model::{Attachment, Received, Refusal, Verified};
use crate::source::{Source, Streamed};
use crate::text::parameter;

/// Why files are refused where nobody could fetch them.
const NO_STORE: &str =
    "Files are not taken here: the gateway has no store for them (attachments.store).";
const NO_LINKS: &str = "Files are not taken here: the agent could not fetch them, because server.public_url is not set.";

/// What a source takes files by, if this request may bring some. An error is a type that nobody can be sure of.
pub(super) fn wanted<'s>(
    source: &'s Source,
    headers: &HeaderMap,
) -> Result<Option<&'s SourceFiles>, Refusal> {
    let Some(taken) = &source.config.files else {
        return Ok(None);
    };
    let mut lines = headers.get_all(CONTENT_TYPE).iter();
    let (first, second) = (lines.next(), lines.next());
    let kind = first
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    let is_upload = form::is_multipart(kind) || (taken.body_is_file && !is_document(kind));
    match second {
        Some(_) if is_upload => Err(Refusal::Unsupported(
            "there are several content types".into(),
        )),
        _ => Ok(is_upload.then_some(taken)),
    }
}

/// Whether a type is one that the mapping reads, where a whole body may be a file.
fn is_document(kind: &str) -> bool {
    let essence = kind
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    matches!(
        essence.as_str(),
        "application/json" | "text/json" | "application/x-www-form-urlencoded"
    ) || essence.ends_with("+json")
}

/// The files of this gateway; a refusal that says why there are none.
fn usable(ingress: &Ingress) -> Result<&Arc<Files>, &'static str> {
    let files = ingress.intake.files.as_ref().ok_or(NO_STORE)?;
    if files.has_links() {
        Ok(files)
    } else {
        Err(NO_LINKS)
    }
}

/// The bounds of an upload.
pub(super) fn bounds(ingress: &Ingress, intake: &FileRules) -> BodyLimits {
    BodyLimits {
        size: intake.max_upload,
        whole: ingress.bounds.upload,
        compressed: false,
        ..ingress.bounds
    }
}

/// What the drop-in takes in where files can be kept.
pub(super) fn intake_at_door(ingress: &Ingress) -> Option<&FileRules> {
    usable(ingress).ok().map(|_| &ingress.file_rules)
}

/// The way of an upload at a source, from its body to its answer.
pub(super) async fn receive(
    ingress: &Ingress,
    source: &Source,
    taken: &SourceFiles,
    (head, incoming): (Parts, Body),
    log: &mut RequestLog,
) -> Result<Answered, Refusal> {
    let intake = ingress.file_rules.of(taken);
    let headers = head.headers.clone();
    let hold = Arc::new(ingress.held.hold(log.peer.0));
    let mut flow = BodyStream::new(incoming, bounds(ingress, &intake), hold.clone());
    let head = receive::received(ingress, head, Bytes::new(), log);
    let way = async {
        let files = usable(ingress).map_err(Refusal::NotYet)?;
        let place = ingress.places.at_source(&source.config.name, log.peer.0)?;
        hold.grow(FLOWING)?;
        let reading = UploadReader {
            files,
            intake: &intake,
            body_is_file: taken.body_is_file,
            ingress,
        };
        match source.streamed(&head) {
            Some(streamed) => {
                reading
                    .while_proving(source, streamed?, head, &mut flow)
                    .await
            }
            None => reading.when_proved(source, head, &mut flow).await,
        }
        .map(|read| (read, place))
    };
    let read = way.await;
    log.body_bytes = flow.length();
    let ((verified, form), _place) = match read {
        Ok(read) => read,
        Err(refusal) => {
            flow.drain(&headers).await;
            let is_unproved = matches!(refusal.plain(), Refusal::Origin(..));
            let slowed = is_unproved
                .then(|| receive::unproved(ingress, source, log).err())
                .flatten();
            return Err(slowed.unwrap_or(refusal));
        }
    };
    receive::count(ingress, source, &verified, log)?;
    ingress.places.proved(&source.config.name, log.peer.0);
    source.check_query(verified.request(), &ingress.sealer)?;
    let has_files = !form.files.is_empty();
    let mut brought = receive::brought(ingress, source, verified, has_files, &flow.held(), log)?;
    // What goes no further needs no files. Of several events the first that goes further has them.
    if let Some(event) = brought
        .events
        .iter_mut()
        .find(|event| event.filtered.is_none())
    {
        event.attachments = place(ingress, form.files).await?.into_files();
    }
    receive::answer(ingress, source, brought).await
}

/// How the files of a request are read.
struct UploadReader<'r> {
    files: &'r Arc<Files>,
    intake: &'r FileRules,
    body_is_file: bool,
    ingress: &'r Ingress,
}

impl UploadReader<'_> {
    /// Takes the body in while its bytes are authenticated.
    async fn while_proving(
        &self,
        source: &Source,
        streamed: Streamed,
        head: Received,
        flow: &mut BodyStream,
    ) -> Result<(Verified, Form), Refusal> {
        flow.check(streamed);
        let form = self.read(&head.headers, flow).await?;
        let streamed = flow
            .checked()
            .ok_or_else(|| Refusal::Internal("a check was lost on its way".into()))?;
        let now = self.ingress.intake.clock.now();
        let verified = source
            .verify_streamed(streamed, head)
            .map_err(|refused| receive::explained(source, *refused, now))?;
        Ok((self.with_fields(verified, &form), form))
    }

    /// Holds the body until it is authenticated, within the bounds of bodies that are held.
    async fn when_proved(
        &self,
        source: &Source,
        head: Received,
        flow: &mut BodyStream,
    ) -> Result<(Verified, Form), Refusal> {
        flow.shrink(source.max_body.unwrap_or(self.ingress.bounds.size));
        let received = Received {
            body: flow.whole().await?,
            ..head
        };
        let received = receive::opened(source, received, &flow.held())?;
        let now = self.ingress.intake.clock.now();
        let prepared = source.prepare(&received, &*self.ingress.fetch, now).await?;
        let verified = source.verify_prepared(received, prepared, now);
        let verified = verified.map_err(|refused| receive::explained(source, *refused, now))?;
        let body = verified.request().body.clone();
        let bounds = BodyLimits::of_held(body.len() as u64);
        let mut held = BodyStream::new(Body::from(body.clone()), bounds, flow.held());
        match self.read(&verified.request().headers, &mut held).await {
            Ok(form) => Ok((self.with_fields(verified, &form), form)),
            // The body stays as it came, and the mapping says once more what is wrong with it.
            Err(refusal @ Refusal::Malformed(_)) if source.keeps(&verified, &refusal) => {
                Ok((verified, Form::default()))
            }
            Err(refusal) => Err(refusal),
        }
    }

    async fn read(&self, headers: &HeaderMap, flow: &mut BodyStream) -> Result<Form, Refusal> {
        let until = self.ingress.intake.clock.now() + self.ingress.keep_files;
        let kind = headers
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok());
        if kind.is_some_and(form::is_multipart) {
            let taking = FilePolicy::Taken(self.files, self.intake, until);
            return form::take(kind.unwrap_or_default(), flow, taking).await;
        }
        let mut form = Form::default();
        let mut incoming = None;
        while let Some(piece) = flow.next().await? {
            let incoming = match &mut incoming {
                Some(begun) => begun,
                none => none.insert(
                    form::begin(self.files, self.intake, &name_of_body(headers), kind).await?,
                ),
            };
            form::grown(incoming, self.intake, piece).await?;
        }
        if let Some(incoming) = incoming {
            form.files
                .push(incoming.end(until).await.map_err(form::unkept)?);
        }
        Ok(form)
    }

    /// The request as the mapping sees it: with what was a field, and without what was a file.
    fn with_fields(&self, verified: Verified, form: &Form) -> Verified {
        let kind = verified
            .request()
            .header(CONTENT_TYPE.as_str())
            .unwrap_or_default();
        match self.body_is_file && !form::is_multipart(kind) {
            true => verified.with_body(Bytes::new()),
            false => verified.with_fields(form::document(&form.text.fields), form.text.clone()),
        }
    }
}

/// What the sender of a body that is a file calls it.
fn name_of_body(headers: &HeaderMap) -> String {
    let disposition = headers
        .get(CONTENT_DISPOSITION)
        .map(|line| parameter::parse(line.as_bytes()));
    let named = disposition
        .and_then(|disposition| disposition.text("filename", None))
        .map(|(name, _)| name);
    named.filter(|name| !name.is_empty()).unwrap_or_else(|| {
        let kind = headers
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .unwrap_or_default();
        let kind = kind
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        // The agent tells a file's kind by the end of its name.
        let end = EXTENSIONS
            .iter()
            .find(|(known, _)| *known == kind)
            .map_or("", |(_, end)| end);
        format!("file{end}")
    })
}

/// What files of the kinds that agents read are called.
const EXTENSIONS: [(&str, &str); 17] = [
    ("application/pdf", ".pdf"),
    ("application/msword", ".doc"),
    (
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        ".docx",
    ),
    ("application/vnd.ms-excel", ".xls"),
    (
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        ".xlsx",
    ),
    ("application/zip", ".zip"),
    ("text/plain", ".txt"),
    ("text/csv", ".csv"),
    ("image/png", ".png"),
    ("image/jpeg", ".jpg"),
    ("image/gif", ".gif"),
    ("image/webp", ".webp"),
    ("image/svg+xml", ".svg"),
    ("audio/mpeg", ".mp3"),
    ("audio/ogg", ".ogg"),
    ("audio/wav", ".wav"),
    ("audio/mp4", ".m4a"),
];

/// The fields and files of a multipart call at the drop-in. Where files cannot be kept, a call that brings one is told
/// why. Files of a caller whose key nobody has judged pass a gate first.
pub(super) async fn at_door(
    ingress: &Ingress,
    head: &Parts,
    incoming: Body,
    (bounds, hold): (BodyLimits, Arc<MemoryPermit>),
    gate: Option<&Gate<'_>>,
    log: &mut RequestLog,
) -> Result<(form::TextFields, Placed), Refusal> {
    let content_type = head
        .headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    let mut flow = BodyStream::new(incoming, bounds, hold);
    let read = async {
        let files = usable(ingress);
        let place = files
            .ok()
            .map(|_| ingress.places.at_dropin(log.peer.0, gate.is_none()))
            .transpose()?;
        let until = ingress.intake.clock.now() + ingress.keep_files;
        let taking = match (files, gate) {
            (Ok(files), None) => FilePolicy::Taken(files, &ingress.file_rules, until),
            (Ok(files), Some(gate)) => {
                FilePolicy::Gated(gate, ingress, (files, &ingress.file_rules, until))
            }
            (Err(why), _) => FilePolicy::Refused(why),
        };
        form::take(content_type, &mut flow, taking)
            .await
            .map(|form| (form, place))
    };
    let read = read.await;
    log.body_bytes = flow.length();
    match read {
        Ok((form, _place)) => Ok((form.text.fields, place(ingress, form.files).await?)),
        Err(refusal) => {
            flow.drain(&head.headers).await;
            Err(refusal)
        }
    }
}

/// Puts files at their places.
async fn place(ingress: &Ingress, files: Vec<StagedFile>) -> Result<Placed, Refusal> {
    let mut placed = Placed {
        files: Vec::with_capacity(files.len()),
        store: ingress.intake.files.clone(),
    };
    for whole in files {
        placed
            .files
            .push(whole.place().await.map_err(form::unkept)?);
    }
    Ok(placed)
}

/// Files at their places that nothing refers to yet; removed with this.
pub(super) struct Placed {
    files: Vec<Attachment>,
    store: Option<Arc<Files>>,
}

impl Placed {
    /// No files.
    pub(super) const fn none() -> Self {
        Self {
            files: Vec::new(),
            store: None,
        }
    }

    /// How large they are together.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Them, to be referred to at once: what is not is for the sweep.
    pub(super) fn into_files(mut self) -> Vec<Attachment> {
        std::mem::take(&mut self.files)
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        let files = std::mem::take(&mut self.files);
        if let (false, Some(store), Ok(runtime)) = (
            files.is_empty(),
            self.store.take(),
            tokio::runtime::Handle::try_current(),
        ) {
            runtime.spawn(async move { store.remove(&files).await }.boxed());
        }
    }
}

/// Keeps files of a call that is passed on at once, and gives links to them.
pub(super) async fn passed_on(
    ingress: &Ingress,
    source: &str,
    files: &[Attachment],
) -> Result<Vec<String>, Refusal> {
    let Some(store) = ingress.intake.files.as_ref().filter(|_| !files.is_empty()) else {
        return Ok(Vec::new());
    };
    let now = ingress.intake.clock.now();
    let until = now + store.lifetime();
    let kept = files
        .iter()
        .map(|file| Attachment {
            expires_at: file.expires_at.max(until),
            ..file.clone()
        })
        .collect();
    let ready = match store.links(files, now).await {
        Ok(links) => match ingress.intake.inbox.keep_attachments(source, kept).await {
            Ok(()) => Ok(links),
            Err(error) => Err(Refusal::Inbox(error.to_string())),
        },
        Err(error) => Err(form::unkept(error)),
    };
    match &ready {
        Ok(_) => ingress.intake.metrics.files(source, files),
        Err(_) => store.remove(files).await,
    }
    ready
}

/// Takes files back of a call that surely reached nobody.
pub(super) async fn take_back(ingress: &Ingress, files: &[Attachment]) {
    let Some(store) = ingress.intake.files.as_ref().filter(|_| !files.is_empty()) else {
        return;
    };
    store.remove(files).await;
    let ids = files.iter().map(|file| file.id).collect();
    if let Err(error) = ingress.intake.inbox.forget_attachments(ids).await {
        tracing::warn!(%error, "files that nobody was told of are still listed; they go when their time is over");
    }
}
