//! The prefixes that are passed through to an upstream.
//!
//! What is promised: method, path, query, body and answer stay as they are, byte for byte, and flow both ways as they
//! come, nothing kept whole. What concerns one connection only, or claims where a request came from, is taken out
//! (`header`). A gateway key never goes upstream, wherever in the head it stands, unless `exchange_keys` is off; every
//! other key does, unless `require_key` is on. What a gateway key with a list opens is on that list (`allow`), and a run
//! that such a key begins has a name of its own (`run`): that body is read whole and gets an `id`. A call that begins a
//! run at the upstream of the gateway's own waits for its turn within `upstream.budget`, and is refused while every run is
//! paused. An answer that the upstream does not finish is not finished here either. Whoever leaves takes the call upstream
//! along. Every request ends in one log line and one counted outcome.

mod allow;
mod header;
mod key;
mod run;
mod stream;
mod target;

use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{ALLOW, AUTHORIZATION, CONTENT_LENGTH, MAX_FORWARDS, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use tower::Service;

use super::load_shed::{LoadPermit, Rank};
use super::memory_limit::MemoryPermit;
use super::receive::misframed;
use super::request_log::{REQUEST_ID, RefusedAnswer, RequestLog, finish};
use super::{BodyLimits, Ingress, body};
use crate::config::door::is_same_server;
use crate::config::{self, Config, ProxyConfig, Secret};
use crate::model::{Account, Class, Outcome, Refusal};
use crate::net::{self, Client, SendError};
use crate::source::Keyring;
use crate::upstream::Draw;

use key::KeyVerdict;
use stream::{BodyFault, BodyProgress, Downward, Upward};

/// Methods that a prefix takes, for those that it does not take.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// What is passed through, and with what.
#[derive(Debug)]
pub struct Proxies {
    /// The longest prefix first.
    all: Vec<Arc<Proxy>>,
    keyring: Keyring,
    client: Client,
}

/// One prefix.
#[derive(Debug)]
struct Proxy {
    config: ProxyConfig,
    /// What counters and logs call it.
    label: String,
    scheme: Scheme,
    authority: Authority,
    /// What a gateway key is exchanged for here, where the prefix or the upstream's own settings say.
    key_here: Option<HeaderValue>,
    /// Whether that is the prefix's own.
    has_own_key: bool,
    /// What the server gets as `Authorization`, where its address has a name in it.
    login: Option<HeaderValue>,
    /// Whether it leads to the server of `upstream.base_url`.
    is_home: bool,
}

impl Proxies {
    /// The prefixes of a configuration.
    pub fn new(config: &Config, client: Client) -> Self {
        let proxies = config
            .proxies
            .iter()
            .filter_map(|proxy| Proxy::new(proxy, &config.upstream));
        let mut all: Vec<_> = proxies.map(Arc::new).collect();
        all.sort_by_key(|proxy| std::cmp::Reverse(proxy.config.prefix.len()));
        Self {
            all,
            keyring: Keyring::new(config),
            client,
        }
    }

    /// The one that a path belongs to.
    fn find(&self, path: &str) -> Option<&Arc<Proxy>> {
        self.all
            .iter()
            .find(|proxy| target::below(&proxy.config.prefix, path).is_some())
    }
}

impl Proxy {
    /// None for an address without a host, which the configuration does not let through.
    fn new(config: &ProxyConfig, upstream: &config::UpstreamConfig) -> Option<Self> {
        // The operator's key is for the operator's API and for nobody else.
        let is_home = is_same_server(&config.upstream, &upstream.base_url);
        let of_upstream = upstream.api_key.as_ref().filter(|_| is_home);
        let key_here = config.upstream_key.as_ref().or(of_upstream);
        Some(Self {
            key_here: key_here.and_then(Secret::as_header),
            has_own_key: config.upstream_key.is_some(),
            is_home,
            login: config.login.as_ref().and_then(Secret::as_header),
            label: config.label(),
            scheme: config.upstream.scheme()?.clone(),
            authority: config.upstream.authority()?.clone(),
            config: config.clone(),
        })
    }
}

/// The public listener whole: prefixes that are passed through before the routes, since routing would touch them.
#[derive(Clone, Debug)]
pub struct Front {
    router: Router,
    ingress: Arc<Ingress>,
}

impl Front {
    pub(super) const fn new(router: Router, ingress: Arc<Ingress>) -> Self {
        Self { router, ingress }
    }
}

impl Service<Request<Incoming>> for Front {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Neither side ever waits to be ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        if let Some(fault) = request.extensions().get::<net::HeadFault>().copied() {
            let answer = misframed(&self.ingress, fault, &request);
            return Box::pin(std::future::ready(Ok(answer)));
        }
        match self.ingress.proxies.find(request.uri().path()) {
            Some(proxy) => Box::pin(through(self.ingress.clone(), proxy.clone(), request).map(Ok)),
            None => Box::pin(self.router.call(request)),
        }
    }
}

