//! Judgement by another service: the request as it is shown, and the answer as it is read.
//!
//! Only a clear yes proves a request, and only a clear no refuses it for good. The operator writes the address; no
//! request can change it. The service is asked by [`crate::source`].

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONNECTION, FORWARDED, HeaderMap, HeaderName, HeaderValue};
use http::{Request, StatusCode, Uri};

use super::inputs::SchemeInputs;
use crate::config::{Located, Section};
use crate::model::Received;

/// Time that an answer may take by default, and the bounds of `timeout`.
const USUAL: Duration = Duration::from_secs(5);
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);

/// Number of headers that may be taken from an answer, and the longest value of one.
const MOST_HEADERS: usize = 32;
const MOST_VALUE: usize = 4096;

/// Headers of one connection or of the framing of a body. They are not passed on, and not taken from an answer.
const OF_CONNECTION: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Headers that describe a body, or that hold a secret. They are not taken from an answer.
const NOT_TAKEN: [&str; 7] = [
    "authorization",
    "content-encoding",
    "content-type",
    "cookie",
    "proxy-authorization",
    "set-cookie",
    "x-api-key",
];

/// The address that is asked, and the headers of its answers that are taken.
#[derive(Debug)]
pub(crate) struct ForwardAuth {
    pub(crate) url: Uri,
    headers: Vec<HeaderName>,
    /// Time that an answer may take.
    pub(crate) timeout: Duration,
}

/// Preparation of a request for its judgement.
#[derive(Debug, Default)]
pub struct Prepared(Option<ServiceVerdict>);

/// Verdict of the service: yes, with headers for the request, or no with the cause.
pub(crate) type ServiceVerdict = Result<AnswerHeaders, String>;

/// The named headers of an answer.
pub(crate) type AnswerHeaders = Vec<(HeaderName, HeaderValue)>;

impl Prepared {
    /// A request that a service has judged.
    pub(crate) const fn of_service(verdict: ServiceVerdict) -> Self {
        Self(Some(verdict))
    }

    /// The verdict for the judge, and the headers for the request.
    pub(crate) fn said(self) -> (Option<Result<(), String>>, AnswerHeaders) {
        match self.0 {
            None => (None, Vec::new()),
            Some(Ok(headers)) => (Some(Ok(())), headers),
            Some(Err(cause)) => (Some(Err(cause)), Vec::new()),
        }
    }
}

impl ForwardAuth {
    /// Reads `url`, `headers` and `timeout`.
    pub(crate) fn read(section: &Section<'_>, given: &SchemeInputs<'_>) -> Option<Self> {
        let hint =
            "write the address that judges requests, for example \"https://auth.internal/check\"";
        let url = section
            .required_text("url", hint)
            .and_then(|text| address(&text, section));
        let mut headers = Some(Vec::new());
        for text in section.texts("headers").unwrap_or_default() {
            headers = headers
                .zip(header(&text, section))
                .map(|(mut all, header)| {
                    all.push(header);
                    all
                });
        }
        if headers
            .as_ref()
            .is_some_and(|headers| headers.len() > MOST_HEADERS)
        {
            let what = format!(
                "{} may name {MOST_HEADERS} headers at most",
                section.path("headers")
            );
            section.problems().error(section.place(), what);
            headers = None;
        }
        let timeout = match section.duration("timeout") {
            None => Some(USUAL),
            Some(timeout) if (SHORTEST..=LONGEST).contains(&timeout.value) => Some(timeout.value),
            Some(timeout) => {
                let what = format!("{} must be from 100ms to 30s", section.path("timeout"));
                section.problems().error(&timeout.place, what);
                None
            }
        };
        if let Some(secret) = given.secrets.first() {
            let what = "a source that asks another service has no secrets of its own";
            section.problems().error_hint(
                &secret.place,
                what,
                "remove secrets, or choose the scheme that needs them",
            );
            return None;
        }
        Some(Self {
            url: url?,
            headers: headers?,
            timeout: timeout?,
        })
    }

    /// The address without what may be a secret in it.
    pub(crate) fn told(&self) -> String {
        let scheme = self.url.scheme_str().unwrap_or_default();
        let host = self
            .url
            .authority()
            .map(http::uri::Authority::as_str)
            .unwrap_or_default();
        format!("{scheme}://{host}{}", self.url.path())
    }

