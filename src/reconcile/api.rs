//! Client for a provider's API: one host, pinned by the configuration, and the operator's token.
//!
//! Promises: the token is sent to that host and to no other, and no redirect is followed. Every answer is bounded. When
//! the provider asks for a pause, the client waits or ends. An answer counts as proved because of the host it came from:
//! only [`Api::get`] makes a [`Fetched`].

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, HeaderName, LOCATION, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use serde::Deserialize;

use super::deadline::Deadline;
use super::stop::Stop;
use crate::config::Secret;
use crate::intake::Trust;
use crate::model::{Clock, Timestamp};
use crate::net::{Client, SendError};

/// Time limit for one answer.
const ANSWER: Duration = Duration::from_secs(30);

/// Most requests for one path, including those after a pause that the API asked for.
const TRIES: u32 = 5;

const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");

/// Client for one provider's API.
#[derive(Debug)]
pub(super) struct Api {
    client: Client,
    /// Address in front of every path, without a slash at the end.
    base: String,
    at: Uri,
    token: Secret,
    headers: HeaderMap,
    clock: Clock,
}

/// An answer of the API.
#[derive(Debug)]
pub(super) struct Fetched {
    headers: HeaderMap,
    body: Bytes,
    /// Name of the token in the configuration.
    by: String,
}

/// Reason why a path could not be read.
#[derive(Debug)]
pub(super) enum Unread {
    /// The path does not exist, or the token may not see it.
    NotThere,
    /// The answer is larger than this number of bytes.
    TooLarge(u64),
    /// No more requests can be made.
    Stop(Stop),
}

impl Api {
    pub(super) fn new(client: Client, at: &Uri, token: Secret, clock: Clock) -> Self {
        let base = at.to_string().trim_end_matches('/').to_owned();
        let mut headers = HeaderMap::new();
        let agent = HeaderValue::from_static(concat!("sluicegate/", env!("CARGO_PKG_VERSION")));
        headers.insert(USER_AGENT, agent);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        Self {
            client,
            base,
            at: at.clone(),
            token,
            headers,
            clock,
        }
    }

    /// Adds a header to every request.
    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// True if an address has this API's scheme, host and port.
    pub(super) fn owns(&self, address: &Uri) -> bool {
        let port = |uri: &Uri| {
            uri.port_u16().or(if uri.scheme_str() == Some("https") {
                Some(443)
            } else {
                Some(80)
            })
        };
        let host = |uri: &Uri| uri.host().map(str::to_ascii_lowercase);
        let plain = address
            .authority()
            .is_some_and(|authority| !authority.as_str().contains('@'));
        plain
            && address.scheme() == self.at.scheme()
            && host(address) == host(&self.at)
            && port(address) == port(&self.at)
    }

    /// Gets the content of a path, at most `most` bytes. A GET changes nothing, so it is repeated where no answer came.
    pub(super) async fn get(
        &self,
        path: &str,
        most: u64,
        deadline: &Deadline,
    ) -> Result<Fetched, Unread> {
        let mut tried = 0;
        loop {
            let sent = self.client.send(self.request(path)?, ANSWER, most);
            let answer = deadline.within(sent).await.map_err(Unread::Stop)?;
            tried += 1;
            let pause = match answer {
                Ok(answer) if answer.status() == StatusCode::OK => {
                    let (head, body) = answer.into_parts();
                    return Ok(Fetched {
                        headers: head.headers,
                        body,
                        by: self.token.name().to_owned(),
                    });
                }
                Ok(answer) => self.judge(answer.status(), answer.headers(), tried, deadline)?,
                Err(SendError::TooLarge { limit, .. }) => return Err(Unread::TooLarge(limit)),
                Err(error) if tried < TRIES => {
                    tracing::debug!(%error, "a provider's API did not answer");
                    growing(tried)
                }
                Err(error) => {
                    return Err(stop(
                        "unreachable",
                        format!("The provider's API does not answer: {error}."),
                    ));
                }
            };
            deadline.pause(pause).await.map_err(Unread::Stop)?;
        }
    }

    fn request(&self, path: &str) -> Result<Request<Bytes>, Unread> {
        let unfit = |what: &str| stop("internal", format!("The request cannot be made: {what}."));
        let mut bearer = HeaderValue::from_bytes(&[b"Bearer ", self.token.expose()].concat())
            .map_err(|_| unfit("the token cannot stand in a header"))?;
        bearer.set_sensitive(true);
        let mut request = Request::get(format!("{}{path}", self.base))
            .body(Bytes::new())
            .map_err(|_| unfit("its address is invalid"))?;
        request.headers_mut().extend(self.headers.clone());
        request.headers_mut().insert(AUTHORIZATION, bearer);
        Ok(request)
    }

