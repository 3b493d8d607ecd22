//! The drop-in door: `POST /` and `POST /{agent_id}`, answered as the platform's hosted webhook answers.
//!
//! The caller brings an API key: one of the gateway's own is exchanged for the upstream's, any other goes upstream as it
//! is and is judged there (`caller`, `known`). A call that waits for its answer passes straight through (`call`); one
//! that does not, or that continues a conversation, is a delivery like any other (`kept`), but only when the upstream
//! is known to take its key: until then it passes straight through too. A call under an `Idempotency-Key` is always one that
//! is kept (`once`). Nothing of a call is kept for a key that nobody
//! has judged. No key is logged, wherever it stood.

mod call;
mod caller;
mod disk;
pub mod explain;
mod kept;
mod known;
mod once;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response};

use super::load_shed::{LoadPermit, Rank};
use super::memory_limit::MemoryPermit;
use super::request_log::{self, Answered, RefusedAnswer, RequestLog};
use super::upload::{self, Placed};
use super::{BodyLimits, Ingress, body, form, receive};
use crate::config::{Config, DropIn, Secret};
use crate::mapping::getter::{Getter, is_task, shape};
use crate::mapping::{PathMiss, hosted as reading};
use crate::model::{HostedCall, Name, Outcome, Refusal};
use crate::source::Keyring;
use crate::upstream::Upstream;

use call::Calling;
pub(super) use caller::Gate;
use caller::{KeyStanding, Presented};
use disk::DiskShare;
use kept::DurableEnd;
pub use known::ForeignKeys;
use once::Once;

/// What the door is called in logs and counters.
const NAME: &str = "dropin";

/// First segments of paths that are, or may look like, the gateway's own: no agent is called so.
const RESERVED: [&str; 18] = [
    "hooks",
    "files",
    "events",
    "api",
    "v1",
    "admin",
    "dashboard",
    "ui",
    "metrics",
    "health",
    "healthz",
    "live",
    "livez",
    "ready",
    "readyz",
    "status",
    "favicon.ico",
    "robots.txt",
];

/// What the drop-in door has of its own.
#[derive(Debug)]
pub struct Dropin {
    config: DropIn,
    keyring: Keyring,
    /// Whether only the gateway's own keys are taken.
    own_only: bool,
    upstream: Upstream,
    /// What a gateway key stands for where its table does not say.
    upstream_key: Option<Secret>,
    /// What is known of all other keys.
    known: Arc<ForeignKeys>,
    /// How much disk its calls take.
    disk: DiskShare,
}

impl Dropin {
    /// The door of a configuration; none where it is shut.
    pub fn new(config: &Config, upstream: Upstream, known: Arc<ForeignKeys>) -> Option<Self> {
        config.dropin.enabled.then(|| Self {
            config: config.dropin.clone(),
            keyring: Keyring::new(config),
            own_only: config.dropin.require_key.holds(config.keys.len()),
            upstream,
            upstream_key: config.upstream.api_key.clone(),
            known,
            disk: DiskShare::new(config.dropin.max_disk),
        })
    }
}

/// A request at `/` or `/{agent_id}`.
pub(super) async fn at_door(
    State(ingress): State<Arc<Ingress>>,
    request: Request<Body>,
) -> Response<Body> {
    let Some(dropin) = ingress
        .dropin
        .as_ref()
        .filter(|_| !is_reserved(request.uri().path()))
    else {
        return receive::elsewhere(State(ingress), request).await;
    };
    let mut log = RequestLog::new(&ingress, &request);
    log.source = Some(NAME.to_owned());
    // Callers give up on long runs; what became of their requests is told all the same.
    let mut watched = Watched {
        ingress: &ingress,
        log: Some(log),
    };
    let Some(log) = watched.log.as_mut() else {
        return Response::default();
    };
    let ended = AssertUnwindSafe(answer(&ingress, dropin, request, log))
        .catch_unwind()
        .await;
    let ended =
        ended.unwrap_or_else(|_| Err(Refusal::Internal("a bug: the handler panicked".to_owned())));
    if matches!(ended, Err(Refusal::NoKey)) {
        // Whoever brings no key was perhaps sent to the wrong path.
        log.hint = receive::meant(&ingress.intake.sources, &log.path);
    }
    watched.finish(ended)
}