    /// The verdict of an answer. An error says why it is neither a yes nor a no.
    pub(crate) fn verdict(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Result<ServiceVerdict, String> {
        if status.is_success() {
            return self.taken(headers).map(Ok);
        }
        // These are of the moment: it was too slow, too early or too busy.
        let is_passing = matches!(
            status,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
        );
        if status.is_client_error() && !is_passing {
            return Ok(Err(format!(
                "{} refused it with {}",
                self.told(),
                status.as_u16()
            )));
        }
        Err(format!("it answered {}", status.as_u16()))
    }

    /// The request as the address is shown it.
    pub(crate) fn question(&self, received: &Received) -> Result<Request<Bytes>, String> {
        let mut headers = received.headers.clone();
        let listed: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','))
            .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
            .collect();
        let own = headers
            .keys()
            .filter(|name| name.as_str().starts_with("x-forwarded-"))
            .cloned();
        let own: Vec<HeaderName> = own.chain([FORWARDED, ACCEPT_ENCODING]).collect();
        for name in listed.iter().chain(&own) {
            headers.remove(name);
        }
        for name in OF_CONNECTION {
            headers.remove(name);
        }
        // A header of the sender must not look like one of an earlier judge.
        self.strip(&mut headers);
        let value = |text: &str| {
            HeaderValue::try_from(text)
                .map_err(|_| "its target cannot stand in a header".to_owned())
        };
        headers.insert("x-forwarded-method", value(received.method.as_str())?);
        headers.insert("x-forwarded-uri", value(&received.target)?);
        headers.insert("x-forwarded-for", value(&received.peer.to_string())?);
        let mut request = Request::post(self.url.clone())
            .body(received.body.clone())
            .map_err(|error| error.to_string())?;
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// The named headers of a yes.
    fn taken(&self, headers: &HeaderMap) -> Result<AnswerHeaders, String> {
        let mut taken = Vec::new();
        for name in &self.headers {
            let mut values = headers.get_all(name).iter();
            match (values.next(), values.next()) {
                (Some(_), Some(_)) => return Err(format!("its answer has {name} twice")),
                (Some(value), None) if value.len() > MOST_VALUE => {
                    return Err(format!(
                        "in its answer {name} is longer than {MOST_VALUE} bytes"
                    ));
                }
                (Some(value), None) => taken.push((name.clone(), value.clone())),
                (None, _) => {}
            }
        }
        Ok(taken)
    }

    /// Takes the named headers off a request: only the address may set them.
    pub(crate) fn strip(&self, headers: &mut HeaderMap) {
        for name in &self.headers {
            headers.remove(name);
        }
    }
}

fn address(text: &Located<String>, section: &Section<'_>) -> Option<Uri> {
    let is_whole = |uri: &Uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri
                .authority()
                .is_some_and(|host| !host.host().is_empty() && !host.as_str().contains('@'))
    };
    let uri = text
        .value
        .parse::<Uri>()
        .ok()
        .filter(|uri| is_whole(uri) && !text.value.contains('#'));
    if uri.is_none() {
        let what = format!("{} is not an address", section.path("url"));
        let hint = "write http:// or https://, a host and a path, without a user and without #";
        section.problems().error_hint(&text.place, what, hint);
    }
    uri
}

fn header(text: &Located<String>, section: &Section<'_>) -> Option<HeaderName> {
    let problem = |what: String, hint: &str| {
        section.problems().error_hint(&text.place, what, hint);
        None
    };
    let written = text.value.escape_debug();
    let Ok(name) = HeaderName::from_bytes(text.value.as_bytes()) else {
        return problem(
            format!("invalid header name \"{written}\""),
            "write for example \"X-User\"",
        );
    };
    if OF_CONNECTION.contains(&name.as_str()) || NOT_TAKEN.contains(&name.as_str()) {
        let hint = "have the service answer with a header of another name, for example X-User";
        return problem(
            format!("the header {written} cannot be taken from an answer"),
            hint,
        );
    }
    Some(name)
}