    /// Judges an answer that is not a success: the wait before the next request, or the reason to end.
    fn judge(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        tried: u32,
        deadline: &Deadline,
    ) -> Result<Duration, Unread> {
        let code = status.as_u16();
        if let Some(wait) = pause(status, headers, self.clock.now(), tried) {
            if tried < TRIES && deadline.bears(wait) {
                tracing::info!(
                    status = code,
                    wait_s = wait.as_secs(),
                    "a provider's API wants a pause"
                );
                return Ok(wait);
            }
            let at = self.clock.now() + wait;
            let detail = format!(
                "The provider's API takes no more requests for {} s, until {at}.",
                wait.as_secs()
            );
            return Err(stop("rate_limited", detail));
        }
        match code {
            404 | 410 => Err(Unread::NotThere),
            401 | 403 => {
                let detail = format!(
                    "The provider's API refuses the token {} ({code}): is it good, and may it read the log?",
                    self.token.name()
                );
                Err(stop("token_refused", detail))
            }
            300..=399 => {
                let to = headers
                    .get(LOCATION)
                    .and_then(|to| to.to_str().ok()?.parse::<Uri>().ok());
                let to = to
                    .as_ref()
                    .and_then(Uri::host)
                    .map_or_else(String::new, |host| format!(" to {host}"));
                let detail = format!(
                    "The provider's API redirects{to}; the token goes nowhere else. Set api to where it is."
                );
                Err(stop("redirected", detail))
            }
            500..=599 if tried < TRIES => Ok(growing(tried)),
            500..=599 => Err(stop(
                "unreachable",
                format!("The provider's API fails: it answers {code}."),
            )),
            _ => Err(stop(
                "strange_answer",
                format!("The provider's API answers {code}, which is not understood."),
            )),
        }
    }
}

/// Pause that an API asks for, if any. The time of the next reset stands on every answer, and counts only where no
/// requests are left until then.
fn pause(status: StatusCode, headers: &HeaderMap, now: Timestamp, tried: u32) -> Option<Duration> {
    let number = |name: &HeaderName| headers.get(name)?.to_str().ok()?.trim().parse::<u32>().ok();
    let after = number(&RETRY_AFTER).map(|seconds| Duration::from_secs(seconds.max(1).into()));
    let reset = number(&RESET)
        .filter(|_| number(&REMAINING) == Some(0))
        .map(|at| {
            // The API's clock may be a little behind ours.
            Timestamp::from_seconds(at.into()).since(now) + Duration::from_secs(1)
        });
    match status {
        StatusCode::TOO_MANY_REQUESTS => after.or(reset).or(Some(growing(tried))),
        StatusCode::FORBIDDEN => after.or(reset),
        StatusCode::SERVICE_UNAVAILABLE => after,
        _ => None,
    }
}

/// Wait before the next try: half a second, doubled with each try.
fn growing(tried: u32) -> Duration {
    Duration::from_millis(500 << tried.min(5))
}

fn stop(code: &'static str, detail: String) -> Unread {
    Unread::Stop(Stop::new(code, detail))
}

impl Fetched {
    pub(super) const fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The proof of a request that is made of this answer: it was read from the provider's own API.
    pub(super) fn into_trust(self) -> Trust {
        Trust::Fetched { token: self.by }
    }

    pub(super) const fn body(&self) -> &Bytes {
        &self.body
    }

    /// Parses the answer as JSON.
    pub(super) fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Stop> {
        serde_json::from_slice(&self.body)
            .map_err(|error| strange(&format!("it is not the JSON it should be ({error})")))
    }
}

/// Stop because of an answer that this API should not give.
pub(super) fn strange(what: &str) -> Stop {
    Stop::new(
        "strange_answer",
        format!("The provider's API answers something that is not understood: {what}."),
    )
}

