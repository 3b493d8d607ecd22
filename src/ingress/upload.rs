//! Requests that bring files: their body streams past its check and into the store at once.
//!
//! Promises: nothing is at its place before the whole body was read and its origin proved; the event is kept after its
//! files are durable, never before; a caller that goes away, or is refused, leaves nothing behind.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http::request::Parts;

use super::body_stream::{BodyStream, FLOWING};
use super::form::{self, FilePolicy, Form};
use super::memory_limit::MemoryPermit;
use super::proof::{self, Proved, RequestOrigin};
use super::request_log::RequestLog;
use super::staged::Uploaded;
use super::{BodyLimits, Ingress, body_file, received};
use crate::attachment::Files;
use crate::config::FileRules;
use crate::model::{Received, Refusal, Verified};
use crate::run::store_refusal;
use crate::source::{Source, Streamed};

/// Reasons why files are refused where the agent could not fetch them.
const NO_STORE: &str =
    "Files are not taken here: the gateway has no store for them (attachments.store).";
const NO_LINKS: &str = "Files are not taken here: the agent could not fetch them, because server.public_url is not set.";

/// Rules of a source for a request that may bring files.
pub(super) struct Upload {
    pub(super) rules: FileRules,
    /// True if a whole body may be a file.
    body_is_file: bool,
}

impl Upload {
    /// The rules for this request; absent if it brings no files. An error is a type that is ambiguous.
    pub(super) fn of(
        ingress: &Ingress,
        source: &Source,
        headers: &HeaderMap,
    ) -> Result<Option<Self>, Refusal> {
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
            _ => Ok(is_upload.then(|| Self {
                rules: ingress.file_rules.of(taken),
                body_is_file: taken.body_is_file,
            })),
        }
    }
}

/// True for a type that the mapping reads, where a whole body may be a file.
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

/// The store of this gateway, or the reason why it takes no files.
pub(super) fn usable_files(ingress: &Ingress) -> Result<&Arc<Files>, &'static str> {
    let files = ingress.intake.files.as_ref().ok_or(NO_STORE)?;
    if files.has_links() {
        Ok(files)
    } else {
        Err(NO_LINKS)
    }
}

/// The bounds of a body that brings files.
pub(super) fn limits(ingress: &Ingress, rules: &FileRules) -> BodyLimits {
    BodyLimits {
        size: rules.max_upload,
        whole: ingress.body_limits.upload,
        compressed: false,
        ..ingress.body_limits
    }
}

/// Reads the body into the store, and proves where the request comes from.
pub(super) async fn prove(
    ingress: &Ingress,
    source: &Source,
    upload: &Upload,
    (head, incoming): (Parts, Body),
    memory: &MemoryPermit,
    log: &mut RequestLog,
) -> Result<RequestOrigin, Refusal> {
    let headers = head.headers.clone();
    let mut body = BodyStream::new(incoming, limits(ingress, &upload.rules), memory);
    let head = received::received(ingress, head, Bytes::new(), log);
    let read = async {
        let files = usable_files(ingress).map_err(Refusal::NotYet)?;
        let permit = ingress.uploads.at_source(&source.config.name, log.peer.0)?;
        memory.grow(FLOWING)?;
        let reader = UploadReader {
            ingress,
            source,
            upload,
            files,
        };
        let (verified, form) = match source.streamed(&head) {
            Some(streamed) => reader.while_proving(streamed?, head, &mut body).await?,
            None => reader.when_proved(head, &mut body).await?,
        };
        Ok::<_, Refusal>((verified, form, permit))
    };
    let read = read.await;
    log.read_body(body.length(), read.is_ok());
    match read {
        Ok((verified, form, permit)) => Ok(RequestOrigin::Proved(Proved {
            verified,
            upload: Some(Uploaded {
                files: form.files,
                _permit: permit,
            }),
        })),
        Err(refusal) => {
            body.drain(&headers).await;
            if matches!(refusal.plain(), Refusal::Origin(..)) {
                proof::count_unproved(ingress, source, log)?;
            }
            Err(refusal)
        }
    }
}

