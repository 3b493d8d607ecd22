//! The drop-in door: `POST /` and `POST /{agent_id}`, answered as the platform's hosted webhook answers.
//!
//! The caller brings an API key: one of the gateway's own is exchanged for the upstream's, any other goes upstream as it
//! is and is judged there. A call that waits for its answer passes straight through; one that does not, or that
//! continues a conversation, is a delivery like any other. No key is logged, wherever it stood.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Limited};
use tokio::time::Instant;

use super::load::{Rank, Slot};
use super::trace::{self, Answered, Refused, Trace};
use super::upload::{self, Placed};
use super::{Bounds, Ingress, body, form, receive, respond, stream};
use crate::config::{Config, DropIn, RunMode, Secret};
use crate::inbox::Counted;
use crate::limit::Told;
use crate::mapping::hosted as reading;
use crate::mapping::shape::{Getter, is_task, shape};
use crate::model::{
    Account, Attachment, Class, DeliveryId, Destination, DestinationKind, EventId, HostedCall, Name, NewDelivery,
    NewEvent, Outcome, Refusal, Route, State as DeliveryState, Strength, UpstreamIds,
};
use crate::net::SendError;
use crate::source::Keyring;
use crate::upstream::hosted::{self, Manner};
use crate::upstream::request::with_files;
use crate::upstream::{Call, Upstream};

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

/// How much of an error on a stream's call is read, and for how long.
const MAX_ERROR: usize = 64 * 1024;
const ERROR_TIME: Duration = Duration::from_secs(10);

/// What the drop-in door has of its own.
#[derive(Debug)]
pub struct Dropin {
    config: DropIn,
    keyring: Keyring,
    upstream: Upstream,
    /// What a gateway key stands for where its table does not say.
    upstream_key: Option<Secret>,
}

/// Who calls.
struct Caller {
    /// The key that goes upstream.
    key: Secret,
    account: Account,
}

/// What became of a call that went by way of the inbox.
struct DurableEnd {
    /// The event that was kept.
    event: EventId,
    /// The finished task; none for a caller that does not wait.
    task: Option<Bytes>,
}

impl Dropin {
    /// The door of a configuration; none where it is shut.
    pub fn new(config: &Config, upstream: Upstream) -> Option<Self> {
        config.dropin.enabled.then(|| Self {
            config: config.dropin.clone(),
            keyring: Keyring::new(config),
            upstream,
            upstream_key: config.upstream.api_key.clone(),
        })
    }

    /// The key that goes upstream for the one a caller presents.
    fn exchange(&self, ingress: &Ingress, presented: &[u8], agent: &str, told: &mut Told) -> Result<Caller, Refusal> {
        let Some(own) = self.keyring.find(presented) else {
            if HeaderValue::from_bytes(presented).is_err() {
                return Err(Refusal::KeyRefused("the key cannot stand in a header".into()));
            }
            return Ok(Caller { key: Secret::new("the caller's key", presented), account: Account::Foreign });
        };
        if !own.agents.is_empty() && !own.agents.iter().any(|good| good == agent) {
            return Err(Refusal::KeyRefused(format!("the key {} is not good for this agent", own.name)));
        }
        ingress.limits.key(&own.name, told)?;
        let key = own.upstream_key.as_ref().or(self.upstream_key.as_ref()).cloned().ok_or_else(|| {
            Refusal::Internal(format!("keys.{} has no upstream_key, and there is no upstream.api_key", own.name))
        })?;
        Ok(Caller { key, account: Account::Key(own.name.clone()) })
    }
}

impl Dropin {
    /// The upstream's name for a run that the caller with a gateway key begins or goes on with: of the key alone, so
    /// that nobody gets into a conversation of others by its name. None where the key's table or the key says otherwise.
    fn chosen_id(&self, ids: &UpstreamIds, presented: &[u8], call: &HostedCall) -> Option<String> {
        let own = self.keyring.find(presented).filter(|own| own.isolate)?;
        Some(match call.params.get(Name::TaskId) {
            Some(task) => ids.of_key(&own.name, task),
            None => ids.new_of_key(&own.name),
        })
    }
}

