//! The prefixes that are passed through to an upstream.
//!
//! Promises: method, path, query, body and answer stay as they are, byte for byte, and flow both ways as they
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
mod passage;
mod run;
mod stream;
mod target;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, MAX_FORWARDS, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::{Either, Full};
use hyper::body::Incoming;

use super::body_progress::{BodyFault, BodyProgress};
use super::door;
use super::door_kind::Door;
use super::load_shed::{LoadPermit, Rank};
use super::memory_limit::MemoryPermit;
use super::request_log::{Answered, RequestLog};
use super::{BodyLimits, Ingress, body};
use crate::config::door::is_same_server;
use crate::config::{self, Config, ProxyConfig, Secret};
use crate::model::{Account, Class, Refusal};
use crate::net::{Client, SendError};
use crate::source::Keyring;

use key::KeyVerdict;
use stream::Upward;

/// Methods that a prefix takes, for those that it does not take.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Prefixes that are passed through, and the client that does it.
#[derive(Debug)]
pub struct Proxies {
    /// The longest prefix first.
    all: Vec<Arc<Proxy>>,
    keyring: Keyring,
    client: Client,
}

/// One prefix.
#[derive(Debug)]
pub(super) struct Proxy {
    config: ProxyConfig,
    /// The name in counters and logs.
    label: Arc<str>,
    scheme: Scheme,
    authority: Authority,
    /// The key that a gateway key is exchanged for, where the prefix or the upstream's own settings have one.
    key_here: Option<HeaderValue>,
    /// True if that key is the prefix's own.
    has_own_key: bool,
    /// The `Authorization` header, where the server's address has a user name in it.
    login: Option<HeaderValue>,
    /// True if it leads to the server of `upstream.base_url`.
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
    pub(super) fn find(&self, path: &str) -> Option<&Arc<Proxy>> {
        self.all
            .iter()
            .find(|proxy| target::below(&proxy.config.prefix, path).is_some())
    }
}

impl Proxy {
    /// None for an address without a host, which the configuration does not let through.
    fn new(config: &ProxyConfig, upstream: &config::UpstreamConfig) -> Option<Self> {
        // The operator's key is for the operator's API alone.
        let is_home = is_same_server(&config.upstream, &upstream.base_url);
        let of_upstream = upstream.api_key.as_ref().filter(|_| is_home);
        let key_here = config.upstream_key.as_ref().or(of_upstream);
        Some(Self {
            key_here: key_here.and_then(Secret::as_header),
            has_own_key: config.upstream_key.is_some(),
            is_home,
            login: config.login.as_ref().and_then(Secret::as_header),
            label: config.label().into(),
            scheme: config.upstream.scheme()?.clone(),
            authority: config.upstream.authority()?.clone(),
            config: config.clone(),
        })
    }
}

/// A request below a prefix.
pub(super) async fn through(
    ingress: Arc<Ingress>,
    proxy: Arc<Proxy>,
    request: Request<Incoming>,
) -> Response<Body> {
    let door = Door::Prefix(proxy.label.clone());
    door::serve(ingress, door, request, async |ingress, request, log| {
        forward(ingress, &proxy, request, log).await
    })
    .await
}

/// The way of a request to the head of its answer.
async fn forward(
    ingress: &Ingress,
    proxy: &Proxy,
    (mut head, incoming): (Parts, Incoming),
    log: &mut RequestLog,
) -> Result<Answered, Refusal> {
    let progress = Arc::new(BodyProgress::new(log.begun));
    log.follow(progress.clone());
    // The body of a request that is refused here stays unread: the connection ends behind the answer.
    let (uri, key, permit) = admit(ingress, proxy, &head, log)?;
    if head.method == Method::OPTIONS
        && let Some(left) = header::max_forwards(&head.headers)
    {
        // The last server that may be asked answers for itself (RFC 9110, 7.6.2).
        let Some(left) = left.checked_sub(1) else {
            return Ok(passage::own_options((progress, permit), log));
        };
        head.headers.insert(MAX_FORWARDS, left.into());
    }
    if key.begins_run && proxy.is_home {
        may_begin(ingress, key.name.as_deref()).await?;
    }
    // Memory that is taken for a body is held until the upstream has begun its answer.
    let memory = ingress.memory.permit(log.peer.0);
    let body = match key.name.as_deref().filter(|_| key.begins_own_run) {
        Some(name) => {
            let given = read_run(ingress, proxy, &head, incoming, &memory).await?;
            progress.moved(given.len() as u64);
            progress.end();
            let body = run::named(&ingress.ids, name, given)?;
            head.headers.remove(TRANSFER_ENCODING);
            head.headers.insert(CONTENT_LENGTH, body.len().into());
            Either::Right(Full::new(body))
        }
        None => Either::Left(Upward::new(
            incoming,
            progress.clone(),
            proxy.config.max_body,
            ingress.body_limits.stall,
        )),
    };
    let request = upward(ingress, proxy, (head, uri), key.upstream_key, body);
    let answer = ingress.proxies.client.relay(request);
    let mut answer = wait(answer, &progress, proxy.config.timeout).await?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        // `Upgrade` is not passed on (RFC 9110, 7.8), so nobody asked for it.
        return Err(Refusal::UpstreamFailed(
            "it changes to another protocol, which was not asked for".to_owned(),
        ));
    }
    let received = std::mem::replace(answer.version_mut(), Version::HTTP_11);
    header::downward(answer.headers_mut(), received);
    Ok(passage::answer(proxy, answer, (progress, permit), log))
}

