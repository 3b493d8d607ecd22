//! Access to the operator's listener.
//!
//! Three guards, each a layer: the request names this listener as its host (otherwise a page that rebinds its own
//! name to our address could read answers), it does not come from another site's page, and it carries the token.
//! Wrong tokens are counted by address. After ten a minute, further tokens of the address wait before they are
//! compared (`guess`); the right one is still accepted.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName};
use axum::middleware::Next;
use axum::response::Response;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::AdminState;
use super::error::AdminError;
use crate::model::Timestamp;
use crate::net::Peer;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A limit of events in a time span. It keeps the times of the last events only.
#[derive(Debug)]
pub(super) struct SlidingWindow {
    most: usize,
    span: Duration,
    times: Mutex<VecDeque<Timestamp>>,
}

impl SlidingWindow {
    /// Permits at most `most` events in `span`.
    pub(super) const fn new(most: usize, span: Duration) -> Self {
        Self {
            most,
            span,
            times: Mutex::new(VecDeque::new()),
        }
    }

    /// Gives the time until the next event is permitted, if the limit is reached.
    pub(super) fn full(&self, now: Timestamp) -> Option<Duration> {
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that was set back must not close the limit for good.
        times.retain(|at| *at <= now && now.since(*at) < self.span);
        let first = times.front().filter(|_| times.len() >= self.most)?;
        Some(self.span.saturating_sub(now.since(*first)))
    }

    /// Counts an event, or gives the time until the next one is permitted.
    pub(super) fn take(&self, now: Timestamp) -> Result<(), Duration> {
        if let Some(wait) = self.full(now) {
            return Err(wait);
        }
        self.times
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(now);
        Ok(())
    }
}

/// Layer: refuses a request that does not name this listener as its host.
pub(super) async fn host(
    State(state): State<Arc<AdminState>>,
    request: Request,
    next: Next,
) -> Result<Response, AdminError> {
    let named = only(request.headers(), &HOST).ok_or(AdminError::Host)?;
    let in_target = request.uri().authority().map(Authority::as_str);
    if std::iter::once(named)
        .chain(in_target)
        .all(|host| is_ours(host, &state.hosts))
    {
        Ok(next.run(request).await)
    } else {
        Err(AdminError::Host)
    }
}

/// Layer: refuses a request of another site's page. Programs send neither of the two headers.
pub(super) async fn origin(request: Request, next: Next) -> Result<Response, AdminError> {
    let headers = request.headers();
    let site_is_ours = match headers.get(SEC_FETCH_SITE) {
        None => true,
        // "same-site" is another port of the same host: somebody else's program.
        Some(site) => site == "same-origin" || site == "none",
    };
    let origin_is_ours = match (
        headers.contains_key(ORIGIN),
        only(headers, &ORIGIN),
        only(headers, &HOST),
    ) {
        (false, ..) => true,
        (true, Some(origin), Some(host)) => origin
            .strip_prefix("http://")
            .or_else(|| origin.strip_prefix("https://"))
            .is_some_and(|authority| authority.eq_ignore_ascii_case(host)),
        _ => false,
    };
    if site_is_ours && origin_is_ours {
        Ok(next.run(request).await)
    } else {
        Err(AdminError::CrossSite)
    }
}

/// Layer: refuses a request without the token.
pub(super) async fn token(
    State(state): State<Arc<AdminState>>,
    request: Request,
    next: Next,
) -> Result<Response, AdminError> {
    let address = request
        .extensions()
        .get::<Peer>()
        .map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.0);
    if let Some(shown) = bearer(request.headers()) {
        state
            .guesses
            .wait(address, state.clock.now())
            .await
            .map_err(AdminError::Guesses)?;
        // An empty token would be one that everybody knows.
        if !state.token.expose().is_empty() && same(shown, state.token.expose()) {
            return Ok(next.run(request).await);
        }
    }
    match state.guesses.count(address, state.clock.now()) {
        Ok(()) => Err(AdminError::Token),
        Err(wait) => Err(AdminError::Guesses(wait)),
    }
}

/// Gives the token of an `Authorization: Bearer` header, if the header occurs once.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return None;
    };
    let (scheme, shown) = line.as_bytes().split_at_checked(b"bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| shown.trim_ascii())
}

/// Compares two secrets. Their digests are compared in constant time, so that the duration tells neither the first
/// byte that differs nor the length.
fn same(a: &[u8], b: &[u8]) -> bool {
    Sha256::digest(a)
        .as_slice()
        .ct_eq(Sha256::digest(b).as_slice())
        .into()
}

/// Gives the value of a header that occurs once and is visible text.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut lines = headers.get_all(name).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return None;
    };
    line.to_str().ok()
}

/// True if a host (with or without a port) is one of this listener: an address, `localhost`, or a name of the
/// configuration. A page cannot rebind an address, so every address is good.
fn is_ours(host: &str, names: &[String]) -> bool {
    if host.contains('@') {
        return false;
    }
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = authority.host();
    let bracketed = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    if bracketed.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
        || name.parse::<Ipv4Addr>().is_ok()
    {
        return true;
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || names.iter().any(|ours| ours.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t98_only_addresses_and_our_own_names_are_hosts_of_ours() {
        let names = ["gateway.internal".to_owned()];
        for good in [
            "127.0.0.1:8081",
            "10.1.2.3",
            "[::1]:8081",
            "localhost",
            "LOCALHOST.:1",
            "Gateway.Internal:8081",
        ] {
            assert!(is_ours(good, &names), "{good}");
        }
        for bad in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil@localhost",
            "::1",
            "localhost/a",
            "127.1",
            "[::1",
        ] {
            assert!(!is_ours(bad, &names), "{bad}");
        }
    }

    #[test]
    fn secrets_are_the_same_only_whole() {
        assert!(same(b"a-token", b"a-token"));
        for other in [&b"a-toke"[..], b"a-token ", b"A-token", b""] {
            assert!(!same(other, b"a-token"));
        }
    }

    #[test]
    fn a_sliding_window_says_when_there_is_room_and_survives_a_clock_set_back() {
        let window = SlidingWindow::new(2, Duration::from_secs(60));
        let at = Timestamp::from_seconds;
        assert_eq!(window.take(at(100)), Ok(()));
        assert_eq!(window.take(at(110)), Ok(()));
        assert_eq!(window.take(at(130)), Err(Duration::from_secs(30)));
        assert_eq!(window.take(at(160)), Ok(()));
        assert_eq!(window.take(at(50)), Ok(()));
    }
}