/// A request at `/` or `/{agent_id}`.
pub(super) async fn at_door(State(ingress): State<Arc<Ingress>>, request: Request<Body>) -> Response<Body> {
    let Some(dropin) = ingress.dropin.as_ref().filter(|_| !is_reserved(request.uri().path())) else {
        return receive::elsewhere(State(ingress), request).await;
    };
    let mut trace = Trace::new(&ingress, &request);
    trace.source = Some(NAME.to_owned());
    // Callers give up on long runs; what became of their requests is told all the same.
    let mut watched = Watched { ingress: &ingress, trace: Some(trace) };
    let Some(trace) = watched.trace.as_mut() else { return Response::default() };
    let ended = AssertUnwindSafe(answer(&ingress, dropin, request, trace)).catch_unwind().await;
    let ended = ended.unwrap_or_else(|_| Err(Refusal::Internal("a bug: the handler panicked".to_owned())));
    watched.finish(ended)
}

/// The way of a call, from its head to its answer.
async fn answer(
    ingress: &Ingress,
    dropin: &Dropin,
    request: Request<Body>,
    trace: &mut Trace,
) -> Result<Answered, Refusal> {
    let (head, incoming) = request.into_parts();
    let (presented, bounds, _slot) = admit(ingress, dropin, &head, trace)?;
    let (mut call, files) = read(ingress, &head, incoming, bounds, trace).await?;
    call.id = dropin.chosen_id(&ingress.ids, &presented, &call);
    let caller = dropin.exchange(ingress, &presented, &call.agent_id, &mut trace.limits)?;
    if call.asynchronous {
        let end = durable(ingress, dropin, &call, files, caller, trace, false).await?;
        return Ok(answered(Some(end.event), r#"{"status":"Started"}"#.to_owned()));
    }
    ingress.may_run()?;
    if wants_events(&head.headers) {
        return events(ingress, dropin, &call, files, &caller).await;
    }
    let (event, task) = match call.params.get(Name::TaskId) {
        // A turn of a conversation waits for the one before it, whichever door that came by.
        Some(_) => {
            let end = durable(ingress, dropin, &call, files, caller, trace, true).await?;
            (Some(end.event), end.task.unwrap_or_default())
        }
        None => (None, run(ingress, dropin, &call, files, &caller).await?),
    };
    if !is_task(&task) {
        return Err(Refusal::UpstreamFailed("the answer is no JSON object".into()));
    }
    Ok(answered(event, shaped(&call, &task)))
}

/// The task as the caller wants to see it. A `getter` that is no path leads nowhere.
fn shaped(call: &HostedCall, task: &[u8]) -> Bytes {
    match call.getter.as_deref().map(Getter::parse) {
        Some(Err(_)) => Bytes::from_static(b"null"),
        Some(Ok(getter)) => shape(task, Some(&getter), call.json).into(),
        None => shape(task, None, call.json).into(),
    }
}

/// What the head shows: limits, method, key, size. The key is looked for before the body is touched.
fn admit(
    ingress: &Ingress,
    dropin: &Dropin,
    head: &Parts,
    trace: &mut Trace,
) -> Result<(Vec<u8>, Bounds, Slot), Refusal> {
    ingress.judge_head(head)?;
    let slot = ingress.load.enter(Rank::Retrying)?;
    ingress.limits.caller(trace.peer.0, &mut trace.limits)?;
    ingress.limits.dropin(&mut trace.limits)?;
    if head.method != Method::POST {
        return Err(Refusal::Method("POST"));
    }
    let presented = presented(head).ok_or(Refusal::NoKey)?;
    let uploads = if is_form(&head.headers) { upload::intake_at_door(ingress) } else { None };
    let bounds = match uploads {
        Some(intake) => upload::bounds(ingress, intake),
        None => Bounds { size: dropin.config.max_body.unwrap_or(ingress.bounds.size), ..ingress.bounds },
    };
    body::judge_head(&head.headers, bounds)?;
    Ok((presented, bounds, slot))
}

/// The key: the header's, or else the query's.
fn presented(head: &Parts) -> Option<Vec<u8>> {
    const KEY: &str = "x-api-key";
    let header = head.headers.get(KEY).map(|value| value.as_bytes().to_vec()).filter(|key| !key.is_empty());
    header.or_else(|| {
        let query = head.uri.query().unwrap_or_default().as_bytes();
        let found = form_urlencoded::parse(query).filter(|(name, value)| name == KEY && !value.is_empty()).last();
        found.map(|(_, value)| value.into_owned().into_bytes())
    })
}

/// Whether a body is a form in parts.
fn is_form(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).is_some_and(form::is_multipart)
}

/// The request as a call, and the files that came with it.
async fn read(
    ingress: &Ingress,
    head: &Parts,
    incoming: Body,
    bounds: Bounds,
    trace: &mut Trace,
) -> Result<(HostedCall, Placed), Refusal> {
    let content_type = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let call = |body| {
        reading::read(&reading::Asked {
            path_agent: head.uri.path().strip_prefix('/').unwrap_or_default(),
            query: head.uri.query().unwrap_or_default(),
            content_type,
            body,
        })
    };
    if is_form(&head.headers) {
        let (parts, files) = upload::at_door(ingress, head, incoming, bounds, trace).await?;
        return Ok((call(reading::Body::Parts(&parts))?, files));
    }
    let bytes = body::read(incoming, bounds).await?;
    trace.body_bytes = bytes.len() as u64;
    Ok((call(reading::Body::Whole(&bytes))?, Placed::none()))
}

/// What a call that is passed on at once begins with.
struct Begun {
    files: Vec<Attachment>,
    links: Vec<String>,
    counted: Counted,
}

/// Counts the run and makes its files ready.
async fn begin(ingress: &Ingress, caller: &Caller, call: &HostedCall, files: Placed) -> Result<Begun, Refusal> {
    let destination = Destination { kind: DestinationKind::Agent, id: call.agent_id.clone() };
    let route =
        Route { source: NAME.to_owned(), destination, account: caller.account.clone(), class: Class::Interactive };
    let counted = ingress.spend(&route, &call.params).await?;
    let files = files.into_files();
    match upload::passed_on(ingress, NAME, &files).await {
        Ok(links) => Ok(Begun { files, links, counted }),
        Err(refusal) => {
            counted.give_back(&*ingress.inbox).await;
            Err(refusal)
        }
    }
}

/// The call surely reached nobody, or was refused.
async fn undo(ingress: &Ingress, files: &[Attachment], counted: Counted) {
    upload::take_back(ingress, files).await;
    counted.give_back(&*ingress.inbox).await;
}

/// Calls the upstream and waits for the whole of its answer.
async fn run(
    ingress: &Ingress,
    dropin: &Dropin,
    call: &HostedCall,
    files: Placed,
    caller: &Caller,
) -> Result<Bytes, Refusal> {
    let begun = Instant::now();
    let Begun { files, links, counted } = begin(ingress, caller, call, files).await?;
    let (path, body) = (hosted::path(call, Manner::Wait), hosted::body(call, &dropin.config, None));
    match dropin.upstream.call_raw(&path, with_files(body, &links), &caller.key, None).await {
        Ok(answer) if answer.status().is_success() => Ok(answer.into_body()),
        Ok(answer) => {
            if answer.status().is_client_error() {
                undo(ingress, &files, counted).await;
            }
            Err(hosted::refusal(&answer, ingress.clock.now()))
        }
        Err(error) => {
            if matches!(error, SendError::NotSent(_)) {
                undo(ingress, &files, counted).await;
            }
            Err(unanswered(dropin, begun, &error))
        }
    }
}

/// A call that must not be lost, or must wait for its turn: a delivery like any other, which carries the caller's call,
/// sealed. `wait` waits for its end, within the time that a run may take.
async fn durable(
    ingress: &Ingress,
    dropin: &Dropin,
    call: &HostedCall,
    files: Placed,
    caller: Caller,
    trace: &Trace,
    wait: bool,
) -> Result<DurableEnd, Refusal> {
    let delivery = DeliveryId { event: EventId::new(), number: 0 };
    let owed = owed(ingress, dropin, call, caller, delivery, wait)?;
    let event = NewEvent {
        id: delivery.event,
        source: NAME.to_owned(),
        dedup: None,
        event_type: None,
        received_at: trace.at,
        strength: Strength::Token,
        secret: None,
        proof: None,
        filtered: None,
        thread: call.params.get(Name::TaskId).map(str::to_owned),
        params: call.params.clone(),
        // What is kept in clear has neither the key nor the user's tokens in it.
        request_line: format!("{} {}", trace.method, trace.path),
        headers: Vec::new(),
        body: call.extra.clone().unwrap_or_default().into(),
        attachments: files.into_files(),
        deliveries: vec![owed],
        most_ahead: (!dropin.config.waits_for_its_turn).then_some(0),
        backlog: None,
    };
    ingress.keep(event).await?;
    let task = if wait { Some(end(ingress, dropin, delivery).await?) } else { None };
    Ok(DurableEnd { event: delivery.event, task })
}

/// The delivery that a call is, with the upstream `id` chosen before it is made.
fn owed(
    ingress: &Ingress,
    dropin: &Dropin,
    call: &HostedCall,
    caller: Caller,
    delivery: DeliveryId,
    wait: bool,
) -> Result<NewDelivery, Refusal> {
    let destination = Destination { kind: DestinationKind::Agent, id: call.agent_id.clone() };
    let named = call.id.as_deref().or_else(|| call.params.get(Name::TaskId));
    let upstream_id = named.map_or_else(|| delivery.as_uuid().to_string(), str::to_owned);
    let (manner, run) = if wait { (Manner::Wait, RunMode::Call) } else { (Manner::Start, RunMode::Async) };
    let text = hosted::text(call, &dropin.config);
    let body = hosted::body(call, &dropin.config, Some(&upstream_id));
    let made = Call { path: hosted::path(call, manner), body, text, timeout: None, key: Some(caller.key), run };
    let sealed = made.to_sealed(&ingress.sealer, delivery.event);
    let sealed = sealed.map_err(|error| Refusal::Internal(format!("cannot seal the call: {error}")))?;
    let lane = destination.lane(&caller.account, &upstream_id);
    let class = if wait { Class::Interactive } else { Class::Normal };
    Ok(NewDelivery { lane, destination, upstream_id, account: caller.account, class, sealed: Some(sealed) })
}

/// The task that a delivery ends with, or what its caller must hear instead.
async fn end(ingress: &Ingress, dropin: &Dropin, delivery: DeliveryId) -> Result<Bytes, Refusal> {
    let mut stopping = ingress.stopping.clone();
    let ended = tokio::select! {
        ended = ingress.inbox.ended(delivery) => ended.map_err(|error| Refusal::Inbox(error.to_string()))?,
        () = tokio::time::sleep(dropin.upstream.run_timeout()) => {
            return Err(Refusal::UpstreamSilent("the run has not ended; it is followed all the same".into()));
        }
        _ = stopping.wait_for(|stop| *stop) => {
            return Err(Refusal::UpstreamSilent("the gateway stops; the run goes on".into()));
        }
    };
    let Some(ended) = ended else { return Err(Refusal::Internal("a delivery is gone".into())) };
    if ended.state == DeliveryState::Delivered {
        return Ok(respond::task(&ended));
    }
    let (status, detail) = ended.tries.last().map_or((None, ""), |attempt| (attempt.status, attempt.detail.as_str()));
    Err(match status {
        Some(401 | 403) => Refusal::KeyRefused(detail.to_owned()),
        Some(status @ 400..=499) => {
            Refusal::Upstream { status, detail: serde_json::Value::from(detail).to_string(), retry_after: None }
        }
        _ => Refusal::UpstreamFailed(format!("the delivery is {}: {detail}", ended.state.as_str())),
    })
}

/// Calls the upstream and passes on what it tells, as it comes.
async fn events(
    ingress: &Ingress,
    dropin: &Dropin,
    call: &HostedCall,
    files: Placed,
    caller: &Caller,
) -> Result<Answered, Refusal> {
    let begun = Instant::now();
    let Begun { files, links, counted } = begin(ingress, caller, call, files).await?;
    let (path, body) = (hosted::path(call, Manner::Stream), hosted::body(call, &dropin.config, None));
    let upstream = match dropin.upstream.open_raw(&path, with_files(body, &links), &caller.key).await {
        Ok(upstream) => upstream,
        Err(error) => {
            if matches!(error, SendError::NotSent(_)) {
                undo(ingress, &files, counted).await;
            }
            return Err(unanswered(dropin, begun, &error));
        }
    };
    if !upstream.status().is_success() {
        if upstream.status().is_client_error() {
            undo(ingress, &files, counted).await;
        }
        let (head, body) = upstream.into_parts();
        let body = tokio::time::timeout(ERROR_TIME, Limited::new(body, MAX_ERROR).collect()).await;
        let body = body.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
        return Err(hosted::refusal(&Response::from_parts(head, body), ingress.clock.now()));
    }
    if !stream::is_events(upstream.headers()) {
        return Err(Refusal::UpstreamFailed("the answer is no stream of events".into()));
    }
    Ok(Answered { outcome: Outcome::Proxied, event: None, answer: stream::relay(upstream) })
}

fn unanswered(dropin: &Dropin, begun: Instant, error: &SendError) -> Refusal {
    let cause = error.to_string();
    match error {
        SendError::Ambiguous(_) if begun.elapsed() >= dropin.upstream.run_timeout() => Refusal::UpstreamSilent(cause),
        _ => Refusal::UpstreamFailed(cause),
    }
}

fn answered(event: Option<EventId>, json: impl Into<Body>) -> Answered {
    let mut answer = Response::new(json.into());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(id) = event.and_then(|id| HeaderValue::try_from(id.to_string()).ok()) {
        answer.headers_mut().insert(receive::EVENT_ID, id);
    }
    let outcome = if event.is_some() { Outcome::Accepted } else { Outcome::Proxied };
    Answered { outcome, event: event.map(|id| (id, None)), answer }
}

/// Whether a caller asks for a stream of events.
fn wants_events(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split(','))
        .any(|kind| kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream")))
}

fn is_reserved(path: &str) -> bool {
    let segment = path.strip_prefix('/').unwrap_or(path);
    let segment = percent_encoding::percent_decode_str(segment).decode_utf8_lossy().to_ascii_lowercase();
    segment.starts_with(['.', '/', '\\']) || RESERVED.contains(&segment.trim_end_matches(['/', ' ']))
}

/// A request that is counted and logged even when its caller leaves before it is answered.
struct Watched<'a> {
    ingress: &'a Ingress,
    trace: Option<Trace>,
}

