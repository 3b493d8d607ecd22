//! A request at the drop-in door, read as a call.

use axum::body::Body;
use http::header::{CONTENT_TYPE, HeaderMap};
use http::request::Parts;

use super::Dropin;
use super::caller::Presented;
use crate::ingress::body_stream::BodyStream;
use crate::ingress::form::{self, FileGate, FilePolicy, TextFields};
use crate::ingress::memory_limit::MemoryPermit;
use crate::ingress::request_log::RequestLog;
use crate::ingress::staged::{self, PlacedFiles};
use crate::ingress::upload::usable_files;
use crate::ingress::{BodyLimits, Ingress, body};
use crate::mapping::{PathMiss, hosted as reading};
use crate::model::{HostedCall, Refusal};

/// True if a body is a form in parts.
pub(super) fn is_form(headers: &HeaderMap) -> bool {
    form::is_multipart(content_type(headers))
}

fn content_type(headers: &HeaderMap) -> &str {
    headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default()
}

/// A request whose body is to be read.
pub(super) struct DropinReader<'r> {
    pub(super) ingress: &'r Ingress,
    pub(super) dropin: &'r Dropin,
    pub(super) presented: &'r Presented<'r>,
    pub(super) head: &'r Parts,
    pub(super) limits: BodyLimits,
    pub(super) memory: &'r MemoryPermit,
    /// True if its caller asks what it would become.
    pub(super) explains: bool,
}

/// A request that was read.
pub(super) struct ReadCall {
    pub(super) call: Result<HostedCall, Refusal>,
    /// Paths that gave no value, where the caller asks for them.
    pub(super) misses: Vec<PathMiss>,
    /// The files that came with it.
    pub(super) files: PlacedFiles,
}

impl DropinReader<'_> {
    /// Reads the request to the end of its body.
    pub(super) async fn read(
        &self,
        incoming: Body,
        log: &mut RequestLog,
    ) -> Result<ReadCall, Refusal> {
        if is_form(&self.head.headers) {
            let (fields, files) = self.form(incoming, log).await?;
            return Ok(self.call(reading::CallBody::Parts(&fields), files));
        }
        let bytes = body::read(incoming, self.limits, self.memory).await?;
        log.read_body(bytes.len() as u64, true);
        Ok(self.call(reading::CallBody::Whole(&bytes), PlacedFiles::none()))
    }

    fn call(&self, body: reading::CallBody<'_>, files: PlacedFiles) -> ReadCall {
        let uri = &self.head.uri;
        let asked = reading::CallRequest {
            path_agent: uri.path().strip_prefix('/').unwrap_or_default(),
            query: uri.query().unwrap_or_default(),
            content_type: content_type(&self.head.headers),
            body,
        };
        let (call, misses) = if self.explains {
            reading::explain(&asked)
        } else {
            (reading::read(&asked), Vec::new())
        };
        ReadCall {
            call,
            misses,
            files,
        }
    }

    /// Reads the fields and files of a form in parts. Where files cannot be kept, a call that brings one is refused with
    /// the reason. Files of a caller whose key is not proved pass a gate first.
    async fn form(
        &self,
        incoming: Body,
        log: &mut RequestLog,
    ) -> Result<(TextFields, PlacedFiles), Refusal> {
        let Self { ingress, head, .. } = self;
        let gate = self.dropin.gate(ingress, self.presented, head, log.peer.0);
        let mut body = BodyStream::new(incoming, self.limits, self.memory);
        let read = async {
            let files = usable_files(ingress);
            let permit = files
                .ok()
                .map(|_| ingress.uploads.at_dropin(log.peer.0, gate.is_none()))
                .transpose()?;
            let until = ingress.intake.clock.now() + ingress.keep_files;
            let rules = &ingress.file_rules;
            let policy = match (files, &gate) {
                (Ok(files), None) => FilePolicy::Taken(files, rules, until),
                (Ok(files), Some(gate)) => {
                    FilePolicy::Gated(gate as &(dyn FileGate + Sync), files, rules, until)
                }
                (Err(why), _) => FilePolicy::Refused(why),
            };
            let form = form::take(content_type(&head.headers), &mut body, policy).await?;
            Ok::<_, Refusal>((form, permit))
        };
        let read = read.await;
        log.read_body(body.length(), read.is_ok());
        match read {
            Ok((form, _permit)) => {
                let files = staged::place(ingress, form.files).await?;
                Ok((form.text.fields, files))
            }
            Err(refusal) => {
                body.drain(&head.headers).await;
                Err(refusal)
            }
        }
    }
}
