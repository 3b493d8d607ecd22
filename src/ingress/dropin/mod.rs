//! The drop-in door: `POST /` and `POST /{agent_id}`, answered as the platform's hosted webhook answers.
//!
//! The caller brings an API key: one of the gateway's own is exchanged for the upstream's, any other is sent upstream as
//! it is and judged there (`caller`, `known`). A call whose caller waits is sent upstream at once (`call`). A call whose
//! caller does not wait, or that continues a conversation, is a delivery like any other (`kept`), but only when its key is
//! proved; until then it is sent at once too. A call under an `Idempotency-Key` is always kept (`once`). Nothing is kept of
//! a call whose key is not proved. No key is logged, wherever it stood.

mod answer;
mod call;
mod caller;
mod disk;
pub mod explain;
mod kept;
mod known;
mod once;
mod reading;
mod reserved;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use http::request::Parts;
use http::{Method, Request, Response};

use super::door;
use super::door_kind::Door;
use super::load_shed::{LoadPermit, Rank};
use super::request_log::{Answered, RequestLog};
use super::staged::PlacedFiles;
use super::{BodyLimits, Ingress, body, elsewhere, upload};
use crate::config::{Config, DropIn, Secret};
use crate::model::{Name, Outcome, Refusal};
use crate::source::Keyring;
use crate::upstream::Upstream;

use call::Calling;
use caller::{KeyStanding, Presented};
use disk::DiskShare;
pub use known::ForeignKeys;
use once::Once;
use reading::{DropinReader, ReadCall};

/// Name of the door in logs and counters.
pub(super) const NAME: &str = "dropin";

/// The drop-in door.
#[derive(Debug)]
pub struct Dropin {
    config: DropIn,
    keyring: Keyring,
    /// True if only the gateway's own keys are taken.
    own_only: bool,
    upstream: Upstream,
    /// The upstream key that a gateway key is exchanged for where its table has none.
    upstream_key: Option<Secret>,
    /// Proof and refusals of all other keys.
    known: Arc<ForeignKeys>,
    /// The disk that its calls take.
    disk: DiskShare,
}

impl Dropin {
    /// The door of a configuration; absent where it is disabled.
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
    if ingress.dropin.is_none() || reserved::is_reserved(request.uri().path()) {
        return elsewhere::at_any_path(State(ingress), request).await;
    }
    door::serve(ingress, Door::DropIn, request, receive).await
}

/// The way of a call from its head to its answer.
async fn receive(
    ingress: &Ingress,
    request: (Parts, Body),
    log: &mut RequestLog,
) -> Result<Answered, Refusal> {
    let dropin = ingress.dropin.as_ref().ok_or(Refusal::NotFound)?;
    let ended = serve_call(ingress, dropin, request, log).await;
    if matches!(ended, Err(Refusal::NoKey)) {
        // A request without a key was perhaps sent to the wrong path.
        log.hint = elsewhere::hint(&ingress.intake.sources, log.path());
    }
    ended
}