/// A request below a prefix.
async fn through(
    ingress: Arc<Ingress>,
    proxy: Arc<Proxy>,
    request: Request<Incoming>,
) -> Response<Body> {
    let mut passage = Passage::new(ingress, &proxy, &request);
    // A bug that one request finds is that request's alone.
    let ended = AssertUnwindSafe(pass(&mut passage, &proxy, request))
        .catch_unwind()
        .await;
    match ended.unwrap_or_else(|_| Err(Refusal::Internal("a bug: the handler panicked".to_owned())))
    {
        Ok(ProxyAnswer::On(answer)) => passage.on(&proxy, answer),
        Ok(ProxyAnswer::Here) => passage.here(),
        Err(refusal) => passage.refuse(refusal),
    }
}

/// What became of a request below a prefix.
enum ProxyAnswer {
    /// The upstream has begun its answer.
    On(Response<Incoming>),
    /// It asks about the gateway itself.
    Here,
}

/// The way of a request to the head of its answer.
async fn pass(
    passage: &mut Passage,
    proxy: &Proxy,
    request: Request<Incoming>,
) -> Result<ProxyAnswer, Refusal> {
    let (mut head, incoming) = request.into_parts();
    let admitted = passage
        .ingress
        .judge_head(&head)
        .and_then(|()| admit(passage, proxy, &head));
    // What is refused here leaves its body unread: the connection ends behind the answer.
    let (uri, judged) = admitted?;
    if head.method == Method::OPTIONS
        && let Some(left) = header::max_forwards(&head.headers)
    {
        // The last one that may be asked answers for itself (RFC 9110, 7.6.2).
        let Some(left) = left.checked_sub(1) else {
            return Ok(ProxyAnswer::Here);
        };
        head.headers.insert(MAX_FORWARDS, left.into());
    }
    if judged.begins_run && proxy.is_home {
        may_begin(&passage.ingress, judged.name.as_deref()).await?;
    }
    let stall = passage.ingress.bounds.stall;
    // What is held of a body is held until the upstream has begun its answer.
    let hold = passage.ingress.held.hold(passage.log.peer.0);
    let body = match passage.key.clone().filter(|_| judged.begins_own_run) {
        Some(name) => {
            let body = begun(passage, proxy, &name, &mut head, (incoming, &hold)).await?;
            Either::Right(Full::new(body))
        }
        None => Either::Left(Upward::new(
            incoming,
            passage.tally.clone(),
            proxy.config.max_body,
            stall,
        )),
    };
    let (given, authorization) = (
        std::mem::take(&mut head.headers),
        proxy.config.forward_authorization,
    );
    let mut headers = header::upward(given, head.version, authorization, judged.upstream_key);
    if let Some(login) = &proxy.login {
        headers.insert(AUTHORIZATION, login.clone());
    }
    passage.ingress.mark.put_on(&mut headers, &uri);
    header::pass_via(&mut headers, head.version, passage.ingress.mark.of(&uri));
    let mut request = Request::new(body);
    (
        *request.method_mut(),
        *request.uri_mut(),
        *request.headers_mut(),
    ) = (head.method, uri, headers);
    let ingress = passage.ingress.clone();
    let answer = ingress.proxies.client.relay(request);
    let mut answer = wait(answer, &passage.tally, proxy.config.timeout).await?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        // Nobody asked for it: `Upgrade` is not passed on (RFC 9110, 7.8).
        return Err(Refusal::UpstreamFailed(
            "it changes to another protocol, which was not asked for".to_owned(),
        ));
    }
    let received = std::mem::replace(answer.version_mut(), Version::HTTP_11);
    header::downward(answer.headers_mut(), received);
    Ok(ProxyAnswer::On(answer))
}

/// Waits for the turn of a call that begins a run, where one may begin.
async fn may_begin(ingress: &Ingress, key: Option<&str>) -> Result<(), Refusal> {
    ingress.may_run()?;
    let account = key.map_or(Account::Foreign, |name| Account::Key(name.to_owned()));
    let upstream = ingress.upstream.of(Draw {
        account,
        class: Class::Interactive,
        claimed: false,
    });
    ingress.has_turn(&upstream)?;
    upstream.wait_for_permit().await;
    Ok(())
}