/// The way of a call, from its head to its answer.
async fn answer(
    ingress: &Ingress,
    dropin: &Dropin,
    request: Request<Body>,
    log: &mut RequestLog,
) -> Result<Answered, Refusal> {
    let (head, incoming) = request.into_parts();
    let (presented, bounds, _slot) = admit(ingress, dropin, &head, log)?;
    let key = once::key(&head.headers)?;
    let hold = Arc::new(ingress.held.hold(log.peer.0));
    let explains = explain::is_asked(&head.headers);
    if explains && matches!(presented, Presented::Foreign(_)) {
        return Err(Refusal::KeyRefused(
            "x-sluicegate-explain is for keys of [keys]".into(),
        ));
    }
    let read = CallReading {
        ingress,
        dropin,
        presented: &presented,
        head: &head,
        bounds,
        hold: hold.clone(),
        explains,
    };
    let (read, notes, files) = read.whole(incoming, log).await?;
    if explains {
        if let Ok(call) = &read {
            dropin.caller(ingress, presented, call, log)?;
        }
        let told = explain::call(&dropin.config, &read, &notes, ingress.sealer.marks());
        return Ok(Answered {
            outcome: Outcome::Shown,
            ..answered(None, told.to_string())
        });
    }
    let mut call = read?;
    // The body is gone, and the call that it became stands here twice: as it was read, and as it is sent.
    hold.grow(2 * log.body_bytes.min(bounds.size))?;
    call.id = presented.chosen_id(&ingress.ids, &call);
    let mut caller = dropin.caller(ingress, presented, &call, log)?;
    let once = match key {
        Some(_) if !call.asynchronous && wants_events(&head.headers) => {
            return Err(Refusal::Malformed(
                "a stream has no Idempotency-Key: it cannot be told twice".into(),
            ));
        }
        Some(key) => {
            // What is kept is kept for a key that the upstream knows.
            dropin
                .prove(ingress, &mut caller, &call.agent_id, log.peer.0)
                .await?;
            Some(Once::new(&key, &caller, &call.agent_id, &ingress.ids))
        }
        None => None,
    };
    let calling = Calling {
        ingress,
        dropin,
        call: &call,
        caller,
        once,
        peer: log.peer.0,
    };
    if call.asynchronous {
        let kept = match calling.caller.standing {
            KeyStanding::Unproved => {
                calling.start(files).await?;
                None
            }
            KeyStanding::Own | KeyStanding::Foreign => {
                Some(calling.durable(files, log, false).await?)
            }
        };
        return Ok(answered(
            kept.as_ref(),
            r#"{"status":"Started"}"#.to_owned(),
        ));
    }
    if calling.once.is_some() {
        ingress.may_run()?;
        let end = calling.durable(files, log, true).await?;
        return whole(&call, Some(&end), end.task.clone().unwrap_or_default());
    }
    ingress.may_run()?;
    if wants_events(&head.headers) {
        return calling.events(files).await;
    }
    let (kept, task) = match call.params.get(Name::TaskId) {
        // A turn of a conversation waits for the one before it, whichever door that came by.
        Some(thread) => calling.in_turn(thread, files, log).await?,
        None => (None, calling.run(files).await?),
    };
    whole(&call, kept.as_ref(), task)
}

/// The answer to a call that has come to its end.
fn whole(call: &HostedCall, kept: Option<&DurableEnd>, task: Bytes) -> Result<Answered, Refusal> {
    if !is_task(&task) {
        return Err(Refusal::UpstreamFailed(
            "the answer is no JSON object".into(),
        ));
    }
    Ok(answered(kept, shaped(call, &task)))
}

/// The task as the caller wants to see it. A `getter` that is no path leads nowhere.
fn shaped(call: &HostedCall, task: &[u8]) -> Bytes {
    match call.getter.as_deref().map(Getter::parse) {
        Some(Err(_)) => Bytes::from_static(b"null"),
        Some(Ok(getter)) => shape(task, Some(&getter), call.json).into(),
        None => shape(task, None, call.json).into(),
    }
}

/// What the head shows: limits, method, key, size. The key is looked at before the body is touched.
fn admit<'d>(
    ingress: &Ingress,
    dropin: &'d Dropin,
    head: &Parts,
    log: &mut RequestLog,
) -> Result<(Presented<'d>, BodyLimits, LoadPermit), Refusal> {
    ingress.judge_head(head)?;
    // A call whose key nobody knows waits for no disk.
    let slot = ingress.load.enter_beside(Rank::Retrying, log.peer.0)?;
    ingress.limits.caller(log.peer.0, &mut log.limits)?;
    if head.method != Method::POST {
        return Err(Refusal::Method("POST"));
    }
    let presented = dropin.presented(ingress, head, log)?;
    match &presented {
        Presented::Own(_) => {
            ingress.limits.whole(true)?;
            ingress.limits.dropin_own(&mut log.limits)?;
        }
        Presented::Foreign(key) => ingress.limits.whole(dropin.known.is_known(key.expose()))?,
    }
    let uploads = if is_form(&head.headers) {
        upload::intake_at_door(ingress)
    } else {
        None
    };
    let bounds = match uploads {
        Some(intake) => {
            let bounds = upload::bounds(ingress, intake);
            let own = match &presented {
                Presented::Own(own) => own.max_upload,
                Presented::Foreign(_) => None,
            };
            BodyLimits {
                size: own.map_or(bounds.size, |own| own.min(bounds.size)),
                ..bounds
            }
        }
        None => BodyLimits {
            size: dropin.config.max_body.unwrap_or(ingress.bounds.size),
            ..ingress.bounds
        },
    };
    body::judge_head(&head.headers, bounds)?;
    Ok((presented, bounds, slot))
}