impl Watched<'_> {
    fn finish(mut self, ended: Result<Answered, Refusal>) -> Response<Body> {
        match self.trace.take() {
            Some(trace) => trace::finish(self.ingress, &trace, ended.map_err(Refused::at_dropin)),
            None => Response::default(),
        }
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        if let Some(trace) = self.trace.take() {
            trace::finish(self.ingress, &trace, Err(Refused::at_dropin(Refusal::Aborted)));
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
    fn the_headers_key_goes_before_the_querys() {
        let key = |target: &str, headers: &[(&str, &str)]| {
            presented(&head(target, headers)).map(|key| String::from_utf8(key).unwrap())
        };
        assert_eq!(key("/?x-api-key=q", &[("x-api-key", "h")]).as_deref(), Some("h"));
        assert_eq!(key("/?x-api-key=a&x-api-key=q%2B1", &[]).as_deref(), Some("q+1"));
        assert_eq!(key("/?x-api-key=q", &[("x-api-key", "")]).as_deref(), Some("q"));
        assert_eq!(key("/?x-api-key=&key=1", &[("authorization", "Bearer k")]), None);
    }

    #[test]
    fn t96_what_looks_like_the_gateways_own_is_no_agent() {
        for path in ["/hooks", "/metrics", "/Metrics", "/%6detrics", "/api", "/.env", "/..", "/health", "/metrics%2f"] {
            assert!(is_reserved(path), "{path}");
        }
        for path in ["/", "/47c3b020-9a6b-4699-8d94-d92d71929b53", "/healthy-agent"] {
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
            assert_eq!(wants_events(&head("/", &[("accept", accept)]).headers), wanted, "{accept}");
        }
    }
}