/// The body of a call that begins a run of a key's own, read whole, with the run's name in it.
async fn begun(
    passage: &Passage,
    proxy: &Proxy,
    key: &str,
    head: &mut Parts,
    (incoming, hold): (Incoming, &MemoryPermit),
) -> Result<Bytes, Refusal> {
    let bounds = passage.ingress.bounds;
    let bounds = BodyLimits {
        size: proxy.config.max_body.unwrap_or(bounds.size),
        ..bounds
    };
    body::judge_head(&head.headers, bounds)?;
    let given = body::read(Body::new(incoming), bounds, hold).await?;
    // It is there twice when the name is put in.
    hold.grow(2 * given.len() as u64)?;
    passage.tally.moved(given.len() as u64);
    passage.tally.end();
    let body = run::named(&passage.ingress.ids, key, given)?;
    head.headers.remove(TRANSFER_ENCODING);
    head.headers.insert(CONTENT_LENGTH, body.len().into());
    Ok(body)
}

/// The limits, the method, the length, the path and the key: all of it before the body is touched, since touching it
/// tells the caller to go on (`100-continue`). Gives where the request goes, and who makes it.
fn admit(passage: &mut Passage, proxy: &Proxy, head: &Parts) -> Result<(Uri, KeyVerdict), Refusal> {
    let ingress = &passage.ingress;
    passage.slot = Some(
        ingress
            .load
            .enter_beside(Rank::Retrying, passage.log.peer.0)?,
    );
    ingress
        .limits
        .caller(passage.log.peer.0, &mut passage.log.limits)?;
    if matches!(head.method, Method::CONNECT | Method::TRACE) {
        return Err(Refusal::Method(METHODS));
    }
    if let (Some(limit), Some(length)) = (proxy.config.max_body, said_length(&head.headers))
        && length > limit
    {
        return Err(Refusal::TooLarge(limit));
    }
    let keyring = &ingress.proxies.keyring;
    if key::is_in_text(keyring, head.uri.path()) {
        // Nor is it logged.
        passage.log.path = format!("{}/…", *proxy.config.prefix);
        return Err(key::misplaced());
    }
    let target = target::target(&proxy.config, &head.uri)?;
    let asked = key::KeyedRequest {
        proxy,
        head,
        path_upstream: target.path(),
        now: passage.log.at,
    };
    let limits = (&*ingress.limits, &mut passage.log.limits);
    let judged = key::judge(keyring, &ingress.ids, limits, &asked)?;
    ingress.limits.whole(judged.name.is_some())?;
    ingress
        .limits
        .proxied(&proxy.label, judged.name.is_some(), &mut passage.log.limits)?;
    passage.key.clone_from(&judged.name);
    passage.log.key.clone_from(&judged.name);
    if let (Some(name), Some(presented)) = (&judged.name, &judged.presented) {
        ingress.uses.key(name, presented, passage.log.at);
    }
    let uri = Uri::builder()
        .scheme(proxy.scheme.clone())
        .authority(proxy.authority.clone())
        .path_and_query(target);
    Ok((
        uri.build()
            .map_err(|error| Refusal::Internal(error.to_string()))?,
        judged,
    ))
}

fn said_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Waits for the head of the answer: `timeout` from the last piece of the body that went up.
async fn wait(
    answer: impl Future<Output = Result<Response<Incoming>, SendError>>,
    tally: &BodyProgress,
    timeout: Duration,
) -> Result<Response<Incoming>, Refusal> {
    let mut answer = pin!(answer);
    loop {
        let last = tally.last();
        match tokio::time::timeout_at(last + timeout, answer.as_mut()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => {
                return Err(match tally.fault() {
                    Some(BodyFault::TooLarge(limit)) => Refusal::TooLarge(limit),
                    Some(BodyFault::Slow) => Refusal::SlowBody,
                    Some(BodyFault::Broken) => Refusal::Aborted,
                    None => Refusal::UpstreamFailed(error.to_string()),
                });
            }
            Err(_) if tally.last() > last => {}
            Err(_) => {
                return Err(Refusal::UpstreamSilent(format!(
                    "no answer was begun within {} ms",
                    timeout.as_millis()
                )));
            }
        }
    }
}