/// The request that goes upstream.
fn upward<B>(
    ingress: &Ingress,
    proxy: &Proxy,
    (head, uri): (Parts, Uri),
    key: Option<HeaderValue>,
    body: B,
) -> Request<B> {
    let authorization = proxy.config.forward_authorization;
    let mut headers = header::upward(head.headers, head.version, authorization, key);
    if let Some(login) = &proxy.login {
        headers.insert(AUTHORIZATION, login.clone());
    }
    ingress.mark.put_on(&mut headers, &uri);
    header::pass_via(&mut headers, head.version, ingress.mark.of(&uri));
    let mut request = Request::new(body);
    (
        *request.method_mut(),
        *request.uri_mut(),
        *request.headers_mut(),
    ) = (head.method, uri, headers);
    request
}

/// Waits for the turn of a call that begins a run, where one may begin.
async fn may_begin(ingress: &Ingress, key: Option<&str>) -> Result<(), Refusal> {
    ingress.runs.may_begin()?;
    let account = key.map_or(Account::Foreign, |name| Account::Key(name.to_owned()));
    let upstream = ingress.runs.upstream_for(&account, Class::Interactive)?;
    upstream.wait_for_permit().await;
    Ok(())
}

/// Reads the body of a call that begins a run of a key's own.
async fn read_run(
    ingress: &Ingress,
    proxy: &Proxy,
    head: &Parts,
    incoming: Incoming,
    memory: &MemoryPermit,
) -> Result<Bytes, Refusal> {
    let limits = BodyLimits {
        size: proxy.config.max_body.unwrap_or(ingress.body_limits.size),
        ..ingress.body_limits
    };
    body::judge_head(&head.headers, limits)?;
    let given = body::read(Body::new(incoming), limits, memory).await?;
    // The body is held twice when the run's name is put in.
    memory.grow(2 * given.len() as u64)?;
    Ok(given)
}

/// Judges load, limits, method, length, path and key: all of it before the body is touched, since touching it tells the
/// caller to go on (`100-continue`). Gives the request's target, its judged key and its place among those in work.
fn admit(
    ingress: &Ingress,
    proxy: &Proxy,
    head: &Parts,
    log: &mut RequestLog,
) -> Result<(Uri, KeyVerdict, LoadPermit), Refusal> {
    let permit = ingress.load.enter_beside(Rank::Retrying, log.peer.0)?;
    ingress.limits.caller(log.peer.0, &mut log.limits)?;
    if let (Some(limit), Some(length)) = (proxy.config.max_body, declared_length(&head.headers))
        && length > limit
    {
        return Err(Refusal::TooLarge(limit));
    }
    let keyring = &ingress.proxies.keyring;
    if key::is_in_text(keyring, head.uri.path()) {
        // A key is not logged.
        log.mask_path(format!("{}/…", *proxy.config.prefix));
        return Err(key::misplaced());
    }
    let target = target::target(&proxy.config, &head.uri)?;
    let asked = key::KeyedRequest {
        proxy,
        head,
        path_upstream: target.path(),
        now: log.at,
    };
    let limits = (&*ingress.limits, &mut log.limits);
    let verdict = key::judge(keyring, &ingress.ids, limits, &asked)?;
    ingress.limits.whole(verdict.name.is_some())?;
    ingress
        .limits
        .proxied(&proxy.label, verdict.name.is_some(), &mut log.limits)?;
    log.key.clone_from(&verdict.name);
    if let (Some(name), Some(presented)) = (&verdict.name, &verdict.presented) {
        ingress.uses.key(name, presented, log.at);
    }
    let uri = Uri::builder()
        .scheme(proxy.scheme.clone())
        .authority(proxy.authority.clone())
        .path_and_query(target)
        .build()
        .map_err(|error| Refusal::Internal(error.to_string()))?;
    Ok((uri, verdict, permit))
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Waits for the head of the answer: `timeout` from the last piece of the body that went up.
async fn wait(
    answer: impl Future<Output = Result<Response<Incoming>, SendError>>,
    progress: &BodyProgress,
    timeout: Duration,
) -> Result<Response<Incoming>, Refusal> {
    let mut answer = pin!(answer);
    loop {
        let last = progress.last();
        match tokio::time::timeout_at(last + timeout, answer.as_mut()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => {
                return Err(match progress.fault() {
                    Some(BodyFault::TooLarge(limit)) => Refusal::TooLarge(limit),
                    Some(BodyFault::Slow) => Refusal::SlowBody,
                    Some(BodyFault::Broken) => Refusal::Aborted,
                    None => Refusal::UpstreamFailed(error.to_string()),
                });
            }
            Err(_) if progress.last() > last => {}
            Err(_) => {
                return Err(Refusal::UpstreamSilent(format!(
                    "no answer was begun within {} ms",
                    timeout.as_millis()
                )));
            }
        }
    }
}