impl Unread {
    /// The reason as a stop, for a list that cannot be read.
    pub(super) fn stop(self, what: &str) -> Stop {
        match self {
            Self::NotThere => Stop::new(
                "not_found",
                format!("The provider's API knows no {what}, or the token may not see it."),
            ),
            Self::TooLarge(most) => {
                strange(&format!("a page of the list is larger than {most} bytes"))
            }
            Self::Stop(stop) => stop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

    fn wait(status: u16, headers: &[(&'static str, &str)]) -> Option<u64> {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        pause(
            StatusCode::from_u16(status).unwrap(),
            &headers.collect(),
            NOW,
            1,
        )
        .map(|wait| wait.as_secs())
    }

    #[test]
    fn a_pause_is_taken_from_what_the_api_says() {
        assert_eq!(wait(429, &[("retry-after", "7")]), Some(7));
        assert_eq!(wait(429, &[("retry-after", "0")]), Some(1));
        assert_eq!(wait(429, &[]), Some(1));
        assert_eq!(wait(403, &[("retry-after", "7")]), Some(7));
        let reset = ("x-ratelimit-reset", "1800000029");
        assert_eq!(
            wait(403, &[reset, ("x-ratelimit-remaining", "0")]),
            Some(30)
        );
        // The reset stands on every answer. Requests are left here, so the token is refused for another reason.
        assert_eq!(wait(403, &[reset, ("x-ratelimit-remaining", "4999")]), None);
        assert_eq!(wait(401, &[("retry-after", "7")]), None);
        assert_eq!(
            wait(
                403,
                &[("x-ratelimit-reset", "12"), ("x-ratelimit-remaining", "0")]
            ),
            Some(1)
        );
        assert_eq!(wait(403, &[("retry-after", "-1")]), None);
    }

    #[test]
    fn only_an_address_with_the_same_host_scheme_and_port_gets_the_token() {
        let api = |at: &str| {
            let client = Client::new(Duration::from_secs(1), None).unwrap();
            Api::new(
                client,
                &at.parse().unwrap(),
                Secret::new("t", "t"),
                Clock::stopped(NOW),
            )
        };
        let public = api("https://api.example.com/v3");
        for (address, own) in [
            ("https://api.example.com/v3/x?cursor=1", true),
            ("https://API.example.com:443/other", true),
            ("http://api.example.com/v3", false),
            ("https://api.example.com:8443/v3", false),
            ("https://api.example.com.evil.example/v3", false),
            ("https://api.example.com@evil.example/v3", false),
            ("https://evil.example/v3", false),
            ("/v3/x", false),
        ] {
            assert_eq!(public.owns(&address.parse().unwrap()), own, "{address}");
        }
        assert!(api("http://127.0.0.1:9").owns(&"http://127.0.0.1:9/x".parse().unwrap()));
    }

    #[test]
    fn an_unreadable_path_ends_a_list_with_a_stable_code() {
        for (unread, code) in [
            (Unread::NotThere, "not_found"),
            (Unread::TooLarge(9), "strange_answer"),
            (Unread::Stop(Stop::new("time", "")), "time"),
        ] {
            assert_eq!(unread.stop("hook of this path").code, code);
        }
    }

    #[test]
    fn the_wait_between_tries_doubles_and_stays_bounded() {
        let waits: Vec<u128> = (1..=6).map(|tried| growing(tried).as_millis()).collect();
        assert_eq!(waits, [1_000, 2_000, 4_000, 8_000, 16_000, 16_000]);
        assert_eq!(growing(u32::MAX), growing(5));
    }

    fn judged(
        status: u16,
        headers: &[(&'static str, &'static str)],
        tried: u32,
    ) -> Result<Duration, Unread> {
        let client = Client::new(Duration::from_secs(1), None).unwrap();
        let base = "https://api.example.com/v3".parse().unwrap();
        let api = Api::new(
            client,
            &base,
            Secret::new("t", "planted"),
            Clock::stopped(NOW),
        );
        let stopping = tokio_util::sync::CancellationToken::new();
        let deadline = Deadline::new(Duration::from_secs(300), stopping);
        let headers = headers
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect();
        let status = StatusCode::from_u16(status).unwrap();
        api.judge(status, &headers, tried, &deadline)
    }

    #[tokio::test]
    async fn an_answer_that_is_no_success_is_tried_again_or_ends_the_reconcile() {
        let wait = |status, headers: &[_], tried| {
            judged(status, headers, tried)
                .ok()
                .map(|wait| wait.as_secs())
        };
        assert_eq!(wait(500, &[], 1), Some(1));
        assert_eq!(wait(429, &[("retry-after", "7")], 1), Some(7));
        for (status, headers, tried, code) in [
            (500, &[][..], TRIES, "unreachable"),
            (429, &[("retry-after", "7")][..], TRIES, "rate_limited"),
            (429, &[("retry-after", "3600")][..], 1, "rate_limited"),
            (401, &[][..], 1, "token_refused"),
            (
                302,
                &[("location", "https://evil.example/")][..],
                1,
                "redirected",
            ),
            (204, &[][..], 1, "strange_answer"),
        ] {
            let Err(Unread::Stop(stop)) = judged(status, headers, tried) else {
                panic!("{status} ends it");
            };
            assert_eq!(stop.code, code, "{status}");
            assert!(!stop.detail.contains("planted"), "{}", stop.detail);
        }
        assert!(matches!(judged(404, &[], 1), Err(Unread::NotThere)));
    }
}