/// One request on its way, until the last byte of its answer has gone or somebody has left. Being dropped is its end:
/// then it is logged and counted.
struct Passage {
    ingress: Arc<Ingress>,
    log: RequestLog,
    /// The name of the gateway key that was presented.
    key: Option<String>,
    tally: Arc<BodyProgress>,
    ended: PassageState,
    /// Its place among the requests in work.
    slot: Option<LoadPermit>,
}

/// How far a passage has come.
enum PassageState {
    /// No answer yet.
    Waiting,
    /// Refused, and counted.
    Refused,
    /// An answer is on its way down.
    Answered {
        status: u16,
        first: Duration,
        bytes: u64,
        end: &'static str,
    },
}

impl Passage {
    fn new(ingress: Arc<Ingress>, proxy: &Proxy, request: &Request<Incoming>) -> Self {
        let mut log = RequestLog::new(&ingress, request);
        log.source = Some(proxy.label.clone());
        let tally = Arc::new(BodyProgress::new(log.begun));
        Self {
            ingress,
            log,
            key: None,
            tally,
            ended: PassageState::Waiting,
            slot: None,
        }
    }

    /// The answer, on its way down.
    fn on(mut self, proxy: &Proxy, answer: Response<Incoming>) -> Response<Body> {
        let (mut head, incoming) = answer.into_parts();
        self.ended = PassageState::Answered {
            status: head.status.as_u16(),
            first: self.log.begun.elapsed(),
            bytes: 0,
            end: "caller left",
        };
        if let Ok(id) = HeaderValue::try_from(self.log.id.to_string()) {
            head.headers.insert(REQUEST_ID, id);
        }
        let to_head = self.log.method == "HEAD";
        let body = Downward::new(
            incoming,
            self,
            &head.headers,
            to_head,
            proxy.config.heartbeat,
        );
        Response::from_parts(head, Body::new(body))
    }

    /// What the gateway says of itself to whoever asks it and nobody behind it.
    fn here(mut self) -> Response<Body> {
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::NO_CONTENT;
        answer
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static(METHODS));
        if let Ok(id) = HeaderValue::try_from(self.log.id.to_string()) {
            answer.headers_mut().insert(REQUEST_ID, id);
        }
        let (status, first) = (answer.status().as_u16(), self.log.begun.elapsed());
        self.ended = PassageState::Answered {
            status,
            first,
            bytes: 0,
            end: "whole",
        };
        answer
    }

    fn refuse(mut self, refusal: Refusal) -> Response<Body> {
        self.ended = PassageState::Refused;
        self.log.body_bytes = self.tally.bytes();
        finish(
            &self.ingress,
            &self.log,
            Err(RefusedAnswer::at_source(refusal, &self.log)),
        )
    }

    /// Bytes of the answer have gone down.
    const fn moved(&mut self, count: u64) {
        if let PassageState::Answered { bytes, .. } = &mut self.ended {
            *bytes += count;
        }
    }

    /// The answer has come to an end, in this way.
    const fn end(&mut self, how: &'static str) {
        if let PassageState::Answered { end, .. } = &mut self.ended {
            *end = how;
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        match self.ended {
            PassageState::Refused => {}
            // The handler is dropped only when the caller's connection is.
            PassageState::Waiting => {
                self.log.body_bytes = self.tally.bytes();
                let refusal = if self.tally.is_whole() {
                    Refusal::Left
                } else {
                    Refusal::Aborted
                };
                drop(finish(
                    &self.ingress,
                    &self.log,
                    Err(RefusedAnswer::at_source(refusal, &self.log)),
                ));
            }
            PassageState::Answered {
                status,
                first,
                bytes,
                end,
            } => {
                let source = self.log.source.as_deref().unwrap_or("");
                let took = self.log.begun.elapsed();
                self.ingress
                    .intake
                    .metrics
                    .request(source, Outcome::Proxied, took);
                if let Some(key) = &self.key {
                    self.ingress
                        .intake
                        .metrics
                        .key_request(key, Outcome::Proxied);
                }
                let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
                tracing::info!(
                    request = %self.log.id,
                    source,
                    key = self.key,
                    peer = %self.log.peer.0,
                    method = self.log.method,
                    path = self.log.path,
                    outcome = Outcome::Proxied.as_str(),
                    status,
                    end,
                    bytes_up = self.tally.bytes(),
                    bytes_down = bytes,
                    first_us = micros(first),
                    took_us = micros(took),
                    "request"
                );
            }
        }
    }
}