async fn serve_call(
    ingress: &Ingress,
    dropin: &Dropin,
    (head, incoming): (Parts, Body),
    log: &mut RequestLog,
) -> Result<Answered, Refusal> {
    log.reads_body();
    let (presented, limits, _permit) = admit(ingress, dropin, &head, log)?;
    let once_key = once::key(&head.headers)?;
    let memory = ingress.memory.permit(log.peer.0);
    let explains = explain::is_asked(&head.headers);
    if explains && matches!(presented, Presented::Foreign(_)) {
        return Err(Refusal::KeyRefused(
            "x-sluicegate-explain is for keys of [keys]".into(),
        ));
    }
    let reader = DropinReader {
        ingress,
        dropin,
        presented: &presented,
        head: &head,
        limits,
        memory: &memory,
        explains,
    };
    let read = reader.read(incoming, log).await?;
    if explains {
        return explain_call(ingress, dropin, presented, &read, log);
    }
    let (mut call, files) = (read.call?, read.files);
    // The body is gone, and the call that it became is held twice: as it was read, and as it is sent.
    memory.grow(2 * log.body_bytes().min(limits.size))?;
    call.id = presented.chosen_id(&ingress.ids, &call);
    let mut caller = dropin.caller(ingress, presented, &call, log)?;
    let wants_events = answer::wants_events(&head.headers);
    let once = match once_key {
        Some(_) if !call.asynchronous && wants_events => {
            return Err(Refusal::Malformed(
                "a stream has no Idempotency-Key: it cannot be told twice".into(),
            ));
        }
        Some(key) => {
            // A call is kept only for a key that the upstream knows.
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
        start(calling, files, log).await
    } else {
        run(calling, files, wants_events, log).await
    }
}

/// Answers a caller that asks what its call would become.
fn explain_call(
    ingress: &Ingress,
    dropin: &Dropin,
    presented: Presented<'_>,
    read: &ReadCall,
    log: &mut RequestLog,
) -> Result<Answered, Refusal> {
    if let Ok(call) = &read.call {
        dropin.caller(ingress, presented, call, log)?;
    }
    let explained = explain::call(
        &dropin.config,
        &read.call,
        &read.misses,
        ingress.sealer.marks(),
    );
    Ok(Answered {
        outcome: Outcome::Shown,
        ..answer::json(None, explained.to_string())
    })
}

/// Starts the run of a call whose caller does not wait.
async fn start(
    calling: Calling<'_>,
    files: PlacedFiles,
    log: &RequestLog,
) -> Result<Answered, Refusal> {
    let kept = match calling.caller.standing {
        KeyStanding::Unproved => {
            calling.start(files).await?;
            None
        }
        KeyStanding::Own | KeyStanding::Foreign => Some(calling.durable(files, log, false).await?),
    };
    Ok(answer::json(
        kept.as_ref(),
        r#"{"status":"Started"}"#.to_owned(),
    ))
}

/// Makes the run of a call whose caller waits for its end, or for its events.
async fn run(
    calling: Calling<'_>,
    files: PlacedFiles,
    wants_events: bool,
    log: &RequestLog,
) -> Result<Answered, Refusal> {
    calling.ingress.runs.may_begin()?;
    let call = calling.call;
    if calling.once.is_some() {
        let end = calling.durable(files, log, true).await?;
        return answer::task(call, Some(&end), end.task.as_deref().unwrap_or_default());
    }
    if wants_events {
        return calling.events(files).await;
    }
    let (kept, task) = match call.params.get(Name::TaskId) {
        // A message of a conversation waits for the one before it, whichever door that came by.
        Some(thread) => calling.in_turn(thread, files, log).await?,
        None => (None, calling.run(files).await?),
    };
    answer::task(call, kept.as_ref(), &task)
}

/// Judges what the head shows: load, limits, method, key, length. The key is looked at before the body is touched.
fn admit<'d>(
    ingress: &Ingress,
    dropin: &'d Dropin,
    head: &Parts,
    log: &mut RequestLog,
) -> Result<(Presented<'d>, BodyLimits, LoadPermit), Refusal> {
    // A call with an unknown key does not wait for the disk.
    let permit = ingress.load.enter_beside(Rank::Retrying, log.peer.0)?;
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
    let uploads = reading::is_form(&head.headers) && upload::usable_files(ingress).is_ok();
    let limits = if uploads {
        let limits = upload::limits(ingress, &ingress.file_rules);
        let own = match &presented {
            Presented::Own(own) => own.max_upload,
            Presented::Foreign(_) => None,
        };
        BodyLimits {
            size: own.map_or(limits.size, |own| own.min(limits.size)),
            ..limits
        }
    } else {
        BodyLimits {
            size: dropin.config.max_body.unwrap_or(ingress.body_limits.size),
            ..ingress.body_limits
        }
    };
    body::judge_head(&head.headers, limits)?;
    Ok((presented, limits, permit))
}