/// A request of a source, read while its files go into the store.
struct UploadReader<'r> {
    ingress: &'r Ingress,
    source: &'r Source,
    upload: &'r Upload,
    files: &'r Arc<Files>,
}

impl UploadReader<'_> {
    /// Reads the body while its bytes are authenticated.
    async fn while_proving(
        &self,
        streamed: Streamed,
        head: Received,
        body: &mut BodyStream<'_>,
    ) -> Result<(Verified, Form), Refusal> {
        body.check(streamed);
        let form = self.read(&head.headers, body).await?;
        let streamed = body
            .checked()
            .ok_or_else(|| Refusal::Internal("a check was lost on its way".into()))?;
        let now = self.ingress.intake.clock.now();
        let verified = self
            .source
            .verify_streamed(streamed, head)
            .map_err(|refused| proof::explain(self.source, *refused, now))?;
        Ok((self.with_fields(verified, &form), form))
    }

    /// Holds the body until it is authenticated, within the bounds of bodies that are held.
    async fn when_proved(
        &self,
        head: Received,
        body: &mut BodyStream<'_>,
    ) -> Result<(Verified, Form), Refusal> {
        let (ingress, source) = (self.ingress, self.source);
        body.shrink(source.max_body.unwrap_or(ingress.body_limits.size));
        let received = Received {
            body: body.whole().await?,
            ..head
        };
        let received = received::opened(source, received, body.memory())?;
        let now = ingress.intake.clock.now();
        let prepared = source.prepare(&received, &*ingress.fetch, now).await?;
        let verified = source
            .verify_prepared(received, prepared, now)
            .map_err(|refused| proof::explain(source, *refused, now))?;
        let bytes = verified.request().body.clone();
        let limits = BodyLimits::of_held(bytes.len() as u64);
        let mut held = BodyStream::new(Body::from(bytes), limits, body.memory());
        match self.read(&verified.request().headers, &mut held).await {
            Ok(form) => Ok((self.with_fields(verified, &form), form)),
            // The body stays as it came, and the mapping reports the same fault.
            Err(refusal @ Refusal::Malformed(_)) if source.keeps(&verified, &refusal) => {
                Ok((verified, Form::default()))
            }
            Err(refusal) => Err(refusal),
        }
    }

    async fn read(&self, headers: &HeaderMap, body: &mut BodyStream<'_>) -> Result<Form, Refusal> {
        let (files, rules) = (self.files, &self.upload.rules);
        let until = self.ingress.intake.clock.now() + self.ingress.keep_files;
        let kind = headers
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok());
        if kind.is_some_and(form::is_multipart) {
            let policy = FilePolicy::Taken(files, rules, until);
            return form::take(kind.unwrap_or_default(), body, policy).await;
        }
        let mut form = Form::default();
        let mut incoming = None;
        while let Some(piece) = body.next().await? {
            let incoming = match &mut incoming {
                Some(begun) => begun,
                none => {
                    none.insert(form::begin(files, rules, &body_file::name(headers), kind).await?)
                }
            };
            form::append(incoming, rules, piece).await?;
        }
        if let Some(incoming) = incoming {
            form.files
                .push(incoming.end(until).await.map_err(store_refusal)?);
        }
        Ok(form)
    }

    /// The request as the mapping reads it: with the fields of a form, and without files.
    fn with_fields(&self, verified: Verified, form: &Form) -> Verified {
        let kind = verified
            .request()
            .header(CONTENT_TYPE.as_str())
            .unwrap_or_default();
        if self.upload.body_is_file && !form::is_multipart(kind) {
            verified.with_body(Bytes::new())
        } else {
            verified.with_fields(form::document(&form.text.fields), form.text.clone())
        }
    }
}