/// Whether a body is a form in parts.
fn is_form(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .is_some_and(form::is_multipart)
}

/// A request that is read.
struct CallReading<'r> {
    ingress: &'r Ingress,
    dropin: &'r Dropin,
    presented: &'r Presented<'r>,
    head: &'r Parts,
    bounds: BodyLimits,
    hold: Arc<MemoryPermit>,
    /// Whether its caller asks what it would become.
    explains: bool,
}

/// A request as a call, what it looked for in vain where that is asked for, and the files that came with it.
type ReadCall = (Result<HostedCall, Refusal>, Vec<PathMiss>, Placed);

impl CallReading<'_> {
    /// Reads the request.
    async fn whole(&self, incoming: Body, log: &mut RequestLog) -> Result<ReadCall, Refusal> {
        let Self {
            ingress,
            head,
            bounds,
            hold,
            ..
        } = self;
        let content_type = head
            .headers
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .unwrap_or_default();
        let call = |body, files| {
            let asked = reading::CallRequest {
                path_agent: head.uri.path().strip_prefix('/').unwrap_or_default(),
                query: head.uri.query().unwrap_or_default(),
                content_type,
                body,
            };
            let (read, notes) = if self.explains {
                reading::explain(&asked)
            } else {
                (reading::read(&asked), Vec::new())
            };
            Ok((read, notes, files))
        };
        if is_form(&head.headers) {
            let gate = self.dropin.gate(self.presented, head, log.peer.0);
            let bounds = (*bounds, hold.clone());
            let (parts, files) =
                upload::at_door(ingress, head, incoming, bounds, gate.as_ref(), log).await?;
            log.has_body = true;
            return call(reading::CallBody::Parts(&parts), files);
        }
        let bytes = body::read(incoming, *bounds, hold).await?;
        log.body_bytes = bytes.len() as u64;
        log.has_body = true;
        call(reading::CallBody::Whole(&bytes), Placed::none())
    }
}

fn answered(kept: Option<&DurableEnd>, json: impl Into<Body>) -> Answered {
    let mut answer = Response::new(json.into());
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(id) = kept.and_then(|kept| HeaderValue::try_from(kept.event.to_string()).ok()) {
        answer.headers_mut().insert(receive::EVENT_ID, id);
    }
    let outcome = kept.map_or(Outcome::Proxied, |kept| kept.outcome);
    if outcome == Outcome::Duplicate {
        answer
            .headers_mut()
            .insert(once::REPLAYED, HeaderValue::from_static("true"));
    }
    Answered {
        outcome,
        event: kept.map(|kept| (kept.event, None)),
        answer,
    }
}

/// Whether a caller asks for a stream of events.
fn wants_events(headers: &HeaderMap) -> bool {
    let lines = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|kind| {
        kind.split(';')
            .next()
            .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))
    })
}

fn is_reserved(path: &str) -> bool {
    let segment = path.strip_prefix('/').unwrap_or(path);
    let segment = percent_encoding::percent_decode_str(segment)
        .decode_utf8_lossy()
        .to_ascii_lowercase();
    segment.starts_with(['.', '/', '\\'])
        || RESERVED.contains(&segment.trim_end_matches(['/', ' ']))
}

/// A request that is counted and logged even when its caller leaves before it is answered.
struct Watched<'a> {
    ingress: &'a Ingress,
    log: Option<RequestLog>,
}

impl Watched<'_> {
    fn finish(mut self, ended: Result<Answered, Refusal>) -> Response<Body> {
        match self.log.take() {
            Some(log) => {
                request_log::finish(self.ingress, &log, ended.map_err(RefusedAnswer::at_dropin))
            }
            None => Response::default(),
        }
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        if let Some(log) = self.log.take() {
            let refusal = if log.has_body {
                Refusal::Left
            } else {
                Refusal::Aborted
            };
            request_log::finish(self.ingress, &log, Err(RefusedAnswer::at_dropin(refusal)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::post(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn t96_what_looks_like_the_gateways_own_is_no_agent() {
        for path in [
            "/hooks",
            "/metrics",
            "/Metrics",
            "/%6detrics",
            "/api",
            "/.env",
            "/..",
            "/health",
            "/metrics%2f",
        ] {
            assert!(is_reserved(path), "{path}");
        }
        for path in [
            "/",
            "/47c3b020-9a6b-4699-8d94-d92d71929b53",
            "/healthy-agent",
        ] {
            assert!(!is_reserved(path), "{path}");
        }
    }

    #[test]
    fn a_stream_is_asked_for_by_name() {
        for (accept, wanted) in [
            ("text/event-stream", true),
            ("application/json, Text/Event-Stream;q=0.9", true),
            ("*/*", false),
            ("text/*", false),
        ] {
            assert_eq!(
                wants_events(&head("/", &[("accept", accept)]).headers),
                wanted,
                "{accept}"
            );
        }
    }
}
